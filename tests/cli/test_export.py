"""`terselm export`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import pytest


def test_json_says_what_was_written(terselm, model_file, tmp_path):
    out = tmp_path / "model.h"
    result = terselm("export", model_file, "--to", "c-array", "--out", out, "--json")
    assert result.code == 0, result.stderr
    found = result.json
    assert found["bytes"] == out.stat().st_size
    assert found["flash"] == model_file.stat().st_size
    assert found["name"] == "model"
    assert f"#define MODEL_TOTAL_RAM {found['ram']['total']}\n" in out.read_text()


def test_the_table_has_flash_and_ram(terselm, model_file, tmp_path):
    out = tmp_path / "words.h"
    printed = terselm("export", model_file, "--to", "c-array", "--out", out, "--name", "w").stdout
    for word in ("flash", "context", "state", f"{model_file.stat().st_size:,}", "w_open()"):
        assert word in printed


@pytest.mark.parametrize(
    ("target", "name", "code", "words"),
    [
        ("c-aray", "m", 2, "did you mean 'c-array'?"),
        ("c_array", "m", 2, "did you mean 'c-array'?"),
        ("c-array", "my name", 2, "letters, digits and underscores"),
    ],
)
def test_bad_options_change_nothing(terselm, model_file, tmp_path, target, name, code, words):
    out = tmp_path / "model.h"
    out.write_text("precious")
    result = terselm("export", model_file, "--to", target, "--out", out, "--name", name)
    assert (result.code, result.stdout) == (code, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert out.read_text() == "precious"


def test_what_is_no_model_is_refused(terselm, tmp_path):
    out, wrong = tmp_path / "model.h", tmp_path / "text.txt"
    wrong.write_text("not a model")
    for source, code in ((wrong, 1), (tmp_path / "none", 2)):
        result = terselm("export", source, "--to", "c-array", "--out", out)
        assert result.code == code, result.stderr
        assert source.name in result.stderr
        assert result.stderr.count("\n") == 1
        assert not out.exists()


def test_a_folder_that_is_not_there(terselm, model_file, tmp_path):
    result = terselm("export", model_file, "--to", "c-array", "--out", tmp_path / "no" / "m.h")
    assert result.code == 2
    assert "does not exist" in result.stderr

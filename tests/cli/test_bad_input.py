"""Every bad input: one line that says what, where and what to do; nothing lost, nothing half."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

TINY = ["--hidden", 8, "--embedding", 8, "--epochs", 1]


def refused(result, code: int, *words: str) -> None:
    """One line says what is wrong, the words in it; remarks may stand before it."""
    assert result.code == code, result.stderr
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert [line.startswith("terselm: ") for line in lines].count(True) == 1, result.stderr
    assert lines[-1].startswith("terselm: ")
    for word in words:
        assert str(word) in lines[-1], result.stderr
    assert "Traceback" not in result.stderr


@pytest.fixture
def out(tmp_path):
    """A path for a result, with something that must not be lost at it."""
    path = tmp_path / "out.safetensors"
    path.write_bytes(b"precious")
    yield path
    assert path.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", ["empty"]),
        (b"\x00\x01\x02binary\x00" * 50, ["text.txt"]),
        (b"caf\xe9 cr\xe8me\n" * 50, ["UTF-8"]),
        (b"same same\n" * 3, ["text.txt"]),
    ],
    ids=["empty", "binary", "not UTF-8", "one word"],
)
def test_text_that_cannot_be_trained_on(terselm, tmp_path, out, content, words):
    text = tmp_path / "text.txt"
    text.write_bytes(content)
    result = terselm("train", "--data", text, *TINY, "--out", out)
    assert result.code in (1, 2)
    refused(result, result.code, *words)


def test_a_missing_split(terselm, corpus, out):
    (corpus / "valid.txt").unlink()
    refused(terselm("train", "--data", corpus, *TINY, "--out", out), 1, "valid")


def test_text_that_is_not_there(terselm, tmp_path, out):
    result = terselm("train", "--data", tmp_path / "none", *TINY, "--out", out)
    assert result.code in (1, 2)
    refused(result, result.code, "none")


def test_a_corpus_shorter_than_a_batch(terselm, tmp_path, out):
    text = tmp_path / "text.txt"
    text.write_text("a b c\nd e f\n" * 10)
    result = terselm("train", "--data", text, *TINY, "--batch", 500, "--out", out)
    assert result.code in (1, 2)
    refused(result, result.code, "500")


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ("- {method: quantize, bitz: 4}", ["unknown option 'bitz'", "'bits'"]),
        ("- {method: low_rank, rank: 5000}", ["rank 5000", "at most"]),
        ("- {method: quantize, weights: outputs}", ["'outputs'", "'output'"]),
        ("- {method: recover}", ["--data"]),
        ("- {method: prune}", ["unknown method 'prune'"]),
    ],
)
def test_a_wrong_recipe(terselm, model_file, tmp_path, out, recipe, words):
    path = tmp_path / "recipe.yaml"
    path.write_text(recipe)
    refused(terselm("compress", model_file, "--recipe", path, "--out", out), 2, *words)


@pytest.mark.parametrize("verb", ["compress", "evaluate", "inspect", "predict", "verify"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "pickle", "missing"])
def test_a_file_that_is_no_whole_model(terselm, model_file, corpus, out, verb, damage):
    content = bytearray(model_file.read_bytes())
    if damage == "truncated":
        model_file.write_bytes(content[: len(content) // 2])
    elif damage == "altered":
        content[-100] ^= 1
        model_file.write_bytes(content)
    elif damage == "pickle":
        model_file.write_bytes(pickle.dumps({"a": 1}))
    else:
        model_file.unlink()
    arguments = {
        "compress": ["--recipe", "lossless-ish", "--out", out],
        "evaluate": ["--data", corpus],
        "predict": ["w01"],
    }
    refused(terselm(verb, model_file, *arguments.get(verb, [])), 1, model_file)


def test_a_folder_that_does_not_exist(terselm, model_file, tmp_path):
    target = tmp_path / "none" / "small.safetensors"
    refused(
        terselm("compress", model_file, "--recipe", "lossless-ish", "--out", target),
        2,
        "none",
        "--out",
    )


def test_a_full_disk(terselm, model_file, out, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    refused(
        terselm("compress", model_file, "--recipe", "lossless-ish", "--out", out),
        1,
        "No space left",
    )
    assert not list(out.parent.glob("*.tmp"))


def test_an_unwritable_folder(terselm, model_file, tmp_path, monkeypatch):
    folder = tmp_path / "locked"
    folder.mkdir()

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    # Root may write anywhere, so the refusal is the system call's.
    monkeypatch.setattr("terselm.files.tempfile.mkstemp", refuse)
    target = folder / "small.safetensors"
    refused(
        terselm("compress", model_file, "--recipe", "lossless-ish", "--out", target),
        1,
        "Permission denied",
        target,
    )
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluat"], ["evaluat"]),
        (["evaluate"], ["MODEL"]),
        (["evaluate", "m", "--dta", "x"], ["--dta"]),
        (["predict", "m", "text", "-k", "0"], ["-k"]),
        (["train", "--data", "x", "--out", "y", "--epochs", "many"], ["--epochs", "integer"]),
        (["train", "--data", "x", "--out", "y", "--cell", "lstn"], ["lstn"]),
    ],
)
def test_wrong_usage(terselm, arguments, words):
    refused(terselm(*arguments), 2, *words)


def test_a_wrong_split_and_device(terselm, model_file, corpus):
    refused(terselm("evaluate", model_file, "--data", corpus, "--split", "tst"), 2, "tst")
    refused(terselm("evaluate", model_file, "--data", corpus, "--device", "gpu"), 2, "gpu")
    torch = ("--engine", "torch", "--device", "gpu")
    refused(terselm("evaluate", model_file, "--data", corpus, *torch), 2, "gpu")
    refused(terselm("evaluate", model_file, "--data", corpus, "--engine", "onnx"), 2, "onnx")
    refused(terselm("bench", model_file, "--kernels", "fpga"), 2, "fpga")


def test_a_traceback_only_with_debug(terselm, tmp_path):
    missing = tmp_path / "none.safetensors"
    with pytest.raises(Exception, match="No such file"):
        terselm("inspect", missing, "--debug")


def test_exit_codes_reach_the_shell(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "terselm", "inspect", str(tmp_path / "none.safetensors")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert run.stderr.count("\n") == 1
    assert run.stderr.startswith("terselm: ")


@pytest.mark.parametrize("model", ["zoo:some-model", "model.safetensors"])
def test_predict_says_when_the_text_is_missing(terselm, model):
    result = terselm("predict", model)
    assert result.code == 2
    assert "no TEXT" in result.stderr

"""Every bad input: one line that says what, where and what to do; nothing lost, nothing half."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

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


def test_predict_says_when_the_text_is_missing(terselm, model_file):
    for model in ("zoo:some-model", model_file):
        refused(terselm("predict", model), 2, f"no TEXT after {model}")


READERS = ["compress", "evaluate", "bench", "export", "inspect", "predict", "verify"]


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello\n", ["is no terselm model file", "give a model file"]),
        (b"hello, I am a text and no model\n" * 9, ["is no terselm model file"]),
        (b"", ["is no terselm model file"]),
        ("cut", ["damaged", "; g"]),
        ("state dict", ["is not a terselm model", "terselm import"]),
        (None, ["cannot read", "No such file", "give a model file that terselm wrote"]),
    ],
    ids=["short text", "text", "empty", "cut off", "state dict", "missing"],
)
def test_what_is_no_model_gets_one_line_with_advice(
    terselm, model_file, corpus, tmp_path, verb, content, words
):
    path = tmp_path / "it.txt"
    if content == "cut":
        path.write_bytes(model_file.read_bytes()[:3000])
    elif content == "state dict":
        save_file({"a": torch.zeros(3)}, path)
    elif content is not None:
        path.write_bytes(content)
    arguments = {
        "compress": ["--recipe", "lossless-ish", "--out", tmp_path / "out"],
        "evaluate": ["--data", corpus],
        "export": ["--to", "c-array", "--out", tmp_path / "out.h"],
        "predict": ["w01"],
    }
    result = terselm(verb, path, *arguments.get(verb, []))
    refused(result, result.code, path.name, *words)
    assert result.stderr.count(path.name) <= 2  # once more as what to import
    assert result.code == (2 if verb == "export" and content is None else 1)


def test_a_source_is_not_written_over(terselm, model_file, corpus, tmp_path):
    recipe, words, text = tmp_path / "r.yaml", tmp_path / "words.txt", tmp_path / "text.txt"
    recipe.write_text("- {method: quantize}\n")
    words.write_text("<eos>\n")
    text.write_text("a b c\n" * 90)
    link = tmp_path / "link.safetensors"
    link.symlink_to(model_file)
    around = tmp_path / "corpus" / ".." / model_file.name
    before = {path: path.read_bytes() for path in (model_file, recipe, words, text)}
    for arguments, out, what in (
        (["compress", model_file, "--recipe", recipe], model_file, "the model itself"),
        (["compress", model_file, "--recipe", recipe], around, "the model itself"),
        (["compress", link, "--recipe", recipe], model_file, "the model itself"),
        (["compress", model_file, "--recipe", recipe], recipe, "the recipe itself"),
        (["export", model_file, "--to", "c-array"], model_file, "the model itself"),
        (["import", model_file, "--vocabulary", words], model_file, "SRC itself"),
        (["import", model_file, "--vocabulary", words], words, "the vocabulary itself"),
        (["report", text], text, "the results file itself"),
        (["train", "--data", text], text, "the text itself"),
    ):
        refused(terselm(*arguments, "--out", out), 2, "--out", what, "give another name")
    assert {path: path.read_bytes() for path in before} == before


def test_an_output_that_cannot_be_written_is_found_before_the_work(
    terselm, model_file, tmp_path, monkeypatch
):
    compress = ("compress", model_file, "--recipe", "no-such-recipe", "--out")
    refused(terselm(*compress, "/dev/null"), 2, "/dev/null", "another name")
    target = tmp_path / "small.safetensors"
    refused(terselm(*compress, target), 2, "no-such-recipe")
    assert sorted(path.name for path in tmp_path.iterdir()) == [model_file.name]

    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("terselm.files.tempfile.mkstemp", refuse)
    refused(terselm(*compress, target), 1, target, "Permission denied")


def test_kernels_that_can_run_are_named(terselm, model_file):
    refused(terselm("bench", model_file, "--kernels", "foo"), 2, "'foo'", "it can run", "portable")


@pytest.mark.parametrize("engine", ["native", "torch"])
def test_no_word_begins_so(terselm, model_file, engine):
    for more in ([], ["--json"]):
        result = terselm("predict", model_file, "w01", "--prefix", "zzz", "--engine", engine, *more)
        refused(result, 1, "no word begins with 'zzz'")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("typo.safetensors", ["cannot find typo.safetensors", "zoo:NAME"]),
        ("some/model.bin", ["cannot find some/model.bin"]),
        ("test_bad_input.py", ["no TEXT after"]),
    ],
)
def test_the_name_of_a_model_is_no_text(terselm, monkeypatch, argument, words):
    monkeypatch.chdir(Path(__file__).parent)
    refused(terselm("predict", argument), 2, *words)
    refused(terselm("predict"), 2, "no TEXT")


@pytest.mark.parametrize(
    ("config", "flags", "words"),
    [
        ("hiden: 5", [], ["--config c.yaml: unknown setting 'hiden'; did you mean 'hidden'?"]),
        ("optimizer: foo", [], ["--config c.yaml: optimizer: should be 'sgd'", "not 'foo'"]),
        ("optimizer: foo", ["--epochs", 3], ["--config c.yaml: optimizer: should be"]),
        ("layers: two", [], ["--config c.yaml: layers: should be a whole number, not 'two'"]),
        ("layers: '2'", [], ["--config c.yaml: layers: should be a whole number, not '2'"]),
        ("lowercase: 'no'", [], ["--config c.yaml: lowercase: should be true or false"]),
        ("hidden: [5, x]", [], ["--config c.yaml: hidden.1: should be a whole number, not 'x'"]),
        ("time_limit: 3 days", [], ["--config c.yaml: time_limit is '3 days'; write 600, 90s"]),
        ("cell: lstn", [], ["--config c.yaml: unknown cell 'lstn'"]),
        ("just words", [], ["--config c.yaml: expected settings"]),
        ("a: [", [], ["--config c.yaml: not valid YAML"]),
        ("", ["--optimizer", "foo"], ["--optimizer: should be 'sgd'"]),
        ("", ["--cutoffs", "9,2k"], ["--cutoffs: should be a whole number, not '2k'"]),
        ("", ["--output-layer", "foo"], ["--output-layer: unknown output 'foo'"]),
        ("", ["--time-limit", "3x"], ["--time-limit is '3x'; write 600, 90s, 10min"]),
        ("", ["--tokens", "word"], ["--tokens: should be 'words', 'characters' or 'bpe'"]),
        ("", ["--decay", 3], ["--decay: should be less than or equal to 1, not 3.0"]),
    ],
)
def test_wrong_settings_of_training(terselm, corpus, tmp_path, monkeypatch, config, flags, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(config)
    given = ["--config", "c.yaml"] if config else []
    result = terselm("train", "--data", corpus, "--out", "m.safetensors", *given, *flags)
    refused(result, 2, *words)
    assert "Input" not in result.stderr


@pytest.mark.parametrize(
    ("config", "flags", "words"),
    [
        ("", ["--hidden", 8], ["--hidden: the model to start from has its own; leave it out"]),
        ("tokens: words", [], ["--config c.yaml: tokens: the model to start from has its own"]),
        ("", ["--start", "none"], ["cannot read none"]),
    ],
)
def test_wrong_settings_of_further_training(
    terselm, corpus, model_file, tmp_path, monkeypatch, config, flags, words
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c.yaml").write_text(config)
    given = ["--config", "c.yaml"] if config else []
    begin = ["train", "--data", corpus, "--out", "m.safetensors", "--start", model_file]
    result = terselm(*begin, *given, *flags)
    refused(result, 1 if "none" in flags else 2, *words)


def test_further_training_leaves_its_start_alone(terselm, corpus, model_file):
    itself = terselm("train", "--data", corpus, "--out", model_file, "--start", model_file)
    refused(itself, 2, "is the --start model itself")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("corpus", ["cannot be read: Is a directory; give"]),
        ("none", ["cannot be read: No such file or directory; give"]),
        ("binary", ["is not text; give"]),
    ],
)
def test_files_of_settings_and_results(terselm, corpus, model_file, tmp_path, name, words):
    (tmp_path / "binary").write_bytes(b"PK\x03\x04\xff\xfe")
    path, out = tmp_path / name, tmp_path / "out"
    train = ("train", "--data", corpus, "--out", out, "--config", path)
    refused(terselm(*train), 2, f"--config {path}", *words)
    refused(terselm("report", path, "--out", out), 2, path, *words, "results.json of a search")
    if name == "binary":
        compress = ("compress", model_file, "--out", out, "--recipe", path)
        refused(terselm(*compress), 2, f"--recipe {path}", *words)


def test_results_that_are_not_json(terselm, tmp_path):
    path = tmp_path / "hello.txt"
    path.write_text("hello\n")
    result = terselm("report", path, "--out", tmp_path / "out")
    refused(result, 2, f"{path} is not JSON; give the results.json of a search")
    assert "Expecting" not in result.stderr


def test_import_looks_for_its_source_first_and_names_the_vocabulary(terselm, tmp_path):
    words, source = tmp_path / "words.txt", tmp_path / "state.safetensors"
    words.write_text("a\nb\n")
    arguments = ("import", source, "--vocabulary", words, "--out", tmp_path / "out")
    refused(terselm(*arguments), 2, source, "to import")
    save_file({"a": torch.zeros(3)}, source)
    refused(terselm(*arguments), 2, f"{words}: '<eos>', which ends a line, is missing; add it")

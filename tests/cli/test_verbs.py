"""Every verb, from the outside: what it prints, what it writes, what it promises in JSON."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import typer

from terselm.cells.base import CELLS
from terselm.cli.main import build_app
from terselm.models.checkpoint import load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.characters import CharacterVocabulary
from terselm.train.config import TrainingConfig
from terselm.zoo import usual
from tests.tiny import logits_of, make_model

TRAIN = ["--hidden", 16, "--embedding", 16, "--epochs", 1, "--batch", 4, "--window", 8]


def verbs() -> list[tuple[str, ...]]:
    """Every verb, those of groups with the group's name before."""
    found: list[tuple[str, ...]] = []
    for name, command in typer.main.get_command(build_app()).commands.items():
        group = getattr(command, "commands", None)
        found += [(name,)] if group is None else [(name, each) for each in group]
    return found


@pytest.mark.parametrize("verb", verbs(), ids=" ".join)
def test_every_verb(verb, terselm):
    assert verb[0] in terselm("--help").stdout
    text = " ".join(terselm(*verb, "--help").stdout.split())
    assert "Example" in text and f"terselm {' '.join(verb)}" in text
    assert ("--json" in text) == (verb != ("demo",))


def test_quickstart(terselm, corpus, tmp_path):
    done = terselm(
        "quickstart", "--data", corpus, "--epochs", 1, "--out", tmp_path / "quick", "--json"
    )
    assert done.code == 0, done.stderr
    rows = done.json["models"]
    assert rows[0]["model"] == "dense" and len(rows) == 4
    sizes = [row["bytes"] for row in rows]
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    assert all(Path(row["file"]).stat().st_size == row["bytes"] for row in rows)
    assert all(math.isfinite(row["perplexity"]) for row in rows)
    assert all(len(found) == 5 for found in done.json["predictions"].values())
    assert Path(done.json["picture"]).stat().st_size > 1000


def test_the_models_that_come_along(terselm, tmp_path):
    listed = terselm("zoo", "list", "--json").json["models"]
    assert [each["bytes"] for each in listed] == sorted(each["bytes"] for each in listed)
    shown = terselm("zoo", "list").stdout
    assert all(each["name"] in shown and f"{each['bytes']:,}" in shown for each in listed)
    name, out = listed[0]["name"], tmp_path / "mine.safetensors"
    got = terselm("zoo", "get", name, "--out", out, "--json").json
    assert got["written"] == [str(out), str(out.with_suffix(".md"))]
    assert out.stat().st_size == listed[0]["bytes"]
    assert terselm("verify", out).code == 0
    assert name in out.with_suffix(".md").read_text()


def test_no_arguments_shows_help(terselm):
    assert "quickstart" in terselm().stdout


def test_version(terselm):
    assert terselm("--version").stdout.startswith("terselm ")


@pytest.mark.parametrize(
    "flags",
    [
        ["--output-layer", "adaptive", "--cutoffs", "5,9"],
        ["--tied", "--embedding", 8, "--loss", "sampled", "--samples", 6],
        ["--loss", "nce", "--samples", 6],
    ],
    ids=lambda flags: flags[0],
)
def test_other_outputs_and_losses(terselm, corpus, tmp_path, flags):
    model, small = tmp_path / "model.safetensors", tmp_path / "small.safetensors"
    trained = terselm("train", "--data", corpus, *TRAIN, *flags, "--out", model, "--json")
    assert trained.code == 0, trained.stderr
    found = terselm("evaluate", model, "--data", corpus, "--split", "valid", "--json").json
    assert found["perplexity"] == pytest.approx(trained.json["valid_perplexity"], rel=1e-5)
    assert terselm("inspect", model, "--json").json["bytes"] == model.stat().st_size
    assert terselm("predict", model, "w01 w02", "--json").code == 0
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("- {method: quantize, bits: 8}\n")
    compressed = terselm("compress", model, "--recipe", recipe, "--out", small, "--json")
    assert compressed.code == 0, compressed.stderr
    again = terselm("evaluate", small, "--data", corpus, "--split", "valid", "--json").json
    assert again["perplexity"] == pytest.approx(found["perplexity"], rel=0.05)


def test_train_evaluate_compress_predict(terselm, corpus, tmp_path):
    model = tmp_path / "lstm.safetensors"
    trained = terselm("train", "--data", corpus, *TRAIN, "--out", model, "--json")
    assert trained.code == 0, trained.stderr
    assert trained.json["out"] == str(model)
    assert trained.json["bytes"] == model.stat().st_size
    assert not list(tmp_path.glob(".*tmp*"))

    measured = terselm("evaluate", model, "--data", corpus, "--split", "test", "--json").json
    assert {"perplexity", "tokens", "split", "ci95", "seconds"} <= set(measured)
    assert measured["split"] == "test"
    text = (corpus / "test.txt").read_text()
    assert measured["tokens"] == sum(len(line.split()) + 1 for line in text.splitlines())
    assert measured["ci95"][0] < measured["perplexity"] < measured["ci95"][1]
    nats = math.log(measured["perplexity"]) * measured["tokens"]
    assert measured["bits_per_character"] == pytest.approx(nats / math.log(2) / len(text))

    small = tmp_path / "small.safetensors"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "- {method: low_rank, weights: 'cells.*', rank: 0.5}\n"
        "- {method: recover, epochs: 1, distill: true, batch: 4, window: 8}\n"
        "- {method: quantize, weights: 'cells.* embedding', bits: 4, group: 16}\n"
    )
    compressed = terselm(
        "compress", model, "--recipe", recipe, "--data", corpus, "--out", small, "--json"
    )
    assert compressed.code == 0, compressed.stderr
    values = compressed.json
    assert values["bytes_before"] == model.stat().st_size
    assert values["bytes_after"] == small.stat().st_size < model.stat().st_size
    # Training may have moved it; no step stored it anew.
    assert values["untouched"] + values["same_form"] == ["output"]
    assert len(values["steps"]) == 4
    valid = terselm("evaluate", small, "--data", corpus, "--engine", "torch", "--json").json
    assert values["steps"][-1]["perplexity"] == pytest.approx(valid["perplexity"], rel=1e-6)
    shipped = terselm("evaluate", small, "--data", corpus, "--json").json
    assert shipped["engine"] == "native"
    assert shipped["perplexity"] == pytest.approx(valid["perplexity"], rel=1e-3)
    assert {key: shipped[key] for key in ("tokens", "unknown")} == {
        key: valid[key] for key in ("tokens", "unknown")
    }

    found = terselm("predict", small, "w01 w02", "-k", 3, "--json").json["predictions"]
    assert len(found) == 3
    assert found[0]["probability"] >= found[1]["probability"] >= found[2]["probability"] > 0
    assert "w" in terselm("predict", small, "w01 w02").stdout


def test_inspect_adds_up_to_the_file(terselm, model_file):
    values = terselm("inspect", model_file, "--json").json
    assert values["bytes"] == model_file.stat().st_size
    assert {"parameters", "weights", "cell", "vocabulary_size"} <= set(values)
    assert {"name", "kind", "shape", "bytes", "macs"} <= set(values["weights"][0])
    shown = terselm("inspect", model_file).stdout
    assert "cells.0.weight_ih" in shown


def test_inspect_names_weights_that_multiply_more_than_dense_ones(terselm, model_file, tmp_path):
    assert terselm("inspect", model_file, "--json").json["more_macs_than_dense"] == {}
    assert "multiply-adds" not in terselm("inspect", model_file).stdout
    recipe, small = tmp_path / "recipe.yaml", tmp_path / "small.safetensors"
    recipe.write_text(
        "- {method: tensor_train, weights: output, rank: 6, row_shape: [5, 8], "
        "column_shape: [4, 5]}\n"
    )
    assert terselm("compress", model_file, "--recipe", recipe, "--out", small).code == 0
    # 8 · (5 · 4 · 6) + 4 · (6 · 8 · 5) instead of 37 · 20
    found = terselm("inspect", small, "--json").json["more_macs_than_dense"]
    assert found == pytest.approx({"output": 1920 / 740})
    shown = terselm("inspect", small).stdout.splitlines()
    assert shown[-1].endswith("output (2.59 ×)")
    (row,) = [line for line in shown if line.startswith("output ")]
    assert "* 1.92 k" in row


def test_verify(terselm, model_file, corpus):
    assert terselm("verify", model_file, "--json").json["whole"] is True
    same = terselm("verify", model_file, "--against", model_file, "--data", corpus, "--json").json
    assert "--against" in help_of("verify")["--data"]
    assert "recover" not in help_of("verify")["--data"]
    assert same["top1_agreement"] == 1.0
    assert same["kl_divergence"] == pytest.approx(0.0, abs=1e-6)


def test_import(terselm, tmp_path):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    layer = torch.nn.LSTM(6, 8, 1)
    state = {f"rnn.{name}": value for name, value in layer.state_dict().items()}
    state["encoder.weight"] = torch.randn(5, 6)
    state["decoder.weight"] = torch.randn(5, 8)
    state["decoder.bias"] = torch.randn(5)
    source, words = tmp_path / "state.safetensors", tmp_path / "words.txt"
    save_file(state, source)
    words.write_text("the\n<unk>\n<eos>\ncat\nsat\n")
    out = tmp_path / "model.safetensors"
    result = terselm("import", source, "--vocabulary", words, "--out", out, "--json")
    assert result.code == 0, result.stderr
    assert result.json["cell"] == "lstm"
    model = load(out)
    assert list(model.vocabulary.words) == ["the", "<unk>", "<eos>", "cat", "sat"]
    assert logits_of(model).shape == (9, 2, 5)


@pytest.mark.parametrize("tokens", ["words", "characters", "bpe"])
def test_every_kind_of_token_goes_the_whole_way(terselm, tmp_path, tokens):
    text = tmp_path / "text.txt"
    text.write_text("The cat sat; the dog, too.\nA cat saw the naïve dog.\n" * 120)
    model, small = tmp_path / "m.safetensors", tmp_path / "s.safetensors"
    arguments = ["train", "--data", text, "--tokens", tokens, *TRAIN, "--out", model]
    if tokens == "bpe":
        arguments += ["--vocabulary-size", 300]
    trained = terselm(*arguments)
    assert trained.code == 0, trained.stderr
    done = terselm("compress", model, "--recipe", "balanced", "--data", text, "--out", small)
    assert done.code == 0, done.stderr
    found = terselm("predict", small, "The cat", "--json")
    assert len(found.json["predictions"]) == 5
    assert terselm("evaluate", small, "--data", text, "--json").json["perplexity"] > 1


def test_json_is_all_that_is_on_stdout(terselm, model_file, corpus, tmp_path):
    small = tmp_path / "small.safetensors"
    result = terselm(
        "compress", model_file, "--recipe", "balanced", "--data", corpus, "--out", small, "--json"
    )
    assert result.stdout.count("\n") == 1
    assert result.json["out"] == str(small)


def test_training_resumes_from_the_command_line(terselm, corpus, tmp_path):
    model = tmp_path / "lstm.safetensors"
    first = terselm("train", "--data", corpus, *TRAIN, "--out", model)
    assert first.code == 0
    longer = [*TRAIN[:5], 2, *TRAIN[6:]]
    more = terselm("train", "--data", corpus, *longer, "--out", model, "--resume", "--json")
    assert more.code == 0, more.stderr
    whole = tmp_path / "whole.safetensors"
    assert terselm("train", "--data", corpus, *longer, "--out", whole).code == 0
    assert torch.equal(logits_of(load(model)), logits_of(load(whole)))


def test_verify_against_a_model_of_the_zoo(terselm, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("the company said it will\n" * 200)
    found = terselm("verify", "zoo:ptb-1mb", "--against", "zoo:ptb-1mb", "--data", text, "--json")
    assert found.code == 0, found.stderr
    assert found.json["top1_agreement"] == 1.0


@pytest.mark.parametrize("length", [1, 17, 33, 49])
def test_the_bytes_of_a_step_are_those_of_the_file(terselm, corpus, tmp_path, length):
    model, recipe, small = tmp_path / "m", tmp_path / "recipe.yaml", tmp_path / "small.safetensors"
    source = make_model("lstm")
    # Headers are whole multiples of 64 bytes: the perplexity makes some of these longer.
    source.provenance = {"note": "x" * length}
    save(source, model)
    recipe.write_text("- {method: half_bias}\n- {method: quantize}\n")
    done = terselm(
        "compress", model, "--recipe", recipe, "--data", corpus, "--out", small, "--json"
    )
    said = [line for line in done.stderr.splitlines() if line[:3] in ("1. ", "2. ")]
    rows = done.json["steps"][1:]
    for row, line in zip(rows, said, strict=True):
        assert f": {row['bytes']:,} bytes" in line
    assert rows[-1]["bytes"] == small.stat().st_size


@pytest.mark.parametrize(
    ("flag", "setting"),
    [
        *((f"--{name.replace('_', '-')}", name) for name in ("schedule", "decay", "decay_after")),
        *((f"--{name}", name) for name in ("optimizer", "loss", "samples", "epochs", "batch")),
        *((f"--{name}", name) for name in ("window", "clip", "dropout", "averaging", "precision")),
        *((f"--{name.replace('_', '-')}", name) for name in ("weight_drop", "input_dropout")),
        ("--projection-dropout", "projection_dropout"),
    ],
)
def test_the_help_of_train_has_the_defaults(flag, setting):
    shown = help_of("train")[flag]
    default = TrainingConfig.model_fields[setting].default
    assert shown.endswith(f"[{default:g}]" if isinstance(default, float) else f"[{default}]")


def test_the_help_of_train_names_every_cell_and_rate():
    shown = help_of("train")
    assert all(cell in shown["--cell"] for cell in CELLS)
    for optimizer in ("sgd", "adam"):
        assert (
            f"{TrainingConfig(optimizer=optimizer).first_rate:g} for {optimizer}"
            in shown["--learning-rate"]
        )


def help_of(verb: str) -> dict[str, str]:
    """What the help says about each option, whatever the width of the screen."""
    command = typer.main.get_command(build_app()).commands[verb]
    return {parameter.opts[0]: parameter.help or "" for parameter in command.params}


def test_bench_times_the_file(terselm, model_file):
    values = terselm("bench", model_file, "--steps", 20, "--batch", 4, "--json").json
    assert values["file_bytes"] == model_file.stat().st_size
    assert values["token_p95"] >= values["token"] > 0
    assert values["step"] > 0
    assert values["tokens_per_second"] > 0
    table = terselm("bench", model_file, "--steps", 20, "--kernels", "portable").stdout
    assert "portable, 1 thread" in table


def test_predict_completes_a_word_with_either_engine(terselm, model_file):
    by_engine = [
        terselm("predict", model_file, "w01", "--prefix", "w1", "-k", 3, *engine, "--json").json
        for engine in ((), ("--engine", "torch"))
    ]
    words = [[found["word"] for found in each["predictions"]] for each in by_engine]
    assert words[0] == words[1]
    assert all(word.startswith("w1") for word in words[0])
    for shipped, other in zip(*(each["predictions"] for each in by_engine), strict=True):
        assert shipped["probability"] == pytest.approx(other["probability"], rel=1e-4)


def test_predict_says_which_model_of_the_zoo_answers(terselm):
    result = terselm("predict", "the company", "--json")
    assert result.code == 0
    assert result.stderr == f"no MODEL given: zoo:{usual().name}\n"
    assert result.json["model"] == str(usual().model)
    shown = terselm("predict", "--help").stdout
    assert "[MODEL]" in shown and "[required]" not in shown


def test_predict_counts_in_what_the_tokens_are(terselm, tmp_path):
    path = tmp_path / "characters.safetensors"
    vocabulary = CharacterVocabulary(["\n", "<unk>", *"abc "])
    save(LanguageModel(ModelConfig(cell="gru", hidden=(4,), embedding=4), vocabulary), path)
    result = terselm("predict", path, "ab€€")
    assert "2 of the characters are not in the vocabulary" in result.stderr
    assert "character" in result.stdout and "word" not in result.stdout

"""Imported models say what torch's own modules say."""

from __future__ import annotations

import hashlib

import pytest
import torch
from safetensors.torch import save_file, save_model

from terselm.importers.base import IMPORTERS, import_model, import_with_notes
from terselm.models.checkpoint import load, save
from tests.importers.states import WORDS, TorchModel, make_state, words_file

TOKENS = torch.tensor([[2, 0], [3, 1], [4, 5], [0, 8], [7, 2], [6, 6]])


def logits_of(model):
    with torch.no_grad():
        return model(TOKENS, model.initial_state(2))[0]


def check_against_torch(torch_model, imported):
    with torch.no_grad():
        expected = torch_model(TOKENS)
    torch.testing.assert_close(logits_of(imported), expected, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh", "rnn_relu"])
def test_equals_torch(cell, layers, tied, tmp_path):
    torch_model = TorchModel(cell, layers, embedding=8 if tied else 6, tied=tied)
    source = tmp_path / "weights.pt"
    torch.save(torch_model.state_dict(), source)
    imported = import_model(
        source,
        vocabulary=words_file(tmp_path),
        nonlinearity="relu" if cell == "rnn_relu" else "tanh",
    )
    assert imported.config.cell == cell
    assert imported.config.layers == layers
    assert imported.config.tied is tied
    assert imported.vocabulary.words == tuple(WORDS)
    assert not imported.training
    check_against_torch(torch_model, imported)


@pytest.mark.parametrize("tied", [False, True])
def test_projected_lstm_equals_torch(tied, tmp_path):
    torch_model = TorchModel("lstm", 2, embedding=5 if tied else 6, projection=5, tied=tied)
    source = tmp_path / "weights.pt"
    torch.save(torch_model.state_dict(), source)
    imported = import_model(source, vocabulary=words_file(tmp_path))
    assert imported.config.projection == 5
    assert imported.config.tied is tied
    check_against_torch(torch_model, imported)


def test_equal_sizes_alone_do_not_tie(tmp_path):
    save_file(make_state("lstm", embedding=8), tmp_path / "m.safetensors")
    imported = import_model(tmp_path / "m.safetensors", vocabulary=words_file(tmp_path))
    assert not imported.config.tied
    assert imported.ties() == {}


def test_a_copied_matrix_ties(tmp_path):
    state = make_state("gru", embedding=8)
    state["decoder.weight"] = state["encoder.weight"].clone()
    save_file(state, tmp_path / "m.safetensors")
    found = import_with_notes(tmp_path / "m.safetensors", vocabulary=words_file(tmp_path))
    assert found.model.ties() == {"output": "embedding"}
    assert any("tied" in note for note in found.notes)


def test_a_tied_model_saved_by_safetensors_has_one_name_only(tmp_path):
    torch_model = TorchModel("lstm", 1, embedding=8, tied=True)
    save_model(torch_model, tmp_path / "m.safetensors")
    imported = import_model(tmp_path / "m.safetensors", vocabulary=words_file(tmp_path))
    assert imported.config.tied
    check_against_torch(torch_model, imported)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_every_type_comes_in_exactly(dtype, suffix, tmp_path):
    state = {name: tensor.to(dtype) for name, tensor in make_state().items()}
    source = tmp_path / f"m{suffix}"
    if suffix == ".pt":
        torch.save(state, source)
    else:
        save_file(state, source)
    imported = import_model(source, vocabulary=words_file(tmp_path))
    weights = {
        "embedding": "encoder.weight",
        "cells.1.weight_hh": "rnn.weight_hh_l1",
        "output": "decoder.weight",
    }
    for name, key in weights.items():
        assert torch.equal(imported.weights()[name].dense(), state[key].float())
    both = state["rnn.bias_ih_l0"].double() + state["rnn.bias_hh_l0"].double()
    assert torch.equal(imported.layers()[0].bias, both.float())


def test_float16_is_stored_as_it_came(tmp_path):
    state = {name: tensor.half() for name, tensor in make_state().items()}
    save_file(state, tmp_path / "m.safetensors")
    words = words_file(tmp_path)
    small = import_model(tmp_path / "m.safetensors", vocabulary=words, stored_type="float16")
    large = import_model(tmp_path / "m.safetensors", vocabulary=words)
    assert torch.equal(logits_of(small), logits_of(large))
    assert save(small, tmp_path / "small") < save(large, tmp_path / "large")
    assert torch.equal(logits_of(load(tmp_path / "small")), logits_of(large))
    assert small.weights()["output"].spec()["type"] == "float16"


def test_gru_keeps_the_bias_inside_the_reset_gate(tmp_path):
    state = make_state("gru", 1)
    save_file(state, tmp_path / "m.safetensors")
    cell = import_model(tmp_path / "m.safetensors", vocabulary=words_file(tmp_path)).layers()[0]
    incoming, recurrent = state["rnn.bias_ih_l0"], state["rnn.bias_hh_l0"]
    assert torch.equal(cell.bias_hn, recurrent[16:])
    assert torch.equal(cell.bias[16:], incoming[16:])
    torch.testing.assert_close(cell.bias[:16], incoming[:16] + recurrent[:16])


def test_names_of_a_parallel_model(tmp_path):
    state = make_state()
    save_file(state, tmp_path / "plain.safetensors")
    save_file({f"module.{name}": x for name, x in state.items()}, tmp_path / "m.safetensors")
    words = words_file(tmp_path)
    plain = import_model(tmp_path / "plain.safetensors", vocabulary=words)
    parallel = import_model(tmp_path / "m.safetensors", vocabulary=words)
    assert torch.equal(logits_of(plain), logits_of(parallel))


def test_ids_in_order_of_appearance(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "train.txt").write_text(" the cat <unk> \n sat on the mat \n")
    (folder / "valid.txt").write_text(" the dog \n")
    (folder / "test.txt").write_text(" a cat \n")
    save_file(make_state(), tmp_path / "m.safetensors")
    imported = import_model(tmp_path / "m.safetensors", data=folder)
    assert imported.vocabulary.words == (
        "the", "cat", "<unk>", "<eos>", "sat", "on", "mat", "dog", "a",
    )  # fmt: skip
    assert imported.vocabulary.start_id == 3


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\x1f"])
def test_white_space_that_only_python_splits_at_is_noted(tmp_path, space):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text(f"the cat <unk>{space}sat on\nthe dog a mat\n" + "the mat\n" * 40)
    save_file(make_state(), tmp_path / "m.safetensors")
    imported = import_with_notes(tmp_path / "m.safetensors", data=corpus)
    note = "1 lines of corpus.txt hold white space that terselm does not split at"
    assert any(each.startswith(note) for each in imported.notes), imported.notes
    assert list(imported.notes) == imported.model.provenance["imported"]["notes"]


def test_provenance_says_where_it_came_from(tmp_path):
    source = tmp_path / "lstm.safetensors"
    save_file(make_state(), source)
    imported = import_model(source, kind="pytorch_examples", vocabulary=words_file(tmp_path))
    record = imported.provenance["imported"]
    assert record["file"] == "lstm.safetensors"
    assert record["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    assert record["importer"] == "pytorch_examples"
    assert str(tmp_path) not in str(imported.provenance)
    save(imported, tmp_path / "again")
    assert load(tmp_path / "again").provenance == imported.provenance


def test_importing_draws_no_random_numbers(tmp_path):
    save_file(make_state(), tmp_path / "m.safetensors")
    words = words_file(tmp_path)
    before = torch.get_rng_state()
    import_model(tmp_path / "m.safetensors", vocabulary=words)
    assert torch.equal(torch.get_rng_state(), before)


def test_registered():
    assert "pytorch_examples" in list(IMPORTERS)

"""Whatever is wrong with a source, one line says what, and nothing in it is run."""

from __future__ import annotations

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from terselm.errors import TerselmError, UsageError
from terselm.importers.base import import_model
from terselm.models.checkpoint import save
from tests.importers.states import WORDS, TorchModel, make_state, words_file
from tests.tiny import make_model


def refuse(tmp_path, state, *expected, error=TerselmError, **options):
    """Import `state` (saved, unless it is a path) and check the one line."""
    source = state
    if isinstance(state, dict):
        source = tmp_path / "m.safetensors"
        save_file(state, source)
    options.setdefault("vocabulary", words_file(tmp_path))
    with pytest.raises(error) as caught:
        import_model(source, **options)
    message = str(caught.value)
    assert type(caught.value) is error, message
    assert "\n" not in message
    for part in expected:
        assert part in message, message
    return message


@pytest.mark.parametrize("missing", sorted(make_state()))
def test_a_missing_tensor_is_named(tmp_path, missing):
    state = make_state()
    del state[missing]
    refuse(tmp_path, state, missing, "missing")


def test_the_expected_shape_of_a_missing_tensor_is_stated(tmp_path):
    state = make_state()
    del state["rnn.bias_hh_l1"]
    refuse(tmp_path, state, "rnn.bias_hh_l1 is missing, expected [32]; give zeros if")


def test_a_bidirectional_model_is_called_so(tmp_path):
    state = make_state()
    state["rnn.weight_ih_l0_reverse"] = state["rnn.weight_ih_l0"].clone()
    refuse(tmp_path, state, "rnn.weight_ih_l0_reverse", "bidirectional")


@pytest.mark.parametrize(
    "name, shape, expected",
    [
        ("rnn.weight_ih_l0", (32, 5), "[32, 6]"),
        ("rnn.weight_ih_l1", (32, 7), "[32, 8]"),
        ("rnn.weight_hh_l1", (24, 8), "[32, 8]"),
        ("rnn.bias_ih_l0", (31,), "[32]"),
        ("decoder.weight", (9, 9), "[9, 8]"),
        ("decoder.bias", (10,), "[9]"),
        ("encoder.weight", (9,), "[vocabulary, embedding]"),
        ("encoder.weight", (0, 6), "[vocabulary, embedding]"),
        ("rnn.weight_hh_l0", (16, 8), "32 rows (LSTM), 24 (GRU) or 8 (RNN)"),
        ("rnn.weight_hh_l0", (33, 8), "32 rows (LSTM)"),
    ],
)
def test_a_wrong_shape_is_named_with_the_right_one(tmp_path, name, shape, expected):
    state = make_state()
    state[name] = torch.zeros(shape)
    refuse(tmp_path, state, name, expected, str(list(shape)))


def test_something_more_is_refused(tmp_path):
    refuse(tmp_path, {**make_state(), "proj.weight": torch.zeros(3, 3)}, "proj.weight")
    reverse = {**make_state(), "rnn.weight_ih_l0_reverse": torch.zeros(32, 6)}
    refuse(tmp_path, reverse, "rnn.weight_ih_l0_reverse")


def test_a_projection_of_another_cell_is_refused(tmp_path):
    state = make_state("gru", 1)
    state["rnn.weight_hr_l0"] = torch.zeros(8, 8)
    refuse(tmp_path, state, "only an LSTM has a projection")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["encoder.weight", "rnn.weight_hh_l1", "rnn.bias_hh_l0"])
def test_a_value_that_is_no_number_is_named(tmp_path, name, value):
    state = make_state()
    state[name].view(-1)[3] = value
    refuse(tmp_path, state, name, "NaN or infinite")


def test_values_beyond_the_range(tmp_path):
    state = {name: tensor.double() for name, tensor in make_state().items()}
    state["decoder.bias"][0] = 1e300
    refuse(tmp_path, state, "decoder.bias", "as float32")
    state = make_state()
    state["decoder.weight"][0, 0] = 70000.0
    refuse(tmp_path, state, "decoder.weight", "float16", stored_type="float16")


def test_a_vocabulary_of_another_size(tmp_path):
    words = words_file(tmp_path, WORDS[:-1])
    refuse(tmp_path, make_state(), "8 words", "9 rows", vocabulary=words)
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("the cat sat\n" * 40)
    refuse(tmp_path, make_state(), "4 words", "9 rows", vocabulary=None, data=corpus)


def test_exactly_one_source_of_words(tmp_path):
    refuse(tmp_path, make_state(), "--vocabulary", "--data", error=UsageError, data="ptb")
    refuse(tmp_path, make_state(), "--vocabulary", error=UsageError, vocabulary=None)


def test_impossible_options(tmp_path):
    state = make_state()
    refuse(tmp_path, state, "int8", "float16", error=UsageError, stored_type="int8")
    refuse(tmp_path, state, "did you mean 'tanh'", error=UsageError, nonlinearity="tan")
    refuse(
        tmp_path, state, "did you mean 'pytorch_examples'", error=UsageError, kind="pytorch_example"
    )
    refuse(tmp_path, tmp_path / "none.pt", "none.pt", error=UsageError)
    refuse(tmp_path, state, "none.txt", error=UsageError, vocabulary=tmp_path / "none.txt")


def test_an_unknown_layout(tmp_path):
    state = {"transformer.h.0.weight": torch.zeros(2, 2)}
    refuse(tmp_path, state, "no layout that terselm knows", "transformer.h.0.weight")
    refuse(tmp_path, state, "encoder.weight is missing", kind="pytorch_examples")


def test_a_terselm_model_needs_no_import(tmp_path):
    save(make_model("lstm"), tmp_path / "m.safetensors")
    refuse(tmp_path, tmp_path / "m.safetensors", "terselm model already")


def test_a_header_that_begins_like_a_pickle(tmp_path):
    """Its length, the first eight bytes, is 640 = 0x280: so does a pickle of protocol 2 begin."""
    state = make_state()
    source = tmp_path / "m.safetensors"
    save_file(state, source, metadata={"note": ""})
    first = int.from_bytes(source.read_bytes()[:8], "little")
    wanted = first + (640 - first) % 65536
    for length in range(wanted - first - 8, wanted - first + 1):
        save_file(state, source, metadata={"note": "x" * length})
        if source.read_bytes().startswith(b"\x80\x02"):
            break
    assert source.read_bytes().startswith(b"\x80\x02")
    import_model(source, vocabulary=words_file(tmp_path))


def test_metadata_that_is_null(tmp_path):
    source = tmp_path / "m.safetensors"
    save_file(make_state(), source)
    data = source.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = {"__metadata__": None, **json.loads(data[8 : 8 + length])}
    text = json.dumps(header).encode()
    source.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    import_model(source, vocabulary=words_file(tmp_path))


def test_a_shape_beyond_64_bits(tmp_path):
    source = tmp_path / "m.safetensors"
    text = b'{"w":{"dtype":"F32","shape":[9223372036854775808,0],"data_offsets":[0,0]}}'
    source.write_bytes(len(text).to_bytes(8, "little") + text)
    refuse(tmp_path, source, "get the file again")


def test_a_folder(tmp_path):
    refuse(tmp_path, tmp_path, "cannot read")


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
@pytest.mark.parametrize("kept", [0, 1, 7, 8, 60, 0.5, 0.99])
def test_a_truncated_file(tmp_path, suffix, kept):
    source = tmp_path / f"m{suffix}"
    if suffix == ".pt":
        torch.save(make_state(), source)
    else:
        save_file(make_state(), source)
    data = source.read_bytes()
    source.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    refuse(tmp_path, source, str(source), "get the file again")


def test_an_old_torch_file_comes_in_and_a_damaged_one_does_not(tmp_path):
    source = tmp_path / "old.pt"
    torch.save(make_state(), source, _use_new_zipfile_serialization=False)
    assert import_model(source, vocabulary=words_file(tmp_path)).config.layers == 2
    source.write_bytes(source.read_bytes()[:2000])
    refuse(tmp_path, source, "get the file again")


class Poison:
    """A pickle that makes a folder when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_is_never_run(tmp_path, zipped):
    trap = tmp_path / "trap"
    source = tmp_path / "m.pt"
    content = {**make_state(), "more": Poison(trap)}
    torch.save(content, source, _use_new_zipfile_serialization=zipped)
    refuse(tmp_path, source, "never runs", "torch.save(model.state_dict(), 'weights.pt')")
    assert not trap.exists()


def test_a_plain_pickle_is_never_run(tmp_path):
    trap = tmp_path / "trap"
    for protocol in (0, 2, 4):
        source = tmp_path / f"m{protocol}.pkl"
        source.write_bytes(pickle.dumps(Poison(trap), protocol=protocol))
        refuse(tmp_path, source, str(source))
        assert not trap.exists()


def test_a_whole_pickled_module(tmp_path):
    source = tmp_path / "model.pt"
    torch.save(TorchModel("lstm"), source)
    refuse(tmp_path, source, "TorchModel", "torch.save(model.state_dict(), 'weights.pt')")


def test_other_contents_of_a_torch_file(tmp_path):
    source = tmp_path / "m.pt"
    for content, expected in (
        (torch.zeros(3), "holds a Tensor"),
        ([1, 2], "holds a list"),
        ({}, "no tensors"),
        ({"model": make_state(), "epoch": 3}, "'model' is a dict"),
        ({**make_state(), "step": 3}, "'step' is a int"),
        ({**make_state(), "decoder.bias": torch.arange(9)}, "decoder.bias is torch.int64"),
        ({**make_state(), "decoder.bias": torch.zeros(9).to_sparse()}, "not a plain tensor"),
        ({**make_state(), "decoder.bias": torch.zeros(9, device="meta")}, "not a plain tensor"),
        (
            {**make_state(), "decoder.bias": torch.zeros(1).expand(1 << 20, 1 << 20)},
            "not a plain tensor",
        ),
    ):
        torch.save(content, source)
        refuse(tmp_path, source, expected)


def test_integers_in_safetensors(tmp_path):
    state = {**make_state(), "decoder.bias": torch.arange(9)}
    refuse(tmp_path, state, "decoder.bias is torch.int64")

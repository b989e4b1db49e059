"""The file: what is in it, who can open it, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import pickle

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.errors import TerselmError
from terselm.linear.base import op_from_file
from terselm.models.checkpoint import ALIGNMENT, lay_out, load, save
from tests.tiny import CELL_VARIANTS, logits_of, make_model, rewrite


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "model.safetensors"
    model = make_model("lstm", tied=True)
    model.provenance = {"data": "corpus «π»", "perplexity": {"valid": 12.5}}
    save(model, path)
    return model, path


@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_every_cell_comes_back_with_equal_logits(cell, tmp_path):
    for tied in (False, True):
        model = make_model(cell, tied=tied)
        path = tmp_path / "model.safetensors"
        size = save(model, path)
        again = load(path)
        assert size == path.stat().st_size == lay_out(model).size
        assert torch.equal(logits_of(again), logits_of(model))
        assert again.config == model.config
        assert again.ties() == model.ties()
        assert list(again.vocabulary.words) == list(model.vocabulary.words)


def test_any_reader_of_the_format_opens_it(saved):
    model, path = saved
    with safetensors.safe_open(path, "pt") as file:
        document = json.loads(file.metadata()["terselm"])
        weight = file.get_tensor("cells.0.weight_hh.weight")
    assert document["format"] == 1
    assert document["provenance"] == model.provenance
    assert torch.equal(weight, model.cells[0].weight_hh.dense())


def test_every_tensor_starts_at_a_multiple_of_64(saved):
    _, path = saved
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert (8 + length) % ALIGNMENT == 0
    stored = {name: entry for name, entry in header.items() if not name.startswith(("__", "pad."))}
    starts = [entry["data_offsets"][0] for entry in stored.values()]
    assert len(starts) > 5
    assert all(start % ALIGNMENT == 0 for start in starts)


def test_a_tied_weight_is_stored_once(tmp_path):
    sizes = {}
    for tied in (False, True):
        model = make_model("gru", tied=tied, hidden=20)
        sizes[tied] = sum(t.numel() for n, t in lay_out(model).tensors.items() if "weight" in n)
    embedding_and_output = (10 + 20) * 37
    untied_extra = 3 * 20 * 10  # the first layer reads 10 in place of 20
    assert sizes[False] - sizes[True] == embedding_and_output - 20 * 37 - untied_extra


def test_numbers_that_json_lacks_become_null(tmp_path):
    model = make_model("lstm")
    model.provenance = {"perplexity": {"valid": float("inf"), "all": [1.5, float("nan")]}}
    path = tmp_path / "model.safetensors"
    save(model, path)
    assert load(path).provenance == {"perplexity": {"valid": None, "all": [1.5, None]}}


def test_provenance_survives(saved):
    model, path = saved
    assert load(path).provenance == model.provenance


def test_saving_twice_gives_the_same_bytes(saved, tmp_path):
    _, path = saved
    again = tmp_path / "again.safetensors"
    save(load(path), again)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_altered_byte_is_noticed(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("file") / "model.safetensors"
    save(make_model("rnn_tanh", layers=1, hidden=8), path)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(TerselmError) as caught:
        load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("keep", [0, 4, 8, 100, 0.5, 0.999])
def test_a_truncated_file_is_refused(saved, keep):
    _, path = saved
    content = path.read_bytes()
    path.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(TerselmError, match=r"damaged|altered|no terselm model file"):
        load(path)


def test_a_header_of_2_to_the_63_is_refused(saved):
    _, path = saved
    path.write_bytes((2**63).to_bytes(8, "little") + path.read_bytes()[8:])
    with pytest.raises(TerselmError, match="header is cut off"):
        load(path)


def test_a_pickle_under_this_name_is_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "model.safetensors"
    for write in (lambda: path.write_bytes(pickle.dumps(Bomb())), lambda: torch.save({}, path)):
        write()
        with pytest.raises(TerselmError, match="is a pickle"):
            load(path)
    assert not (tmp_path / "ran").exists()


def test_a_foreign_safetensors_file_says_how_to_import(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "other.safetensors"
    save_file({"encoder.weight": torch.zeros(3, 2)}, path)
    with pytest.raises(TerselmError, match="terselm import"):
        load(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(TerselmError, match="No such file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(TerselmError, match="cannot read"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format=2), "format is 2"),
        (lambda d: d.update(format=1.0), "format is 1.0"),
        (lambda d: d.update(format=True), "format is True"),
        (lambda d: d["config"].update(embedding="10"), "config.embedding"),
        (lambda d: d["config"].update(tied="no"), "config.tied"),
        (lambda d: d.pop("config"), "config"),
        (lambda d: d["config"].update(cell="transformer"), "unknown cell"),
        (lambda d: d["config"].update(hidden=[2**40, 20]), "hidden"),
        (lambda d: d["config"].update(hidden=[21, 20]), "cells.0.weight_ih"),
        (lambda d: d["config"].update(surprise=1), "surprise"),
        (lambda d: d["weights"].pop("cells.0.weight_ih"), "cells.0.weight_ih"),
        (lambda d: d["weights"].update(more={"kind": "dense"}), "more"),
        (lambda d: d["weights"]["embedding"].update(kind="evil"), "embedding.*'evil'"),
        (lambda d: d["weights"]["embedding"].update(shape=[37, 21]), "embedding"),
        (lambda d: d.update(weights=[]), "weights"),
        (lambda d: d.update(ties={"output": "cells.0.weight_hh"}), "ties"),
        (lambda d: d.update(ties={}), "ties"),
        (lambda d: d.update(vocabulary=None), "vocabulary"),
    ],
)
def test_a_lying_description_is_named(saved, change, message):
    _, path = saved
    rewrite(path, change)
    with pytest.raises(TerselmError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def retype(path, name, **entry):
    """Change what the header says of one tensor, and fit the checksum."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header[name].update(entry)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    rewrite(path, lambda document: None)


def test_tensors_that_numpy_or_torch_lack_are_refused(saved):
    _, path = saved
    whole = path.read_bytes()
    count = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])["vocabulary.words"][
        "shape"
    ][0]
    cases = [
        ("vocabulary.words", {"dtype": "F8_E4M3"}, "vocabulary.words is torch.float8"),
        ("vocabulary.words", {"shape": [1] * 80 + [count]}, r"vocabulary.words is torch.uint8"),
        ("pad.1", {"shape": [2**63, 0], "data_offsets": [0, 0]}, "damaged"),
    ]
    for name, entry, message in cases:
        path.write_bytes(whole)
        retype(path, name, **entry)
        with pytest.raises(TerselmError, match=message):
            load(path)


def test_a_foreign_header_that_begins_like_a_pickle(tmp_path):
    path = tmp_path / "m.safetensors"
    path.write_bytes(foreign_file_of_header_length(640))
    with pytest.raises(TerselmError, match="not a terselm model; to import"):
        load(path)


def foreign_file_of_header_length(length):
    header = b'{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.ljust(length)
    return length.to_bytes(8, "little") + header + bytes(4)


def test_a_name_that_is_no_utf8_in_the_provenance(tmp_path):
    model = make_model("lstm")
    model.provenance = {"imported": {"file": "w\udcff.pt"}}
    save(model, tmp_path / "m.safetensors")
    assert load(tmp_path / "m.safetensors").provenance == {"imported": {"file": "w?.pt"}}


def test_a_link_keeps_pointing_at_the_file(saved, tmp_path):
    model, path = saved
    before = path.read_bytes()
    link = tmp_path / "link.safetensors"
    link.symlink_to(path)
    path.write_bytes(b"old")
    save(model, link)
    assert link.is_symlink()
    assert path.read_bytes() == before


def test_a_pipe_is_not_replaced(saved, tmp_path):
    model, _ = saved
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TerselmError, match="is a device, not a file"):
        save(model, tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_long_name(saved, tmp_path):
    model, path = saved
    long = tmp_path / ("ä" * 120 + ".safetensors")
    save(model, long)
    assert long.read_bytes() == path.read_bytes()


def test_a_number_of_too_many_digits_is_one_line(saved, monkeypatch):
    _, path = saved
    encode = json.dumps

    def dumps(value):
        return encode(value).replace('"layers": 2', '"layers": ' + "9" * 5000)

    monkeypatch.setattr(json, "dumps", dumps)
    rewrite(path, lambda d: d.update(layers=2))
    with pytest.raises(TerselmError, match="not valid JSON"):
        load(path)


def test_a_weight_of_another_shape_is_not_built(saved, monkeypatch):
    _, path = saved
    built = []

    def build(spec, tensors, name):
        built.append(name)
        return op_from_file(spec, tensors, name)

    monkeypatch.setattr("terselm.models.checkpoint.op_from_file", build)
    rewrite(path, lambda d: d["weights"]["cells.1.weight_hh"].update(shape=[2**30, 2**30]))
    with pytest.raises(
        TerselmError, match=r"cells\.1\.weight_hh is \[1073741824, .*needs \[80, 20\]"
    ):
        load(path)
    assert "cells.0.weight_hh" in built
    assert "cells.1.weight_hh" not in built


def test_rewriting_without_a_change_is_accepted(saved):
    model, path = saved
    rewrite(path, lambda document: None)
    assert torch.equal(logits_of(load(path)), logits_of(model))


def test_a_full_disk_leaves_the_old_file(saved, monkeypatch):
    model, path = saved
    before = path.read_bytes()

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(TerselmError, match="No space left on device"):
        save(model, path)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_a_folder_that_does_not_exist(saved, tmp_path):
    model, _ = saved
    with pytest.raises(TerselmError, match="cannot write"):
        save(model, tmp_path / "none" / "model.safetensors")


def test_nan_is_not_written(saved):
    model, path = saved
    before = path.read_bytes()
    with torch.no_grad():
        model.cells[1].weight_hh.weight[2, 3] = float("nan")
    with pytest.raises(TerselmError, match="cells.1.weight_hh.weight holds NaN"):
        save(model, path)
    assert path.read_bytes() == before

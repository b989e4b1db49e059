"""The trained checkpoints beside the corpora, against what is stated about them."""

from __future__ import annotations

import json
import math

import pytest
import torch
from safetensors.torch import load_file

from terselm.evaluate.perplexity import evaluate, perplexity
from terselm.importers.base import import_model
from terselm.models.checkpoint import lay_out
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import tokenize

FIRST = 1000


def imported(folder, name, **options):
    return import_model(
        folder / f"{name}.safetensors", vocabulary=folder / f"{name}.vocab.txt", **options
    )


def plain_torch_perplexity(state, hidden, ids, start):
    """torch.nn alone, float64, the whole text in one call."""
    state = {name: tensor.double() for name, tensor in state.items()}
    with torch.no_grad():
        rnn = torch.nn.LSTM(hidden, hidden, 2).double()
        rnn.load_state_dict(
            {name[4:]: tensor for name, tensor in state.items() if name.startswith("rnn.")}
        )
        inputs = torch.tensor([start, *ids[:-1]])
        outputs, _ = rnn(state["encoder.weight"][inputs].unsqueeze(1))
        nats = 0.0
        blocks = zip(outputs.squeeze(1).split(500), torch.tensor(ids).split(500), strict=True)
        for rows, targets in blocks:
            logits = rows @ state["decoder.weight"].T + state["decoder.bias"]
            nats += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
    return math.exp(nats / len(ids))


@pytest.mark.parametrize("hidden, parameters", [(200, 4.65e6), (650, 19.78e6)])
def test_sizes_are_as_stated(shared_checkpoints, hidden, parameters):
    model = imported(shared_checkpoints, f"ptb-lstm-{hidden}", stored_type="float16")
    assert model.config.model_dump() == {
        "cell": "lstm",
        "hidden": (hidden, hidden),
        "embedding": hidden,
        "projection": None,
        "tied": False,
    }
    assert len(model.vocabulary) == 10_000
    # torch has a second bias a layer, which is merged here.
    assert model.parameter_count() + 2 * 4 * hidden == pytest.approx(parameters, rel=2e-3)
    assert lay_out(model).size == pytest.approx(2 * parameters, rel=0.02)


def test_the_small_one_has_the_stated_perplexity(shared_checkpoints, ptb_folder):
    model = imported(shared_checkpoints, "ptb-lstm-200")
    stated = json.loads((shared_checkpoints / "ptb-lstm-200.json").read_text())
    split = tokenize(open_corpus(ptb_folder), "valid", model.vocabulary)
    measured = evaluate(model, split)
    assert measured.tokens == stated["valid_tokens"]
    assert measured.perplexity == pytest.approx(stated["valid"], abs=0.05)
    low, high = measured.ci95
    assert low < stated["valid"] < high
    characters = len((ptb_folder / "ptb.valid.txt").read_text())
    bits = math.log2(stated["valid"]) * stated["valid_tokens"]
    assert measured.bits_per_character == pytest.approx(bits / characters, rel=1e-3)


@pytest.mark.parametrize("hidden", [200, 650])
def test_equals_torch_on_the_first_tokens(shared_checkpoints, ptb_folder, hidden):
    name = f"ptb-lstm-{hidden}"
    model = imported(shared_checkpoints, name)
    words = (shared_checkpoints / f"{name}.vocab.txt").read_text().splitlines()
    text = (ptb_folder / "ptb.test.txt").read_text().replace("\n", " <eos> ").split()
    ids = [words.index(word) for word in text[:FIRST]]
    state = load_file(shared_checkpoints / f"{name}.safetensors")
    expected = plain_torch_perplexity(state, hidden, ids, words.index("<eos>"))
    split = tokenize(open_corpus(ptb_folder), "test", model.vocabulary)
    assert perplexity(model, split.ids, limit=FIRST) == pytest.approx(expected, rel=1e-5)


def test_order_of_appearance_is_the_order_of_the_stated_words(shared_checkpoints, ptb_folder):
    source = shared_checkpoints / "ptb-lstm-200.safetensors"
    from_corpus = import_model(source, data=ptb_folder)
    stated = (shared_checkpoints / "ptb-lstm-200.vocab.txt").read_text().splitlines()
    assert from_corpus.vocabulary.words == tuple(stated)

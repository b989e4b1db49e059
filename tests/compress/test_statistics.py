"""Calibration statistics against a plain recomputation of every input."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.compress.statistics import STREAMS, WARM_UP, collect
from terselm.errors import TerselmError, UsageError
from tests.tiny import make_model

STEPS = 20


def ids() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 37, STREAMS * STEPS).astype(np.uint16)


@pytest.mark.parametrize("cell", ["lstm", "gru", "lstm/projection"])
def test_inputs_are_those_of_a_plain_run(cell):
    model = make_model(cell)
    found = collect(model, ids())
    tokens = torch.from_numpy(ids().astype(np.int64).reshape(STREAMS, STEPS).T.copy())
    with torch.no_grad():
        x = model.embedding.rows(tokens)
        for number, layer in enumerate(model.layers()):
            inputs = x
            x, _ = layer.sequence(x, layer.initial_state(STREAMS))
            expected = inputs[WARM_UP:].flatten(0, 1).double()
            check(found.inputs[f"cells.{number}.weight_ih"], expected)
            check(found.inputs[f"cells.{number}.weight_hh"], x[WARM_UP - 1 : -1].flatten(0, 1))
        check(found.inputs["output"], x[WARM_UP:].flatten(0, 1))
    assert found.token_counts.tolist() == np.bincount(ids(), minlength=37).tolist()
    assert "embedding" not in found.inputs


def check(measured, inputs):
    inputs = inputs.double()
    torch.testing.assert_close(
        measured.second_moment, inputs.T @ inputs / len(inputs), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(measured.mean_square, inputs.square().mean(0), rtol=1e-4, atol=1e-6)
    assert measured.count == len(inputs)


def test_factors_have_inputs_of_their_own():
    model = make_model("lstm")
    small = compress(model, Recipe.from_list([{"method": "low_rank", "rank": 3}])).model
    found = collect(small, ids())
    assert found.inputs["output.right"].second_moment.shape == (20, 20)
    assert found.inputs["output.left"].second_moment.shape == (3, 3)


def test_states_that_explode_are_named():
    model = make_model("rnn_relu", layers=1)
    with torch.no_grad():
        model.cells[0].weight_hh.weight.copy_(1.5 * torch.eye(20) + 0.1)
    ids = np.arange(STREAMS * 200) % len(model.vocabulary)
    with pytest.raises(TerselmError, match=r"cells\.0\.weight_hh: its inputs .* infinite"):
        collect(model, ids)


def test_too_little_text_says_how_much():
    with pytest.raises(UsageError, match=f"at least {STREAMS * (WARM_UP + 1)}"):
        collect(make_model("lstm"), ids()[:100])

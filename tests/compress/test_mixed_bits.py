"""Sharing out a budget, against every way to share it out."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.divergence import Divergence
from terselm.compress.mixed_bits import Choice, allocate, noise_to_signal
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.linear.dense import Dense
from terselm.models.checkpoint import lay_out, save
from tests.tiny import WORDS, make_model

CALIBRATION = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)
CONTEXT = Context(calibration=CALIBRATION)


@given(st.integers(0, 10**6), st.integers(1, 4), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_best_of_all_choices_is_found(seed, matrices, share):
    generator = random.Random(seed)
    choices = {
        f"m{number}": [
            Choice(64 * generator.randint(1, 60), generator.random())
            for _ in range(generator.randint(1, 5))
        ]
        for number in range(matrices)
    }
    least = sum(min(way.bytes for way in ways) for ways in choices.values())
    most = sum(max(way.bytes for way in ways) for ways in choices.values())
    budget = least + int(share * (most - least))
    places = allocate(choices, budget)
    assert list(places) == list(choices)
    picked = [choices[name][place] for name, place in places.items()]
    assert sum(way.bytes for way in picked) <= budget
    best = min(
        sum(way.loss for way in ways)
        for ways in itertools.product(*choices.values())
        if sum(way.bytes for way in ways) <= budget
    )
    assert sum(way.loss for way in picked) == pytest.approx(best)


def test_sizes_that_are_no_multiples_still_fit():
    choices = {"a": [Choice(100, 1.0), Choice(30, 2.0)], "b": [Choice(70, 1.0), Choice(65, 3.0)]}
    for budget in range(95, 400):
        places = allocate(choices, budget)
        assert sum(choices[name][place].bytes for name, place in places.items()) <= budget


def test_a_large_budget_is_counted_in_large_units():
    choices = {
        "a": [Choice(10**9, 1.0), Choice(10**8, 5.0)],
        "b": [Choice(2 * 10**9, 1.0), Choice(10**8, 2.0)],
    }
    assert allocate(choices, 10**10) == {"a": 0, "b": 0}
    assert allocate(choices, 15 * 10**8) == {"a": 0, "b": 1}


def test_the_least_bytes_are_named():
    with pytest.raises(UsageError, match="the nearest is 164"):
        allocate({"a": [Choice(100, 1.0)], "b": [Choice(64, 0.0), Choice(128, 0.0)]}, 163)


def test_noise_to_signal_is_that_of_the_outputs():
    torch.manual_seed(0)
    weight, inputs = torch.randn(7, 5), torch.randn(100, 5).double() @ torch.randn(5, 5).double()
    other = weight + 0.1 * torch.randn(7, 5)
    noise = (inputs @ (weight - other).double().T).square().sum()
    signal = (inputs @ weight.double().T).square().sum()
    found = noise_to_signal(weight, other, inputs.T @ inputs / 100)
    assert found == pytest.approx(float(noise / signal))
    assert noise_to_signal(weight, weight, None) == 0


def test_the_divergence_is_the_kullback_leibler_one():
    model = make_model("lstm")
    tokens = torch.randint(len(WORDS), (6, 3))
    changed = Dense(model.weights()["output"].dense().detach() * 0.5)
    measured = Divergence(model, tokens, 2)
    assert measured.tokens == 4 * 3
    found = measured.of("output", changed)
    other = model.clone()
    other.replace_weight("output", changed)
    p = model(tokens, model.initial_state(3))[0][2:].softmax(-1).double()
    q = other(tokens, other.initial_state(3))[0][2:].softmax(-1).double()
    assert found == pytest.approx(float((p * (p / q).log()).sum(-1).mean().detach()), rel=1e-4)
    assert measured.of_several({}) == 0


@pytest.mark.parametrize("sensitivity", ["divergence", "error"])
def test_the_file_keeps_within_its_bytes_and_more_bytes_cost_less(sensitivity, tmp_path):
    model = make_model("lstm", hidden=32)
    tokens = torch.from_numpy(CALIBRATION.astype(np.int64)).reshape(32, 40).T
    divergence = Divergence(model, tokens, 8)
    losses = []
    for budget in (22_000, 26_000, 32_000):
        recipe = [{"method": "mixed_bits", "bytes": budget, "sensitivity": sensitivity}]
        result = compress(model, Recipe.from_list(recipe), CONTEXT)
        assert save(result.model, tmp_path / "small.safetensors") <= budget
        assert result.untouched == ()
        losses.append(divergence.of_several(result.model.weights()))
    assert losses == sorted(losses, reverse=True)


def test_bits_go_where_they_matter():
    """A matrix that hardly acts on the output gets the fewest bits, one that rules it the most."""
    model = make_model("lstm", hidden=64)
    with torch.no_grad():
        model.weights()["cells.0.weight_hh"].weight.mul_(0.01)
    recipe = [{"method": "mixed_bits", "average_bits": 4.2, "weights": "cells.* output"}]
    result = compress(model, Recipe.from_list(recipe), CONTEXT)
    bits = {name: op.bits for name, op in result.model.weights().items() if name != "embedding"}
    assert bits.pop("cells.0.weight_hh") < min(bits.values())
    assert result.untouched == ("embedding",)


@pytest.mark.parametrize("budget", [{"bytes": 5000}, {"average_bits": 1.5}])
def test_a_budget_that_cannot_be_met_names_the_nearest(budget):
    model = make_model("gru", hidden=32)
    options = {"method": "mixed_bits", "rounding": "least_squares", "sensitivity": "error"}
    with pytest.raises(UsageError, match="the nearest is") as error:
        compress(model, Recipe.from_list([{**options, **budget}]), CONTEXT)
    nearest = str(error.value).rsplit(" ", 1)[1].replace(",", "")
    key = next(iter(budget))
    value = int(nearest) if key == "bytes" else float(nearest)
    result = compress(model, Recipe.from_list([{**options, key: value}]), CONTEXT)
    if key == "bytes":
        assert lay_out(result.model).size <= value


@pytest.mark.parametrize("options", [{}, {"bytes": 10_000, "average_bits": 3.0}])
def test_one_budget_is_needed(options):
    with pytest.raises(UsageError, match="either bytes or average_bits"):
        Recipe.from_list([{"method": "mixed_bits", **options}])

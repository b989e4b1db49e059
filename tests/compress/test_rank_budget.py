"""Ranks under one budget: against trying every combination, and the budget itself."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.divergence import Divergence
from terselm.compress.mixed_bits import HELD_BACK
from terselm.compress.rank_allocation import (
    Candidate,
    allocate,
    measured_gains,
    smallest_cost,
)
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.models.checkpoint import lay_out, save
from tests.tiny import WORDS, make_model

IDS = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)
CONTEXT = Context(calibration=IDS)


def random_candidates(seed: int) -> dict[str, Candidate]:
    generator = np.random.default_rng(seed)
    found = {}
    for name in "abc":
        gains = np.sort(generator.exponential(size=5) * generator.exponential())[::-1]
        cost = int(generator.integers(2, 6))
        found[name] = Candidate(gains.tolist(), cost, int(cost * generator.integers(2, 6)))
    return found


def cost_and_gain(candidates, chosen):
    cost = gain = 0.0
    for name, rank in chosen.items():
        matrix = candidates[name]
        cost += matrix.dense_cost if rank is None else rank * matrix.cost
        gain += sum(matrix.gains if rank is None else matrix.gains[:rank])
    return cost, gain


@pytest.mark.parametrize("seed", range(20))
def test_spending_is_the_best_up_to_one_step(seed):
    candidates = random_candidates(seed)
    least = smallest_cost(candidates)
    choices = [[*range(1, len(matrix.gains) + 1), None] for matrix in candidates.values()]
    every = [
        cost_and_gain(candidates, dict(zip(candidates, ranks, strict=True)))
        for ranks in itertools.product(*choices)
    ]
    for budget in range(least, least + 40, 3):
        cost, gain = cost_and_gain(candidates, allocate(candidates, budget))
        assert cost <= budget
        best = max(gain for cost, gain in every if cost <= budget)
        step = max(matrix.dense_cost for matrix in candidates.values())
        cheaper = [gain for cost, gain in every if cost <= budget - step]
        assert gain <= best + 1e-9
        assert gain >= max(cheaper, default=0.0) - 1e-9


def test_a_matrix_that_is_not_worth_factoring_stays():
    flat = Candidate([1.0] * 10, cost=20, dense_cost=100)
    steep = Candidate([100.0, 1e-9, 1e-9], cost=20, dense_cost=100)
    assert allocate({"flat": flat, "steep": steep}, 125) == {"flat": None, "steep": 1}


def test_a_budget_below_the_least_is_refused():
    with pytest.raises(ValueError, match="least possible, 20"):
        allocate({"a": Candidate([1.0], 20, 100)}, 19)


def apply(model, **options):
    return compress(model, Recipe.from_list([{"method": "rank_budget", **options}]), CONTEXT)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
@pytest.mark.parametrize("tied", [False, True])
def test_a_share_is_kept_and_used(share, tied):
    model = make_model("lstm", tied=tied)
    numbers = sum(op.parameter_count() for op in model.weights().values())
    small = apply(model, share=share).model
    kept = sum(op.parameter_count() for op in small.weights().values())
    assert kept <= share * numbers
    assert kept >= share * numbers - 800


@pytest.mark.parametrize("size", [9_000, 14_000, 18_000, 10**7])
def test_bytes_are_those_of_the_file(size, tmp_path):
    small = apply(make_model("gru"), bytes=size).model
    small.provenance["perplexity"] = {"valid": 123.456789012345}  # as `terselm compress` does
    assert save(small, tmp_path / "small.safetensors") <= size


def test_with_all_the_bytes_nothing_changes():
    model = make_model("gru")
    result = apply(model, share=1.0)
    assert all(isinstance(op, Dense) for op in result.model.weights().values())
    assert lay_out(result.model).size >= lay_out(model).size


def test_more_bytes_lose_less():
    model = make_model("lstm")
    errors = []
    for share in (0.2, 0.4, 0.6, 0.9):
        small = apply(model, share=share, weighting="none").model
        errors.append(
            sum(
                (op.dense() - small.weights()[name].dense()).norm().item()
                / op.dense().norm().item()
                for name, op in model.weights().items()
            )
        )
    assert errors == sorted(errors, reverse=True)


def test_impossible_budgets_name_the_nearest():
    model = make_model("lstm")
    with pytest.raises(UsageError, match=r"share 0.001 is too small.*the least is 0\.\d+"):
        apply(model, share=0.001)
    with pytest.raises(UsageError, match=r"bytes 100 is too small.*the least is (\d+)") as caught:
        apply(model, bytes=100)
    least = int(str(caught.value).rpartition(" ")[2])
    assert lay_out(apply(model, bytes=least).model).size == least - HELD_BACK
    with pytest.raises(UsageError, match=f"the least is {least}"):
        apply(model, bytes=least - 1)


@pytest.mark.parametrize("options", [{}, {"bytes": 10_000, "share": 0.5}])
def test_one_budget_is_needed(options):
    with pytest.raises(UsageError, match="exactly one of bytes and share"):
        apply(make_model("lstm"), **options)


def test_only_some_weights_and_their_stored_type():
    model = make_model("lstm")
    for name, op in model.weights().items():
        model.replace_weight(name, Dense(op.dense(), "float16"))
    small = apply(model, share=0.3, weights="cells.*").model
    assert isinstance(small.weights()["output"], Dense)
    for name, op in small.weights().items():
        if isinstance(op, LowRank):
            assert name.startswith("cells.")
            assert op.left.stored_type == "float16"


def test_the_divergence_is_that_of_the_predictions():
    model = make_model("gru")
    steps = len(IDS) // 16
    tokens = torch.from_numpy(IDS[: steps * 16].astype(np.int64)).view(16, steps).T
    other = model.clone()
    changed = Dense(model.weights()["cells.1.weight_hh"].dense() * 0.9)
    other.replace_weight("cells.1.weight_hh", changed)
    with torch.no_grad():
        p, q = (
            torch.softmax(either(tokens, either.initial_state(16))[0].double(), -1)
            for either in (model, other)
        )
    expected = float((p * (p / q).log()).sum(-1).mean())
    measured = Divergence(model, IDS)
    assert measured.of("cells.1.weight_hh", changed) == pytest.approx(expected, rel=1e-3)
    # The model was put back as it was.
    assert measured.of("cells.1.weight_hh", model.weights()["cells.1.weight_hh"]) == 0
    assert measured.of("cells.1.weight_hh", changed) == pytest.approx(expected, rel=1e-3)


def test_gains_follow_the_measured_loss():
    errors = [10.0, 6.0, 3.0, 1.0, 0.0]
    # Measured 4 at error 3, 1 at error 1: slopes 1, 1.5, and 1.5 beyond.
    gains = measured_gains(errors, {2: 4.0, 3: 1.0})
    np.testing.assert_allclose(gains, [6.0, 4.5, 3.0, 1.0])
    assert measured_gains(errors, {2: 1.0, 3: 2.0})[-1] == pytest.approx(2.0)
    assert min(measured_gains(errors, {2: 1.0, 3: 2.0})) >= 0
    assert measured_gains([0.0, 0.0], {1: 0.0}) == [0.0]

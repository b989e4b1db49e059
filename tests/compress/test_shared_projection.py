"""One projection a layer: exact where the matrices allow it, and the best otherwise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.methods import shared_projection
from terselm.compress.recipe import Recipe
from terselm.compress.sensitivity import output_sensitivities
from terselm.compress.shared_projection import shared_right_factor, unit_shares
from terselm.compress.statistics import collect
from terselm.errors import UsageError
from terselm.linear.dense import Dense
from terselm.models.checkpoint import load, save
from terselm.models.config import make_config
from tests.compress.other_device import compress_elsewhere, to_other_device
from tests.tiny import WORDS, logits_of, make_model

IDS = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)
CONTEXT = Context(calibration=IDS)


def apply(model, context=None, **options):
    recipe = Recipe.from_list([{"method": "shared_projection", **options}])
    return compress(model, recipe, context).model


def limited(cell: str, rank: int, tied: bool = False):
    """A model whose matrices read only `rank` directions of each layer's output."""
    model = make_model(cell, tied=tied)
    generator = torch.Generator().manual_seed(7)
    directions = {}

    def limit(name: str, of: str) -> None:
        op = model.weights()[name]
        if of not in directions:
            basis = torch.randn(op.in_features, rank, generator=generator)
            directions[of] = torch.linalg.qr(basis)[0]
        basis = directions[of]
        model.replace_weight(name, Dense(op.dense() @ basis @ basis.T))

    limit("cells.0.weight_hh", "first")
    limit("cells.1.weight_ih", "first")
    limit("cells.1.weight_hh", "second")
    limit("embedding" if tied else "output", "second")
    if not tied:
        limit("embedding", "words")
    return model.eval()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("context", [None, CONTEXT], ids=["plain", "weighted"])
@pytest.mark.parametrize("cell", ["lstm", "rnn_tanh", "rnn_relu"])
def test_it_is_exact_where_few_directions_are_read(cell, context, tied):
    model = limited(cell, 6, tied)
    small = apply(model, context, rank=6)
    assert small.config.projection == 6
    assert small.config.embedding == 6
    assert small.config.cell == ("lstm" if cell == "lstm" else f"projected_{cell}")
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cell", ["lstm/projection", "projected_rnn_tanh"])
def test_a_projection_can_become_smaller(cell):
    model = limited(cell, 5)
    small = apply(model, rank=5)
    assert model.config.projection == 12
    assert small.config.projection == 5
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cell", ["gru", "projected_gru"])
def test_a_gru_becomes_the_variant_with_a_small_state(cell):
    model = make_model(cell)
    small = apply(model, rank=7)
    assert small.config.cell == "projected_gru"
    assert [size for state in small.initial_state(2) for part in state for size in part.shape] == [
        2,
        7,
    ] * 2
    assert torch.isfinite(logits_of(small)).all()


def test_a_gru_of_equal_gates_is_exact():
    """Where all gates of a layer are alike they commute with the projection."""
    torch.manual_seed(1)
    model = limited("gru", 6)
    for number, cell in enumerate(model.layers()):
        for name in ("weight_ih", "weight_hh"):
            weight = getattr(cell, name).dense().detach().clone()
            weight[:40] = 0  # reset and update depend on their bias only
            model.replace_weight(f"cells.{number}.{name}", Dense(weight))
        bias = cell.bias.detach().clone()
        bias[:20], bias[20:40] = 0.7, -0.4
        model.replace_bias(f"cells.{number}.bias", bias)
    small = apply(model, rank=6)
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-3, atol=1e-4)


def test_the_factor_is_the_best_that_is_shared():
    torch.manual_seed(2)
    readers = [torch.randn(9, 6), torch.randn(14, 6)]
    lefts, right = shared_right_factor(readers, 3)
    error = sum(
        (reader - left @ right).square().sum() for reader, left in zip(readers, lefts, strict=True)
    )
    tail = torch.linalg.svdvals(torch.cat(readers).double())[3:]
    assert float(error) == pytest.approx(float(tail.square().sum()), rel=1e-4)
    torch.testing.assert_close(right @ right.T, torch.eye(3), rtol=1e-5, atol=1e-5)


def test_the_weighted_factor_errs_less_on_the_inputs():
    model = make_model("lstm")
    moment = collect(model, IDS).inputs["cells.0.weight_hh"].second_moment
    readers = [model.weights()[name].dense() for name in ("cells.0.weight_hh", "cells.1.weight_ih")]
    errors = []
    for used in (None, moment):
        lefts, right = shared_right_factor(readers, 5, used, damping=1e-4)
        difference = (torch.cat(readers) - torch.cat(lefts) @ right).double()
        errors.append(((difference @ moment) * difference).sum().item())
    assert errors[1] < 0.9 * errors[0]


def test_shares_of_units_are_means():
    shares = unit_shares(torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(shares[0], torch.tensor([9 / 25, 16 / 25, 0.0]))
    assert torch.isfinite(shares).all()


@pytest.mark.parametrize("rank", [4, 11, 15])
def test_a_small_embedding_keeps_its_size(rank, tmp_path):
    model = make_model("lstm")
    small = apply(model, rank=rank)
    assert small.config.embedding == min(rank, 10)
    if rank > 10:
        assert torch.equal(small.embedding.dense(), model.embedding.dense())
    save(small, tmp_path / "small.safetensors")
    assert torch.equal(logits_of(load(tmp_path / "small.safetensors")), logits_of(small))


@pytest.mark.parametrize("tied", [False, True])
def test_weights_of_rows_are_on_the_device_of_the_matrix(tied, monkeypatch):
    model = make_model("lstm", tied=tied)
    expected = apply(model, CONTEXT, rank=6)
    statistics, felt = collect(model, IDS), output_sensitivities(model, IDS)
    inputs = {
        name: replace(found, second_moment=to_other_device(found.second_moment))
        for name, found in statistics.inputs.items()
    }
    measured = replace(statistics, inputs=inputs)
    monkeypatch.setattr(shared_projection, "collect", lambda model, ids: measured)
    monkeypatch.setattr(shared_projection, "output_sensitivities", lambda model, ids: felt)
    step = {"method": "shared_projection", "rank": 6}
    small = compress_elsewhere(monkeypatch, model, [step], CONTEXT)
    assert torch.equal(logits_of(small), logits_of(expected))


def test_float16_stays_float16():
    model = make_model("lstm")
    for name, op in model.weights().items():
        model.replace_weight(name, Dense(op.dense(), "float16"))
    small = apply(model, rank=5)
    assert {op.stored_type for op in small.weights().values()} == {"float16"}


def test_what_cannot_be_projected_says_why():
    model = make_model("lstm")
    with pytest.raises(UsageError, match="rank 20 must be smaller.*use at most 19"):
        apply(model, rank=20)
    with pytest.raises(UsageError, match="rank 12 must be smaller.*use at most 11"):
        apply(make_model("lstm/projection"), rank=12)
    with pytest.raises(UsageError, match="needs calibration text"):
        apply(model, rank=5, weighting="inputs")
    items = [
        {"method": "quantize", "weights": "output"},
        {"method": "shared_projection", "rank": 5},
    ]
    with pytest.raises(UsageError, match="takes dense weights, and output is quantized"):
        compress(model, Recipe.from_list(items))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"cell": "projected_gru"}, "a projected_gru cell needs a projection"),
        ({"cell": "projected_rnn_tanh", "projection": 200}, "must be smaller than every hidden"),
        ({"cell": "gru", "projection": 5}, "has no projection; use lstm or projected_gru"),
    ],
)
def test_a_config_that_no_cell_fits_says_what_would(values, message):
    with pytest.raises(UsageError, match=message):
        make_config(values)


def test_a_small_state_trains_from_scratch():
    model = make_model("projected_gru", tied=True).train()
    tokens = torch.arange(24).view(12, 2)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        nats, _ = model.negative_log_likelihood(tokens[:-1], tokens[1:], model.initial_state(2))
        nats.mean().backward()
        optimizer.step()
        losses.append(nats.mean().item())
    assert losses[-1] < 0.3 * losses[0]

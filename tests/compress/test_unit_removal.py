"""Units that do nothing can leave without anyone noticing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.compress.statistics import collect
from terselm.compress.unit_removal import (
    keep_units,
    readers_of_layer,
    unit_importance,
    units_to_keep,
)
from terselm.errors import UsageError
from terselm.models.checkpoint import lay_out, load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from tests.tiny import CELL_VARIANTS, WORDS, logits_of, make_model

DEAD = [0, 3, 7, 19]
IDS = np.random.default_rng(0).integers(len(WORDS), size=32 * 30).astype(np.uint16)


def silence(model, layer: int, units: list[int]) -> None:
    """Let nobody read the units."""
    groups = model.layers()[layer].unit_groups()
    names = [f"cells.{layer}.{name}" for name in groups.columns] + readers_of_layer(model, layer)
    with torch.no_grad():
        for name in names:
            model.weights()[name].weight[:, units] = 0


def prune(model, **options):
    context = Context(calibration=options.pop("calibration", None))
    recipe = Recipe.from_list([{"method": "prune_units", **options}])
    return compress(model, recipe, context).model


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("calibration", [None, IDS])
def test_unread_units_leave_the_logits_equal(cell, layer, calibration):
    model = make_model(cell)
    with torch.no_grad():  # relu would grow without bounds
        for op in model.weights().values():
            op.weight.mul_(0.3)
    silence(model, layer, DEAD)
    small = prune(model, keep=16, layers=[layer], calibration=calibration)
    assert small.config.hidden == ((16, 20) if layer == 0 else (20, 16))
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-5, atol=1e-5)
    assert lay_out(small).size < lay_out(model).size


@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_all_layers_of_a_tied_model_but_the_last(cell, tmp_path):
    model = make_model(cell, tied=True)
    silence(model, 0, DEAD)
    projected = model.config.projection is not None
    if projected:
        silence(model, 1, DEAD)
    small = prune(model, keep=16)
    assert small.config.hidden == ((16, 16) if projected else (16, 20))
    assert small.ties() == {"output": "embedding"}
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-5, atol=1e-5)
    save(small, tmp_path / "m.safetensors")
    assert torch.equal(logits_of(load(tmp_path / "m.safetensors")), logits_of(small))


def test_units_that_are_never_active_leave_the_logits_equal():
    """With zero incoming weights an LSTM's unit stays at zero, however much it is read."""
    model = make_model("lstm")
    with torch.no_grad():
        for name in ("weight_ih", "weight_hh"):
            held = getattr(model.cells[0], name).weight
            held.view(4, 20, -1)[:, DEAD] = 0
        model.cells[0].bias.view(4, 20)[:, DEAD] = 0
    for calibration in (None, IDS):
        small = prune(model, keep=16, layers=[0], calibration=calibration)
        torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-5, atol=1e-5)


def test_importance_by_its_definition():
    model = make_model("lstm")
    statistics = collect(model, IDS)
    weights = {name: op.dense().double() for name, op in model.weights().items()}
    counts = np.bincount(IDS, minlength=len(WORDS)) + 1
    for layer, readers in enumerate(
        [("cells.0.weight_hh", "cells.1.weight_ih"), ("cells.1.weight_hh", "output")]
    ):
        plain, informed = unit_importance(model, layer), unit_importance(model, layer, statistics)
        for unit in (0, 5, 19):
            incoming = sum(
                (part if part.ndim == 0 else part.mean()).item()
                for gate in range(4)
                for part in (
                    weights[f"cells.{layer}.weight_ih"][unit + 20 * gate] ** 2,
                    weights[f"cells.{layer}.weight_hh"][unit + 20 * gate] ** 2,
                    model.layers()[layer].bias[unit + 20 * gate].double() ** 2,
                )
            )
            total = with_text = 0.0
            for name in readers:
                for row, value in enumerate(weights[name][:, unit].tolist()):
                    share = counts[row] / counts.sum() if name == "output" else 1.0
                    variance = statistics.inputs[name].covariance[unit, unit].item()
                    total += value**2
                    with_text += share * value**2 * variance
            assert plain[unit].item() == pytest.approx(total * incoming, rel=1e-5)
            assert informed[unit].item() == pytest.approx(with_text * incoming, rel=1e-5)


def test_the_most_important_stay_in_order():
    importance = torch.tensor([1.0, 5.0, 3.0, 5.0, 0.0])
    assert units_to_keep(importance, 3).tolist() == [1, 2, 3]


def test_everything_kept_is_the_same_model():
    model = make_model("gru")
    same = keep_units(model, {0: torch.arange(20), 1: torch.arange(20)})
    assert torch.equal(logits_of(same), logits_of(model))


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({"keep": 0.5}, (10, 10)),
        ({"keep": 0.5, "multiple": 16}, (16, 16)),
        ({"keep": 1}, (1, 1)),
        ({"keep": 1.0}, (20, 20)),
        ({"keep": 7, "layers": [1]}, (20, 7)),
    ],
)
def test_sizes(options, sizes):
    assert prune(make_model("lstm"), **options).config.hidden == sizes


@pytest.mark.parametrize(
    ("cell", "tied", "options", "match"),
    [
        ("lstm", True, {"keep": 10, "layers": [1]}, "tied to the embedding.*prune layers 0"),
        ("lstm", False, {"keep": 10, "layers": [2]}, "no layer 2; the model has layers 0 to 1"),
        ("lstm", False, {"keep": 21}, "keep 21 .* 20 units of layer 0; use at most 20"),
        ("lstm", False, {"keep": 0.02}, "keep 0.02 leaves none .* use at least 0.05"),
        ("lstm", False, {"keep": 0.9, "multiple": 16}, "is all 20 units; use a keep of at most 16"),
        ("lstm", False, {"keep": 3, "multiple": 64}, "all 20 units; use a multiple of at most 19"),
        ("lstm/projection", False, {"keep": 12}, "projection of 12 needs more; use at least 13"),
    ],
)
def test_what_cannot_be(cell, tied, options, match):
    with pytest.raises(UsageError, match=match):
        prune(make_model(cell, tied=tied), **options)


def test_a_single_tied_layer_cannot_be_pruned():
    with pytest.raises(UsageError, match=r"the only layer feeds .* tied"):
        prune(make_model("lstm", tied=True, layers=1), keep=10)


def test_a_weight_that_is_not_dense_is_named():
    items = [{"method": "low_rank", "rank": 4}, {"method": "prune_units", "keep": 10}]
    with pytest.raises(UsageError, match=r"step 2 .*cells\.0\.weight_ih is low_rank"):
        compress(make_model("lstm"), Recipe.from_list(items))


def with_output(**options):
    torch.manual_seed(0)
    config = ModelConfig(cell="lstm", hidden=(20, 20), **options)
    model = LanguageModel(config, vocabulary_from_words(WORDS), np.arange(len(WORDS), 0, -1))
    return model.eval()


@pytest.mark.parametrize(
    "options",
    [
        {"embedding": 10, "tied": True},
        {"embedding": 10, "output": "adaptive", "cutoffs": (12, 24), "division": 2},
    ],
    ids=["tied through a projection", "adaptive"],
)
def test_other_output_layers_shrink_too(options, tmp_path):
    model = with_output(**options)
    silence(model, 1, DEAD)
    small = prune(model, keep=16, layers=[1])
    torch.testing.assert_close(logits_of(small), logits_of(model), rtol=1e-5, atol=1e-5)
    save(small, tmp_path / "m.safetensors")
    assert torch.equal(logits_of(load(tmp_path / "m.safetensors")), logits_of(small))


def test_a_projection_between_equal_sizes_is_refused():
    with pytest.raises(UsageError, match="one more or one less"):
        prune(with_output(embedding=10, tied=True), keep=10)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_a_constant_unit_is_worth_its_mean_to_the_biases(cell):
    """A unit that is always on can leave, since the biases know by how much."""
    model = make_model(cell)
    with torch.no_grad():
        for op in model.weights().values():
            op.weight.mul_(0.3)
        held = model.cells[0]
        gates = held.gates
        for name in ("weight_ih", "weight_hh"):
            getattr(held, name).weight.view(gates, 20, -1)[:, DEAD] = 0
        # GRU and RNN: new = tanh(30); LSTM: cell and output gates wide open, nothing forgotten.
        held.bias.view(gates, 20)[:, DEAD] = 30.0
        if cell == "gru":
            held.bias.view(gates, 20)[1, DEAD] = -30.0  # always take the new value
    small = prune(model, keep=16, layers=[0], calibration=IDS)
    assert small.config.hidden == (16, 20)
    # After the first steps, in which the state comes to life, nothing differs.
    settled, expected = logits_of(small)[5:], logits_of(model)[5:]
    torch.testing.assert_close(settled, expected, rtol=1e-2, atol=5e-3)

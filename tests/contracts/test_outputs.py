"""What every compression method promises, over other output layers than the plain softmax."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.models.checkpoint import lay_out, load, save
from tests.contracts.test_methods import CASES, COMPOSED, CONTEXT
from tests.tiny import OUTPUT_VARIANTS, logits_of, make_output_variant

REFUSED = {
    ("shared_projection", "projected"): "one matrix",
    ("shared_projection", "adaptive"): "one matrix",
    ("prune_vocabulary", "adaptive"): "scores every word",
}
"""Methods that say why they cannot take a model with this output layer."""


OTHER_OPTIONS = {
    ("group_reduce", "adaptive"): {"rank": 0.7, "groups": 3, "weights": "embedding"},
    ("mixed_bits", "adaptive"): {"average_bits": 6},
    # The tiny clusters have no room for positions.
    ("wanda", "adaptive"): {"sparsity": 0.5, "weights": "cells.* output.head"},
}
"""Where the first options of `CASES` do not fit."""


def items_of(name: str, variant: str) -> list[dict[str, Any]]:
    """The first options of `CASES` that are for all weights, as a recipe."""
    usual = next((case for case in CASES[name] if "weights" not in case), CASES[name][0])
    return [{"method": name, **OTHER_OPTIONS.get((name, variant), usual)}]


@pytest.mark.parametrize("variant", sorted(OUTPUT_VARIANTS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_method(name, variant, tmp_path):
    model = make_output_variant(variant)
    before = logits_of(model)
    recipe = Recipe.from_list(items_of(name, variant))
    if (name, variant) in REFUSED:
        with pytest.raises(UsageError, match=REFUSED[name, variant]):
            compress(model, recipe, CONTEXT)
        return
    small = compress(model, recipe, CONTEXT).model
    assert torch.equal(logits_of(model), before)
    assert small.ties() == model.ties()
    assert save(small, tmp_path / "small.safetensors") == lay_out(small).size
    assert torch.equal(logits_of(load(tmp_path / "small.safetensors")), logits_of(small))


@pytest.mark.parametrize("variant", sorted(OUTPUT_VARIANTS))
@pytest.mark.parametrize("number", [0, 1])
def test_composed(number, variant, tmp_path):
    model = make_output_variant(variant)
    small = compress(model, Recipe.from_list(COMPOSED[number]), CONTEXT).model
    save(small, tmp_path / "small.safetensors")
    assert torch.equal(logits_of(load(tmp_path / "small.safetensors")), logits_of(small))


def test_units_of_the_last_layer_go_from_what_reads_them():
    for variant in OUTPUT_VARIANTS:
        model = make_output_variant(variant)
        item = {"method": "prune_units", "keep": 16, "layers": [1]}
        small = compress(model, Recipe.from_list([item]), CONTEXT).model
        for name in small.output.inputs():
            assert small.weights()[name].in_features == 16


def test_a_projection_that_would_become_needless_is_refused():
    item = {"method": "prune_units", "keep": 10, "layers": [1]}
    with pytest.raises(UsageError, match="keep one more or one less"):
        compress(make_output_variant("projected"), Recipe.from_list([item]), CONTEXT)

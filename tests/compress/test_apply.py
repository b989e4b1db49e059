"""What `compress` says of steps that fail, and what it writes down of those that do not."""

from __future__ import annotations

import math

import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.methods.low_rank import LowRank
from terselm.compress.methods.prune_units import PruneUnits
from terselm.compress.recipe import Recipe
from terselm.errors import TerselmError, UsageError
from tests.tiny import make_model


def run(model, *items):
    context = Context(recover=lambda model, settings, teacher: model)
    return compress(model, Recipe.from_list(list(items)), context)


def test_steps_are_added_to_those_that_made_the_source():
    model = make_model("lstm")
    model.provenance = {"perplexity": {"valid": 80.0}, "data": "ptb"}
    first = {"method": "low_rank", "weights": "output", "rank": 4}
    second = {"method": "quantize", "weights": "*", "bits": 4}
    once = run(model, first).model
    assert once.provenance == {"data": "ptb", "recipe": [first]}
    twice = run(once, second).model
    assert twice.provenance == {"data": "ptb", "recipe": [first, second]}
    assert model.provenance["perplexity"] == {"valid": 80.0}


def test_training_of_codes_needs_codes():
    step = {"method": "recover", "train_codes": True}
    message = r"step 1 \(recover\): train_codes is set, and this model has no codes"
    with pytest.raises(UsageError, match=message):
        run(make_model("lstm"), step)
    run(make_model("lstm"), {"method": "quantize", "weights": "output"}, step)


def test_a_step_whose_result_fits_no_file_is_named():
    def diverge(model, settings, teacher):
        with torch.no_grad():
            model.weights()["output"].weight.fill_(math.nan)
        return model

    recipe = Recipe.from_list([{"method": "recover"}])
    with pytest.raises(TerselmError, match=r"step 1 \(recover\): .*output"):
        compress(make_model("lstm"), recipe, Context(recover=diverge))


def test_linear_algebra_that_fails_is_one_line(monkeypatch):
    def fail(*arguments):
        raise torch.linalg.LinAlgError("linalg.eigh: it did not converge\nat length")

    monkeypatch.setattr(LowRank, "apply_to_leaf", fail)
    monkeypatch.setattr(PruneUnits, "apply", fail)
    for item, where in (
        ({"method": "low_rank", "rank": 4, "weights": "output"}, r"\(low_rank\): output: "),
        ({"method": "prune_units", "keep": 0.5}, r"\(prune_units\): "),
    ):
        match = f"step 1 {where}the linear algebra failed .*not converge"
        with pytest.raises(TerselmError, match=match) as caught:
            run(make_model("lstm"), item)
        assert "\n" not in str(caught.value)

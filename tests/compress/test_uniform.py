"""The options that the methods of uniform quantization share."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.compress.statistics import collect
from terselm.compress.uniform import second_moment_of
from terselm.errors import UsageError
from terselm.linear.quantized import Quantized
from terselm.models.language_model import LanguageModel
from tests.tiny import WORDS, make_model

CALIBRATION = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)
CONTEXT = Context(calibration=CALIBRATION)
METHODS = ["quantize", "gptq", "activation_aware"]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "1 bits are not possible; the nearest is 2"),
        ({"bits": 6}, "the nearest is 4"),
        ({"bits": 16}, "the nearest is 8"),
        ({"group": 7}, "groups of 7 are not possible; the nearest is 8"),
        ({"group": 0}, "the nearest is 8"),
        ({"group": 37}, "the nearest is 40"),
        ({"group": "rows"}, "'rows' is not possible"),
        ({"bits": 8, "levels": "mid_rise"}, "at most 4 bits"),
        ({"bits": 4, "levels": "mid_rise", "symmetric": False}, "mid_rise is symmetric"),
    ],
)
def test_what_is_not_possible_names_what_is(method, options, message):
    with pytest.raises(UsageError, match=message):
        Recipe.from_list([{"method": method, **options}])


def test_a_percentile_needs_its_rule():
    with pytest.raises(UsageError, match="percentile goes with range: percentile"):
        Recipe.from_list([{"method": "quantize", "percentile": 99.0}])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("bits", "group"), [(8, None), (4, 32), (3, 32), (2, 16)])
def test_groups_by_default(method, bits, group):
    result = compress(
        make_model("gru"), Recipe.from_list([{"method": method, "bits": bits}]), CONTEXT
    )
    for op in result.model.weights().values():
        assert isinstance(op, Quantized)
        assert (op.bits, op.group) == (bits, group)


def test_the_paper_s_eight_bits_have_one_scale_for_a_matrix():
    step = {"method": "quantize", "group": "matrix", "symmetric": False}
    model = make_model("lstm")
    result = compress(model, Recipe.from_list([{**step, "range": "absolute_maximum"}]))
    for name, op in result.model.weights().items():
        weight = model.weights()[name].dense()
        step = (weight.max() - weight.min()) / 254
        assert op.scales.shape == op.zeros.shape == (1, 1)
        assert float(op.scales.detach()) == pytest.approx(float(step.detach()), rel=1e-3)
        assert (op.dense() - weight).abs().max() <= 0.65 * step


def test_what_column_errors_of_an_embedding_count():
    """D is an error of the embedding; what the first layer makes of it is D Wᵀ."""
    model = make_model("lstm")
    errors = torch.randn(len(WORDS), 10).double()
    seen = errors @ model.weights()["cells.0.weight_ih"].dense().detach().double().T
    moment = second_moment_of("embedding", collect(model, CALIBRATION), model)
    assert float(((errors @ moment) * errors).sum()) == pytest.approx(float(seen.square().sum()))


def test_all_that_reads_the_embedding_counts():
    """The gates of a projected GRU read it through a matrix of their own."""
    model = make_model("projected_gru")
    readers = [
        model.weights()[f"cells.0.{name}_ih"].dense().detach() for name in ("gates", "weight")
    ]
    errors = torch.randn(len(WORDS), 10).double()
    seen = sum((errors @ reader.double().T).square().sum() for reader in readers)
    moment = second_moment_of("embedding", collect(model, CALIBRATION), model)
    assert float(((errors @ moment) * errors).sum()) == pytest.approx(float(seen))


def test_what_column_errors_of_an_embedding_s_factors_count():
    model = make_model("lstm")
    recipe = [{"method": "low_rank", "rank": 5, "weights": "embedding"}]
    model = compress(model, Recipe.from_list(recipe)).model
    statistics = collect(model, CALIBRATION)
    first = model.weights()["cells.0.weight_ih"].dense().detach().double()
    right = model.embedding.right.dense().detach().double()
    moment = second_moment_of("embedding.left", statistics, model)
    torch.testing.assert_close(moment, right @ first.T @ first @ right.T)
    torch.testing.assert_close(
        second_moment_of("embedding.right", statistics, model), first.T @ first
    )


def test_a_matrix_without_inputs_is_rounded_to_nearest_and_named(caplog):
    model = make_model("lstm")
    with caplog.at_level(logging.WARNING):
        assert second_moment_of("embedding", None, None) is None
    assert "embedding has no inputs" in caplog.text
    recipe = [{"method": "gptq", "bits": 3}]
    result = compress(model, Recipe.from_list(recipe), CONTEXT)
    assert result.untouched == ()


def test_calibration_text_is_needed():
    for method in ("gptq", "activation_aware", "mixed_bits"):
        options = {"bytes": 10_000} if method == "mixed_bits" else {}
        with pytest.raises(UsageError, match="needs calibration text"):
            compress(make_model("lstm"), Recipe.from_list([{"method": method, **options}]))


def output_error(model: LanguageModel, small: LanguageModel, name: str) -> float:
    """E ‖(W - V) x‖² of a matrix that reads word vectors, on the calibration text."""
    x = model.embedding.rows(torch.from_numpy(CALIBRATION.astype(np.int64))).double()
    difference = model.weights()[name].dense() - small.weights()[name].dense()
    return (x @ difference.double().T).square().sum(-1).mean().item()


@pytest.mark.parametrize("bits", [4, 3, 2])
def test_each_step_up_in_knowledge_lowers_the_error(bits: int):
    model, name = make_model("lstm"), "cells.0.weight_ih"
    with torch.no_grad():  # inputs that differ in size
        model.weights()["embedding"].weight[:, ::3] *= 4
    errors = []
    for method in ("quantize", "activation_aware", "gptq"):
        item = {"method": method, "bits": bits, "group": "row", "weights": name}
        small = compress(model, Recipe.from_list([item]), CONTEXT).model
        errors.append(output_error(model, small, name))
    assert errors[1] < 0.95 * errors[0]
    assert errors[2] < 0.95 * errors[1]


@pytest.mark.parametrize("option", [{"act_order": True}, {"damping": 0.5}, {"sweeps": 0}])
def test_options_of_gptq_reach_the_codes(option: dict[str, object]):
    model = make_model("lstm")

    def codes(**options: object) -> torch.Tensor:
        item = {"method": "gptq", "bits": 3, "group": "row", "weights": "output", **options}
        op = compress(model, Recipe.from_list([item]), CONTEXT).model.weights()["output"]
        assert isinstance(op, Quantized)
        return op.codes

    assert torch.equal(codes(), codes())
    assert not torch.equal(codes(), codes(**option))

"""The output layer's bias in float16: bytes, rounding, what reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.evaluate.cost import inspect
from terselm.models.checkpoint import lay_out, load, save
from terselm.models.language_model import LanguageModel
from terselm.runtime import Model
from tests.runtime.reference import reference_log_probabilities
from tests.tiny import make_model, make_output_variant

HALVES = torch.tensor([0.0, -0.0, 6e-8, -6e-8, 6.1e-5, 65504.0, -65504.0, 1.0])


def with_half_bias(model: LanguageModel) -> LanguageModel:
    return compress(model, Recipe.from_list([{"method": "half_bias"}]), Context()).model


@pytest.mark.parametrize("variant", ["projected", "adaptive"])
def test_two_bytes_less_a_number(variant: str, tmp_path: Path):
    model = make_output_variant(variant)
    half = with_half_bias(model)
    stored = lay_out(half).tensors["output.bias"]
    assert stored.dtype == torch.float16
    assert torch.equal(stored, model.output.bias.half())
    part = next(part for part in inspect(half).parts if part.name == "output.bias")
    assert (part.kind, part.bytes) == ("float16", 2 * model.output.bias.numel())
    # The model in memory is what the file gives back.
    save(half, tmp_path / "model")
    again = load(tmp_path / "model")
    assert torch.equal(again.output.bias, half.output.bias)
    assert lay_out(again).header == lay_out(half).header


@pytest.mark.parametrize("variant", ["projected", "adaptive"])
def test_the_c_library_reads_it(variant: str, tmp_path: Path):
    model = with_half_bias(make_output_variant(variant))
    save(model, tmp_path / "model")
    expected = reference_log_probabilities(model, [3, 0, 7]).numpy()
    native = Model(tmp_path / "model")
    state = native.state()
    state.clear()
    for row, token in zip(expected, [3, 0, 7], strict=True):
        native.step(state, token)
        assert np.abs(native.log_probabilities(state) - row).max() < 1e-5


def test_every_kind_of_half(tmp_path: Path):
    """Zeros of both signs, subnormal and greatest numbers, each exact in C."""
    model = make_model("lstm", layers=1)
    with torch.no_grad():
        for op in model.weights().values():
            op.weight.zero_()
        model.output.bias.zero_()
        model.output.bias[: len(HALVES)] = HALVES
    save(with_half_bias(model), tmp_path / "model")
    native = Model(tmp_path / "model")
    state = native.state()
    state.clear()
    native.step(state, 0)
    bias = model.output.bias.detach().half().double()
    expected = torch.log_softmax(bias, 0).numpy()
    assert np.allclose(native.log_probabilities(state), expected, rtol=1e-6, atol=0)


def test_training_goes_on_and_is_rounded_at_its_end():
    model = with_half_bias(make_model("lstm"))
    with torch.no_grad():
        model.output.bias.add_(1e-4)
    model.settle()
    assert torch.equal(model.output.bias, model.output.bias.half().float())


def test_steps_that_build_a_new_model_keep_it():
    steps = [{"method": "half_bias"}, {"method": "prune_units", "keep": 12}]
    model = compress(make_model("lstm"), Recipe.from_list(steps), Context()).model
    assert lay_out(model).tensors["output.bias"].dtype == torch.float16


def test_a_bias_beyond_float16():
    model = make_model("lstm")
    with torch.no_grad():
        model.output.bias[3] = 7e4
    with pytest.raises(UsageError, match="70000"):
        with_half_bias(model)

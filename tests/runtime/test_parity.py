"""Python and C compute the same from the same file: every cell, form, output layer and kernel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from terselm.errors import UsageError
from terselm.evaluate.cost import inspect
from terselm.linear.base import LinearOp
from terselm.models.checkpoint import load, save
from terselm.models.language_model import LanguageModel
from terselm.runtime import Model, kernel_names
from tests.runtime.reference import reference_log_probabilities
from tests.tiny import (
    CELL_VARIANTS,
    FORM_BUILDERS,
    OUTPUT_VARIANTS,
    make_model,
    make_output_variant,
)

TOKENS = [3, 0, 7, 7, 1, 12, 5, 2]


def log_probabilities(path: Path, name: str, tokens: list[int]) -> np.ndarray:
    model = Model(path, kernels=name)
    state = model.state()
    state.clear()
    rows = []
    for token in tokens:
        model.step(state, token)
        rows.append(model.log_probabilities(state))
    return np.stack(rows)


def check(model: LanguageModel, path: Path) -> None:
    save(model, path)
    expected = reference_log_probabilities(load(path), TOKENS).numpy()
    found = {name: log_probabilities(path, name, TOKENS) for name in kernel_names()}
    for name, values in found.items():
        assert np.abs(values - expected).max() < 2e-4 * np.abs(expected).max(), name
        # Against the largest of each step: a recurrence without bounds may grow to 1e8.
        scale = 1 + np.abs(expected).max(axis=1, keepdims=True)
        assert (np.abs(values - found["portable"]) <= 1e-5 * scale).all(), name


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_every_cell(cell: str, tied: bool, tmp_path: Path) -> None:
    check(make_model(cell, tied=tied), tmp_path / "model.safetensors")


@pytest.mark.parametrize("variant", OUTPUT_VARIANTS)
def test_every_output_layer(variant: str, tmp_path: Path) -> None:
    check(make_output_variant(variant), tmp_path / "model.safetensors")


def with_form(form: str, cell: str) -> LanguageModel:
    """A model with every matrix in one form, of the size that its dense matrices had."""
    model = make_model(cell, layers=1, hidden=40)
    for name, op in model.weights().items():
        torch.manual_seed(len(name))
        model.replace_weight(name, tamed(FORM_BUILDERS[form](*op.shape)))
    return model


def tamed(op: LinearOp) -> LinearOp:
    """Scale down what makes so large a matrix that every cell would be saturated or chaotic."""
    with torch.no_grad():
        for leaf in op.leaves("w").values():
            size = leaf.dense().square().mean().sqrt()
            for name in ("scales", "values", "centroids"):
                numbers = getattr(leaf, name, None)
                if isinstance(numbers, torch.Tensor) and size > 0.3:
                    numbers.mul_(0.3 / size)
                    numbers.copy_(numbers.half().float())
                    break
    return op


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("form", FORM_BUILDERS)
def test_every_form_in_every_cell(form: str, cell: str, tmp_path: Path) -> None:
    check(with_form(form, cell), tmp_path / "model.safetensors")


@pytest.mark.parametrize("form", FORM_BUILDERS)
def test_a_token_reads_the_bytes_that_python_counts(form: str, tmp_path: Path) -> None:
    """Latency is planned by them."""
    path = tmp_path / "model.safetensors"
    save(with_form(form, "lstm"), path)
    counted = inspect(load(path))
    row = next(part.bytes_read for part in counted.weights if part.name == "embedding")
    assert Model(path).describe().read_bytes == counted.bytes_read - row


def test_kernels_that_the_machine_lacks(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make_model("lstm"), path)
    with pytest.raises(UsageError, match="cannot run kernels 'fpga'"):
        Model(path, kernels="fpga")

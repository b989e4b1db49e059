"""What every compression method promises, over every cell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import METHODS, Context
from terselm.compress.recipe import Recipe
from terselm.errors import TerselmError, UsageError
from terselm.linear.dense import Dense
from terselm.models.checkpoint import lay_out, load, save
from tests.tiny import WORDS, logits_of, make_model

CASES: dict[str, list[dict[str, Any]]] = {
    "low_rank": [
        {"rank": 4},
        {"rank": 0.5},
        {"rank": 0.5, "weighting": "inputs"},
        {"rank": 3, "gates": "separate", "weighting": "inputs", "damping": 0.1},
    ],
    "rank_budget": [{"share": 0.5}, {"bytes": 16_000}, {"share": 0.7, "weighting": "none"}],
    "group_reduce": [
        {"rank": 0.7, "groups": 3, "weights": "embedding output"},
        {"rank": 0.9, "refine": 0, "weights": "embedding"},
    ],
    "shared_projection": [{"rank": 6}, {"rank": 11, "weighting": "none"}],
    "tensor_train": [
        {"rank": 3},
        {"rank": [2, 3], "weights": "cells.*"},
        {"rank": 0.5, "cores": 2},
        {"error": 0.3, "row_shape": [7, 6], "weights": "embedding"},
    ],
    "quantize": [
        {"bits": 8},
        {"bits": 8, "group": 16},
        {"bits": 4},
        {"bits": 4, "group": "row"},
        {"bits": 4, "group": 8, "range": "absolute_maximum"},
        {"bits": 8, "group": "matrix", "symmetric": False, "range": "absolute_maximum"},
        {"bits": 3, "group": 16, "range": "percentile", "percentile": 99.0},
        {"bits": 2},
    ],
    "gptq": [
        {"bits": 4},
        {"bits": 3, "group": "row", "act_order": True},
        {"bits": 2, "group": 8, "symmetric": False, "sweeps": 0},
    ],
    "activation_aware": [{"bits": 4}, {"bits": 3, "group": "row"}],
    "mixed_bits": [
        {"average_bits": 6.8},
        {"bytes": 18_000, "rounding": "least_squares", "sensitivity": "error"},
    ],
    "magnitude": [
        {"sparsity": 0.5},
        {"sparsity": 0.8, "scope": "model", "type": "float16", "weights": "cells.*"},
        {"sparsity": 0.6, "structure": "blocks", "block": [4, 2]},
    ],
    "wanda": [{"sparsity": 0.5}, {"sparsity": 0.8, "scope": "model", "weights": "output"}],
    "second_order": [
        {"sparsity": 0.5},
        {"sparsity": 0.6, "scope": "row", "structure": "blocks", "block": [1, 2]},
        {"sparsity": 0.7, "scope": "row", "update": False},
    ],
    "prune_gradually": [{"sparsity": 0.5, "end": 1}],
    "sparse_variational": [{}, {"per": "row", "matrices": "embedding"}],
    "prune_units": [{"keep": 0.75}, {"keep": 13, "multiple": 4, "layers": [0]}],
    "prune_vocabulary": [{"keep": 30}, {"coverage": 0.7, "unknown": "keep"}],
    "kmeans": [
        {"bits": 2},
        {"bits": 3, "weighted": True},
        {"bits": 1, "scope": "matrix"},
        {"bits": 5, "scope": "matrix", "weighted": True},
    ],
    "binary_codes": [
        {"bits": 1},
        {"bits": 3, "weighted": True},
        {"bits": 2, "group": 16},
    ],
    "product_quantization": [
        {"size": 4, "centroids": 16},
        {"size": 2, "centroids": 16, "norms": True, "weighted": True},
        {"size": 8, "shared": True},
    ],
    "half_bias": [{}],
    "unpack": [{}],
    "recover": [
        {"epochs": 1},
        {"epochs": 1, "distill": True},
        {"distill": True, "distill_samples": 30},
        {"distill_hidden": 0.5},
    ],
}
"""Options of every method. A new method adds itself here."""

ALL_CASES = [(name, options) for name, cases in CASES.items() for options in cases]

COMPOSED = [
    [{"method": "low_rank", "rank": 0.6}, {"method": "quantize", "bits": 4}],
    [{"method": "low_rank", "rank": 0.6}, {"method": "quantize", "bits": 8, "weights": "cells.*"}],
    [
        {"method": "low_rank", "rank": 4},
        {"method": "quantize", "bits": 8, "weights": "output.left embedding.left"},
        {"method": "recover"},
        {"method": "quantize", "bits": 4, "weights": "cells.*"},
    ],
    [
        {"method": "low_rank", "rank": 0.6, "weights": "output"},
        {"method": "quantize", "bits": 4, "weights": "output cells.*"},
        {"method": "recover", "train_codes": True},
    ],
    [
        {"method": "low_rank", "rank": 0.6, "weights": "output"},
        {
            "method": "product_quantization",
            "weights": "output.left embedding",
            "size": 2,
            "centroids": 16,
        },
        {"method": "binary_codes", "weights": "cells.*.weight_ih", "bits": 2},
        {"method": "kmeans", "weights": "cells.*.weight_hh", "bits": 2},
        {"method": "recover", "train_codes": True},
    ],
]


def nudge(model, settings, teacher):
    """Stands for training: moves every trainable parameter, and settles."""
    taught = settings.distillation > 0 or settings.hidden_distillation > 0
    assert (teacher is not None) == taught
    model.train()
    tokens = torch.arange(12).view(6, 2)
    nats, _ = model.negative_log_likelihood(tokens, tokens, model.initial_state(2))
    nats.mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.sub_(0.01 * parameter.grad)
            parameter.grad = None
    model.settle()
    return model.eval()


CALIBRATION = np.random.default_rng(0).integers(len(WORDS), size=32 * 12).astype(np.uint16)
CONTEXT = Context(recover=nudge, calibration=CALIBRATION)


def weights_of(model) -> dict[str, torch.Tensor]:
    return {name: op.dense().detach().clone() for name, op in model.weights().items()}


def test_every_registered_method_is_under_contract():
    assert set(CASES) == set(METHODS)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(("name", "options"), ALL_CASES, ids=str)
def test_a_method_on_every_cell(cell, name, options, tied, tmp_path):
    model = make_model(cell, tied=tied)
    before = weights_of(model)
    spec_before = lay_out(model).header
    result = compress(model, Recipe.from_list([{"method": name, **options}]), CONTEXT)

    # The source is as it was.
    assert lay_out(model).header == spec_before
    assert all(torch.equal(op, before[key]) for key, op in weights_of(model).items())
    # Ties stay tied, nothing is skipped without a word.
    assert result.model.ties() == model.ties()
    after = weights_of(result.model)
    alike = {key for key, op in after.items() if torch.equal(op, before.get(key, op[:0]))}
    assert set(result.untouched) <= alike
    others = alike - set(result.untouched)
    assert all(result.model.weights()[key].kind != "dense" for key in others)
    named = set(result.steps[0].weights)
    assert not named or set(after) - named <= set(result.untouched)
    # The file holds exactly this model, at the stated bytes.
    path = tmp_path / "small.safetensors"
    assert save(result.model, path) == path.stat().st_size
    assert torch.equal(logits_of(load(path)), logits_of(result.model))


@pytest.mark.parametrize("items", COMPOSED, ids=range(len(COMPOSED)))
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_composed_steps_round_trip(cell, items, tied, tmp_path):
    model = make_model(cell, tied=tied)
    if tied:
        items = [
            {**item, "weights": item["weights"].replace("output.left ", "")}
            if "weights" in item
            else item
            for item in items
        ]
    result = compress(model, Recipe.from_list(items), CONTEXT)
    path = tmp_path / "small.safetensors"
    save(result.model, path)
    again = load(path)
    assert torch.equal(logits_of(again), logits_of(result.model))
    assert again.provenance["recipe"] == Recipe.from_list(items).as_list()
    assert Recipe.from_list(again.provenance["recipe"]) == Recipe.from_list(items)


@pytest.mark.parametrize(("name", "options"), ALL_CASES, ids=str)
def test_train_and_eval_again_after_a_method(name, options):
    result = compress(make_model("lstm"), Recipe.from_list([{"method": name, **options}]), CONTEXT)
    model = result.model
    before = logits_of(model)
    model.train()
    tokens = (torch.arange(24) % len(model.vocabulary)).view(12, 2)
    nats, _ = model.negative_log_likelihood(tokens, tokens, model.initial_state(2))
    nats.mean().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
    assert torch.equal(logits_of(model.eval()), before)


@pytest.mark.parametrize(("name", "options"), ALL_CASES, ids=str)
def test_a_model_of_float16_stays_one(name, options):
    model = make_model("lstm")
    for key, op in model.weights().items():
        model.replace_weight(key, Dense(op.dense(), "float16"))
    result = compress(model, Recipe.from_list([{"method": name, **options}]), CONTEXT)
    types = {key: getattr(op, "stored_type", None) for key, op in result.model.leaves().items()}
    assert set(types.values()) <= {"float16", None}, types


def test_full_rank_is_exact(cell):
    model = make_model(cell)
    smallest = {name: min(op.shape) for name, op in model.weights().items()}
    items = [
        {"method": "low_rank", "weights": name, "rank": rank} for name, rank in smallest.items()
    ]
    result = compress(model, Recipe.from_list(items))
    torch.testing.assert_close(logits_of(result.model), logits_of(model), rtol=1e-4, atol=1e-5)


def test_matrices_that_are_already_codes_are_kept_exactly(cell):
    """Integers times a power of two are what 8 bits can hold without any loss."""
    model = make_model(cell)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for op in model.weights().values():
            codes = torch.randint(-127, 128, op.shape, generator=generator)
            codes[:, 0] = 127
            op.weight.copy_(codes / 256)
    result = compress(model, Recipe.from_list([{"method": "quantize", "bits": 8}]))
    for name, op in result.model.weights().items():
        assert torch.equal(op.dense(), model.weights()[name].dense())


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_source_is_unchanged_when_a_step_fails(name):
    model = make_model("gru")
    before = weights_of(model)
    items = [{"method": name, **CASES[name][0]}, {"method": "low_rank", "rank": 10_000}]
    with pytest.raises(UsageError, match="step 2"):
        compress(model, Recipe.from_list(items), CONTEXT)
    assert all(torch.equal(op, before[key]) for key, op in weights_of(model).items())


@pytest.mark.parametrize(("first", "second"), [("quantize", "low_rank"), ("quantize", "quantize")])
def test_a_form_that_a_method_cannot_take_is_named(first, second):
    items = [{"method": first}, {"method": second, **CASES[second][0]}]
    with pytest.raises(UsageError, match=rf"\({second}\): takes dense.* weights, and embedding is"):
        compress(make_model("lstm"), Recipe.from_list(items))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("name", "options"), ALL_CASES, ids=str)
def test_a_weight_that_is_not_finite_is_named(name, options, value):
    model = make_model("lstm")
    with torch.no_grad():
        model.weights()["cells.1.weight_hh"].weight[3, 4] = value
    with pytest.raises(TerselmError, match=r"cells\.1\.weight_hh.*NaN or infinite"):
        compress(model, Recipe.from_list([{"method": name, **options}]), CONTEXT)

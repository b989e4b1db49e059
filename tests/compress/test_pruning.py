"""What pruning leaves of whole models."""

from __future__ import annotations

import dataclasses
import re

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe, make_method
from terselm.compress.statistics import STREAMS, WARM_UP, collect
from terselm.errors import UsageError
from terselm.linear.base import tensor_bytes
from terselm.linear.dense import Dense
from terselm.linear.row_blocks import RowBlocks
from terselm.linear.sparse import Sparse
from terselm.models.checkpoint import lay_out, load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from tests.tiny import CELL_VARIANTS, WORDS, logits_of, make_model, random_quantized

IDS = np.random.default_rng(0).integers(len(WORDS), size=32 * 60).astype(np.uint16)
CONTEXT = Context(calibration=IDS)
METHODS = ("magnitude", "wanda", "second_order")


def run(model, *items):
    return compress(model, Recipe.from_list(items), CONTEXT).model


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("tied", [False, True])
def test_sparsity_zero_is_exact(cell, method, tied):
    model = make_model(cell, tied=tied)
    small = run(model, {"method": method, "sparsity": 0})
    assert torch.equal(logits_of(small), logits_of(model))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sparsity", [0.25, 0.6, 0.95])
def test_as_many_zeros_as_asked_for(method, sparsity):
    options = {"scope": "matrix"} if method != "magnitude" else {}
    small = run(make_model("lstm"), {"method": method, "sparsity": sparsity, **options})
    for op in small.weights().values():
        total = op.out_features * op.in_features
        assert op.kind == "sparse"
        assert int((op.dense() == 0).sum()) == round(sparsity * total)
        assert op.parameter_count() == total - round(sparsity * total)
        assert tensor_bytes(op.tensors()) < 4 * total


def test_magnitude_keeps_the_largest_as_they_were():
    model = make_model("gru")
    small = run(model, {"method": "magnitude", "sparsity": 0.7})
    for name, op in model.weights().items():
        before, after = op.dense(), small.weights()[name].dense()
        kept = after != 0
        assert torch.equal(after[kept], before[kept])
        assert before[kept].abs().min() >= before[~kept].abs().max()


def test_one_threshold_for_the_model_is_the_brute_force_one():
    model = make_model("lstm", tied=True)
    with torch.no_grad():
        model.embedding.weight.mul_(2)  # or nothing of it would stay
    small = run(model, {"method": "magnitude", "sparsity": 0.6, "scope": "model"})
    everything = torch.cat([op.dense().abs().flatten() for op in model.weights().values()])
    threshold = everything.sort().values[round(0.6 * len(everything))]
    for name, op in model.weights().items():
        expected = op.dense() * (op.dense().abs() >= threshold)
        assert torch.equal(small.weights()[name].dense(), expected)


def test_the_threshold_is_over_the_selected_weights_only():
    model = make_model("lstm")
    item = {"method": "magnitude", "sparsity": 0.5, "scope": "model", "weights": "cells.0.*"}
    small = run(model, item)
    total = zeros = 0
    for name, op in small.weights().items():
        if name.startswith("cells.0."):
            total += op.out_features * op.in_features
            zeros += int((op.dense() == 0).sum())
        else:
            assert torch.equal(op.dense(), model.weights()[name].dense())
    assert zeros == round(total / 2)


def test_a_matrix_that_one_threshold_leaves_full_stays_dense():
    model = make_model("lstm")
    with torch.no_grad():
        model.weights()["output"].weight.mul_(1000)
        model.embedding.weight.mul_(2)
    item = {"method": "magnitude", "sparsity": 0.5, "scope": "model"}
    small = run(model, item)
    output = small.weights()["output"]
    assert output.kind == "dense"
    assert torch.equal(output.dense(), model.weights()["output"].dense())
    assert small.weights()["cells.0.weight_hh"].kind == "sparse"


@pytest.mark.parametrize("structure", ["weights", "blocks"])
def test_one_threshold_that_leaves_nothing_of_a_matrix_is_refused(structure):
    model = make_model("lstm")
    with torch.no_grad():
        model.weights()["cells.0.weight_ih"].weight.mul_(1e-4)
    item = {"method": "magnitude", "sparsity": 0.6, "scope": "model", "structure": structure}
    item["weights"] = "cells.*"
    with pytest.raises(UsageError, match=rf"of the \d+ {structure} of cells\.0\.weight_ih"):
        run(model, item)


def test_one_threshold_goes_on_from_sparse_matrices():
    """A matrix may be less sparse than is asked of the whole, and lose nothing."""
    model = make_model("lstm")
    first = {"method": "magnitude", "sparsity": 0.5, "weights": "output"}
    with torch.no_grad():
        model.weights()["output"].weight.mul_(1000)
    small = run(model, first, {"method": "magnitude", "sparsity": 0.4, "scope": "model"})
    once = run(model, first)
    assert torch.equal(small.weights()["output"].dense(), once.weights()["output"].dense())
    total = sum(op.dense().numel() for op in small.weights().values())
    zeros = sum(int((op.dense() == 0).sum()) for op in small.weights().values())
    assert zeros == round(0.4 * total)


def test_the_type_is_that_asked_for_also_where_nothing_goes():
    model = make_model("lstm")
    half = {"method": "magnitude", "sparsity": 0, "type": "float16"}
    small = run(model, {"method": "magnitude", "sparsity": 0.5, "weights": "output"}, half)
    assert {op.stored_type for op in small.weights().values()} == {"float16"}
    assert small.weights()["output"].kind == "sparse"
    before = model.weights()["embedding"].dense()
    assert torch.equal(small.weights()["embedding"].dense(), before.half().float())


def test_factors_are_pruned_as_factors():
    item = {"method": "low_rank", "rank": 12, "weights": "output"}
    for method in METHODS:
        small = run(
            make_model("lstm"), item, {"method": method, "sparsity": 0.6, "weights": "output"}
        )
        output = small.weights()["output"]
        assert [leaf.kind for leaf in output.leaves().values()] == ["sparse", "sparse"]


def test_blocks_go_whole():
    item = {"method": "magnitude", "sparsity": 0.6, "structure": "blocks", "block": [4, 2]}
    model = make_model("lstm")
    small = run(model, item)
    for name, op in small.weights().items():
        assert op.kind == "block_sparse"
        rows, columns = op.shape
        worth = {
            (i, j): op_part(model.weights()[name].dense(), i, j).square().sum().item()
            for i in range(-(-rows // 4))
            for j in range(-(-columns // 2))
        }
        gone = sorted(worth, key=worth.__getitem__)[: round(0.6 * len(worth))]
        for place in worth:
            part = op_part(op.dense(), *place)
            before = op_part(model.weights()[name].dense(), *place)
            assert torch.equal(part, torch.zeros_like(part) if place in gone else before)


def op_part(weight, i, j):
    return weight[4 * i : 4 * i + 4, 2 * j : 2 * j + 2]


def output_error(model, small) -> float:
    """E ‖(W − V) x + (b − c)‖² on the text, from the definition."""
    tokens = torch.from_numpy(IDS.astype(np.int64).reshape(STREAMS, -1).T.copy())
    with torch.no_grad():
        hidden = model.hidden(tokens, model.initial_state(STREAMS)).output[WARM_UP:]
    x = hidden.flatten(0, 1).double()
    difference = model.weights()["output"].dense().double()
    difference = difference - small.weights()["output"].dense().double()
    shift = model.output.bias.double() - small.output.bias.double()
    return (x @ difference.T + shift).square().sum(-1).mean().item()


def test_each_step_up_in_knowledge_lowers_the_error():
    model = make_model("lstm")
    item = {"sparsity": 0.6, "weights": "output"}
    plain = run(model, {**item, "method": "magnitude"})
    by_input = run(model, {**item, "method": "wanda", "scope": "matrix"})
    item |= {"method": "second_order", "frequency": 0}
    at_once, in_rounds = (run(model, {**item, "rounds": rounds}) for rounds in (1, 6))
    errors = [output_error(model, small) for small in (plain, by_input, at_once, in_rounds)]
    assert errors == sorted(errors, reverse=True)
    assert errors[2] < 0.7 * errors[1]
    assert errors[3] < 0.95 * errors[2]


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("name", ["cells.1.weight_hh", "cells.0.weight_ih", "output"])
def test_the_bias_makes_up_for_the_mean(cell, name):
    model = make_model(cell)
    with torch.no_grad():  # relu would grow without bounds
        for op in model.weights().values():
            op.weight.mul_(0.3)
    small = run(model, {"method": "second_order", "sparsity": 0.5, "weights": name})
    mean = collect(model, IDS).inputs[name].mean.float()
    moved = {
        key: small.biases()[key] - bias
        for key, bias in model.biases().items()
        if not torch.equal(bias, small.biases()[key])
    }
    difference = (model.weights()[name].dense() - small.weights()[name].dense()) @ mean
    if cell == "gru" and name.endswith("weight_hh"):
        total = moved["cells.1.bias"].clone()
        assert not total[-20:].any()
        total[-20:] += moved["cells.1.bias_hn"]
    else:
        assert len(moved) == 1
        (total,) = moved.values()
    torch.testing.assert_close(total, difference, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "projected_gru"])
def test_columns_of_an_embedding_count_by_all_that_reads_them(cell, blocks):
    model = make_model(cell)
    weight = model.embedding.dense().detach()
    if blocks:
        model.replace_weight("embedding", RowBlocks([Dense(weight[:9]), Dense(weight[9:])]))
    readers = torch.cat(
        [op.dense() for name, op in model.weights().items() if re.match(r"cells\.0\..*_ih", name)]
    )
    context = dataclasses.replace(CONTEXT, statistics=collect(model, IDS), model=model)
    method = make_method("second_order", {"sparsity": 0.5, "update": False, "damping": 1e-8})
    leaves = {name: op for name, op in model.leaves().items() if name.startswith("embedding")}
    assert len(leaves) == (2 if blocks else 1)
    for name, leaf in leaves.items():
        scores = method.scores(leaf, name, context)
        expected = leaf.dense().detach().square() * readers.detach().square().sum(0)
        torch.testing.assert_close(scores.detach(), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("factor", ["left", "right"])
def test_factors_of_a_looked_up_embedding_err_in_the_first_layer(factor):
    model = make_model("lstm")
    reader = torch.randn(80, 10) * torch.logspace(0, -2, 10) @ torch.randn(10, 10)
    model.replace_weight("cells.0.weight_ih", Dense(reader))  # few directions matter
    low = {"method": "low_rank", "weights": "embedding", "rank": 8}
    before = run(model, low).embedding.dense().detach()
    errors = {}
    for method in ("magnitude", "second_order"):
        step = {"method": method, "weights": f"embedding.{factor}", "sparsity": 0.8}
        difference = run(model, low, step).embedding.dense().detach() - before
        errors[method] = float((difference @ reader.T).square().sum())
    assert errors["second_order"] < 0.5 * errors["magnitude"]


@pytest.mark.parametrize("damping", [1e-5, 1e-8])
def test_little_damping_is_solved(damping):
    """With 32 inputs of 64 numbers the second moment has no inverse but for the damping."""
    model = make_model("lstm", hidden=64)
    context = Context(calibration=IDS[: 32 * (WARM_UP + 1)])
    step = {"method": "second_order", "sparsity": 0.6, "weights": "cells.0.weight_hh"}
    statistics = collect(model, context.calibration).inputs["cells.0.weight_hh"]
    assert statistics.count < 64
    errors = []
    for share in (0.01, damping):
        small = compress(model, Recipe.from_list([{**step, "damping": share}]), context).model
        before, after = (m.weights()["cells.0.weight_hh"].dense().detach() for m in (model, small))
        difference = (before - after).double()
        errors.append(float(((difference @ statistics.covariance) * difference).sum()))
    assert errors[1] < 1.2 * errors[0]  # other weights may have gone


def test_too_little_damping_names_the_least():
    with pytest.raises(UsageError, match="damping: .*greater than or equal to") as caught:
        Recipe.from_list([{"method": "second_order", "sparsity": 0.5, "damping": 1e-9}])
    assert "\n" not in str(caught.value)


def test_the_sparse_form_must_be_smaller():
    with pytest.raises(UsageError, match=r"step 1 .*output at sparsity 0\.0.*prune to about 0\."):
        run(make_model("lstm"), {"method": "magnitude", "sparsity": 0.01, "weights": "output"})


def test_the_sparsity_that_the_message_names_is_enough():
    model = make_model("lstm")
    item = {"method": "magnitude", "weights": "output"}
    with pytest.raises(UsageError) as caught:
        run(model, {**item, "sparsity": 0.01})
    share = float(str(caught.value).split("prune to about ")[1].split(",")[0])
    run(model, {**item, "sparsity": share + 0.005})


def test_pruning_again_goes_on_from_there():
    model = make_model("lstm")
    item = {"method": "magnitude", "weights": "output"}
    twice = run(model, {**item, "sparsity": 0.4}, {**item, "sparsity": 0.7})
    once = run(model, {**item, "sparsity": 0.7})
    assert torch.equal(twice.weights()["output"].dense(), once.weights()["output"].dense())
    with pytest.raises(UsageError, match=r"step 2 .*output has sparsity 0\.7.* already"):
        run(model, {**item, "sparsity": 0.7}, {**item, "sparsity": 0.4})


def test_a_form_that_cannot_be_pruned_is_named():
    model = make_model("lstm")
    model.replace_weight("output", random_quantized(37, 20, 8, None))
    with pytest.raises(UsageError, match=r"takes dense or sparse or block_sparse .* is quantized"):
        run(model, {"method": "magnitude", "sparsity": 0.5})


@pytest.mark.parametrize("method", ["wanda", "second_order"])
def test_calibration_text_is_needed(method):
    with pytest.raises(UsageError, match="needs calibration text; give --data"):
        compress(make_model("lstm"), Recipe.from_list([{"method": method, "sparsity": 0.5}]))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"sparsity": 1.0}, "sparsity"),
        ({"sparsity": -0.1}, "sparsity"),
        ({"sparsity": 0.5, "block": [3, 4]}, "block"),
        ({"sparsity": 0.5, "scope": "row"}, "scope"),
        ({}, "sparsity"),
    ],
)
def test_wrong_options(options, match):
    with pytest.raises(UsageError, match=match):
        Recipe.from_list([{"method": "magnitude", **options}])


def test_float16_stays_float16():
    model = make_model("lstm")
    model.replace_weight("output", Dense(model.weights()["output"].dense(), "float16"))
    small = run(model, {"method": "magnitude", "sparsity": 0.5, "weights": "output"})
    op = small.weights()["output"]
    assert isinstance(op, Sparse) and op.stored_type == "float16"


def test_the_context_is_not_changed():
    before = dataclasses.asdict(dataclasses.replace(CONTEXT, calibration=None))
    run(make_model("lstm"), {"method": "second_order", "sparsity": 0.5})
    assert dataclasses.asdict(dataclasses.replace(CONTEXT, calibration=None)) == before


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("structure", ["weights", "blocks"])
def test_pruning_then_quantizing_keeps_the_zeros(bits, structure, tmp_path):
    model = make_model("lstm")
    prune = {"method": "magnitude", "sparsity": 0.6, "structure": structure, "block": [4, 4]}
    pruned = run(model, prune)
    small = run(model, prune, {"method": "quantize", "bits": bits})
    for name, op in small.weights().items():
        assert op.kind in ("sparse_quantized", "block_sparse_quantized")
        before, after = pruned.weights()[name].dense(), op.dense()
        assert not after[before == 0].any()
        # No worse than rounding to the range of the largest value of each row.
        step = (before.abs().amax(1, keepdim=True) / (2 ** (bits - 1) - 1)).half().float()
        rounded = torch.where(step > 0, (before / step).round() * step, before)
        error = (after - before).square().sum(1)
        limit = (rounded - before).square().sum(1)
        half = before.square().sum(1) * 2**-21  # scales are float16
        assert (error <= limit * 1.001 + half).all()
    assert save(small, tmp_path / "m.safetensors") < lay_out(pruned).size
    again = load(tmp_path / "m.safetensors")
    assert torch.equal(logits_of(again), logits_of(small))


def test_options_of_quantize_that_sparse_values_do_not_have():
    prune = {"method": "magnitude", "sparsity": 0.5}
    for options, match in (({"bits": 8, "group": 16}, "leave group"), ({"bits": 3}, "8 or 4 bits")):
        with pytest.raises(UsageError, match=match):
            run(make_model("lstm"), prune, {"method": "quantize", **options})


def test_the_parts_of_an_adaptive_output_are_pruned():
    torch.manual_seed(0)
    config = ModelConfig(hidden=(20,), embedding=10, output="adaptive", cutoffs=(12,))
    counts = np.bincount(IDS, minlength=len(WORDS))
    model = LanguageModel(config, vocabulary_from_words(WORDS), counts).eval()
    small = run(model, {"method": "second_order", "sparsity": 0.7, "weights": "output*"})
    for name, op in small.weights().items():
        assert (op.kind == "sparse") == name.startswith("output")
    assert not torch.equal(small.output.bias, model.output.bias)

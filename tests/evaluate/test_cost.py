"""The parts of a file add up to the file, byte for byte."""

from __future__ import annotations

import copy
import json

import pytest

from terselm.evaluate.cost import describe, inspect, look_up_cost
from terselm.linear.base import Cost
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.linear.placed_blocks import Place, PlacedBlocks
from terselm.linear.tensor_train import TensorTrain
from terselm.models.checkpoint import save
from tests.tiny import (
    CELL_VARIANTS,
    FORM_BUILDERS,
    make_model,
    random_low_rank,
    random_quantized,
    random_sparse,
)


def with_form(model, form):
    for name, op in model.weights().items():
        model.replace_weight(name, FORM_BUILDERS[form](*op.shape))
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_parts_of_every_cell_add_up_to_the_file(cell, tied, tmp_path):
    model = make_model(cell, tied=tied)
    found = inspect(model)
    assert sum(part.bytes for part in found.parts) == found.bytes
    assert found.bytes == save(model, tmp_path / "m") == (tmp_path / "m").stat().st_size
    assert sum(part.share for part in found.parts) == pytest.approx(1)
    assert found.parameters == model.parameter_count()


@pytest.mark.parametrize("form", FORM_BUILDERS)
def test_parts_of_every_form_add_up_to_the_file(form, tmp_path):
    model = with_form(make_model("gru"), form)
    found = inspect(model)
    size = save(model, tmp_path / "m")
    assert sum(part.bytes for part in found.parts) == found.bytes == size
    assert found.parameters == model.parameter_count()
    for part in found.weights:
        if part.leaves:
            # A look-up uses one of several blocks.
            additive = form.startswith(("low_rank", "tensor_train"))
            more = ("macs", "bytes_read") if additive else ()
            for attribute in ("bytes", "parameters", *more):
                total = sum(getattr(leaf, attribute) for leaf in part.leaves)
                if form.startswith("grouped_rows") and attribute == "bytes":
                    # The order of the rows is in no block.
                    rows = part.shape[0]
                    assert part.bytes - total in (rows, 2 * rows, 4 * rows)
                elif form == "placed_blocks" and attribute == "bytes":
                    # Nor is what the blocks are multiplied with.
                    assert part.bytes - total == 4 * len(part.leaves)
                else:
                    assert total == getattr(part, attribute), (part.name, attribute)


def test_counts_of_a_dense_lstm_by_hand():
    found = inspect(make_model("lstm", layers=2, hidden=20))  # embedding 10, 37 words
    weights = {part.name: part for part in found.weights}
    assert list(weights) == [
        "embedding",
        "cells.0.weight_ih",
        "cells.0.weight_hh",
        "cells.1.weight_ih",
        "cells.1.weight_hh",
        "output",
    ]
    embedding = weights["embedding"]
    assert (embedding.macs, embedding.bytes_read, embedding.bytes) == (0, 40, 37 * 40)
    first = weights["cells.0.weight_ih"]
    assert (first.macs, first.bytes_read, first.bytes) == (800, 3200, 3200)
    assert (first.shape, first.kind) == ((80, 10), "dense")
    assert found.macs == 80 * 10 + 3 * 80 * 20 + 37 * 20
    biases = 4 * (80 + 80 + 37)
    assert found.bytes_read == 40 + 4 * found.macs + biases
    assert found.parameters == 37 * 10 + found.macs + biases // 4


def test_a_tied_weight_is_stored_once_and_read_for_the_output():
    found = inspect(make_model("lstm", tied=True, hidden=20))
    names = [part.name for part in found.weights]
    assert "output" not in names
    embedding = found.weights[0]
    assert embedding.tied == ("output",)
    assert embedding.macs == 37 * 20
    assert embedding.bytes_read == embedding.bytes == 37 * 20 * 4
    assert found.as_dict()["weights"][0]["tied"] == ["output"]


def test_cost_of_a_look_up():
    quantized = random_quantized(37, 16, 8, None)
    assert look_up_cost(quantized) == Cost(quantized.cost().bytes, 0, 16 + 2)
    grouped = random_quantized(37, 16, 4, 8)
    assert look_up_cost(grouped) == Cost(grouped.cost().bytes, 0, 8 + 2 * 2)
    right = Dense.initialize(3, 10)
    product = LowRank(Dense.initialize(37, 3), right)
    assert look_up_cost(product) == Cost(product.cost().bytes, 30, 3 * 4 + 120)
    nested = LowRank(LowRank(Dense.initialize(37, 2), Dense.initialize(2, 3)), right)
    assert look_up_cost(nested) == Cost(nested.cost().bytes, 6 + 30, 2 * 4 + 24 + 120)


def test_weights_that_multiply_more_than_dense_ones():
    model = make_model("lstm", layers=1, hidden=20)  # embedding 10, 37 words
    # 80 x 10: 9 · (80 + 10) = 810 of 800. 80 x 20: 16 · (80 + 20) is exactly 1,600.
    model.replace_weight("cells.0.weight_ih", random_low_rank(80, 10, 9))
    model.replace_weight("cells.0.weight_hh", random_low_rank(80, 20, 16))
    # 37 x 20 by digits (5, 8) and (4, 5), rank 6: 8 · (5 · 4 · 6) + 4 · (6 · 8 · 5) of 740.
    train = TensorTrain.initialize((5, 8), (4, 5), (6,), (37, 20))
    model.replace_weight("output", train)
    found = inspect(model)
    assert {part.name: part.macs for part in found.weights} == {
        "embedding": 0,
        "cells.0.weight_ih": 810,
        "cells.0.weight_hh": 1600,
        "output": 960 + 960,
    }
    assert [leaf.macs for leaf in found.weights[-1].leaves] == [960, 960]
    slower = {"cells.0.weight_ih": 810 / 800, "output": 1920 / 740}
    assert found.as_dict()["more_macs_than_dense"] == pytest.approx(slower)
    assert found.macs == 810 + 1600 + 1920


@pytest.mark.parametrize(
    "op",
    [
        random_low_rank(37, 10, 4),
        TensorTrain.initialize((5, 8), (2, 5), (3,), (37, 10)),
        LowRank(random_low_rank(37, 4, 2), Dense.initialize(4, 10)),
    ],
)
def test_a_tied_weight_is_multiplied_and_looked_up(op):
    tied = make_model("lstm", layers=1, hidden=10, tied=True)
    tied.replace_weight("embedding", op)
    untied = make_model("lstm", layers=1, hidden=10)
    untied.replace_weight("embedding", op)
    untied.replace_weight("output", copy.deepcopy(op))
    first, *_, last = inspect(untied).weights
    found = inspect(tied).weights[0]
    assert found.macs == first.macs + last.macs
    pairs = zip(first.leaves, last.leaves, strict=True)
    assert [leaf.macs for leaf in found.leaves] == [a.macs + b.macs for a, b in pairs]


def test_a_sparse_weight_multiplies_what_it_keeps():
    model = make_model("lstm", layers=1, hidden=20)
    model.replace_weight("output", random_sparse(37, 20, 0.5))
    found = inspect(model)
    kept = int((model.weights()["output"].dense() != 0).sum())
    assert kept <= found.weights[-1].macs < 37 * 20
    assert found.more_than_dense == ()


def test_a_row_of_a_train_of_other_forms():
    inner = LowRank(Dense.initialize(6 * 4, 3), Dense.initialize(3, 5))
    train = TensorTrain([Dense.initialize(5, 4 * 6), inner], (5, 4), (4, 5), (20, 20))
    # Of the second core 6 rows are made, 3 · 5 each, and 4 vectors multiply them, 6 · 5 each.
    assert look_up_cost(train).macs == 6 * 3 * 5 + 4 * 6 * 5
    model = make_model("lstm", layers=1, hidden=20)
    model.replace_weight(
        "cells.0.weight_hh",
        TensorTrain(
            [
                Dense.initialize(16, 4 * 6),
                LowRank(Dense.initialize(6 * 5, 3), Dense.initialize(3, 5)),
            ],
            (16, 5),
            (4, 5),
            (80, 20),
        ),
    )
    part = inspect(model).weights[2]
    # The first core is used for 5 row digits after it, the second for 4 column digits before it.
    expected = [5 * 16 * 24, 4 * 30 * 3, 4 * 3 * 5]
    assert [leaf.macs for leaf in part.leaves] == expected
    assert part.macs == sum(expected)


def test_description_of_forms():
    assert describe(FORM_BUILDERS["dense"](8, 8)) == "dense"
    assert describe(FORM_BUILDERS["dense/float16"](8, 8)) == "dense float16"
    assert describe(random_quantized(8, 8, 8, None)) == "quantized 8-bit"
    assert describe(random_quantized(8, 64, 4, 32)) == "quantized 4-bit, groups of 32"
    mixed = LowRank(random_quantized(8, 3, 8, None), Dense.initialize(3, 8))
    assert describe(mixed) == "low_rank(left: quantized 8-bit, right: dense)"


def test_leaves_are_named_as_recipes_name_them():
    found = inspect(with_form(make_model("lstm"), "low_rank/low_rank"))
    names = [leaf.name for leaf in found.weights[1].leaves]
    assert names == [
        "cells.0.weight_ih.left.left",
        "cells.0.weight_ih.left.right",
        "cells.0.weight_ih.right",
    ]


def test_json():
    model = make_model("lstm/projection")
    model.provenance = {"data": "none"}
    values = json.loads(json.dumps(inspect(model).as_dict(), allow_nan=False))
    assert values["bytes"] > 0
    assert values["cell"] == "lstm"
    assert values["layers"] == 2
    assert values["hidden"] == [20, 20]
    assert values["projection"] == 12
    assert values["vocabulary_size"] == 37
    assert values["provenance"] == {"data": "none"}
    row = values["weights"][0]
    assert {"name", "kind", "shape", "bytes", "macs", "share"} <= set(row)
    assert [part["name"] for part in values["others"]][-3:] == ["vocabulary", "header", "fillers"]


def test_a_row_of_placed_blocks_is_in_some_of_them():
    left, right = Dense.initialize(6, 3), random_low_rank(2, 4)
    op = PlacedBlocks([left, right], [Place(0, 0), Place(4, 3)], (6, 7))
    found = look_up_cost(op)
    # The last two rows: one of the dense block, one by way of the factors.
    alone = look_up_cost(right)
    assert (found.macs, found.bytes_read) == (alone.macs, alone.bytes_read + 4 * 3)
    assert found.bytes == op.cost().bytes

"""The tensor-train form against explicit loops, its cost, and what no file may say."""

from __future__ import annotations

import itertools

import pytest
import torch

from terselm.errors import TerselmError
from terselm.linear import tensor_train
from terselm.linear.base import op_from_file
from terselm.linear.dense import Dense
from terselm.linear.tensor_train import TensorTrain

SHAPE = (22, 17)
ROWS, COLUMNS, RANKS = (3, 4, 2), (2, 3, 3), (4, 5)


def build() -> TensorTrain:
    torch.manual_seed(0)
    return TensorTrain.initialize(ROWS, COLUMNS, RANKS, SHAPE)


def looped(op: TensorTrain) -> torch.Tensor:
    """Every number of the padded matrix as a product of small matrices, in float64."""
    edges = (1, *RANKS, 1)
    cores = [
        core.dense().detach().double().view(edges[m], ROWS[m], COLUMNS[m], edges[m + 1])
        for m, core in enumerate(op.children_by_name().values())
    ]
    matrix = torch.zeros(24, 18, dtype=torch.float64)
    for i, rows in enumerate(itertools.product(*map(range, ROWS))):
        for j, columns in enumerate(itertools.product(*map(range, COLUMNS))):
            product = torch.ones(1, 1, dtype=torch.float64)
            for m, core in enumerate(cores):
                product = product @ core[:, rows[m], columns[m]]
            matrix[i, j] = product.item()
    return matrix[: SHAPE[0], : SHAPE[1]]


def test_every_way_to_the_matrix_is_the_loop():
    op = build()
    expected = looped(op)
    torch.testing.assert_close(op.dense().double(), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(op.rows(torch.arange(22)).double(), expected, rtol=1e-5, atol=1e-6)
    x = torch.randn(3, 2, 17)
    torch.testing.assert_close(op(x).double(), x.double() @ expected.T, rtol=1e-4, atol=1e-5)


def test_neither_products_nor_rows_build_the_matrix(monkeypatch):
    op = build()
    monkeypatch.setattr(TensorTrain, "dense", lambda self: pytest.fail("built the matrix"))
    op(torch.randn(3, 17))
    op.rows(torch.arange(5))


@pytest.mark.parametrize("count", [0, 1, 7])
@pytest.mark.parametrize("most", [1, 200])
def test_few_vectors_at_a_time_are_the_same(monkeypatch, count: int, most: int):
    """What lies between two cores is large, so many vectors are taken some at a time."""
    op, x = build(), torch.randn(count, 17)
    with torch.no_grad():
        whole = op(x)
        chunks = []
        monkeypatch.setattr(tensor_train, "LARGEST_BETWEEN", most)
        chain = op._chain
        monkeypatch.setattr(op, "_chain", lambda part: chunks.append(part) or chain(part))
        torch.testing.assert_close(op(x), whole)
    assert sum(len(part) for part in chunks) == count
    assert max(len(part) for part in chunks) <= max(1, most // op._largest_between())


def test_many_vectors_in_training_go_by_way_of_the_matrix(monkeypatch):
    op = build()
    x = torch.randn(500, SHAPE[1])
    built = []
    dense = TensorTrain.dense
    monkeypatch.setattr(TensorTrain, "dense", lambda self: built.append(1) or dense(self))
    with torch.no_grad():
        chained = op(x)
    assert not built
    product = op(x)
    assert built
    torch.testing.assert_close(product, chained, rtol=1e-5, atol=1e-6)
    assert not op(x[:1]).isnan().any() and len(built) == 1  # one vector is not worth it


@pytest.mark.parametrize(
    ("rows", "columns", "ranks"),
    [(ROWS, COLUMNS, RANKS), ((20, 40), (10, 20), (8,)), ((5, 5, 8), (4, 5, 5), (3, 3))],
)
@pytest.mark.parametrize("bound", [None, 0.1])
def test_initialize_has_the_variance_of_a_dense_matrix(rows, columns, ranks, bound):
    for seed in range(5):
        torch.manual_seed(seed)
        op = TensorTrain.initialize(rows, columns, ranks, bound=bound)
        # That of the uniform distribution that `Dense.initialize` draws from.
        width = 1 / op.in_features**0.5 if bound is None else bound
        expected = width**2 / 3
        matrix = op.dense()
        assert matrix.square().mean().item() == pytest.approx(expected, rel=1e-3)
        assert matrix.var().item() == pytest.approx(expected, rel=0.1)


def test_the_cost_of_a_row_is_that_of_its_products():
    op = build()
    # Core 0 gives [2, 4]; core 1 multiplies it by [4, 15], core 2 multiplies [6, 5] by [5, 3].
    assert op.row_cost().macs == 2 * 4 * 15 + 6 * 5 * 3
    # One of 3, 4 and 2 row digits of each core, 4 bytes a number.
    assert op.row_cost().bytes_read == 4 * (2 * 4 + 4 * 15 + 5 * 3)


def test_the_cost_of_a_product_is_that_of_every_use_of_a_core():
    op = build()
    macs = {name: cost.macs for name, cost in op.core_costs().items()}
    # Columns of the digits before times rows of the digits after, times the numbers of the core.
    assert macs == {
        "core0": 4 * 2 * (3 * 2 * 4),
        "core1": 2 * 2 * (4 * 4 * 3 * 5),
        "core2": 2 * 3 * (5 * 2 * 3),
    }
    assert op.cost().macs == 192 + 960 + 180
    seen = []
    for core in op.cores:
        core.register_forward_pre_hook(
            lambda core, inputs: seen.append(inputs[0].numel() * core.out_features)
        )
    op(torch.randn(17))
    assert seen == [180, 960, 192]


def refused(message: str, **changes) -> None:
    op = build()
    spec = {**op.spec(), **changes}
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    with pytest.raises(TerselmError, match=f"^w: .*{message}"):
        op_from_file(spec, stored, "w")


@pytest.mark.parametrize(
    ("message", "changes"),
    [
        ("row_shape is None", {"row_shape": None}),
        ("row_shape is", {"row_shape": [3, 4, 0]}),
        ("row_shape is", {"row_shape": [3, 4, True]}),
        ("row_shape is", {"row_shape": [3, 4, 2.0]}),
        ("row_shape is", {"row_shape": []}),
        ("row_shape is", {"row_shape": [1] * 10_000}),
        ("column_shape is", {"column_shape": "233"}),
        ("column_shape is", {"column_shape": [2, 3, 2**40]}),
        ("row_shape .* makes 2500", {"row_shape": [50, 50]}),
        ("column_shape .* makes 12", {"column_shape": [2, 3, 2]}),
        ("column_shape .* makes 18000", {"column_shape": [2, 3, 3000]}),
        ("core0 is", {"row_shape": [4, 3, 2]}),
        ("row_shape has 3 factors and column_shape 2", {"column_shape": [6, 3]}),
        ("core0: unknown stored form None", {"core0": {}}),
        ("core2: its description", {"core2": None}),
        ("ranks is", {"ranks": [4, -5]}),
        ("ranks is", {"ranks": None}),
        (r"cores have ranks \[4, 5\]", {"ranks": [5, 4]}),
        ("row_shape .* expected 90 to 180", {"shape": [90, 17]}),
    ],
)
def test_a_hostile_description_is_refused(message, changes):
    refused(message, **changes)


def test_a_core_of_the_wrong_rank_is_refused():
    op = build()
    other = Dense.initialize(8, 15)
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    stored["w.core1.weight"] = other.tensors()["weight"]
    with pytest.raises(TerselmError, match="^w: core1 is .*expected 16 rows"):
        op_from_file({**op.spec(), "core1": other.spec()}, stored, "w")


def test_a_chain_that_does_not_close_is_refused():
    cores = [Dense.initialize(3, 4), Dense.initialize(8, 6)]
    with pytest.raises(TerselmError, match=r"core1 is \[8, 6\], expected 3 columns"):
        TensorTrain(cores, (3, 4), (2, 3), (12, 6))


def test_the_largest_between_is_what_cores_put_out():
    op = build()
    seen = [17]
    for core in op.children_by_name().values():
        core.register_forward_hook(lambda _, __, out: seen.append(out.numel()))
    with torch.no_grad():
        op(torch.randn(1, 17))
    assert op._largest_between() == max(seen[1:])

"""What every stored form promises."""

from __future__ import annotations

import json

import pytest
import torch

from terselm.errors import TerselmError
from terselm.linear.base import FORMS, op_from_file, tensor_bytes
from tests.tiny import FORM_BUILDERS

SHAPES = [(23, 17), (64, 32), (80, 40), (131, 9), (1, 1)]


def test_every_registered_form_is_under_contract():
    assert {name.partition("/")[0] for name in FORM_BUILDERS} == set(FORMS)


def counted_macs(op) -> int:
    """Multiplications of one product with one vector: what each leaf is called with, counted.

    A leaf multiplies with every number that it stores.
    """
    counted = []

    def record(leaf, inputs):
        vectors = inputs[0].numel() // leaf.in_features
        counted.append(vectors * leaf.parameter_count())

    hooks = [leaf.register_forward_pre_hook(record) for leaf in op.leaves().values()]
    op(torch.randn(op.in_features))
    for hook in hooks:
        hook.remove()
    return sum(counted)


@pytest.mark.parametrize("shape", SHAPES)
def test_forward_is_the_product_with_the_dense_matrix(form_builder, shape):
    op = form_builder(*shape)
    x = torch.randn(4, 3, shape[1])
    expected = (x.double() @ op.dense().double().T).float()
    torch.testing.assert_close(op(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_rows_are_rows_of_the_dense_matrix(form_builder, shape):
    op = form_builder(*shape)
    ids = torch.randint(shape[0], (5, 2))
    torch.testing.assert_close(op.rows(ids), op.dense()[ids], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_no_ids_have_no_rows(form_builder, shape):
    for ids in (torch.zeros(0, dtype=torch.int64), torch.zeros(3, 0, dtype=torch.int64)):
        assert form_builder(*shape).rows(ids).shape == (*ids.shape, shape[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_file_gives_the_same_matrix_bit_for_bit(form_builder, shape):
    op = form_builder(*shape)
    spec = json.loads(json.dumps(op.spec()))
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    again = op_from_file(spec, stored, "w")
    assert torch.equal(again.dense(), op.dense())
    assert again.spec() == op.spec()
    assert again.shape == op.shape == shape


@pytest.mark.parametrize("shape", SHAPES)
def test_cost_is_that_of_the_stored_tensors(form_builder, shape):
    op = form_builder(*shape)
    cost = op.cost()
    assert cost.bytes == tensor_bytes(op.tensors())
    assert 0 < cost.bytes_read <= cost.bytes
    assert cost.macs == counted_macs(op) > 0
    assert op.parameter_count() > 0


def test_gradients_reach_every_float_parameter(form_builder):
    op = form_builder(23, 17)
    op(torch.randn(4, 17)).square().sum().backward()
    parameters = list(op.parameters())
    assert parameters
    for parameter in parameters:
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    op.zero_grad()
    op.rows(torch.arange(23)).square().sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in op.parameters())


def test_map_leaves_visits_every_leaf_and_keeps_the_matrix(form_builder):
    op = form_builder(23, 17)
    seen = []
    same = op.map_leaves(lambda leaf, name: seen.append(name) or leaf, "w")
    assert seen == list(op.leaves("w"))
    assert torch.equal(same.dense(), op.dense())


def test_settling_makes_trained_values_what_the_file_holds(form_builder):
    op = form_builder(23, 17)
    with torch.no_grad():
        for parameter in op.parameters():
            parameter.add_(torch.randn_like(parameter) * 1e-3)
    before = op.dense().detach().clone()
    op.settle()
    assert torch.equal(op.dense(), before)
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    assert torch.equal(op_from_file(op.spec(), stored, "w").dense(), before)


def test_a_missing_or_misshaped_tensor_is_named(form_builder):
    op = form_builder(23, 17)
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    for name in stored:
        rest = {key: value for key, value in stored.items() if key != name}
        leaf = name.rpartition(".")[2]
        with pytest.raises(TerselmError, match=f"w.*{leaf}.*missing"):
            op_from_file(op.spec(), rest, "w")
        with pytest.raises(TerselmError, match=f"w.*{leaf}.*expected"):
            op_from_file(op.spec(), {**stored, name: stored[name].reshape(-1)[:-1]}, "w")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "no_such_form"},
        {"kind": 7},
        {"shape": None},
        {"shape": [23]},
        {"shape": [0, 17]},
        {"shape": [23, -17]},
        {"shape": [2**40, 17]},
        {"shape": [23.0, 17]},
        {"shape": [True, 17]},
    ],
)
def test_an_impossible_description_is_refused(form_builder, change):
    op = form_builder(23, 17)
    stored = {f"w.{name}": tensor for name, tensor in op.tensors().items()}
    with pytest.raises(TerselmError, match="^w: "):
        op_from_file({**op.spec(), **change}, stored, "w")

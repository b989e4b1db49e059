"""The LSTM's written-out gradient: against differences, torch's kernel and float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from terselm.cells.lstm_training import SMALL, is_better, train_sequence

STEPS, BATCH, INPUT, HIDDEN, OUTPUT = 5, 2, 3, 4, 2


def arguments(
    projected: bool, dtype: torch.dtype = torch.float64, hidden: int = HIDDEN, steps: int = STEPS
) -> list[Tensor]:
    """xs, output, cell, weight_ih, weight_hh, bias and perhaps weight_hr, all with gradients."""
    torch.manual_seed(0)
    output = OUTPUT if projected else hidden
    shapes = [
        (steps, BATCH, INPUT),
        (BATCH, output),
        (BATCH, hidden),
        (4 * hidden, INPUT),
        (4 * hidden, output),
        (4 * hidden,),
        *([(output, hidden)] if projected else []),
    ]
    return [torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes]


def run(xs: Tensor, output: Tensor, cell: Tensor, *weights: Tensor) -> tuple[Tensor, ...]:
    weight_hr = weights[3] if len(weights) == 4 else None
    outputs, after = train_sequence(xs, (output, cell), weights[:3], weight_hr)
    return (outputs, *after)


@pytest.mark.parametrize("projected", [False, True])
def test_the_gradient_is_the_difference_quotient(projected: bool):
    assert torch.autograd.gradcheck(run, arguments(projected))


@pytest.mark.parametrize("projected", [False, True])
def test_every_result_and_gradient_is_torchs(projected: bool):
    given = arguments(projected)
    xs, output, cell, weight_ih, weight_hh, bias, *projection = given
    state = (output.unsqueeze(0), cell.unsqueeze(0))
    weights = [weight_ih, weight_hh, bias, torch.zeros_like(bias), *projection]
    outputs, *after = torch.lstm(xs, state, weights, True, 1, 0.0, True, False, False)
    expected = (outputs, *(part[0] for part in after))
    found = run(*given)
    torch.testing.assert_close(found, expected)
    weighting = [torch.randn_like(each) for each in expected]
    gradients = [
        torch.autograd.grad(sum((a * b).sum() for a, b in zip(each, weighting, strict=True)), given)
        for each in (found, expected)
    ]
    torch.testing.assert_close(*gradients)


def test_what_needs_no_gradient_gets_none():
    given = arguments(projected=False)
    for fixed in given[:3]:
        fixed.requires_grad_(False)
    run(*given)[0].sum().backward()
    assert all(each.grad is None for each in given[:3])
    assert all(each.grad is not None for each in given[3:])


def test_a_cell_adds_up_small_amounts_in_bfloat16():
    """A cell in bfloat16 would stand still where a step adds less than 1/256 of it."""
    steps, hidden = 400, 3
    xs, output, cell = torch.zeros(steps, 1, 1), torch.zeros(1, hidden), torch.ones(1, hidden)
    # Forgets nothing, lets an eighth of tanh(0.02) in.
    gates = torch.tensor([-1.95, 30.0, 0.02, 0.0])
    bias = gates.repeat_interleave(hidden)
    weights = (torch.zeros(4 * hidden, 1), torch.zeros(4 * hidden, hidden), bias)
    with torch.autocast("cpu", torch.bfloat16):
        _, (_, after) = train_sequence(xs, (output, cell), weights, None)
    gate, value = torch.sigmoid(gates[0]).item(), torch.tanh(gates[2]).item()
    assert after.dtype == torch.float32
    assert after[0, 0].item() == pytest.approx(1 + steps * gate * value, rel=1e-3)
    assert gate * value < 1 / 256


@pytest.mark.parametrize("projected", [False, True])
def test_bfloat16_is_near_float64(projected: bool):
    exact = arguments(projected, hidden=32, steps=20)
    with torch.no_grad():
        for each in exact[3:]:
            each.mul_(0.3)
    rounded = [each.detach().float().requires_grad_() for each in exact]
    with torch.autocast("cpu", torch.bfloat16):
        found = run(*rounded)
    wanted = run(*exact)
    assert all(each.dtype == torch.float32 for each in found)
    for results in (found, wanted):
        sum(each.square().sum() for each in results).backward()
    for one, other in zip(rounded, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert one.grad.dtype == torch.float32
        assert (one.grad - other.grad).norm() < 0.03 * other.grad.norm()


def test_where_it_is_preferred_to_torchs_kernel():
    xs = torch.zeros(1, 1, 1)
    assert is_better(xs, SMALL, projected=False)
    assert not is_better(xs, SMALL - 1, projected=False)
    assert is_better(xs, 8, projected=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert is_better(xs, 8, projected=False)
    with torch.no_grad():
        assert not is_better(xs, SMALL, projected=True)

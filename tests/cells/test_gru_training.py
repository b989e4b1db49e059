"""The GRU's written-out gradient: against differences, torch's kernel and float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from terselm.cells.gru_training import train_sequence


def arguments(hidden: int = 4, steps: int = 5, inputs: int = 3, batch: int = 2) -> list[Tensor]:
    """xs, output, weight_ih, weight_hh, bias and bias_hn, float64, all with gradients."""
    torch.manual_seed(0)
    shapes = [
        (steps, batch, inputs),
        (batch, hidden),
        (3 * hidden, inputs),
        (3 * hidden, hidden),
        (3 * hidden,),
        (hidden,),
    ]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


def test_the_gradient_is_the_difference_quotient():
    assert torch.autograd.gradcheck(train_sequence, arguments())


def test_every_result_and_gradient_is_torchs():
    given = arguments()
    xs, output, weight_ih, weight_hh, bias, bias_hn = given
    bias_hh = torch.cat([bias_hn.new_zeros(8), bias_hn])
    weights = [weight_ih, weight_hh, bias, bias_hh]
    expected, _ = torch.gru(xs, output.unsqueeze(0), weights, True, 1, 0.0, True, False, False)
    found = train_sequence(*given)
    torch.testing.assert_close(found, expected)
    weighting = torch.randn_like(expected)
    gradients = [torch.autograd.grad((each * weighting).sum(), given) for each in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_what_needs_no_gradient_gets_none():
    given = arguments()
    for fixed in given[:2]:
        fixed.requires_grad_(False)
    train_sequence(*given).sum().backward()
    assert all(each.grad is None for each in given[:2])
    assert all(each.grad is not None for each in given[2:])


def test_an_output_moves_by_small_amounts_in_bfloat16():
    """An output in bfloat16 would stand still where a step adds less than 1/256 of it."""
    steps = 400
    xs, output = torch.zeros(steps, 1, 1), torch.full((1, 1), 0.5)
    # The new gate is 1, and a step goes 1/1000 of the way to it.
    update = torch.logit(torch.tensor(0.999)).item()
    bias = torch.tensor([0.0, update, 30.0])
    with torch.autocast("cpu", torch.bfloat16):
        outputs = train_sequence(
            xs, output, torch.zeros(3, 1), torch.zeros(3, 1), bias, torch.zeros(1)
        )
    assert outputs.dtype == torch.float32
    assert outputs[-1].item() == pytest.approx(1 - 0.5 * 0.999**steps, rel=1e-3)


def test_bfloat16_is_near_float64():
    exact = arguments(hidden=32, steps=20)
    with torch.no_grad():
        for each in exact[2:]:
            each.mul_(0.3)
    rounded = [each.detach().float().requires_grad_() for each in exact]
    with torch.autocast("cpu", torch.bfloat16):
        found = train_sequence(*rounded)
    assert found.dtype == torch.float32
    for results in (found, train_sequence(*exact)):
        results.square().sum().backward()
    for one, other in zip(rounded, exact, strict=True):
        assert one.grad is not None and other.grad is not None
        assert one.grad.dtype == torch.float32
        assert (one.grad - other.grad).norm() < 0.03 * other.grad.norm()

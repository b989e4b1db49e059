"""Quantization-aware training: rounded forward, straight through backward."""

from __future__ import annotations

import pytest
import torch

from terselm.compress.rounding import Grid, quantize_uniform
from terselm.linear.coded import Latent, with_latents, without_latents
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from tests.tiny import random_quantized

FORMS = [(8, None), (8, 16), (4, None), (4, 8)]


@pytest.mark.parametrize(("bits", "group"), FORMS)
def test_rounding_codes_again_changes_nothing(bits, group):
    op = random_quantized(20, 30, bits, group)
    again = op.reround(op.dense().detach())
    torch.testing.assert_close(again.dense(), op.dense(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("bits", "group"), FORMS)
def test_forward_is_the_coded_matrix_and_the_gradient_passes(bits, group):
    latent = Latent(random_quantized(20, 30, bits, group)).train()
    with torch.no_grad():
        latent.weight.add_(torch.randn_like(latent.weight) * 0.05)
    weighting = torch.randn(20, 30)
    dense = latent.dense()
    (dense * weighting).sum().backward()
    assert torch.equal(dense, latent.coded.dense())
    assert not torch.equal(dense, latent.weight)
    torch.testing.assert_close(latent.weight.grad, weighting)


def test_codes_can_be_learned():
    """A 4-bit matrix that starts far away finds a target made of 4-bit codes."""
    target = random_quantized(16, 16, 4, None)
    start = random_quantized(16, 16, 4, None)
    latent = Latent(start).train()
    optimizer = torch.optim.Adam(latent.parameters(), lr=0.02)
    before = (start.dense() - target.dense()).norm()
    for _ in range(150):
        optimizer.zero_grad()
        (latent.dense() - target.dense().detach()).square().sum().backward()
        optimizer.step()
    latent.settle()
    assert (latent.coded.dense() - target.dense()).norm() < 0.2 * before


def test_latents_go_in_and_out_of_composed_forms():
    op = LowRank(random_quantized(20, 6, 8, None), Dense.initialize(6, 30))
    inside = with_latents(op)
    assert isinstance(inside.left, Latent)
    assert isinstance(inside.right, Dense)
    assert torch.equal(without_latents(inside).dense(), op.dense())


@pytest.mark.parametrize(("bits", "group"), FORMS)
def test_a_latent_starts_at_what_was_rounded(bits, group):
    weight = torch.randn(20, 30)
    op = quantize_uniform(weight, Grid(bits, group))
    latent = Latent(op, weight)
    assert torch.equal(op.reround(latent.weight.detach()).codes, op.codes)
    # Rounding to nearest: nearly all of the weight can be kept.
    assert (latent.weight.detach() == weight).float().mean() > 0.95


def test_a_latent_that_its_codes_do_not_round_to_comes_as_near_as_it_can():
    weight = torch.randn(20, 30)
    op = quantize_uniform(weight, Grid(4))
    moved = weight.clone()
    moved[:, ::3] += 10 * op.scales.max()
    latent = Latent(op, moved).weight.detach()
    assert torch.equal(op.reround(latent).codes, op.codes)
    assert ((latent - op.dense()).abs() <= (moved - op.dense()).abs() + 1e-6).all()


def test_a_latent_of_another_shape_starts_in_the_middle():
    op = random_quantized(20, 30, 4, None)
    assert torch.equal(Latent(op, torch.randn(20, 31)).weight, op.dense())

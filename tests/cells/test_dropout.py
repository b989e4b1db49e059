"""Masks: how many values are left out, which, and that the mean stays."""

from __future__ import annotations

import pytest
import torch

from terselm.cells.dropout import dropout, keep_mask


@pytest.mark.parametrize("probability", [0.1, 0.35, 0.5, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_share_left_out(probability: float, dtype: torch.dtype):
    torch.manual_seed(0)
    mask = keep_mask((301, 333), probability, torch.empty(0, dtype=dtype))
    count = mask.numel()
    assert mask.shape == (301, 333)
    assert mask.dtype == dtype
    deviation = (probability * (1 - probability) / count) ** 0.5
    assert abs((mask == 0).double().mean().item() - probability) < 5 * deviation
    kept = mask[mask != 0].double()
    torch.testing.assert_close(
        kept, torch.full_like(kept, 1 / (1 - probability)), rtol=4e-3, atol=0
    )


def test_values_fall_out_independently():
    """Four values come from one random number, so neighbours are what could hang together."""
    torch.manual_seed(0)
    left_out = (keep_mask((400_000,), 0.3, torch.empty(0)) == 0).double()
    for distance in (1, 2, 3, 4, 5):
        together = (left_out[distance:] * left_out[:-distance]).mean().item()
        assert abs(together - 0.09) < 0.003
    for place in range(4):
        assert abs(left_out[place::4].mean().item() - 0.3) < 0.01


def test_the_generator_decides():
    x = torch.ones(1000)
    torch.manual_seed(1)
    first, second = dropout(x, 0.5), dropout(x, 0.5)
    torch.manual_seed(1)
    assert torch.equal(dropout(x, 0.5), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("probability", [0.0, 1e-9])
def test_nothing_is_left_out_for_nothing(probability: float):
    x = torch.randn(1000)
    assert torch.equal(dropout(x, probability), x)


def test_almost_everything():
    mask = keep_mask((1 << 20,), 1 - 1e-9, torch.empty(0))
    assert torch.isfinite(mask).all()
    assert 0 < (mask != 0).sum() < 100

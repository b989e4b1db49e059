"""Every stored form and every cell, as fixtures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from terselm.linear.base import LinearOp
from tests.tiny import CELL_VARIANTS, FORM_BUILDERS


@pytest.fixture(params=sorted(FORM_BUILDERS))
def form_builder(request) -> Callable[[int, int], LinearOp]:
    torch.manual_seed(0)
    return FORM_BUILDERS[request.param]


@pytest.fixture(params=sorted(CELL_VARIANTS))
def cell(request) -> str:
    return request.param

"""Low rank: a rank that saves nothing."""

from __future__ import annotations

import pytest

from terselm.errors import TerselmError
from tests.tiny import random_low_rank


def test_a_rank_beyond_both_sides_is_refused():
    """The C library refuses such a file, and a small one may state a rank of any size."""
    with pytest.raises(TerselmError, match=r"rank is 21, more than \[12, 20\] has"):
        random_low_rank(12, 20, 21)
    assert random_low_rank(12, 20, 20).rank == 20

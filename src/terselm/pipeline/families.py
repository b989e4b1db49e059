"""Which methods are of one kind, by their names in recipes."""

from __future__ import annotations

RANKS = ("low_rank", "rank_budget")
PRUNING = ("magnitude", "wanda", "second_order", "prune_units", "prune_gradually")
CODES = ("quantize", "gptq", "kmeans", "activation_aware", "mixed_bits", "binary_codes")
TRAINING = ("recover", "prune_gradually", "sparse_variational")

"""Targets that no recipe can meet: one line with the method, the option and what would do."""

from __future__ import annotations

import pytest

from terselm.models.checkpoint import save
from tests.tiny import make_model

# The model: LSTM, 2 layers of 20 units, embedding 37 x 10, output 37 x 20.
CASES = [
    ("low_rank, rank: 0", ["rank: ", "greater than or equal to 1", "greater than 0"]),
    ("low_rank, rank: 1.5", ["rank: ", "a whole number", "less than or equal to 1"]),
    ("low_rank, rank: 5000", ["rank 5000", "embedding", "at most 10"]),
    # Rank 1 of 37 x 10 is 47 of 370 numbers.
    ("low_rank, rank: 0.01", ["rank 0.01", "embedding", "at least 0.1271"]),
    # One gate of 20 x 10 is 30 of 200 numbers at rank 1.
    (
        "low_rank, rank: 0.01, gates: separate, weights: cells.0.weight_ih",
        ["rank 0.01", "cells.0.weight_ih", "at least 0.15"],
    ),
    ("rank_budget, share: 0.01", ["share 0.01", "the least is 0.0"]),
    ("rank_budget, share: 2", ["share: ", "less than or equal to 1"]),
    ("rank_budget, bytes: 100", ["bytes 100", "the least is "]),
    ("group_reduce, rank: 0.01, weights: output", ["rank 0.01", "output", "at least 0."]),
    ("group_reduce, rank: 0.5, groups: 99, weights: output", ["groups 99", "at most 37"]),
    ("shared_projection, rank: 0", ["rank: ", "greater than or equal to 1"]),
    ("shared_projection, rank: 20", ["rank 20", "at most 19"]),
    ("tensor_train, rank: 0.01", ["rank 0.01", "embedding", "at least 0."]),
    ("tensor_train, rank: [2, 0]", ["rank.1: ", "greater than or equal to 1"]),
    ("tensor_train, rank: 2, cores: 1", ["cores: ", "greater than or equal to 2"]),
    ("tensor_train, rank: 2, row_shape: [2, 2]", ["row_shape [2, 2]", "37 to 74", "[3, 13]"]),
    ("quantize, bits: 1", ["bits: ", "nearest is 2"]),
    ("quantize, group: 7", ["group: ", "nearest is 8"]),
    ("quantize, levels: mid_rise, bits: 8", ["levels mid_rise", "at most 4 bits"]),
    ("gptq, bits: 1", ["bits: ", "nearest is 2"]),
    ("gptq, group: 7", ["group: ", "nearest is 8"]),
    ("activation_aware, bits: 9", ["bits: ", "nearest is 8"]),
    ("activation_aware, group: 7", ["group: ", "nearest is 8"]),
    ("mixed_bits, average_bits: 1.5", ["average_bits 1.5", "nearest is "]),
    ("mixed_bits, bytes: 100", ["100 bytes", "nearest is "]),
    # 369 of 370 weights of the embedding may go, 739 of 740 of the output, 19 of a row of 20.
    ("magnitude, sparsity: 0.9999", ["sparsity 0.9999", "embedding", "at most 0.9972"]),
    ("magnitude, sparsity: 0.9999, weights: output", ["sparsity 0.9999", "output", "0.9986"]),
    # 370 + 2 · 80 · 20 + 80 · 10 + 80 · 20 + 740 = 6,710 weights.
    (
        "magnitude, sparsity: 0.99999, scope: model",
        ["sparsity 0.99999", "6,710 weights", "at most 0.9998"],
    ),
    # 5 x 5 blocks of 8 x 4 in the output of 37 x 20.
    (
        "magnitude, sparsity: 0.99, structure: blocks, block: [8, 4], weights: output",
        ["sparsity 0.99", "25 blocks", "at most 0.96"],
    ),
    ("wanda, sparsity: 0.99, weights: output", ["sparsity 0.99", "a row", "at most 0.95"]),
    ("wanda, sparsity: 1.0", ["sparsity: ", "less than 1"]),
    ("second_order, sparsity: 0.9999", ["sparsity 0.9999", "embedding", "at most 0.9972"]),
    ("prune_gradually, sparsity: 0.9999, end: 1", ["sparsity 0.9999", "at most 0.9972"]),
    ("prune_gradually, sparsity: 0.5, begin: 9, end: 9", ["begin 9", "end of at least 10"]),
    ("prune_gradually, sparsity: 0.5, initial: 0.9, end: 9", ["initial 0.9", "at most 0.5"]),
    ("prune_gradually, sparsity: 0.5, end: 1, matrices: out", ["matrices: 'out'", "'output'"]),
    ("sparse_variational, matrices: outptu", ["matrices: 'outptu'", "'output'"]),
    ("prune_units, keep: 0", ["keep: ", "greater than or equal to 1"]),
    ("prune_units, keep: 0.01", ["keep 0.01", "at least 0.05"]),
    ("prune_units, keep: 21", ["keep 21", "at most 20"]),
    ("prune_units, keep: 0.9, multiple: 16", ["keep 0.9", "multiples of 16", "at most 16"]),
    ("prune_units, keep: 0.5, layers: [7]", ["layers: ", "layer 7", "0 to 1"]),
    ("prune_vocabulary, keep: 2", ["keep: ", "greater than or equal to 3"]),
    ("prune_vocabulary, keep: 99", ["keep is 99", "at most 37"]),
    ("prune_vocabulary, coverage: 0", ["coverage: ", "greater than 0"]),
    ("kmeans, bits: 0", ["bits: ", "greater than or equal to 1"]),
    ("kmeans, bits: 7", ["bits is 7", "2 to 4", "scope: matrix"]),
    ("binary_codes, bits: 5", ["bits: ", "less than or equal to 4"]),
    ("binary_codes, group: 7", ["group: ", "multiple of 8", "'row'"]),
    ("product_quantization, size: 16", ["size 16", "embedding", "at most 10"]),
    ("product_quantization, centroids: 3", ["centroids: ", "256 or 16"]),
    ("recover, epochs: 0", ["epochs: ", "greater than 0"]),
    ("recover, batch: 5000", ["2640 tokens", "a batch of at most 2640"]),
]


@pytest.mark.parametrize(("line", "words"), CASES, ids=[line for line, _ in CASES])
def test_a_target_that_cannot_be_met_names_the_nearest(
    terselm, model_file, corpus, tmp_path, line, words
):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "small.safetensors"
    recipe.write_text(f"- {{method: {line}}}\n")
    result = terselm("compress", model_file, "--recipe", recipe, "--data", corpus, "--out", out)
    assert result.code in (1, 2)
    assert result.stdout == ""
    message = result.stderr.strip().splitlines()[-1]
    assert message.startswith("terselm: ")
    assert f"step 1 ({line.partition(',')[0]}): " in message
    for word in words:
        assert word in message
    # No name of a type of pydantic's, which no recipe has.
    assert "constrained" not in message
    assert not out.exists()


@pytest.mark.parametrize(
    "line",
    [
        "low_rank, rank: 0.1271, weights: embedding",
        "magnitude, sparsity: 0.9972, weights: embedding",
        "magnitude, sparsity: 0.96, structure: blocks, block: [8, 4], weights: output",
        "wanda, sparsity: 0.95, weights: output",
        "prune_units, keep: 0.05",
        "prune_units, keep: 16, multiple: 16",
        "product_quantization, size: 10, weights: embedding",
        "prune_gradually, sparsity: 0.9972, end: 1, matrices: embedding",
    ],
)
def test_the_value_that_is_named_works(terselm, model_file, corpus, tmp_path, line):
    recipe, out = tmp_path / "recipe.yaml", tmp_path / "small.safetensors"
    recipe.write_text(f"- {{method: {line}}}\n")
    result = terselm("compress", model_file, "--recipe", recipe, "--data", corpus, "--out", out)
    assert result.code == 0, result.stderr


def test_the_least_share_is_that_of_rank_one(terselm, tmp_path):
    """Rank 1 of 37 x 40 is 77 of 1,480 numbers, to four digits upwards."""
    model, recipe = tmp_path / "model.safetensors", tmp_path / "recipe.yaml"
    save(make_model("lstm", hidden=40), model)
    recipe.write_text("- {method: low_rank, rank: 0.001, weights: output}\n")
    result = terselm("compress", model, "--recipe", recipe, "--out", tmp_path / "small")
    assert "use at least 0.0521" in result.stderr

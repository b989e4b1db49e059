"""From a compressed model back to one that can be trained, compressed and searched."""

from __future__ import annotations

import pytest

from terselm.evaluate.perplexity import perplexity
from terselm.models.checkpoint import load
from tests.cli.conftest import Result

CODES_STAY = "its codes stay"
UNPACK = "--recipe unpack"


@pytest.fixture
def small(terselm, model_file, tmp_path):
    path = tmp_path / "small.safetensors"
    assert terselm("compress", model_file, "--recipe", "quantize", "--out", path).code == 0
    return path


@pytest.fixture
def plain(terselm, small, tmp_path):
    path = tmp_path / "plain.safetensors"
    done = terselm("compress", small, "--recipe", "unpack", "--out", path)
    assert done.code == 0 and "larger" not in done.stderr
    return path


def test_unpacked_it_says_the_same(small, plain):
    ids = [3, 1, 4, 1, 5, 9, 2, 6]
    assert perplexity(load(plain), ids) == pytest.approx(perplexity(load(small), ids), rel=1e-5)


def test_training_says_that_codes_stay(terselm, corpus, small, plain, tmp_path):
    def train(start) -> Result:
        flags = ("--epochs", 1, "--batch", 4, "--window", 8, "--out", tmp_path / "out.safetensors")
        return terselm("train", "--data", corpus, "--start", start, *flags)

    said = train(small)
    assert said.code == 0 and CODES_STAY in said.stderr and UNPACK in said.stderr
    said = train(plain)
    assert said.code == 0 and CODES_STAY not in said.stderr


def test_what_takes_plain_numbers_says_how_to_get_them(terselm, corpus, small, plain, tmp_path):
    def low_rank(model) -> Result:
        recipe = tmp_path / "recipe.yaml"
        recipe.write_text("- {method: low_rank, rank: 4}\n")
        return terselm("compress", model, "--recipe", recipe, "--out", tmp_path / "o.safetensors")

    def search(model) -> Result:
        limits = ("--max-size", "90%", "--time-limit", "1s", "--out", tmp_path / "search")
        return terselm("search", model, "--data", corpus, *limits)

    said = low_rank(small)
    assert said.code == 2 and "`unpack` before it" in said.stderr
    assert low_rank(plain).code == 0
    said = search(small)
    assert said.code == 2 and UNPACK in said.stderr

"""Probabilities before and after words are folded."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.compress.vocabulary_folding import words_to_keep
from terselm.errors import UsageError
from terselm.models.checkpoint import lay_out, load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from tests.tiny import CELL_VARIANTS, WORDS, make_model

UNKNOWN = 1
KEPT = [0, 1, *range(2, 37, 3)]
FOLDED = [number for number in range(37) if number not in KEPT]
COUNTS = [50, 10, *(30 if number in KEPT else 2 for number in range(2, 37))]
IDS = np.repeat(np.arange(37), COUNTS).astype(np.uint16)


def fold(model, **options):
    recipe = Recipe.from_list([{"method": "prune_vocabulary", **options}])
    return compress(model, recipe, Context(calibration=IDS)).model


def probabilities(model, tokens) -> torch.Tensor:
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(tokens.shape[1]))
    return logits.double().softmax(-1)


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_without_merging_the_others_share_what_the_folded_had(cell, tied):
    model = make_model(cell, tied=tied)
    small = fold(model, keep=len(KEPT), unknown="keep")
    assert small.vocabulary.words == tuple(WORDS[number] for number in KEPT)
    assert small.ties() == model.ties()
    new = torch.randint(len(KEPT), (6, 2), generator=torch.Generator().manual_seed(2))
    old = probabilities(model, torch.tensor(KEPT)[new])[..., KEPT]
    torch.testing.assert_close(
        probabilities(small, new), old / old.sum(-1, keepdim=True), rtol=1e-4, atol=1e-7
    )


@pytest.mark.parametrize("tied", [False, True])
def test_merging_words_that_only_their_bias_tells_apart_is_exact(tied):
    model = make_model("lstm", tied=tied)
    with torch.no_grad():
        for op in {model.embedding, model.output.weight}:
            op.weight[FOLDED] = op.weight[1].clone()
    small = fold(model, keep=len(KEPT))
    new = torch.randint(len(KEPT), (6, 2), generator=torch.Generator().manual_seed(2))
    old = probabilities(model, torch.tensor(KEPT)[new])
    expected = old[..., KEPT].clone()
    expected[..., 1] += old[..., FOLDED].sum(-1)
    torch.testing.assert_close(probabilities(small, new), expected, rtol=1e-4, atol=1e-7)


def test_merging_comes_closer_than_not_merging():
    model = make_model("lstm")
    new = torch.randint(len(KEPT), (40, 2), generator=torch.Generator().manual_seed(2))
    old = probabilities(model, torch.tensor(KEPT)[new])
    expected = old[..., KEPT].clone()
    expected[..., 1] += old[..., FOLDED].sum(-1)

    def divergence(small):
        found = probabilities(small, new)
        return (expected * (expected / found).log()).sum(-1).mean().item()

    merged = divergence(fold(model, keep=len(KEPT)))
    assert merged < 0.3 * divergence(fold(model, keep=len(KEPT), unknown="keep"))


def test_the_bias_of_unknown_is_the_log_of_the_sum():
    model = make_model("gru")
    small = fold(model, keep=len(KEPT))
    biases = model.output.bias.tolist()
    expected = math.log(sum(math.exp(biases[number]) for number in [1, *FOLDED]))
    assert small.output.bias[1].item() == pytest.approx(expected, rel=1e-5)


def test_coverage_is_stated_and_kept_in_the_file(tmp_path):
    model = make_model("lstm")
    small = fold(model, keep=len(KEPT))
    path = tmp_path / "m.safetensors"
    assert save(small, path) == path.stat().st_size < lay_out(model).size
    said = load(path).provenance["vocabulary_pruning"]
    known = sum(COUNTS[number] for number in KEPT if number != UNKNOWN)
    assert said == {
        "words": len(KEPT),
        "words_before": 37,
        "coverage": round(known / (sum(COUNTS) - COUNTS[UNKNOWN]), 6),
        "tokens": sum(COUNTS),
    }


def test_words_are_counted_in_the_whole_text_where_it_is_at_hand():
    recipe = Recipe.from_list([{"method": "prune_vocabulary", "keep": 4}])
    counts = np.array([5, 5, 40, *([0] * 32), 60, 95])
    context = Context(calibration=IDS, count_tokens=lambda words: counts[: len(words)])
    small = compress(make_model("lstm"), recipe, context).model
    assert small.vocabulary.words == (*WORDS[:2], *WORDS[-2:])
    said = small.provenance["vocabulary_pruning"]
    assert said["tokens"] == 205 and said["coverage"] == 160 / 200


def test_a_second_step_counts_from_the_words_of_the_first():
    def pruned(*keep):
        items = [{"method": "prune_vocabulary", "keep": number} for number in keep]
        model = compress(make_model("lstm"), Recipe.from_list(items), Context(calibration=IDS))
        return model.model.provenance["vocabulary_pruning"]

    assert pruned(20, 10) == pruned(10)
    assert pruned(20, 10)["words_before"] == 37


def test_coverage_is_that_of_what_was_known_at_first():
    def covered(*shares):
        items = [{"method": "prune_vocabulary", "coverage": share} for share in shares]
        model = compress(make_model("lstm"), Recipe.from_list(items), Context(calibration=IDS))
        return model.model.provenance["vocabulary_pruning"]

    assert 0.9 <= covered(0.9)["coverage"] < 1
    assert covered(0.9, 0.6) == covered(0.6)
    with pytest.raises(UsageError, match=r"an earlier prune_vocabulary left 0\.9"):
        covered(0.9, 0.999)


def test_folded_words_are_read_as_unknown():
    small = fold(make_model("lstm"), keep=len(KEPT))
    line = f"{WORDS[KEPT[3]]} {WORDS[FOLDED[0]]}"
    assert small.vocabulary.encode_line(line) == [3, 1, 0]


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99, 1.0])
def test_the_fewest_words_that_cover_the_share(share):
    counts = np.array(COUNTS)
    kept = words_to_keep(counts, (0, 1), None, share)
    assert {0, 1} <= set(kept.tolist())
    covered = counts[kept].sum() / counts.sum()
    assert covered >= share
    rest = [number for number in kept.tolist() if number > 1]
    if rest:
        assert covered - counts[rest].min() / counts.sum() < share


def test_the_most_frequent_words_stay():
    assert words_to_keep(np.array([0, 5, 9, 9, 1]), (0,), 3, None).tolist() == [0, 2, 3]


def test_low_rank_weights_are_folded_by_their_left_factor():
    model = make_model("lstm")
    items = [
        {"method": "low_rank", "rank": 8, "weights": "embedding output"},
        {"method": "prune_vocabulary", "keep": 14},
    ]
    small = compress(model, Recipe.from_list(items), Context(calibration=IDS)).model
    assert small.weights()["output"].kind == "low_rank"
    assert small.weights()["output"].shape == (14, 20)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, r"step 1 \(prune_vocabulary\): give exactly one of keep and coverage"),
        ({"keep": 10, "coverage": 0.9}, "one of keep and coverage"),
        ({"keep": 38}, "has 37 words"),
    ],
)
def test_wrong_options(options, match):
    with pytest.raises(UsageError, match=match):
        fold(make_model("lstm"), **options)


def test_what_is_needed():
    model = make_model("lstm")
    recipe = Recipe.from_list([{"method": "prune_vocabulary", "keep": 10}])
    with pytest.raises(UsageError, match="needs text to count words in"):
        compress(model, recipe)
    words = ["<eos>", *(f"w{number}" for number in range(36))]
    bare = LanguageModel(model.config, vocabulary_from_words(words))
    with pytest.raises(UsageError, match="no <unk>"):
        compress(bare, recipe, Context(calibration=IDS))


def test_an_adaptive_output_is_refused():
    config = ModelConfig(hidden=(20,), embedding=10, output="adaptive", cutoffs=(12,))
    model = LanguageModel(config, vocabulary_from_words(WORDS), np.array(COUNTS))
    with pytest.raises(UsageError, match="this one is adaptive"):
        fold(model, keep=10)


def test_a_tied_embedding_behind_a_projection():
    config = ModelConfig(hidden=(20,), embedding=10, tied=True)
    small = fold(LanguageModel(config, vocabulary_from_words(WORDS)), keep=10)
    assert small.ties() == {"output": "embedding"} and small.embedding.shape == (10, 10)

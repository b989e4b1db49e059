"""A merged model against the product of its parts' distributions."""

from __future__ import annotations

import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.linear.dense import Dense
from terselm.linear.placed_blocks import PlacedBlocks
from terselm.models.checkpoint import load, save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.models.merging import merge
from terselm.models.splitting import member
from terselm.text.build import vocabulary_from_words
from tests.tiny import CELL_VARIANTS, WORDS, make_output_variant

WEIGHTS = [0.7, 0.4]
OUTPUTS = {
    "untied": {"tied": False},
    "tied": {"tied": True},
    "tied with a projection": {"tied": True},
}


def make_part(cell: str, output: str, hidden: int, seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    kind, _, variant = cell.partition("/")
    projection = 7 if variant or kind.startswith("projected") else None
    size = projection or hidden
    embedding = size if output == "tied" else size + 2
    config = ModelConfig(
        cell=kind,
        hidden=(hidden, hidden),
        embedding=embedding,
        projection=projection,
        **OUTPUTS[output],
    )
    model = LanguageModel(config, vocabulary_from_words(WORDS))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.uniform_(-0.5, 0.5)
    return model.eval()


def log_probabilities(model: LanguageModel) -> torch.Tensor:
    """float64 [time * streams, vocabulary] over a fixed random text of two streams."""
    tokens = torch.randint(len(WORDS), (9, 2), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits, _ = model(tokens, model.initial_state(2))
    return logits.flatten(0, 1).double().log_softmax(dim=-1)


def product_of(models: list[LanguageModel], weights: list[float]) -> torch.Tensor:
    scores = [w * log_probabilities(m) for w, m in zip(weights, models, strict=True)]
    return torch.stack(scores).sum(dim=0).log_softmax(dim=-1)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_a_merged_model_predicts_as_its_parts_do_together(tmp_path, cell, output):
    parts = [make_part(cell, output, hidden, seed) for hidden, seed in ((12, 0), (9, 1))]
    before = [log_probabilities(part) for part in parts]
    merged = merge(parts, WEIGHTS)
    expected = product_of(parts, WEIGHTS)
    torch.testing.assert_close(log_probabilities(merged), expected, rtol=0, atol=2e-5)
    assert all(map(torch.equal, before, map(log_probabilities, parts)))
    # Nothing is stored twice or filled up with zeros.
    assert merged.parameter_count() == sum(part.parameter_count() for part in parts) - len(WORDS)
    save(merged, tmp_path / "merged.safetensors")
    back = load(tmp_path / "merged.safetensors")
    assert torch.equal(log_probabilities(back), log_probabilities(merged))
    assert [part["weight"] for part in back.provenance["merged"]] == WEIGHTS


def test_three_merge_as_two_and_one():
    parts = [make_part("lstm", "tied with a projection", 8 + seed, seed) for seed in range(3)]
    nested = merge([merge(parts[:2], [0.5, 0.25]), parts[2]], [2.0, 0.5])
    flat = merge(parts, [1.0, 0.5, 0.5])
    torch.testing.assert_close(
        log_probabilities(nested), log_probabilities(flat), rtol=0, atol=1e-5
    )


def test_compressed_parts_stay_as_they_are():
    parts = [make_part("lstm", "tied with a projection", 12, seed) for seed in range(2)]
    recipe = Recipe.from_list([{"method": "quantize", "bits": 4}, {"method": "half_bias"}])
    small = [compress(part, recipe, Context()).model for part in parts]
    merged = merge(small, WEIGHTS)
    assert {leaf.kind for leaf in merged.leaves().values()} == {"quantized"}
    assert merged.config.output_bias == "float16"
    # The bias, of a few hundredths here, is rounded once more.
    torch.testing.assert_close(
        log_probabilities(merged), product_of(small, WEIGHTS), rtol=0, atol=1e-3
    )


def test_a_merged_model_can_be_compressed_in_its_turn():
    merged = merge([make_part("gru", "untied", 12, seed) for seed in range(2)], WEIGHTS)
    recipe = Recipe.from_list([{"method": "quantize", "bits": 8}])
    small = compress(merged, recipe, Context()).model
    assert isinstance(small.weights()["cells.0.weight_hh"], PlacedBlocks)
    assert {leaf.kind for leaf in small.leaves().values()} == {"quantized"}
    difference = (log_probabilities(small) - log_probabilities(merged)).abs().max()
    assert 0 < difference < 0.1


def test_models_that_do_not_go_together_are_refused():
    lstm = make_part("lstm", "untied", 12, 0)
    with pytest.raises(UsageError, match="models differ in cells"):
        merge([lstm, make_part("gru", "untied", 12, 0)], WEIGHTS)
    with pytest.raises(UsageError, match="models differ in tied"):
        merge([lstm, make_part("lstm", "tied", 12, 0)], WEIGHTS)
    with pytest.raises(UsageError, match="differ in an output projection"):
        pair = [
            make_part("lstm", "tied", 12, 0),
            make_part("lstm", "tied with a projection", 12, 0),
        ]
        merge(pair, WEIGHTS)
    with pytest.raises(UsageError, match="outputs are .*full softmax"):
        merge([make_output_variant("adaptive"), make_output_variant("adaptive")], WEIGHTS)
    with pytest.raises(UsageError, match="1 models and 1 weights"):
        merge([lstm], [1.0])
    with pytest.raises(UsageError, match="give finite numbers other than 0"):
        merge([lstm, lstm], [1.0, 0.0])
    other = LanguageModel(lstm.config, vocabulary_from_words([*WORDS[:-1], "other"]))
    with pytest.raises(UsageError, match="only models of the same one merge"):
        merge([lstm, other], WEIGHTS)


def test_sizes_that_would_leave_no_projection_are_refused():
    words = vocabulary_from_words(WORDS)
    sizes = [(8, 12), (12, 8)]
    parts = [
        LanguageModel(ModelConfig(hidden=(hidden,), embedding=size, tied=True), words)
        for hidden, size in sizes
    ]
    with pytest.raises(UsageError, match="have the same sum"):
        merge(parts, WEIGHTS)


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_members_are_the_models_that_were_merged(cell, output):
    parts = [make_part(cell, output, hidden, seed) for hidden, seed in ((12, 0), (9, 1))]
    with torch.no_grad():
        parts[1].output.bias.copy_(parts[0].output.bias)
    merged = merge(parts, WEIGHTS)
    for number, part in enumerate(parts):
        alone = member(merged, number)
        assert alone.config == part.config
        assert {k: op.kind for k, op in alone.weights().items()} == {
            k: op.kind for k, op in part.weights().items()
        }
        torch.testing.assert_close(
            log_probabilities(alone), log_probabilities(part), rtol=0, atol=2e-5
        )
        with torch.no_grad():
            alone.embedding.weight.zero_()
        assert merged.weights()["embedding"].children_by_name()[f"block{number}"].weight.any()


def test_only_merged_models_have_members():
    part = make_part("lstm", "untied", 12, 0)
    with pytest.raises(UsageError, match="was not merged"):
        member(part, 0)
    merged = merge([part, part], WEIGHTS)
    with pytest.raises(UsageError, match="member 2 is asked for, of 2"):
        member(merged, 2)
    with pytest.raises(UsageError, match="add up to 0"):
        member(merge([part, part], [1.0, -1.0]), 0)
    merged.replace_weight("cells.0.weight_hh", Dense(merged.weights()["cells.0.weight_hh"].dense()))
    with pytest.raises(UsageError, match="was not merged"):
        member(merged, 0)

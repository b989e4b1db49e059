"""Output layers against torch's own and against sums written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from terselm.errors import TerselmError, UsageError
from terselm.evaluate.cost import inspect
from terselm.evaluate.perplexity import evaluate, perplexity
from terselm.evaluate.predict import predict
from terselm.linear.dense import Dense
from terselm.models.adaptive_output import AdaptiveSoftmax, frequency_order
from terselm.models.checkpoint import lay_out, load, save
from terselm.models.config import ModelConfig, make_config
from terselm.models.language_model import LanguageModel
from terselm.models.output import OUTPUTS
from terselm.text.build import vocabulary_from_words
from tests.evaluate.truth import split_of
from tests.models.test_checkpoint import rewrite
from tests.tiny import OUTPUT_VARIANTS, WORDS, logits_of, make_model, make_output_variant

SIZE = len(WORDS)


@pytest.fixture(params=sorted(OUTPUT_VARIANTS))
def variant(request) -> LanguageModel:
    return make_output_variant(request.param)


def torch_twin(layer: AdaptiveSoftmax) -> nn.AdaptiveLogSoftmaxWithLoss:
    """torch's adaptive softmax with the same weights; its classes are ranks."""
    twin = nn.AdaptiveLogSoftmaxWithLoss(20, SIZE, [9, 20], div_value=2.0, head_bias=True)
    with torch.no_grad():
        twin.head.weight.copy_(layer.head.dense())
        twin.head.bias.copy_(layer.bias)
        for theirs, ours in zip(twin.tail, layer.tails, strict=True):
            theirs[0].weight.copy_(ours.down.dense())
            theirs[1].weight.copy_(ours.words.dense())
    return twin


def test_every_kind_is_registered():
    # A new one goes into the contracts: OUTPUT_VARIANTS of tests/tiny.py.
    assert set(OUTPUTS) == {"softmax", "adaptive"}


def test_adaptive_equals_torch_with_gradients():
    model = make_output_variant("adaptive").train()
    layer = model.output
    assert isinstance(layer, AdaptiveSoftmax)
    twin = torch_twin(layer)
    hidden = torch.randn(6, 5, 20)
    targets = torch.randint(SIZE, (6, 5))
    inputs = [hidden.clone().requires_grad_(), hidden.clone().requires_grad_()]
    ours = layer.negative_log_likelihood(inputs[0], targets)
    rank = {word: rank for rank, word in enumerate(layer.order.tolist())}
    ranks = torch.tensor([rank[word] for word in targets.flatten().tolist()])
    theirs = -twin(inputs[1].flatten(0, 1), ranks).output
    torch.testing.assert_close(ours.flatten(), theirs)
    ours.mean().backward()
    theirs.mean().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad)
    torch.testing.assert_close(layer.head.weight.grad, twin.head.weight.grad)
    torch.testing.assert_close(layer.bias.grad, twin.head.bias.grad)
    for mine, other in zip(layer.tails, twin.tail, strict=True):
        torch.testing.assert_close(mine.down.weight.grad, other[0].weight.grad)
        torch.testing.assert_close(mine.words.weight.grad, other[1].weight.grad)
    found = layer.log_probabilities(hidden)
    expected = twin.log_prob(hidden.flatten(0, 1)).view(6, 5, SIZE)
    torch.testing.assert_close(found[..., layer.order], expected)


def test_probabilities_sum_to_one_and_agree_with_the_loss(variant):
    hidden = torch.randn(7, 3, 20)
    with torch.no_grad():
        log_p = variant.output.log_probabilities(hidden)
        torch.testing.assert_close(log_p.exp().sum(-1), torch.ones(7, 3))
        torch.testing.assert_close(variant.output.logits(hidden).softmax(-1), log_p.exp())
        for word in range(SIZE):
            nats = variant.output.negative_log_likelihood(hidden, torch.full((7, 3), word))
            torch.testing.assert_close(nats, -log_p[..., word])


def test_words_are_ranked_by_frequency():
    counts = np.array([5, 9, 0, 9, 7])
    assert frequency_order(counts).tolist() == [1, 3, 4, 0, 2]
    config = ModelConfig(hidden=(16,), embedding=8, output="adaptive", cutoffs=(2, 4), division=2)
    model = LanguageModel(config, vocabulary_from_words(["<eos>", "a", "b", "c", "d"]), counts)
    assert model.output.order.tolist() == [1, 3, 4, 0, 2]
    assert {name: op.shape for name, op in model.output.weights().items()} == {
        "output.head": (4, 16),
        "output.tails.0.down": (8, 16),
        "output.tails.0.words": (2, 8),
        "output.tails.1.down": (4, 16),
        "output.tails.1.words": (1, 4),
    }


def test_only_the_clusters_that_are_needed_are_computed():
    layer = make_output_variant("adaptive").output
    called: list[int] = []
    for number, tail in enumerate(layer.tails):
        tail.down.register_forward_hook(lambda *_, number=number: called.append(number))
    layer.negative_log_likelihood(torch.randn(4, 20), layer.order[[0, 3, 8, 25]])
    assert called == [1]


def test_a_narrow_tied_embedding_gets_a_projection():
    model = make_output_variant("projected")
    assert list(model.weights())[-1] == "output_projection"
    assert model.weights()["output_projection"].shape == (10, 20)
    assert model.ties() == {"output": "embedding"}
    hidden = torch.randn(4, 20)
    words, projection = model.embedding.dense(), model.output.projection.dense()
    expected = hidden @ projection.T @ words.T + model.output.bias
    torch.testing.assert_close(model.output.logits(hidden), expected)
    replacement = Dense(torch.randn(10, 20))
    model.replace_weight("output_projection", replacement)
    assert model.output.projection is replacement
    new = Dense(torch.randn(SIZE, 10))
    model.replace_weight("embedding", new)
    assert model.output.weight is new and model.embedding is new


@pytest.mark.parametrize("tied", [False, True])
def test_models_that_need_none_have_no_projection(tied):
    model = make_model("lstm", tied=tied)
    assert "output_projection" not in model.weights()
    assert "cutoffs" not in model.config.model_dump()


def test_files_and_copies(variant, tmp_path):
    size = save(variant, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.config == variant.config
    assert again.ties() == variant.ties()
    assert torch.equal(logits_of(again), logits_of(variant))
    assert torch.equal(logits_of(variant.clone()), logits_of(variant))
    report = inspect(variant)
    assert sum(part.bytes for part in report.parts) == report.bytes == size
    assert (
        report.parameters
        == variant.parameter_count()
        == sum(parameter.numel() for parameter in variant.parameters())
    )


def test_evaluation_of_every_output(variant):
    ids = np.random.default_rng(0).integers(SIZE, size=60)
    with torch.no_grad():
        tokens = torch.tensor([variant.vocabulary.start_id, *ids[:-1]]).unsqueeze(1)
        logits, _ = variant(tokens, variant.initial_state(1))
    exact = logits.squeeze(1).double().log_softmax(-1)
    expected = math.exp(-float(exact[range(60), ids].mean()))
    found = evaluate(variant, split_of(ids.tolist()))
    assert found.perplexity == pytest.approx(expected, rel=1e-5)
    assert perplexity(variant, ids) == pytest.approx(expected, rel=1e-5)
    guesses = predict(variant, "w01 w02", k=SIZE, with_unknown=True)
    assert sum(probability for _, probability in guesses) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"output": "magic"}, "unknown output 'magic'; known: adaptive, softmax"),
        ({"cutoffs": (3,)}, "cutoffs are for the adaptive output"),
        ({"cluster_sizes": (3,)}, "cluster_sizes are for the adaptive output"),
        ({"output": "adaptive"}, "needs cutoffs"),
        ({"output": "adaptive", "cutoffs": (9, 9)}, r"\[9, 9\] must rise"),
        ({"output": "adaptive", "cutoffs": (0, 9)}, "cutoffs.0"),
        ({"output": "adaptive", "cutoffs": (9,), "tied": True}, "tied"),
        ({"output": "adaptive", "cutoffs": (1, 2, 3, 4)}, "fewer cutoffs"),
        ({"output": "adaptive", "cutoffs": (1, 2), "cluster_sizes": (3,)}, "1 cluster_sizes for 2"),
        ({"output": "adaptive", "cutoffs": (1,), "cluster_sizes": (0,)}, "cluster_sizes.0"),
    ],
)
def test_impossible_outputs_are_refused(values, message):
    with pytest.raises(UsageError, match=message):
        make_config({"hidden": (64,), "embedding": 64, **values})


def test_cutoffs_beyond_the_vocabulary_are_refused():
    config = make_config({"hidden": (64,), "output": "adaptive", "cutoffs": (20, SIZE)})
    with pytest.raises(UsageError, match="37 must be below the 37 words"):
        LanguageModel(config, vocabulary_from_words(WORDS))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d["config"].update(cutoffs=[9, 37]), "cutoffs: 37"),
        (lambda d: d["config"].update(cutoffs=[20, 9]), "must rise"),
        (lambda d: d["config"].update(cutoffs=[-1, 9]), "cutoffs.0"),
        (lambda d: d["config"].update(cutoffs=[9, 21]), "output.tails.0.words"),
        (lambda d: d["config"].update(division=3), "output.tails.0.down"),
        (lambda d: d["config"].update(division=0), "division"),
        (lambda d: d["config"].update(cluster_sizes=[3, 5]), "output.tails.0.down"),
        (lambda d: d["config"].pop("output"), "cutoffs"),
        (lambda d: d.update(ties={"output": "embedding"}), "ties"),
    ],
)
def test_a_lying_description_of_an_adaptive_output_is_named(change, message, tmp_path):
    path = tmp_path / "model.safetensors"
    save(make_output_variant("adaptive"), path)
    rewrite(path, change)
    with pytest.raises(TerselmError, match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_lying_order_is_refused():
    model = make_output_variant("adaptive")
    stored = lay_out(model).tensors["output.order"]
    assert stored.dtype == torch.uint16
    for wrong in (stored[:-1], stored.int(), torch.zeros_like(stored)):
        with pytest.raises(TerselmError, match=r"output\.order"):
            model.output.load_tables({"output.order": wrong})
    with pytest.raises(TerselmError, match="missing"):
        model.output.load_tables({})
    too_large = stored.int()
    too_large[0] = SIZE
    with pytest.raises(TerselmError, match="every word exactly once"):
        model.output.load_tables({"output.order": too_large.to(torch.uint16)})

"""Sampled losses against the full softmax, sums written out and known distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from terselm.linear.dense import Dense
from terselm.models.output import FullSoftmax
from terselm.models.sampling import (
    Noise,
    count_tokens,
    inclusion_probabilities,
    noise_contrastive,
    sampled_softmax,
)
from tests.tiny import random_quantized

VOCABULARY, SIZE = 60, 8


def make_output(seed: int = 0) -> FullSoftmax:
    torch.manual_seed(seed)
    return FullSoftmax(Dense(torch.randn(VOCABULARY, SIZE)), torch.randn(VOCABULARY))


def counts(seed: int = 0) -> np.ndarray:
    return (1000 / np.arange(1, VOCABULARY + 1)).astype(np.int64)


def some_window(seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(seed)
    return torch.randn(6, 4, SIZE), torch.randint(VOCABULARY, (6, 4))


class Fixed(Noise):
    """Noise that always draws the same words."""

    def __init__(self, probabilities: np.ndarray, ids: list[int]) -> None:
        super().__init__(probabilities)
        self._ids = torch.tensor(ids, dtype=torch.int64)

    def draw(self) -> torch.Tensor:
        return self._ids


def test_tokens_are_counted():
    ids = np.array([3, 1, 3, 0], dtype=np.uint16)
    assert count_tokens(ids, 5).tolist() == [1, 1, 0, 2, 0]


@pytest.mark.parametrize("samples", [1, 7, 30, 59, 60, 500])
def test_inclusion_probabilities(samples):
    found = inclusion_probabilities(counts(), samples)
    assert found.sum() == pytest.approx(min(samples, VOCABULARY))
    assert (found > 0).all() and (found <= 1).all()
    free = found < 1
    shares = counts()[free] ** 0.75
    np.testing.assert_allclose(found[free] / found[free].sum(), shares / shares.sum())


def test_words_are_drawn_as_often_as_stated():
    probabilities = inclusion_probabilities(counts(), 12)
    noise = Noise(probabilities)
    torch.manual_seed(0)
    drawn = [noise.draw() for _ in range(4000)]
    assert all(bool((ids[1:] > ids[:-1]).all()) for ids in drawn)
    found = np.bincount(torch.cat(drawn).numpy(), minlength=VOCABULARY) / len(drawn)
    error = np.sqrt(probabilities * (1 - probabilities) / len(drawn))
    assert (np.abs(found - probabilities) <= 4.5 * error).all()


def test_all_words_sampled_is_the_full_softmax():
    output = make_output()
    hidden, targets = some_window()
    noise = Noise(inclusion_probabilities(counts(), VOCABULARY))
    loss, nats = sampled_softmax(output, hidden, targets, noise)
    loss.mean().backward()
    found = [parameter.grad.clone() for parameter in output.parameters()]
    output.zero_grad()
    full = output.negative_log_likelihood(hidden, targets)
    full.mean().backward()
    torch.testing.assert_close(loss, full)
    torch.testing.assert_close(nats, full.detach())
    for gradient, parameter in zip(found, output.parameters(), strict=True):
        torch.testing.assert_close(gradient, parameter.grad, atol=1e-6, rtol=1e-4)


def test_the_gradient_approaches_that_of_the_full_softmax():
    output = make_output()
    hidden, targets = some_window()
    output.negative_log_likelihood(hidden, targets).mean().backward()
    full = output.weight.weight.grad.clone()
    errors = []
    for samples in (10, 30, 50, 58):
        noise = Noise(inclusion_probabilities(counts(), samples))
        total = torch.zeros_like(full)
        for seed in range(200):
            torch.manual_seed(seed)
            output.zero_grad()
            sampled_softmax(output, hidden, targets, noise)[0].mean().backward()
            total += output.weight.weight.grad
        errors.append(float((total / 200 - full).norm() / full.norm()))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.1


def test_the_sampled_loss_written_out():
    output = make_output()
    hidden, targets = some_window()
    chance = inclusion_probabilities(counts(), 20)
    ids = [0, 4, 7, 31, 32, 59]
    noise = Fixed(chance, ids)
    targets[0, 0], targets[1, 1] = 7, 59  # accidental hits
    loss, nats = sampled_softmax(output, hidden, targets, noise)
    logits = output.logits(hidden).detach().double().numpy()
    for place in np.ndindex(6, 4):
        target = int(targets[place])
        score = np.exp(logits[place])
        others = sum(score[word] / chance[word] for word in ids if word != target)
        right = score[target] / chance[target]
        assert loss[place].item() == pytest.approx(-math.log(right / (right + others)), rel=1e-4)
        assert nats[place].item() == pytest.approx(
            -math.log(score[target] / (score[target] + others)), rel=1e-4
        )
    assert not nats.requires_grad


def test_the_estimate_of_the_normalizer_is_unbiased():
    output = make_output()
    hidden, targets = some_window()
    noise = Noise(inclusion_probabilities(counts(), 25))
    logits = output.logits(hidden).detach().double()
    right = logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    torch.manual_seed(0)
    draws = [sampled_softmax(output, hidden, targets, noise)[1] for _ in range(3000)]
    found = torch.stack(draws).double() + right
    ratios = (found - logits.logsumexp(-1)).exp()
    error = ratios.std(dim=0) / math.sqrt(len(draws))
    assert bool(((ratios.mean(dim=0) - 1).abs() < 5 * error).all())


def test_noise_contrastive_loss_written_out():
    output = make_output()
    hidden, targets = some_window()
    chance = inclusion_probabilities(counts(), 20)
    ids = [0, 4, 7, 31, 32, 59]
    targets[0, 0] = 7
    loss, nats = noise_contrastive(output, hidden, targets, Fixed(chance, ids))
    p = np.exp(output.logits(hidden).detach().double().numpy()) / VOCABULARY
    for place in np.ndindex(6, 4):
        target = int(targets[place])
        expected = -math.log(p[place][target] / (p[place][target] + chance[target]))
        for word in ids:
            expected -= math.log(chance[word] / (p[place][word] + chance[word]))
        assert loss[place].item() == pytest.approx(expected, rel=1e-4)
        others = sum(p[place][word] / chance[word] for word in ids if word != target)
        rate = p[place][target] / (p[place][target] + others)
        assert nats[place].item() == pytest.approx(-math.log(rate), rel=1e-4)


@pytest.mark.parametrize("loss", [sampled_softmax, noise_contrastive])
def test_a_known_distribution_is_learned(loss):
    """Bias alone, with few samples: it must find the distribution that the words come from."""
    draw = np.random.default_rng(0)
    truth = draw.dirichlet(np.full(20, 3.0))
    words = torch.from_numpy(draw.choice(20, size=200_000, p=truth))
    frequency = np.bincount(words, minlength=20)
    output = FullSoftmax(Dense(torch.zeros(20, 1)), torch.zeros(20))
    output.weight.weight.requires_grad_(False)
    noise = Noise(inclusion_probabilities(frequency, 8))
    optimizer = torch.optim.Adam([output.bias], lr=0.05)
    torch.manual_seed(0)
    steps = 1000
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 0.05 * (1 - step / steps)
        targets = words[step * 200 : (step + 1) * 200]
        optimizer.zero_grad()
        loss(output, torch.zeros(200, 1), targets, noise)[0].mean().backward()
        optimizer.step()
    found = output.bias.detach().double()
    learned = found.softmax(0)
    expected = torch.from_numpy(frequency / frequency.sum())
    assert float((learned - expected).abs().sum()) < 0.05
    if loss is noise_contrastive:  # which learns to be normalized, too
        assert float(found.exp().sum()) / 20 == pytest.approx(1, abs=0.05)


def test_nothing_drawn_is_no_harm():
    output = make_output()
    hidden, targets = some_window()
    noise = Fixed(inclusion_probabilities(counts(), 1), [])
    for loss in (sampled_softmax, noise_contrastive):
        values, nats = loss(output, hidden.requires_grad_(), targets, noise)
        values.sum().backward()
        assert torch.isfinite(values).all() and torch.isfinite(nats).all()
        assert all(torch.isfinite(parameter.grad).all() for parameter in output.parameters())


def test_only_hits_drawn_is_no_harm():
    output = make_output()
    hidden, targets = some_window()
    noise = Fixed(inclusion_probabilities(counts(), 1), [5])
    values, _ = sampled_softmax(output, hidden, torch.full_like(targets, 5), noise)
    values.sum().backward()
    assert torch.equal(values, torch.zeros_like(values))
    assert all(torch.isfinite(parameter.grad).all() for parameter in output.parameters())


def test_any_stored_form_and_a_projection():
    torch.manual_seed(0)
    output = FullSoftmax(
        random_quantized(VOCABULARY, SIZE, 8, None),
        torch.randn(VOCABULARY),
        Dense(torch.randn(SIZE, 5)),
    )
    hidden = torch.randn(7, 5)
    targets = torch.randint(VOCABULARY, (7,))
    noise = Noise(inclusion_probabilities(counts(), VOCABULARY))
    loss, _ = sampled_softmax(output, hidden, targets, noise)
    torch.testing.assert_close(loss, output.negative_log_likelihood(hidden, targets))

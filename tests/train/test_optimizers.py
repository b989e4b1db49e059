"""What an optimizer of a run promises beside its step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from terselm.errors import UsageError
from terselm.train.config import make_training_config
from terselm.train.optimizers import ScheduledOptimizer
from terselm.train.windows import Windows
from tests.tiny import make_model
from tests.train.tiny_run import SETTINGS, text, train


@pytest.mark.parametrize(
    ("optimizer", "momentum"),
    [
        *[("sgd", 0.0), ("sgd", 0.5), ("adam", 0.0), ("adamw", 0.0), ("adam_then_sgd", 0.5)],
        ("muon", 0.0),
    ],
)
def test_every_step_is_seen_by_the_parameters_versions(optimizer: str, momentum: float):
    """Forms that change in training count steps so, and torch's fused optimizers hide them."""
    config = make_training_config({"optimizer": optimizer, "momentum": momentum})
    parameters = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4))]
    stepped = ScheduledOptimizer(parameters, config, parameters[:1])
    for epoch in (1, 2):
        versions = [parameter._version for parameter in parameters]
        for parameter in parameters:
            parameter.grad = torch.ones_like(parameter)
        stepped.step(epoch, 0.0)
        assert all(
            parameter._version > version
            for parameter, version in zip(parameters, versions, strict=True)
        )
        stepped.end_epoch(epoch, improved=False)


def test_time_counts_from_where_the_schedule_begins():
    settings = {"schedule": "cosine", "epochs": 10, "decay_after": 8, "optimizer": "sgd"}
    config = make_training_config(settings)
    stepped = ScheduledOptimizer([torch.nn.Parameter(torch.ones(2))], config)
    first = config.first_rate
    stepped.step(8, 0.9, limit_used=0.5)
    assert stepped.rate == first
    assert stepped.scheduled_rate(9, 0.0, limit_used=0.5) == first
    again = ScheduledOptimizer([torch.nn.Parameter(torch.ones(2))], config)
    again.load_state(stepped.state())
    for each in (stepped, again):
        assert each.scheduled_rate(9, 0.0, limit_used=0.75) == pytest.approx(first / 2)
        assert each.scheduled_rate(9, 0.0, limit_used=1.0) == pytest.approx(0, abs=1e-9)


def test_the_cosine_ends_with_the_epochs_or_with_the_time():
    config = make_training_config({"optimizer": "adam", "schedule": "cosine", "epochs": 2})
    stepped = ScheduledOptimizer([torch.nn.Parameter(torch.ones(2))], config)
    first = config.first_rate
    assert stepped.scheduled_rate(1, 0.0) == first
    assert stepped.scheduled_rate(2, 0.0) == pytest.approx(first / 2)
    assert stepped.scheduled_rate(1, 0.0, limit_used=0.5) == pytest.approx(first / 2)
    assert stepped.scheduled_rate(2, 1.0, limit_used=0.1) == pytest.approx(0, abs=1e-9)
    assert stepped.scheduled_rate(1, 0.1, limit_used=1.2) == pytest.approx(0, abs=1e-9)


STEPS = 5
RATE, DECAY, MOMENTUM = 0.02, 0.1, 0.7


def sgd_by_hand(weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Momentum without damping, decay as part of the gradient (torch.optim.SGD's rule)."""
    velocity = np.zeros_like(weight)
    for gradient in gradients:
        velocity = MOMENTUM * velocity + gradient + DECAY * weight
        weight = weight - RATE * velocity
    return weight


def adam_by_hand(weight: np.ndarray, gradients: list[np.ndarray], decoupled: bool) -> np.ndarray:
    """Kingma and Ba 2015, algorithm 1; decoupled: Loshchilov and Hutter 2019, algorithm 2."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for number, raw in enumerate(gradients, start=1):
        gradient = raw if decoupled else raw + DECAY * weight
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        change = first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-8)
        weight = weight - RATE * (change + (DECAY * weight if decoupled else 0))
    return weight


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_steps_are_those_of_the_formula(optimizer: str):
    draw = np.random.default_rng(0)
    start, *gradients = draw.normal(size=(1 + STEPS, 3, 4))
    settings: dict[str, Any] = {"learning_rate": RATE, "weight_decay": DECAY}
    if optimizer == "sgd":
        settings["momentum"] = MOMENTUM
        expected = sgd_by_hand(start, gradients)
    else:
        expected = adam_by_hand(start, gradients, decoupled=optimizer == "adamw")
    parameter = torch.nn.Parameter(torch.tensor(start, dtype=torch.float32))
    config = make_training_config({"optimizer": optimizer, "schedule": "constant", **settings})
    stepped = ScheduledOptimizer([parameter], config)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient, dtype=torch.float32)
        stepped.step(1, 0.0)
    assert np.allclose(parameter.detach().numpy(), expected, atol=1e-6)


def muon_by_hand(weight: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    """Nesterov momentum, made orthogonal by its singular vectors, as large as a step of Adam."""
    velocity = np.zeros_like(weight)
    size = 0.2 * np.sqrt(max(weight.shape))
    for gradient in gradients:
        velocity = 0.95 * velocity + 0.05 * gradient
        left, _, right = np.linalg.svd(0.95 * velocity + 0.05 * gradient, full_matrices=False)
        weight = weight * (1 - RATE * DECAY) - RATE * size * left @ right
    return weight


def test_muon_changes_the_matrices_it_is_given_and_adamw_the_rest():
    draw = np.random.default_rng(0)
    matrices, vectors = draw.normal(size=(1 + STEPS, 24, 6)), draw.normal(size=(1 + STEPS, 5))
    starts = (matrices[0], vectors[0])
    parameters = [torch.nn.Parameter(torch.tensor(start).float()) for start in starts]
    settings = {"optimizer": "muon", "learning_rate": RATE, "weight_decay": DECAY}
    config = make_training_config({**settings, "schedule": "constant"})
    stepped = ScheduledOptimizer(parameters, config, parameters[:1])
    for step in range(1, 1 + STEPS):
        parameters[0].grad = torch.tensor(matrices[step]).float()
        parameters[1].grad = torch.tensor(vectors[step]).float()
        stepped.step(1, 0.0)
    expected = adam_by_hand(vectors[0], list(vectors[1:]), decoupled=True)
    assert np.allclose(parameters[1].detach().numpy(), expected, atol=1e-6)
    # Five steps of Newton and Schulz leave singular values between 0.7 and 1.2, in bfloat16.
    change = parameters[0].detach().numpy() - matrices[0]
    exact = muon_by_hand(matrices[0], list(matrices[1:])) - matrices[0]
    cosine = (change * exact).sum() / np.linalg.norm(change) / np.linalg.norm(exact)
    assert cosine > 0.98
    assert 0.8 < np.linalg.norm(change) / np.linalg.norm(exact) < 1.1


def test_muon_changes_what_stands_between_hidden_vectors(monkeypatch):
    given: list[set[tuple[int, ...]]] = []

    def recorded(matrices: list[torch.nn.Parameter], **settings: Any) -> torch.optim.Optimizer:
        given.append({tuple(matrix.shape) for matrix in matrices})
        return torch.optim.SGD(matrices, lr=settings["lr"])

    monkeypatch.setattr(torch.optim, "Muon", recorded)
    model = make_model("lstm")
    train(None, {"optimizer": "muon", "learning_rate": 0.01, "epochs": 1})
    assert given and not any(shape[0] == len(model.vocabulary) for shape in given[0])
    hidden = model.config.hidden[0]
    assert (4 * hidden, hidden) in given[0] and (4 * hidden, model.config.embedding) in given[0]


def test_muon_without_a_matrix_is_refused():
    config = make_training_config({"optimizer": "muon"})
    with pytest.raises(UsageError, match="use adamw"):
        ScheduledOptimizer([torch.nn.Parameter(torch.ones(3, 2))], config)


def test_a_shorter_window_takes_a_shorter_step():
    config = make_training_config({"optimizer": "sgd", "learning_rate": 2.0})
    parameter = torch.nn.Parameter(torch.zeros(2))
    stepped = ScheduledOptimizer([parameter], config)
    parameter.grad = torch.ones(2)
    stepped.step(1, 0.0, 0.25)
    assert torch.equal(parameter.detach(), torch.full((2,), -0.5))


def test_random_windows_scale_the_rate_by_their_length(monkeypatch):
    scales: list[float] = []
    step = ScheduledOptimizer.step

    def recorded(self: ScheduledOptimizer, epoch: int, done: float, scale: float, used: float):
        scales.append(scale)
        step(self, epoch, done, scale, used)

    monkeypatch.setattr(ScheduledOptimizer, "step", recorded)
    settings = {"epochs": 2, "random_window": True}
    train(None, settings)
    config = make_training_config({**SETTINGS, **settings})
    windows = Windows(text(), make_model("lstm").vocabulary.start_id, config)
    lengths = [len(inputs) for epoch in (1, 2) for inputs, _ in windows.epoch(epoch)]
    assert scales == [length / SETTINGS["window"] for length in lengths]
    assert len(set(scales)) > 3


def test_the_switch_takes_the_rate_of_sgd():
    settings = {
        "optimizer": "adam_then_sgd",
        "learning_rate": 0.003,
        "sgd_learning_rate": 2.0,
        "switch_after": 1,
        "schedule": "constant",
    }
    rates = [record.learning_rate for record in train(None, settings).history]
    assert rates == [0.003, 2.0, 2.0]

"""What an optimizer of a run promises beside its step."""

from __future__ import annotations

import pytest
import torch

from terselm.train.config import make_training_config
from terselm.train.optimizers import ScheduledOptimizer


@pytest.mark.parametrize(
    ("optimizer", "momentum"),
    [("sgd", 0.0), ("sgd", 0.5), ("adam", 0.0), ("adamw", 0.0), ("adam_then_sgd", 0.5)],
)
def test_every_step_is_seen_by_the_parameters_versions(optimizer: str, momentum: float):
    """Forms that change in training count steps so, and torch's fused optimizers hide them."""
    config = make_training_config({"optimizer": optimizer, "momentum": momentum})
    parameters = [torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(4))]
    stepped = ScheduledOptimizer(parameters, config)
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


def test_the_cosine_ends_with_the_epochs_or_with_the_time():
    config = make_training_config({"optimizer": "adam", "schedule": "cosine", "epochs": 2})
    stepped = ScheduledOptimizer([torch.nn.Parameter(torch.ones(2))], config)
    first = config.first_rate
    assert stepped.scheduled_rate(1, 0.0) == first
    assert stepped.scheduled_rate(2, 0.0) == pytest.approx(first / 2)
    assert stepped.scheduled_rate(1, 0.0, limit_used=0.5) == pytest.approx(first / 2)
    assert stepped.scheduled_rate(2, 1.0, limit_used=0.1) == pytest.approx(0, abs=1e-9)
    assert stepped.scheduled_rate(1, 0.1, limit_used=1.2) == pytest.approx(0, abs=1e-9)

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

"""Averages of weights, against sums by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from terselm.train.averaging import make_average
from terselm.train.config import make_training_config
from tests.train.tiny_run import perplexity, train


def averaged(average, parameter: nn.Parameter) -> torch.Tensor:
    with average.swapped_in():
        return parameter.detach().clone()


def test_no_average_is_the_weights():
    parameter = nn.Parameter(torch.ones(3))
    average = make_average([parameter], make_training_config({}))
    average.update()
    parameter.data += 1
    assert torch.equal(averaged(average, parameter), torch.full((3,), 2.0))


def test_moving_average_by_hand():
    parameter = nn.Parameter(torch.zeros(1))
    average = make_average(
        [parameter], make_training_config({"averaging": "ema", "average_decay": 0.5})
    )
    expected = 0.0
    for step in range(1, 20):
        parameter.data.fill_(float(step))
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = step if step == 1 else decay * expected + (1 - decay) * step
    assert float(averaged(average, parameter)) == pytest.approx(expected, rel=1e-5)
    assert float(parameter.detach()) == 19.0


def test_the_triggered_average_is_the_mean_since_the_trigger():
    parameter = nn.Parameter(torch.zeros(1))
    config = make_training_config({"averaging": "nt_asgd", "average_patience": 2})
    average = make_average([parameter], config)
    # 8 is not above the best of those more than two epochs before, 9.5 is.
    for value, perplexity_then in enumerate([9.0, 10.0, 8.0, 8.0, 9.5]):
        parameter.data.fill_(float(value))
        average.update()
        assert float(averaged(average, parameter)) == value
        average.end_epoch(perplexity_then)
    for value in (10.0, 20.0, 33.0):
        parameter.data.fill_(value)
        average.update()
    assert float(averaged(average, parameter)) == pytest.approx(21.0)


def test_weights_come_back_when_validation_fails():
    parameter = nn.Parameter(torch.zeros(1))
    average = make_average([parameter], make_training_config({"averaging": "ema"}))
    average.update()
    parameter.data.fill_(5.0)
    with pytest.raises(RuntimeError), average.swapped_in():
        assert float(parameter.detach()) == 0.0
        raise RuntimeError
    assert float(parameter.detach()) == 5.0


def test_the_average_is_what_is_validated_and_returned():
    settings = {"averaging": "ema", "average_decay": 0.99, "epochs": 2}
    result = train(None, settings)
    assert perplexity(result.model) == result.valid_perplexity
    last = train(None, settings, validate=None)
    assert perplexity(last.model) == result.history[-1].valid_perplexity

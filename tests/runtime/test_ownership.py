"""What keeps a model's memory, and whose states are whose."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path

import pytest

from terselm.errors import UsageError
from terselm.models.checkpoint import save
from terselm.runtime import Model, State
from tests.tiny import make_model


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save(make_model("lstm"), path)
    return path


def test_a_state_outlives_its_model(path: Path) -> None:
    def begun() -> State:
        model = Model(path)
        state = model.state()
        model.step(state, 3)
        return state

    state = begun()
    gc.collect()
    others = [Model(path) for _ in range(4)]  # in the memory of the former, were it free
    model = others[0]
    expected = model.state()
    model.step(expected, 3)
    assert state.copy().save() == expected.save()
    model.step(state, 4)  # of the same file
    model.step(expected, 4)
    assert state == expected


def test_a_state_of_another_model_is_refused(path: Path, tmp_path: Path) -> None:
    other_path = tmp_path / "other.safetensors"
    save(make_model("gru", hidden=40), other_path)
    model, other = Model(path, batch=2), Model(other_path)
    foreign, own = other.state(), model.state()
    calls = (
        lambda: model.step(foreign, 1),
        lambda: model.step_many([own, foreign], [1, 2]),
        lambda: model.log_probabilities(foreign),
        lambda: model.log_probabilities_many([own, foreign]),
        lambda: model.score_tokens(foreign, [1]),
        lambda: model.score_sequence(foreign, [1]),
        lambda: model.rank_sequence(foreign, [1]),
        lambda: model.top(foreign),
        lambda: own.assign(foreign),
    )
    before = own.save()
    for call in calls:
        with pytest.raises(UsageError, match="another model"):
            call()
    assert own.save() == before


def test_one_state_reads_one_token_at_a_time(path: Path) -> None:
    model = Model(path, batch=2)
    state = model.state()
    with pytest.raises(UsageError, match="twice"):
        model.step_many([state, state], [1, 2])


def test_copies(path: Path) -> None:
    model = Model(path)
    state = model.state()
    for made in (copy.copy(state), copy.deepcopy(state)):
        model.step(made, 2)
        assert made != state == model.state()
    twin = copy.copy(model)
    del model
    gc.collect()
    twin.step(state, 2)  # of the same opened file
    for impossible in (copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            impossible(twin)

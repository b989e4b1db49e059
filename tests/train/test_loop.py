"""The loop learns, keeps the best, and stops when and as it should."""

from __future__ import annotations

import json
import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from terselm.cells.base import CELLS
from terselm.errors import TerselmError, UsageError
from terselm.models.checkpoint import load, save
from terselm.models.language_model import LanguageModel
from terselm.train.config import make_training_config
from terselm.train.loop import fit
from terselm.train.optimizers import ScheduledOptimizer
from terselm.train.run import Run
from tests.tiny import FORM_BUILDERS, WORDS, make_model
from tests.train.tiny_run import perplexities, perplexity, same_weights, text, train, weights


@pytest.mark.parametrize("cell", list(CELLS))
def test_learns_what_always_follows(cell: str):
    ids = np.tile(np.arange(2, 12, dtype=np.int32), 150)
    model = make_model(cell)
    if cell == "projected_rnn_relu":
        # The tiny model's weights are three times as large as usual: without a bound on its
        # activation this cell grows beyond float32 with them.
        with torch.no_grad():
            for op in model.weights().values():
                op.weight.div_(3)
    settings = {
        **{"optimizer": "adam", "learning_rate": 0.01, "epochs": 8, "batch": 5, "window": 10},
        "precision": "float32",  # where bfloat16 is at hand, tiny products are slower in it
    }

    def validate(candidate: LanguageModel) -> float:
        cycle = torch.from_numpy(ids[:60].astype(np.int64))[:, None]
        with torch.no_grad():
            nats, _ = candidate.negative_log_likelihood(
                cycle[:-1], cycle[1:], candidate.initial_state(1)
            )
        return math.exp(nats.mean())

    result = fit(model, ids, make_training_config(settings), validate=validate, device="cpu")
    assert result.valid_perplexity is not None
    assert result.valid_perplexity < (2.0 if cell == "projected_rnn_relu" else 1.5)
    assert result.model is model
    assert not model.training


@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "sgd", "learning_rate": 5.0},
        {"optimizer": "sgd", "learning_rate": 5.0, "momentum": 0.5, "weight_decay": 1e-5},
        {"optimizer": "adam", "learning_rate": 0.005},
        {"optimizer": "adamw", "learning_rate": 0.005, "weight_decay": 0.01},
        {"optimizer": "adam_then_sgd", "learning_rate": 0.005, "switch_after": 2},
        {"optimizer": "muon", "learning_rate": 0.005, "weight_decay": 0.01},
        {"optimizer": "sgd", "averaging": "ema", "average_decay": 0.9, "learning_rate": 5.0},
        {"optimizer": "sgd", "averaging": "nt_asgd", "average_patience": 1, "learning_rate": 5.0},
        {"random_window": True, "learning_rate": 5.0},
    ],
    ids=lambda settings: " ".join(str(value) for value in settings.values()),
)
@pytest.mark.parametrize("schedule", ["plateau", "cosine"])
def test_every_optimizer_improves(settings: dict[str, Any], schedule: str):
    model = make_model("lstm")
    before = perplexity(model)
    result = train(model, {"schedule": schedule, **settings})
    assert result.valid_perplexity is not None
    assert result.valid_perplexity < before * 0.92


def test_the_same_seed_gives_the_same_weights_and_another_one_others():
    settings = {"dropout": 0.3, "epochs": 1}
    one, two = train(None, settings), train(None, settings)
    assert same_weights(one.model, two.model)
    assert not same_weights(one.model, train(None, {**settings, "seed": 4}).model)


def test_equals_a_loop_by_hand():
    model = make_model("lstm")
    ids = torch.from_numpy(text().astype(np.int64)).view(4, -1)  # [streams, time]
    start = torch.tensor([model.vocabulary.start_id])
    inputs = torch.cat([start, ids.flatten()[:-1]]).view(4, -1).T
    by_hand = make_model("lstm")
    state = by_hand.initial_state(4)
    by_hand.train()
    for begin in range(0, ids.shape[1], 12):
        part = slice(begin, begin + 12)
        logits, state = by_hand(inputs[part], state)
        state = [tuple(value.detach() for value in layer) for layer in state]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.T[part].flatten())
        gradients = torch.autograd.grad(loss, list(by_hand.parameters()))
        norm = torch.stack([gradient.norm() for gradient in gradients]).norm()
        with torch.no_grad():
            for parameter, gradient in zip(by_hand.parameters(), gradients, strict=True):
                parameter -= gradient * min(1.0, 0.25 / float(norm))
    train(model, {"epochs": 1}, validate=None)
    for name, value in weights(by_hand).items():
        torch.testing.assert_close(weights(model)[name], value, atol=1e-5, rtol=1e-4)


def test_the_best_epoch_is_kept():
    seen: list[dict[str, torch.Tensor]] = []
    scores = perplexities([5.0, 3.0, 4.0, 6.0])

    def validate(model: LanguageModel) -> float:
        seen.append(weights(model))
        return scores(model)

    result = train(None, {"epochs": 4}, validate=validate)
    assert (result.best_epoch, result.valid_perplexity) == (2, 3.0)
    assert all(torch.equal(seen[1][name], value) for name, value in weights(result.model).items())
    assert [record.improved for record in result.history] == [True, True, False, False]
    assert len(seen) == 4


def test_early_stopping():
    settings = {"epochs": 20, "early_stopping": 2}
    result = train(None, settings, validate=perplexities([5.0, 4.0, 4.5, 4.1, 3.0]))
    assert (result.stopped, result.best_epoch, len(result.history)) == ("early", 2, 4)


def test_early_stopping_waits_for_sgd():
    settings = {"optimizer": "adam_then_sgd", "epochs": 20, "early_stopping": 2}
    result = train(None, settings, validate=perplexities([5.0, 6.0, 6.0, 4.0, 7.0, 7.0]))
    assert (result.stopped, result.best_epoch, len(result.history)) == ("early", 4, 6)


def test_the_plateau_lowers_the_rate():
    settings = {"epochs": 4, "decay": 0.5, "decay_after": 2}
    result = train(None, settings, validate=perplexities([5.0, 6.0, 7.0, 4.0]))
    assert [record.learning_rate for record in result.history] == [1.0, 1.0, 1.0, 0.5]


def test_the_exponential_schedule():
    settings = {"epochs": 4, "schedule": "exponential", "decay": 0.5}
    for after, rates in ((2, [1.0, 1.0, 0.5, 0.25]), (0, [1.0, 0.5, 0.25, 0.125])):
        result = train(None, {**settings, "decay_after": after}, validate=None)
        assert [record.learning_rate for record in result.history] == rates


@pytest.mark.parametrize("wrong", [-1, 37])
def test_tokens_of_another_vocabulary_are_refused(wrong):
    ids = np.full(100, 1)
    ids[50] = wrong
    with pytest.raises(UsageError, match=f"token {wrong}, the model 37 tokens"):
        fit(make_model("lstm"), ids, make_training_config({"batch": 2, "window": 5}))


def test_the_reported_rate_is_that_of_the_schedule():
    settings = {"epochs": 2, "schedule": "constant", "random_window": True, "learning_rate": 0.5}
    result = train(None, settings, validate=None)
    assert [record.learning_rate for record in result.history] == [0.5, 0.5]


@pytest.mark.parametrize("kind", [np.float64, np.float32, torch.tensor])
def test_a_validation_may_return_another_number(kind, tmp_path):
    train(None, {"epochs": 1}, folder=tmp_path, validate=lambda model: kind(9.0))
    again = train(None, {"epochs": 2}, folder=tmp_path, validate=lambda model: 8.0, resume=True)
    assert [record.valid_perplexity for record in again.history] == [9.0, 8.0]


def test_the_cosine_schedule_ends_near_zero():
    result = train(None, {"epochs": 2, "schedule": "cosine"}, validate=None)
    assert 0.4 < result.history[0].learning_rate < 0.6
    assert 0 < result.history[1].learning_rate < 0.01


def test_without_validation_the_last_model_is_returned():
    result = train(None, {"epochs": 2}, validate=None)
    assert (result.best_epoch, result.valid_perplexity, result.stopped) == (2, None, "epochs")


def test_the_time_limit_cuts_an_epoch_and_can_be_raised(tmp_path):
    settings = {"epochs": 200, "time_limit": 0.3}
    result = train(None, settings, folder=tmp_path)
    assert result.stopped == "time"
    assert result.valid_perplexity == min(record.valid_perplexity for record in result.history)
    done = sum(record.complete for record in result.history)
    settings = {"epochs": done + 1, "time_limit": 1000.0}
    longer = train(None, settings, folder=tmp_path, resume=True)
    assert longer.stopped == "epochs"
    assert same_weights(longer.model, train(None, {"epochs": done + 1}).model)


def signal_at_validation(number: int, call: int):
    calls = [0]

    def validate(model: LanguageModel) -> float:
        calls[0] += 1
        if calls[0] == call:
            os.kill(os.getpid(), number)
        return perplexity(model)

    return validate


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_the_best_and_goes_on(number: int, tmp_path):
    before = signal.getsignal(number)
    settings = {"epochs": 5}
    stopped = train(None, settings, validate=signal_at_validation(number, 2), folder=tmp_path)
    assert stopped.stopped == "interrupted"
    assert stopped.best_epoch == 2
    assert stopped.valid_perplexity == perplexity(stopped.model)
    assert signal.getsignal(number) is before
    resumed = train(None, settings, folder=tmp_path, resume=True)
    assert same_weights(resumed.model, train(None, settings).model)


def test_interrupted_before_the_first_epoch_ends(tmp_path):
    class Interrupting(Recording):
        def on_start(self, info: Any) -> None:
            os.kill(os.getpid(), signal.SIGINT)

    result = train(folder=tmp_path, observer=Interrupting())
    assert (result.stopped, result.best_epoch) == ("interrupted", 0)
    assert result.valid_perplexity == perplexity(result.model)
    assert same_weights(train(folder=tmp_path, resume=True).model, train().model)


def test_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    train(None, {"epochs": 1}, folder=tmp_path)
    before = (tmp_path / "checkpoint.pt").read_bytes()
    step, calls = Run._step, [0]

    def poisoned(self: Run, *arguments: Any) -> None:
        calls[0] += 1
        if calls[0] == 10:
            with torch.no_grad():
                self.model.output.bias[0] = math.nan
        step(self, *arguments)

    monkeypatch.setattr(Run, "_step", poisoned)
    with pytest.raises(TerselmError, match=r"loss is nan in epoch 2 at step 1\d.*lower learning"):
        train(None, {"epochs": 2}, folder=tmp_path, resume=True)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_a_checkpoint_never_holds_bad_weights(tmp_path, monkeypatch):
    step, calls = ScheduledOptimizer.step, [0]

    def poisoned(self: ScheduledOptimizer, *arguments: Any) -> None:
        calls[0] += 1
        step(self, *arguments)
        if calls[0] == 10:
            self._parameters[0].data[0] = math.inf

    monkeypatch.setattr(ScheduledOptimizer, "step", poisoned)
    with pytest.raises(TerselmError, match="in epoch 1 at step 10"):
        train(None, {"checkpoint_every": 0}, folder=tmp_path)
    monkeypatch.undo()
    assert same_weights(
        train(folder=tmp_path, resume=True, settings={"checkpoint_every": 0}).model, train().model
    )


@pytest.mark.parametrize("clip", [0.01, 1e6, None])
def test_clip(clip: float | None, monkeypatch):
    norms = []
    step = ScheduledOptimizer.step

    def measured(self: ScheduledOptimizer, *arguments: Any) -> None:
        norms.append(float(torch.stack([p.grad.norm() for p in self._parameters]).norm()))
        step(self, *arguments)

    monkeypatch.setattr(ScheduledOptimizer, "step", measured)
    train(None, {"epochs": 1, "clip": clip}, validate=None)
    if clip == 0.01:
        assert max(norms) == pytest.approx(0.01, rel=1e-3)
    else:
        assert max(norms) > 0.2


@pytest.mark.parametrize("form", FORM_BUILDERS)
def test_every_form_trains(form: str, tmp_path):
    model = make_model("lstm")
    for name, op in model.weights().items():
        model.replace_weight(name, FORM_BUILDERS[form](*op.shape))
    before = weights(model)
    codes = {name: buffer.clone() for name, buffer in model.named_buffers()}
    result = train(model, {"optimizer": "adam", "learning_rate": 0.003, "epochs": 2})
    after = weights(model)
    still = [name for name in before if torch.equal(before[name], after[name])]
    # With a handful of non-zeros in a matrix some lie on no path from a word to the output.
    assert not still or (form == "sparse/gaps of 8 bits" and len(still) < len(before))
    assert all(torch.equal(codes[name], buffer) for name, buffer in model.named_buffers())
    # What was validated is what a file holds.
    save(result.model, tmp_path / "model.safetensors")
    assert perplexity(load(tmp_path / "model.safetensors")) == result.valid_perplexity


def test_a_tied_model_keeps_its_tie():
    model = make_model("lstm", tied=True)
    train(model, {"epochs": 1, "averaging": "ema"})
    assert model.ties() == {"output": "embedding"}
    assert model.output.weight is model.embedding


def test_frozen_parameters_stay():
    model = make_model("gru")
    model.embedding.requires_grad_(False)
    before = weights(model)
    train(model, {"epochs": 1})
    after = weights(model)
    assert torch.equal(before["embedding.weight"], after["embedding.weight"])
    assert not torch.equal(before["output.weight.weight"], after["output.weight.weight"])
    model.requires_grad_(False)
    with pytest.raises(TerselmError, match="no parameter"):
        train(model)


class Recording:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def on_start(self, info: Any) -> None:
        self.calls.append(("start", info))

    def on_step(self, record: Any) -> None:
        self.calls.append(("step", record))

    def on_epoch(self, record: Any) -> None:
        self.calls.append(("epoch", record))

    def on_end(self, stopped: Any) -> None:
        self.calls.append(("end", stopped))


def test_the_observer_and_the_metrics_file_are_told(tmp_path: Path):
    observer = Recording()
    result = train(None, {"epochs": 2}, observer=observer, folder=tmp_path)
    kinds = [kind for kind, _ in observer.calls]
    assert kinds[0] == "start"
    assert kinds[-1] == "end"
    assert kinds.count("epoch") == 2
    assert observer.calls[-1][1] == "epochs"
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    last = lines[-1]
    assert last["valid_perplexity"] == result.valid_perplexity
    assert {"epoch", "step", "loss", "perplexity", "learning_rate", "seconds"} <= last.keys()
    steps = [line for line in lines if "valid_perplexity" not in line]
    assert steps[-1]["total_steps"] == 64
    assert all(line["gradient_norm"] > 0 for line in steps)
    epoch = [line for line in steps if line["epoch"] == 1]
    sizes = np.diff([0, *(line["step"] for line in epoch)])
    # The last window has 3 steps of text in place of 12.
    tokens = sizes * 12 - np.where(np.cumsum(sizes) == 32, 9, 0)
    mean = np.average([line["loss"] for line in epoch], weights=tokens)
    assert result.history[0].loss == pytest.approx(mean)


def test_a_teacher_keeps_its_mode_and_its_weights():
    teacher = make_model("gru", seed=7)
    before = weights(teacher)
    for mode in (True, False):
        train(None, {"epochs": 1}, teacher=teacher.train(mode))
        assert teacher.training is mode
    assert all(torch.equal(before[name], value) for name, value in weights(teacher).items())


def test_what_teachers_said_is_shared_by_runs(tmp_path, monkeypatch):
    settings = {"distillation_samples": 20, "epochs": 2}

    def run(name: str | None, teacher: LanguageModel, **more: Any) -> LanguageModel:
        folder = None if name is None else tmp_path / name
        found = train(None, {**settings, **more}, teacher=teacher, folder=folder, lessons=shared)
        return found.model

    shared, teacher = tmp_path / "lessons", make_model("gru", seed=7)
    first = run("first", teacher)
    (left,) = shared.iterdir()
    other = run("other", make_model("gru", seed=8))
    assert not same_weights(first, other)
    assert len(list(shared.iterdir())) == 2
    alone = run(None, teacher)
    monkeypatch.setattr(teacher, "hidden", None)
    second = run("second", teacher)
    # Another seed and windows cut elsewhere read the same samples.
    third = run("third", teacher, seed=4, random_window=True)
    assert same_weights(first, alone) and same_weights(first, second)
    assert not same_weights(first, third)
    # A new run in a folder does not spoil what others share with the old one.
    before = left.read_bytes()
    monkeypatch.undo()
    run("second", teacher, distillation_samples=30)
    assert left.read_bytes() == before
    assert len(list(shared.iterdir())) == 3
    for name, value in (("batch", 3), ("distillation_temperature", 2.0)):
        run(f"with {name}", teacher, **{name: value})
    assert len(list(shared.iterdir())) == 5


def test_the_observer_hears_of_a_failure():
    observer = Recording()

    def fails(model: LanguageModel) -> float:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        train(observer=observer, validate=fails)
    assert observer.calls[-1] == ("end", None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epohcs": 3}, "epohcs"),
        ({"dropout": 1.0}, "dropout"),
        ({"learning_rate": math.nan}, "learning_rate"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum"),
        ({"switch_after": 3}, "switch_after"),
    ],
)
def test_bad_settings_are_named(values: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message) as caught:
        make_training_config(values)
    assert "\n" not in str(caught.value)


def test_too_little_text():
    config = make_training_config({"batch": 50})
    with pytest.raises(TerselmError, match="too few"):
        fit(make_model("lstm"), np.zeros(9, np.int32), config, device="cpu")


def test_words_are_all_known():
    assert text().max() < len(WORDS)

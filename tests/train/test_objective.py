"""The parts of the loss, against values computed by hand."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from terselm.cells.dropout import dropout, keep_mask
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.models.regularization import Regularization
from terselm.text.build import vocabulary_from_words
from terselm.train.config import TrainingConfig, make_training_config
from terselm.train.distillation import Distillation, Place, relative_square_error
from terselm.train.objective import Objective, make_noise
from terselm.train.windows import Windows, varied_starts
from tests.tiny import make_model, make_output_variant
from tests.train.tiny_run import text, train


def exact(settings: dict[str, Any]) -> TrainingConfig:
    return make_training_config({"precision": "float32", **settings})


def window(seed: int = 0, time: int = 7, batch: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(37, (time + 1, batch), generator=generator)
    return tokens[:-1], tokens[1:]


def loss_of(model: LanguageModel, **settings: float) -> float:
    objective = Objective(model.train(), exact(settings))
    loss, nll, _ = objective(*window(), model.initial_state(3))
    assert settings or loss.item() == nll.item()
    return loss.item()


def test_activation_regularization():
    model = make_model("lstm")
    plain = loss_of(model)
    hidden = model.hidden(window()[0], model.initial_state(3))
    assert torch.equal(hidden.output, hidden.raw)
    raw = hidden.raw.detach().numpy()
    squares = float((raw**2).mean())
    changes = float((np.diff(raw, axis=0) ** 2).mean())
    assert loss_of(model, activation_regularization=2.0) == pytest.approx(plain + 2 * squares)
    found = loss_of(model, temporal_activation_regularization=3.0)
    assert found == pytest.approx(plain + 3 * changes)


def test_activation_regularization_sees_dropout_and_the_temporal_one_does_not():
    model = make_model("lstm").train()
    drop = Regularization(output=0.5)
    torch.manual_seed(5)
    hidden = model.hidden(window()[0], model.initial_state(3), drop)
    torch.manual_seed(5)
    plain = loss_of(model, output_dropout=0.5)
    torch.manual_seed(5)
    found = loss_of(model, output_dropout=0.5, activation_regularization=1.0)
    assert found == pytest.approx(plain + hidden.output.square().mean().item(), rel=1e-5)
    torch.manual_seed(5)
    found = loss_of(model, output_dropout=0.5, temporal_activation_regularization=1.0)
    change = hidden.raw[1:] - hidden.raw[:-1]
    assert found == pytest.approx(plain + change.square().mean().item(), rel=1e-5)


def test_a_window_of_one_step_has_no_change():
    model = make_model("lstm").train()
    config = exact({"temporal_activation_regularization": 1.0})
    loss, nll, _ = Objective(model, config)(*window(time=1), model.initial_state(3))
    assert loss.item() == nll.item()


def test_weight_drop_leaves_recurrent_weights_out():
    model = make_model("lstm", layers=1).train()
    torch.manual_seed(3)
    found = loss_of(model, weight_drop=0.4)
    torch.manual_seed(3)
    weight = model.layers()[0].weight_hh
    masked = dropout(weight.weight.detach(), 0.4)
    share = float((masked == 0).float().mean())
    assert 0.3 < share < 0.5
    by_hand = model.clone()
    with torch.no_grad():
        by_hand.layers()[0].weight_hh.weight.copy_(masked)
    assert found == pytest.approx(loss_of(by_hand), rel=1e-6)


def test_a_dropped_weight_gets_no_gradient():
    model = make_model("gru", layers=1).train()
    objective = Objective(model, exact({"weight_drop": 0.5}))
    torch.manual_seed(3)
    loss, _, _ = objective(*window(), model.initial_state(3))
    loss.backward()
    torch.manual_seed(3)
    weight = model.layers()[0].weight_hh.weight
    dropped = dropout(weight.detach(), 0.5) == 0
    assert weight.grad is not None
    assert (weight.grad[dropped] == 0).all()
    assert (weight.grad[~dropped] != 0).float().mean() > 0.9


@pytest.mark.parametrize("loss", ["full", "sampled", "nce"])
def test_projection_dropout_leaves_out_what_the_projection_makes(loss: Literal["full"]):
    model = make_output_variant("projected").train()
    inputs, targets = window(batch=1)

    def objective(model: LanguageModel, **settings: Any) -> Tensor:
        config = exact({"loss": loss, "samples": 20, **settings})
        noise = make_noise(config, np.arange(37), 37)
        return Objective(model, config, None, noise)(inputs, targets, model.initial_state(1))[0]

    torch.manual_seed(3)
    found = objective(model, projection_dropout=0.4, locked_dropout=True)
    torch.manual_seed(3)
    mask = keep_mask((1, 1, 10), 0.4, torch.ones(1))
    assert 0 < int((mask == 0).sum()) < 10
    by_hand = model.clone().train()
    with torch.no_grad():
        by_hand.weights()["output_projection"].weight.mul_(mask.view(10, 1))
    assert found.item() == pytest.approx(objective(by_hand).item(), rel=1e-6)
    assert found.item() != pytest.approx(objective(model).item(), rel=1e-3)


@pytest.mark.parametrize("samples", [None, 30])
@pytest.mark.parametrize(("probability", "different"), [(0.4, 3), (0.0, 1)])
def test_students_have_projection_dropout_too(
    samples: int | None, probability: float, different: int
):
    student = make_output_variant("projected").train()
    settings = exact(
        {
            "projection_dropout": probability,
            "distillation_weight": 0.7,
            "distillation_samples": samples,
        }
    )
    learning = Distillation(make_model("gru"), student, settings)
    learning.open(Place(None, 3, 7), None)
    objective = Objective(student, settings, learning)
    torch.manual_seed(1)
    losses = set()
    for _ in range(3):
        learning.start_text()
        losses.add(objective(*window(), student.initial_state(3))[0].item())
    learning.close()
    assert len(losses) == different


def test_projection_dropout_needs_a_projection():
    with pytest.raises(UsageError, match="projection_dropout: this model has no output projection"):
        Objective(make_model("lstm", tied=True), exact({"projection_dropout": 0.2}))


def test_carried_state_equals_one_long_sequence():
    model = make_model("lstm").train()
    objective = Objective(model, exact({}))
    inputs, targets = window(time=24)
    state, sums = model.initial_state(3), 0.0
    for begin in range(0, 24, 6):
        part = slice(begin, begin + 6)
        _, nll, state = objective(inputs[part], targets[part], state)
        assert not any(value.requires_grad for layer in state for value in layer)
        sums += float(nll) / 4
    _, whole, _ = objective(inputs, targets, model.initial_state(3))
    assert sums == pytest.approx(float(whole), rel=1e-5)


def test_carried_state_holds_no_more_than_itself():
    """Else a checkpoint writes the outputs of a whole window with it."""
    model = make_model("lstm").train()
    with torch.autocast("cpu", torch.bfloat16):
        _, _, state = Objective(model, exact({}))(*window(), model.initial_state(3))
    for part in (part for layer in state for part in layer):
        assert part.untyped_storage().nbytes() == part.nbytes


def test_distillation_by_hand():
    student, teacher = make_model("lstm").train(), make_model("gru", seed=5)
    config = exact({"distillation_weight": 0.3, "distillation_temperature": 2.0})
    distillation = Distillation(teacher, student, config)
    inputs, targets = window()
    loss, nll, _ = Objective(student, config, distillation)(
        inputs, targets, student.initial_state(3)
    )
    logits = student(inputs, student.initial_state(3))[0].detach().double()
    wanted = teacher(inputs, teacher.initial_state(3))[0].detach().double()
    p, q = (wanted / 2).softmax(-1), (logits / 2).softmax(-1)
    divergence = (p * (p.log() - q.log())).sum(-1).mean()
    hard = -logits.log_softmax(-1).gather(-1, targets[..., None]).mean()
    assert float(nll) == pytest.approx(float(hard), rel=1e-5)
    assert loss.item() == pytest.approx(float(0.7 * hard + 0.3 * 4 * divergence), rel=1e-5)


def test_relative_square_error_by_hand():
    found, expected = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])
    # (0 + 4 + 9 + 4) / 4 over (1 + 0 + 0 + 4) / 4
    assert relative_square_error(found, expected).item() == pytest.approx(3.4)
    # Twice everything is the same: the weight has no unit.
    assert relative_square_error(2 * found, 2 * expected).item() == pytest.approx(3.4)
    assert torch.isfinite(relative_square_error(found, torch.zeros(2, 2)))
    # A teacher computes in bfloat16 where training does.
    small = relative_square_error(0.01 * found, (0.01 * expected).bfloat16())
    assert small.item() == pytest.approx(3.4, rel=0.02)


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_distillation_from_hidden_states_by_hand(share):
    student, teacher = make_model("lstm").train(), make_model("gru", seed=5)
    settings = {"distillation_weight": share, "output_dropout": 0.5}
    inputs, targets = window(time=10)

    def losses(hidden: float) -> list[float]:
        config = exact({**settings, "distillation_hidden": hidden})
        distillation = Distillation(teacher, student, config)
        objective, state, found = Objective(student, config, distillation), None, []
        for part in (slice(0, 4), slice(4, 10)):
            torch.manual_seed(3)
            start = student.initial_state(3) if state is None else state
            loss, _, state = objective(inputs[part], targets[part], start)
            found.append(loss.item())
        return found

    def last_layer(model: LanguageModel) -> np.ndarray:
        """Its output step by step, as the cells define a step, in float64."""
        states, found = model.initial_state(3), []
        with torch.no_grad():
            for ids in inputs:
                x = model.embedding.rows(ids)
                for number, cell in enumerate(model.layers()):
                    states[number] = cell.step(cell.project(x[None])[0], states[number])
                    x = states[number][0]
                found.append(x)
        return torch.stack(found).double().numpy()

    ours, theirs = last_layer(student), last_layer(teacher)
    plain, whole = losses(0.0), losses(1.7)
    for number, part in enumerate((slice(0, 4), slice(4, 10))):
        term = ((ours[part] - theirs[part]) ** 2).mean() / (theirs[part] ** 2).mean()
        assert whole[number] == pytest.approx(plain[number] + 1.7 * term, rel=1e-5)


def test_the_gradient_of_the_hidden_distillation():
    student, teacher = make_model("lstm").train(), make_model("gru", seed=5)
    config = exact({"distillation_weight": 0.0, "distillation_hidden": 2.0})
    inputs, targets = window()
    distillation = Distillation(teacher, student, config)
    loss, nll, _ = Objective(student, config, distillation)(
        inputs, targets, student.initial_state(3)
    )
    assert loss.item() > nll.item()
    loss.backward()
    # The output layer comes after what is compared, so only the likelihood reaches it.
    found = student.output.bias.grad.clone()
    student.zero_grad()
    Objective(student, exact({}))(inputs, targets, student.initial_state(3))[0].backward()
    torch.testing.assert_close(found, student.output.bias.grad)
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize(
    ("student", "widths"),
    [(make_model("lstm", hidden=12), "12.*20"), (make_model("lstm/projection"), "12.*20")],
    ids=["units", "projection"],
)
def test_hidden_states_of_another_width(student, widths):
    teacher = make_model("lstm", seed=2)
    with pytest.raises(UsageError, match=f"{widths}.*same width.*before the step") as caught:
        train(student, {"distillation_hidden": 1.0}, teacher=teacher)
    assert "\n" not in str(caught.value)
    train(student, {"epochs": 1}, teacher=teacher)


def test_the_teacher_carries_its_state_and_gets_no_gradient():
    student, teacher = make_model("lstm"), make_model("gru", seed=5)
    config = exact({"distillation_weight": 1.0})
    distillation = Distillation(teacher, student, config)
    objective = Objective(student.train(), config, distillation)
    inputs, targets = window(time=10)
    loss, _, _ = objective(inputs[:4], targets[:4], student.initial_state(3))
    loss.backward()
    objective(inputs[4:], targets[4:], student.initial_state(3))
    expected = teacher(inputs, teacher.initial_state(3))[1]
    states = distillation.training_state()["states"]
    for found, wanted in zip(states[0], expected, strict=True):
        torch.testing.assert_close(found[0], wanted[0])
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert not any(name.startswith("distillation") for name, _ in objective.named_parameters())


def divergence(teacher: LanguageModel, student: LanguageModel) -> float:
    ids = torch.from_numpy(text(300, seed=4).astype(np.int64))[:, None]
    with torch.no_grad():
        p = teacher(ids, teacher.initial_state(1))[0].log_softmax(-1)
        q = student(ids, student.initial_state(1))[0].log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("samples", [None, 50])
def test_distillation_brings_the_student_near(samples: int | None):
    teacher, student = make_model("lstm", seed=2), make_model("lstm", hidden=12)
    before = divergence(teacher, student)
    settings = {"optimizer": "adam", "learning_rate": 0.005, "distillation_weight": 1.0}
    settings["distillation_samples"] = samples
    train(student, settings, teacher=teacher, validate=None)
    assert divergence(teacher, student) < 0.6 * before


def test_teachers_that_are_sampled_read_the_text_once(monkeypatch: pytest.MonkeyPatch):
    student, teachers = make_model("lstm"), [make_model("gru", seed=5), make_model("lstm", seed=6)]
    settings = {"distillation_weight": 0.3, "distillation_temperature": 2.0}
    config = exact({**settings, "distillation_samples": 400})
    distillation = Distillation(teachers, student, config)
    distillation.open(Place(None, streams=3, steps=10), stored=None)
    objective = Objective(student.eval(), config, distillation)
    inputs, targets = window(time=10)
    state = student.initial_state(3)
    first, _, between = objective(inputs[:4], targets[:4], state)
    second, _, _ = objective(inputs[4:], targets[4:], between)
    for each in teachers:
        monkeypatch.setattr(each, "hidden", None)
    # The windows of another epoch begin elsewhere.
    distillation.start_text()
    again, _, _ = objective(inputs, targets, state)
    assert again.item() == pytest.approx((4 * first.item() + 6 * second.item()) / 10, rel=1e-6)
    distillation.close()
    monkeypatch.undo()
    hidden = [each.hidden(inputs, each.initial_state(3)).output for each in teachers]
    p = sum(
        (each.output.logits(found) / 2).softmax(-1)
        for each, found in zip(teachers, hidden, strict=True)
    ).double()
    scores = student(inputs, state)[0].double()
    hard = -scores.log_softmax(-1).gather(-1, targets[..., None]).mean()
    far = -(p / 2 * (scores / 2).log_softmax(-1)).sum(-1).mean()
    assert again.item() == pytest.approx(float((0.7 * hard + 0.3 * 4 * far).detach()), rel=0.002)


def test_samples_hold_no_outputs_of_layers():
    with pytest.raises(UsageError, match="distillation_samples keeps no outputs"):
        exact({"distillation_samples": 10, "distillation_hidden": 1.0})


def test_two_teachers_by_hand():
    student = make_model("lstm").train()
    teachers = [make_model("gru", seed=5), make_model("lstm", seed=6)]
    settings = {"distillation_weight": 0.3, "distillation_temperature": 2.0}
    config = exact({**settings, "distillation_hidden": 1.7})
    objective = Objective(student, config, Distillation(teachers, student, config))
    inputs, targets = window(time=10)
    objective(inputs[:4], targets[:4], student.initial_state(3))
    state = student(inputs[:4], student.initial_state(3))[1]
    loss, nll, _ = objective(inputs[4:], targets[4:], state)

    def last(model: LanguageModel) -> tuple[Tensor, Tensor]:
        """Scores and last layer's output of the second window, float64."""
        with torch.no_grad():
            hidden = model.hidden(inputs, model.initial_state(3))
            return model.output.logits(hidden.output)[4:].double(), hidden.raw[4:].double()

    scores, ours = last(student)
    hard = -scores.log_softmax(-1).gather(-1, targets[4:, :, None]).mean()
    taught = [last(each) for each in teachers]
    p = sum((theirs / 2).softmax(-1) for theirs, _ in taught) / 2
    far = (p * (p.log() - (scores / 2).log_softmax(-1))).sum(-1).mean()
    hint = sum((ours - raw).square().mean() / raw.square().mean() for _, raw in taught) / 2
    assert float(nll) == pytest.approx(float(hard), rel=1e-5)
    wanted = 0.7 * hard + 0.3 * 4 * far + 1.7 * hint
    assert loss.item() == pytest.approx(float(wanted), rel=1e-5)


def test_teachers_that_cannot_teach():
    model = make_model("lstm")
    with pytest.raises(UsageError, match="itself"):
        train(model, teacher=model)
    with pytest.raises(UsageError, match="itself"):
        train(model, teacher=[make_model("lstm", seed=2), model])
    with pytest.raises(UsageError, match="without a teacher"):
        train(model, teacher=[])
    words = list(model.vocabulary.words)
    for listed, message in (
        ([*words, "new"], "of 37 and 38 tokens; teacher and model"),
        (words[::-1], "other"),
    ):
        stranger = LanguageModel(model.config, vocabulary_from_words(listed))
        with pytest.raises(UsageError, match=message):
            train(model, teacher=[make_model("gru"), stranger])


def test_varied_windows_cover_the_text_and_repeat():
    config = exact({"random_window": True, "batch": 4, "window": 20, "seed": 1})
    windows = Windows(text(), 0, config)
    epoch = windows.epoch(1)
    lengths = [len(inputs) for inputs, _ in epoch]
    assert sum(lengths) == 375
    assert len(set(lengths)) > 3
    assert min(lengths[:-1]) >= 5
    whole = torch.cat([targets for _, targets in epoch]).T
    assert torch.equal(whole.flatten(), torch.from_numpy(text().astype(np.int64)))
    again = [len(inputs) for inputs, _ in Windows(text(), 0, config).epoch(1)]
    assert lengths == again
    assert lengths != [len(inputs) for inputs, _ in windows.epoch(2)]


def test_varied_windows_are_about_as_long_as_asked():
    config = exact({"random_window": True, "window": 70})
    starts = varied_starts(100_000, config, np.random.default_rng(0))
    lengths = np.diff(starts)
    assert 66 < np.mean(lengths) < 70
    assert 0.02 < np.mean(lengths < 50) < 0.09


def test_streams_that_cannot_be_shared():
    config = exact({"batch": 5})
    with pytest.raises(UsageError, match="multiple of 2"):
        Windows(text(), 0, config, rank=0, world=2)


def test_perplexity_of_a_huge_loss():
    from terselm.train.metrics import perplexity_of

    assert perplexity_of(1e6) == math.inf

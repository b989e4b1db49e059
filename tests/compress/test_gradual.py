"""Forms that become sparse while they are trained."""

from __future__ import annotations

import warnings
from copy import deepcopy as copy_of

import pytest
import torch
from torch import nn

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.gradual import GradualSparse
from terselm.compress.recipe import Recipe
from terselm.compress.schedule import CubicSchedule
from terselm.compress.variational import (
    THRESHOLD,
    VariationalSparse,
    kl_divergence,
    regularization_losses,
)
from terselm.errors import UsageError
from tests.tiny import CELL_VARIANTS, logits_of, make_model


def train(op_or_model, steps: int, loss, lr=0.01):
    optimizer = torch.optim.Adam(op_or_model.parameters(), lr=lr)
    op_or_model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()
    return op_or_model.eval()


def model_training(steps: int, observed=None):
    """A Recovery that trains a tiny model for some steps."""

    def recover(model, settings, teacher):
        tokens = torch.arange(24).view(12, 2)

        def loss():
            if observed is not None:
                observed(model)
            return model.negative_log_likelihood(tokens, tokens, model.initial_state(2))[0].mean()

        train(model, steps, loss)
        model.settle()
        return model

    return recover


def test_sparsity_follows_the_schedule_step_by_step():
    torch.manual_seed(0)
    schedule = CubicSchedule(final=0.8, begin=2, end=12, every=2)
    op = GradualSparse(torch.randn(10, 20), schedule)
    target, seen = torch.randn(10, 20), []

    def loss():
        dense = op.dense()
        seen.append(int((dense == 0).sum()))
        op.rows(torch.tensor([1, 2]))  # a second use in the same step counts once
        return (dense - target).square().sum()

    train(op, 20, loss)
    assert seen == [round(schedule.sparsity(step) * 200) for step in range(20)]
    assert op.reached


def test_what_is_out_stays_out():
    torch.manual_seed(1)
    op = GradualSparse(torch.randn(10, 20), CubicSchedule(final=0.7, begin=0, end=10))
    target, out = torch.randn(10, 20), torch.zeros(10, 20, dtype=torch.bool)

    def loss():
        dense = op.dense()
        assert not dense[out].any()
        out.logical_or_(dense == 0)
        return (dense - target).square().sum()

    train(op, 20, loss)
    assert int(out.sum()) == 140
    assert torch.equal(op.finished().dense() != 0, ~out)


def test_evaluation_is_at_the_final_sparsity_at_any_time():
    torch.manual_seed(2)
    op = GradualSparse(torch.randn(10, 20), CubicSchedule(final=0.8, begin=0, end=100))
    target = torch.randn(10, 20)
    for _ in range(3):
        dense = op.eval().dense()
        assert int((dense == 0).sum()) == 160
        assert torch.equal(dense, op.finished().dense())
        kept = dense != 0
        assert op.weight[kept].abs().min() >= op.weight[~kept].abs().max()
        train(op, 4, lambda: (op.dense() - target).square().sum())
    assert not op.reached


def test_evaluation_in_inference_mode():
    torch.manual_seed(2)
    op = GradualSparse(torch.randn(10, 20), CubicSchedule(final=0.8, begin=0, end=100))
    with torch.inference_mode():
        copy = copy_of(op).eval().dense()
        seen = op.eval().dense()
    assert torch.equal(copy, seen) and torch.equal(seen, op.dense())
    train(op, 4, lambda: op.dense().square().sum())
    op.dense().sum().backward()


def test_going_back_to_earlier_weights_gives_what_was_validated():
    torch.manual_seed(3)
    op = GradualSparse(torch.randn(10, 20), CubicSchedule(final=0.8, begin=0, end=10))
    target = torch.randn(10, 20)
    train(op, 4, lambda: (op.dense() - target).square().sum())
    validated, weight = op.dense().detach().clone(), op.weight.detach().clone()
    train(op, 20, lambda: (op.dense() - target).square().sum())
    with torch.no_grad():
        op.weight.copy_(weight)
    assert torch.equal(op.finished().dense(), validated)


@pytest.mark.parametrize("cell", CELL_VARIANTS)
@pytest.mark.parametrize("tied", [False, True])
def test_gradual_pruning_of_a_model(cell, tied):
    item = {"method": "prune_gradually", "sparsity": 0.7, "end": 10, "matrices": "output cells.*"}
    shares = []

    def observed(model):
        op = model.weights()["cells.0.weight_hh"]
        shares.append(float((op.dense() == 0).float().mean()))

    context = Context(recover=model_training(15, observed))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="prune_gradually")
        small = compress(make_model(cell, tied=tied), Recipe.from_list([item]), context).model
    assert shares == sorted(shares) and shares[0] == 0 and shares[-1] > 0.69
    for name, op in small.weights().items():
        if name == "embedding" and not tied:
            assert op.kind == "dense"
        else:
            total = op.out_features * op.in_features
            assert op.kind == "sparse"
            assert op.parameter_count() == total - round(0.7 * total)


def test_a_training_that_ends_early_is_told(caplog):
    item = {"method": "prune_gradually", "sparsity": 0.7, "end": 10}
    context = Context(recover=model_training(5))
    small = compress(make_model("lstm"), Recipe.from_list([item]), context).model
    (said,) = caplog.messages
    assert "after 5 of 10 steps" in said and "smaller 'end' or more epochs" in said
    assert all(op.kind == "sparse" for op in small.weights().values())


def test_a_sparse_form_that_saves_nothing_is_told_before_the_training():
    def never(model, settings, teacher):
        raise AssertionError("it was trained")

    item = {"method": "prune_gradually", "sparsity": 0.03, "end": 1}
    with pytest.raises(UsageError, match=r"embedding at sparsity 0.03.* prune to about 0\.\d+"):
        compress(make_model("lstm"), Recipe.from_list([item]), Context(recover=never))


def test_without_zeros_a_matrix_stays_dense():
    item = {"method": "prune_gradually", "sparsity": 0.0, "end": 1, "type": "float16"}
    context = Context(recover=model_training(1))
    small = compress(make_model("lstm"), Recipe.from_list([item]), context).model
    assert {(op.kind, op.stored_type) for op in small.weights().values()} == {("dense", "float16")}


def test_wrong_use_is_told():
    def run(*items, model=None):
        context = Context(recover=model_training(1))
        return compress(model or make_model("lstm"), Recipe.from_list(items), context)

    item = {"method": "prune_gradually", "sparsity": 0.7, "end": 10}
    with pytest.raises(UsageError, match=r"'outptu' matches no weight.*output"):
        run({**item, "matrices": "outptu"})
    with pytest.raises(UsageError, match="takes dense weights, and embedding is sparse"):
        run({"method": "magnitude", "sparsity": 0.5}, item)
    for wrong, match in (
        ({"begin": 10}, "begin 10 is not before end 10; use an end of at least 11"),
        ({"initial": 0.8}, r"initial 0.8 is not in \[0, sparsity\]; use at most 0.7"),
    ):
        with pytest.raises(UsageError, match=match):
            Recipe.from_list([{**item, **wrong}])
    with pytest.raises(UsageError, match="needs text to train on"):
        compress(make_model("lstm"), Recipe.from_list([item]))


def test_kl_is_that_of_the_integral():
    """KL(N(1, α) || log-uniform) by its series of eq. 13's definition, by Monte Carlo."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(400_000, generator=generator, dtype=torch.float64)

    def integral(log_alpha: float) -> float:
        # −KL = ½ log α − E log |1 + √α ε| up to a constant (Kingma et al. 2015).
        root = torch.exp(torch.tensor(0.5 * log_alpha, dtype=torch.float64))
        return float(-0.5 * log_alpha + (1 + root * noise).abs().log().mean())

    points = [-6.0, -3.0, -1.0, 0.0, 1.0, 3.0, 6.0]
    found = [kl_divergence(torch.tensor(point)).item() for point in points]
    exact = [integral(point) for point in points]
    constant = exact[-1] - found[-1]
    for ours, truth in zip(found, exact, strict=True):
        assert ours == pytest.approx(truth - constant, abs=0.02)


@pytest.mark.parametrize("per", ["weight", "row"])
def test_the_regularization_joins_the_gradient_once_a_step(per):
    torch.manual_seed(4)
    op = VariationalSparse(torch.randn(6, 8), kl_weight=0.01, per=per).train()
    coefficients = torch.randn(6, 8)
    seen = {}
    for with_kl in (True, False):
        torch.manual_seed(7)
        op.zero_grad()
        op.kl_weight = 0.01 if with_kl else 0.0
        op._charged = None
        first = op.dense()
        second = op.dense()  # a tied matrix is used twice in a window
        ((first + second) * coefficients).sum().backward()
        seen[with_kl] = {name: p.grad.clone() for name, p in op.named_parameters()}
    op.kl_weight = 0.01
    op.zero_grad()
    op.regularization_loss().backward()
    for name, parameter in op.named_parameters():
        alone = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(
            seen[True][name] - seen[False][name], alone, rtol=1e-3, atol=1e-5
        )
    assert next(regularization_losses(nn.ModuleList([op]))).item() > 0


def test_weights_that_do_not_matter_go_and_the_others_stay():
    torch.manual_seed(5)
    truth = torch.zeros(4, 12)
    truth[:, :3] = torch.randn(4, 3).sign() * 2
    op = VariationalSparse(torch.randn(4, 12) * 0.3, kl_weight=0.03)
    x = torch.randn(64, 12)
    y = x @ truth.T + 0.5 * torch.randn(64, 4)
    for rate in (0.05, 0.005):
        train(op, 600, lambda: (op(x) - y).square().sum(-1).mean() * 2, lr=rate)
    kept = op.finished().dense() != 0
    assert kept[:, :3].all()
    assert kept[:, 3:].float().mean() < 0.2
    assert torch.equal(op.dense(), op.finished().dense())


def test_noise_has_the_stated_variance():
    torch.manual_seed(6)
    op = VariationalSparse(torch.ones(3, 2), kl_weight=1e-6).train()
    with torch.no_grad():
        op.log_variance.copy_(torch.tensor([[-2.0, 0.0], [1.0, -4.0], [0.0, 0.5]]))
    draws = torch.stack([op.dense().detach() for _ in range(20_000)])
    torch.testing.assert_close(draws.var(0).log(), op.log_variance.detach(), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("per", ["weight", "row"])
def test_what_the_text_never_uses_goes_however_large(per):
    op = VariationalSparse(torch.full((4, 3), 2.0), kl_weight=1e-6, per=per)
    train(op, 400, lambda: 0 * op.dense().sum(), lr=0.05)
    assert not op.final_mask().any()


def test_rows_go_whole():
    op = VariationalSparse(torch.randn(5, 4), kl_weight=1e-6, per="row")
    with torch.no_grad():
        op.log_variance[[1, 3]] = THRESHOLD + 1
    dense = op.eval().dense()
    assert not dense[[1, 3]].any() and dense[[0, 2, 4]].all()
    assert torch.equal(op.finished().dense(), dense)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("per", ["weight", "row"])
def test_variational_training_of_a_model(tied, per):
    item = {"method": "sparse_variational", "per": per, "kl_weight": 0.01}
    seen = []

    def recover(model, settings, teacher):
        model = model_training(300)(model, settings, teacher)
        seen.append(logits_of(model))
        return model

    small = compress(
        make_model("lstm", tied=tied), Recipe.from_list([item]), Context(recover=recover)
    )
    assert {op.kind for op in small.model.weights().values()} <= {"sparse", "dense"}
    torch.testing.assert_close(logits_of(small.model), seen[0], rtol=1e-4, atol=1e-5)

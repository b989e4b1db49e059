"""Masks, schedules and least squares against sums written out here."""

from __future__ import annotations

import itertools

import pytest
import torch

from terselm.compress.importance import (
    compensate,
    damped,
    in_solvable_type,
    next_costs,
    surgeon_scores,
    wanda_scores,
    weighted_rows,
)
from terselm.compress.schedule import CubicSchedule
from terselm.compress.sparsity import (
    block_sums,
    blocks_to_mask,
    mask_of_largest,
    mask_of_largest_in_rows,
    masks_over_all,
    zeros_for,
)
from terselm.errors import UsageError


@pytest.mark.parametrize("zeros", [0, 1, 7, 20, 34, 35])
def test_exactly_the_smallest_are_left_out(zeros):
    torch.manual_seed(0)
    scores = torch.rand(5, 7)
    mask = mask_of_largest(scores, zeros)
    smallest = sorted(scores.flatten().tolist())[:zeros]
    assert sorted(scores[~mask].tolist()) == pytest.approx(smallest)


@pytest.mark.parametrize("zeros", [0, 3, 6, 10, 12])
def test_equal_scores_give_the_exact_count_and_keep_the_first(zeros):
    scores = torch.tensor([[1.0, 0.0, 1.0, 1.0], [0.0, 1.0, 0.0, 0.0], [2.0, 1.0, 1.0, 0.0]])
    mask = mask_of_largest(scores, zeros).flatten().tolist()
    # Python's sort is stable: the independent order is score down, then place up.
    order = sorted(range(12), key=lambda place: -scores.flatten()[place].item())
    assert mask == [place in order[: 12 - zeros] for place in range(12)]


def test_every_row_loses_the_same_number():
    torch.manual_seed(1)
    scores = torch.rand(6, 9)
    mask = mask_of_largest_in_rows(scores, 4)
    for row, kept in zip(scores.tolist(), mask.tolist(), strict=True):
        left_out = [score for score, stays in zip(row, kept, strict=True) if not stays]
        assert sorted(left_out) == sorted(row)[:4]


def test_one_threshold_for_several_matrices_is_the_brute_force_one():
    torch.manual_seed(2)
    scores = {"a": torch.rand(4, 5), "b": torch.rand(3, 8) * 3, "c": torch.rand(2, 2) / 9}
    masks = masks_over_all(scores, 20)
    everything = sorted(
        (value, name, place)
        for name, score in scores.items()
        for place, value in enumerate(score.flatten().tolist())
    )
    gone = {(name, place) for _, name, place in everything[:20]}
    for name, mask in masks.items():
        assert mask.shape == scores[name].shape
        for place, stays in enumerate(mask.flatten().tolist()):
            assert stays == ((name, place) not in gone)


@pytest.mark.parametrize("block", [(1, 1), (2, 4), (4, 2), (16, 4)])
def test_block_sums_and_masks(block):
    torch.manual_seed(3)
    scores = torch.rand(7, 9)
    sums = block_sums(scores, block)
    for i, j in itertools.product(range(sums.shape[0]), range(sums.shape[1])):
        part = scores[i * block[0] : (i + 1) * block[0], j * block[1] : (j + 1) * block[1]]
        assert sums[i, j].item() == pytest.approx(part.sum().item(), rel=1e-5)
    kept = torch.rand(sums.shape) < 0.5
    mask = blocks_to_mask(kept, block, (7, 9))
    for i, j in itertools.product(range(7), range(9)):
        assert mask[i, j] == kept[i // block[0], j // block[1]]


def test_zeros_are_counted_to_the_nearest():
    assert [zeros_for(10, share) for share in (0.0, 0.04, 0.06, 0.5, 0.99)] == [0, 0, 1, 5, 10]


def moment_of(inputs: torch.Tensor) -> torch.Tensor:
    return inputs.T @ inputs / len(inputs)


def test_wanda_is_weight_times_input_norm():
    inputs = torch.tensor([[1.0, 0.0, 2.0], [3.0, 0.0, 0.0]]).double()
    weight = torch.tensor([[1.0, -5.0, 2.0]])
    scores = wanda_scores(weight, moment_of(inputs).diagonal())
    norms = [10**0.5, 0.0, 2.0]
    expected = [abs(w) * n / 2**0.5 for w, n in zip([1.0, -5.0, 2.0], norms, strict=True)]
    assert scores[0].tolist() == pytest.approx(expected)


def test_compensation_is_least_squares_on_the_inputs():
    torch.manual_seed(4)
    inputs = torch.randn(200, 10, dtype=torch.float64) @ torch.randn(10, 10).double()
    weight = torch.randn(6, 10)
    mask = torch.rand(6, 10) < 0.5
    mask[2] = False
    mask[3] = True
    found = compensate(weight, mask, moment_of(inputs))
    assert not found[~mask].any()
    for row, kept, got in zip(weight, mask, found, strict=True):
        wanted = torch.zeros(10).double()
        if kept.any():
            target = inputs @ row.double()
            wanted[kept] = torch.linalg.lstsq(inputs[:, kept], target.unsqueeze(1)).solution[:, 0]
        torch.testing.assert_close(got.double(), wanted, rtol=1e-4, atol=1e-4)


def test_saliency_is_the_error_of_leaving_one_out_and_solving_for_the_others():
    torch.manual_seed(5)
    inputs = torch.randn(100, 6, dtype=torch.float64) @ torch.randn(6, 6).double()
    moment, weight = moment_of(inputs), torch.randn(1, 6)
    scores = surgeon_scores(weight, moment)
    for place in range(6):
        mask = torch.ones(1, 6, dtype=torch.bool)
        mask[0, place] = False
        error = (weight - compensate(weight, mask, moment)).double()
        assert scores[0, place].item() == pytest.approx((error @ moment @ error.T).item(), rel=1e-3)


def test_the_less_damping_the_less_error():
    """Also where float32 could not solve the systems: 12 inputs of 20 numbers."""
    torch.manual_seed(0)
    weight, mask = torch.randn(6, 20), torch.rand(6, 20) < 0.5
    moment = moment_of(torch.randn(12, 20).double())
    errors, types = [], []
    for damping in (0.1, 0.01, 1e-4, 1e-6, 1e-8):
        matrix = in_solvable_type(damped(moment, damping), damping)
        difference = (weight - compensate(weight, mask, matrix)).double()
        errors.append(float(((difference @ moment) * difference).sum()))
        types.append(matrix.dtype)
    assert errors == sorted(errors, reverse=True)
    assert types == [torch.float32] * 3 + [torch.float64] * 2


def test_damping_makes_dead_inputs_harmless():
    moment = torch.zeros(3, 3).double()
    moment[0, 0] = 4.0
    assert torch.equal(damped(torch.zeros(3, 3).double(), 0.01), torch.eye(3).double())
    assert torch.linalg.eigvalsh(damped(moment, 0.01)).min() > 0
    assert moment[1, 1] == 0  # the argument is as it was


def test_the_cubic_schedule():
    schedule = CubicSchedule(final=0.9, begin=10, end=110, initial=0.1, every=5)
    assert schedule.sparsity(0) == schedule.sparsity(14) == pytest.approx(0.1)
    assert schedule.sparsity(60) == schedule.sparsity(64) == pytest.approx(0.9 - 0.8 * 0.125)
    assert schedule.sparsity(110) == schedule.sparsity(9999) == 0.9
    course = [schedule.sparsity(step) for step in range(120)]
    assert course == sorted(course)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"final": 1.0, "begin": 0, "end": 1}, "sparsity is 1.0"),
        ({"final": 0.5, "begin": 0, "end": 1, "initial": 0.6}, "initial 0.6 .* at most 0.5"),
        ({"final": 0.5, "begin": 3, "end": 3}, "begin 3 is not before end 3; .* at least 4"),
        ({"final": 0.5, "begin": -1, "end": 3}, "begin is -1; it must be at least 0"),
        ({"final": 0.5, "begin": 0, "end": 3, "every": 0}, "every is 0; it must be at least 1"),
    ],
)
def test_an_impossible_schedule_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        CubicSchedule(**options)


def test_rows_of_frequent_words_count_more():
    scores = torch.tensor([[1.0, 3.0], [4.0, 4.0], [0.0, 0.0]])
    weighted = weighted_rows(scores, torch.tensor([8.0, 1.0, 1.0]), 0.5)
    # Row means 2 and 4: factors sqrt(8 / 2) and sqrt(1 / 4), then back to the mean of 2.
    expected = torch.tensor([[2.0, 6.0], [2.0, 2.0], [0.0, 0.0]])
    torch.testing.assert_close(weighted, expected * (scores.mean() / expected.mean()))
    assert torch.equal(weighted_rows(torch.zeros(2, 2), torch.ones(2), 0.5), torch.zeros(2, 2))


def test_the_next_cost_is_what_leaving_one_more_out_adds():
    torch.manual_seed(6)
    weight = torch.randn(3, 7)
    inputs = torch.randn(50, 7, dtype=torch.float64)
    mask = torch.rand(3, 7) > 0.3
    moment = moment_of(inputs)

    def error(kept):
        difference = (weight - compensate(weight, kept, moment)).double()
        return (difference @ moment * difference).sum(1)

    costs = next_costs(weight, mask, moment)
    assert (costs[~mask] == 0).all()
    for row, column in mask.nonzero().tolist():
        fewer = mask.clone()
        fewer[row, column] = False
        added = (error(fewer) - error(mask))[row]
        torch.testing.assert_close(costs[row, column].double(), added, rtol=1e-3, atol=1e-5)

"""Perplexity is that of one stream, whatever the window, and every number has a second source."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from terselm.errors import TerselmError, UsageError
from terselm.evaluate.evaluation import interval
from terselm.evaluate.perplexity import evaluate, perplexity, ranks_of, validation_perplexity
from terselm.evaluate.stream import LEAST_PART, PARTS, hidden_states, hidden_states_in_parts, ready
from tests.evaluate.truth import logits_step_by_step, nats_step_by_step, random_ids, split_of
from tests.tiny import CELL_VARIANTS, FORM_BUILDERS, make_model


def calm(model):
    """The model with weights so small that its state forgets: no chaos, so rounding stays small."""
    with torch.no_grad():
        for name, op in model.weights().items():
            for leaf in op.leaves(name).values():
                size = leaf.dense().norm(dim=1).max()
                for numbers in leaf.parameters():
                    numbers.div_(size)
    return model


def uniform_model():
    model = make_model("lstm")
    with torch.no_grad():
        for op in model.weights().values():
            op.weight.zero_()
        model.output.bias.zero_()
    return model


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_equals_the_sum_step_by_step(cell, tied):
    model = calm(make_model(cell, tied=tied, layers=3))
    ids = random_ids(model, 150)
    nats = nats_step_by_step(model, ids)
    result = evaluate(model, split_of(ids, characters=777))
    assert result.perplexity == pytest.approx(math.exp(math.fsum(nats) / 150), rel=1e-6)
    assert result.tokens == 150
    bits = math.fsum(nats) / math.log(2)
    assert result.bits_per_character == pytest.approx(bits / 777, rel=1e-6)
    assert result.average_word_prediction_accuracy == pytest.approx(1 / result.perplexity)
    assert perplexity(model, ids) == pytest.approx(result.perplexity, rel=1e-12)


@pytest.mark.parametrize("cell", CELL_VARIANTS)
def test_parts_side_by_side_are_nearly_the_one_stream(cell):
    model = make_model(cell)
    with torch.no_grad():  # as they are, the state is chaotic: it never forgets
        for op in model.weights().values():
            op.weight.mul_(0.3)
    ids = np.array(random_ids(model, 2 * LEAST_PART + 37))
    assert validation_perplexity(model, ids) == pytest.approx(perplexity(model, ids), rel=1e-6)
    start = model.vocabulary.start_id
    with torch.inference_mode():
        one = torch.cat([hidden for hidden, _ in hidden_states(ready(model), ids, start, 512)])
        *blocks, rest = (hidden for hidden, _ in hidden_states_in_parts(ready(model), ids, start))
    steps = torch.cat([each.unflatten(0, (-1, 2)) for each in blocks])  # [T, 2, size]
    parts = torch.cat([steps.transpose(0, 1).flatten(0, 1), rest])
    torch.testing.assert_close(parts, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("rest", [0, 1, 15])
def test_parts_hold_every_token_once(rest):
    model = make_model("lstm")
    ids = np.array(random_ids(model, PARTS * LEAST_PART + rest))
    with torch.inference_mode():
        blocks = list(hidden_states_in_parts(ready(model), ids, model.vocabulary.start_id))
    assert len(blocks[0][0]) == 128 * PARTS
    targets = torch.cat([targets for _, targets in blocks])
    assert torch.equal(targets.bincount(), torch.from_numpy(ids).bincount())


def test_a_short_text_is_one_part():
    model = make_model("lstm")
    ids = random_ids(model, 2 * LEAST_PART - 1)
    assert validation_perplexity(model, ids) == pytest.approx(perplexity(model, ids), rel=1e-6)


@pytest.mark.parametrize("form", FORM_BUILDERS)
def test_every_stored_form_is_measured_as_it_is(form):
    model = make_model("gru")
    for name, op in model.weights().items():
        model.replace_weight(name, FORM_BUILDERS[form](*op.shape))
    ids = random_ids(calm(model), 80)
    truth = math.exp(nats_step_by_step(model, ids).mean())
    assert perplexity(model, ids) == pytest.approx(truth, rel=1e-5)


@pytest.mark.parametrize("window", [1, 7, 64, 512])
def test_the_window_does_not_matter(window):
    model = make_model("lstm")
    split = split_of(random_ids(model, 700))
    one, other = evaluate(model, split), evaluate(model, split, window=window)
    assert other.perplexity == pytest.approx(one.perplexity, rel=1e-6)
    assert other.ci95 == pytest.approx(one.ci95, rel=1e-6)
    assert (other.top1_accuracy, other.top3_accuracy) == (one.top1_accuracy, one.top3_accuracy)


def test_the_size_of_blocks_of_logits_does_not_matter(monkeypatch):
    model = make_model("lstm")
    ids = random_ids(model, 50)
    whole = perplexity(model, ids)
    monkeypatch.setattr("terselm.evaluate.stream.LOGITS_BYTES", 1)
    assert perplexity(model, ids) == pytest.approx(whole, rel=1e-6)


def test_accuracy_equals_a_full_sort():
    model = make_model("gru")
    ids = random_ids(model, 600)
    order = np.argsort(-logits_step_by_step(model, ids), axis=1)
    result = evaluate(model, split_of(ids))
    assert result.top1_accuracy == np.mean(order[:, 0] == ids)
    assert result.top3_accuracy == np.mean((order[:, :3] == np.array(ids)[:, None]).any(axis=1))
    assert 0 < result.top1_accuracy < result.top3_accuracy < 1


def test_what_is_level_with_the_target_counts_as_before_it():
    logits = torch.tensor([[1.0, 3.0, 3.0, 0.0], [5.0, 1.0, 1.0, 1.0]])
    assert ranks_of(logits, torch.tensor([1, 0])).tolist() == [1, 0]
    assert ranks_of(logits, torch.tensor([2, 3])).tolist() == [1, 3]
    assert ranks_of(logits, torch.tensor([0, 1])).tolist() == [2, 3]


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary():
    model = uniform_model()
    size = len(model.vocabulary)
    result = evaluate(model, split_of(random_ids(model, 300)))
    assert result.perplexity == pytest.approx(size, rel=1e-6)
    assert result.ci95 == pytest.approx((size, size), rel=1e-6)
    assert result.average_word_prediction_accuracy == pytest.approx(1 / size, rel=1e-6)
    # No knowledge is no right answer, not one by the luck of a low id.
    assert result.top1_accuracy == result.top3_accuracy == 0


def test_the_interval_shrinks_with_the_text():
    model = make_model("lstm")
    ids = random_ids(model, 2400)
    widths = []
    for count in (150, 600, 2400):
        result = evaluate(model, split_of(ids[:count]))
        low, high = result.ci95
        assert low < result.perplexity < high
        widths.append(math.log(high / low))
    assert widths[0] > widths[1] > widths[2]
    assert widths[0] / widths[2] == pytest.approx(4, rel=0.5)


def test_the_interval_covers_correlated_nats_where_the_usual_one_does_not():
    generator = np.random.default_rng(0)
    covered = naive = 0
    rounds, count, carried = 200, 2500, 0.7
    for _ in range(rounds):
        noise = generator.normal(size=count + 100)
        for step in range(1, len(noise)):
            noise[step] += carried * noise[step - 1]
        nats = 5 + noise[100:]
        low, high = interval(nats)
        covered += low < math.exp(5) < high
        naive += abs(nats.mean() - 5) < 1.96 * nats.std() / math.sqrt(count)
    assert covered / rounds > 0.88
    assert naive / rounds < 0.75


def test_an_interval_beyond_what_a_number_holds():
    low, high = interval(np.linspace(4e3, 6e3, 100))
    assert low <= high < math.inf
    assert interval(np.full(100, 700.0)) == pytest.approx((math.exp(700), math.exp(700)))


def test_no_interval_below_four_tokens():
    model = make_model("lstm")
    result = evaluate(model, split_of([2, 3, 4]))
    assert result.ci95 is None
    assert result.as_dict()["ci95"] is None
    assert evaluate(model, split_of([2, 3, 4, 5])).ci95 is not None


def test_json():
    model = make_model("lstm")
    split = split_of(random_ids(model, 40), characters=120, unknown=2)
    values = json.loads(json.dumps(evaluate(model, split).as_dict(), allow_nan=False))
    assert set(values) == {
        "perplexity",
        "ci95",
        "tokens",
        "bits_per_character",
        "average_word_prediction_accuracy",
        "top1_accuracy",
        "top3_accuracy",
        "seconds",
        "unknown",
    }
    assert values["unknown"] == 2
    assert values["seconds"] > 0
    assert len(values["ci95"]) == 2
    assert evaluate(model, split_of([1], characters=0)).bits_per_character is None


def test_a_model_in_training_is_left_as_it_is():
    model = make_model("lstm").train()
    ids = random_ids(model, 60)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    first = perplexity(model, ids)
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.is_grad_enabled()
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert perplexity(model.eval(), ids) == first


def test_limit_and_start():
    model = make_model("lstm")
    ids = random_ids(model, 90)
    assert perplexity(model, ids, limit=30) == perplexity(model, ids[:30])
    assert perplexity(model, ids, limit=900) == perplexity(model, ids)
    # Started with a word, the model reads on as if the text had begun with it.
    started = perplexity(model, ids[:1], start_id=7)
    logits, _ = model(torch.tensor([[7]]), model.initial_state(1))
    assert math.log(started) == pytest.approx(
        -float(torch.log_softmax(logits[0, 0], 0)[ids[0]].detach()), rel=1e-5
    )


def test_progress_counts_up_to_the_end():
    model = make_model("lstm")
    seen: list[tuple[int, int]] = []
    evaluate(
        model,
        split_of(random_ids(model, 100)),
        window=30,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(30, 100), (60, 100), (90, 100), (100, 100)]


def test_impossible_requests():
    model = make_model("lstm")
    with pytest.raises(UsageError, match="no tokens"):
        evaluate(model, split_of([]))
    with pytest.raises(UsageError, match="no tokens"):
        perplexity(model, [])
    with pytest.raises(UsageError, match="window is 0"):
        evaluate(model, split_of([1, 2]), window=0)
    for ids, wrong in (([1, 37], 37), ([-1, 2], -1)):
        with pytest.raises(UsageError, match=f"token {wrong}, .* the vocabulary of the model"):
            perplexity(model, ids)


def test_a_damaged_model_gives_an_error_not_a_number():
    model = make_model("lstm")
    with torch.no_grad():
        model.output.bias[3] = math.nan
    with pytest.raises(TerselmError, match="damaged or its training diverged"):
        evaluate(model, split_of([1, 2, 3, 4]))
    assert math.isnan(perplexity(model, [1, 2, 3, 4]))
    with torch.no_grad():
        model.output.bias[3] = 1e6
    assert perplexity(model, [1, 2, 4]) == math.inf
    with pytest.raises(TerselmError, match="not a number that can be stated"):
        evaluate(model, split_of([1, 2, 4]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_measures_the_same():
    model = make_model("lstm", hidden=64)
    split = split_of(random_ids(model, 700))
    here, there = evaluate(model, split), evaluate(model.clone().to("cuda"), split)
    assert there.perplexity == pytest.approx(here.perplexity, rel=1e-4)

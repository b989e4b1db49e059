"""The card of an experiment's model, read back by huggingface_hub."""

from __future__ import annotations

from typing import Any

import pytest
from huggingface_hub import ModelCard

from terselm.report.experiment_card import experiment_card


def result(**changes: Any) -> dict[str, Any]:
    measured = {
        "tokens": 1234,
        "ci95": [85.0, 95.0],
        "bits_per_character": 1.25,
        "top1_accuracy": 0.25,
        "top3_accuracy": 0.4,
    }
    values = {
        "name": "small",
        "seed": 3,
        "experiment": {"title": "LSTM 12 & 4 bits", "train": {"hidden": 12}},
        "data": "ptb",
        "terselm": "0.1.0",
        "machine": {"cpu": "A processor", "kernels": "avx2"},
        "seconds": 4000.0,
        "parameters": 120_000,
        "bytes": 987_654,
        "valid": {"perplexity": 93.123456, **measured},
        "test": {"perplexity": 90.123456, **measured},
        "microseconds_per_token": 40.2,
        "memory": 1_000_000,
    }
    return {**values, **changes}


def test_the_hub_reads_it():
    card = ModelCard(experiment_card(result(), "ptb-1mb", "frontier", "apache-2.0"))
    assert card.data.model_name == "ptb-1mb"
    # A licence of the weights does not hide the terms of the text.
    assert card.data.license == "other"
    assert card.data.license_name == "apache-2.0-weights-ptb-free-for-research-use-only"
    assert "Licence of the weights: apache-2.0." in card.text
    assert "free for research use only; its terms apply" in card.text
    assert {each.dataset_split: each.metric_value for each in card.data.eval_results} == {
        "validation": 93.1235,
        "test": 90.1235,
    }
    for text in ("987,654", "90.12", "85.0 to 95.0", "40.2 µs", "--rows small", "hidden: 12"):
        assert text in card.text
    assert "terselm reproduce frontier --rows small --seeds 3 --out DIR" in card.text
    assert "in 67 min, from the experiment" in card.text


def test_a_text_without_terms_of_its_own():
    found = result(data="tinyshakespeare")
    card = ModelCard(experiment_card(found, "characters", "mine", "apache-2.0"))
    assert card.data.license == "apache-2.0"
    assert "Licence: apache-2.0." in card.text


def test_the_runs_that_it_needs_are_counted_and_shown():
    experiment = {"title": "the model that it starts from", "seeds": [0, 1], "train": {"hidden": 7}}
    before = result(name="base", seconds=2000.0, experiment=experiment)
    other = result(name="teacher", seed=0, seconds=600.0)
    card = ModelCard(experiment_card(result(), "small", "mine", needed=[before, other])).text
    assert "in 110 min, 33 min of them for `base`, 10 min of them for `teacher`, from" in card
    assert "and `base`, which it needs first" in card
    assert "and `teacher` (seed 0), which it needs first" in card
    assert "hidden: 7" in card and "hidden: 12" in card
    assert "seeds:" not in card


@pytest.mark.parametrize(
    "changes", [{"data": "my text"}, {"experiment": {"title": "`*<b>|", "note": "[x](y) ```"}}]
)
def test_odd_strings_stay_strings(changes: dict[str, Any]):
    card = ModelCard(experiment_card(result(**changes), "odd", "mine"))
    assert card.data.model_name == "odd"
    assert "<b>" not in card.text.replace("title: '`*<b>|'", "").replace("`*<b>|", "")
    assert "No licence was stated" in card.text

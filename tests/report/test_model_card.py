"""The model card: read back by the Hub's own parser, whole for any candidate."""

from __future__ import annotations

import re

import pytest
import yaml
from huggingface_hub import ModelCard

from terselm.errors import UsageError
from terselm.report.model_card import model_card
from terselm.report.search_reading import data_name
from tests.report.search_fixture import (
    HOSTILE,
    SMALL,
    hostile,
    one_candidate,
    search_results,
    without_budget,
)


def test_the_hub_reads_the_head():
    card = ModelCard(model_card(search_results(), 44, "apache-2.0", base_model="me/lstm-650"))
    head = card.data.to_dict()
    assert head["library_name"] == "terselm"
    # The weights' licence alone would hide the terms of PTB.
    assert head["license"] == "other"
    assert head["license_name"] == "apache-2.0-weights-ptb-free-for-research-use-only"
    assert head["language"] == "en"
    assert head["base_model"] == "me/lstm-650"
    assert head["metrics"] == ["perplexity"]
    assert head["datasets"] == ["ptb_text_only"]
    found = {each.dataset_split: each.metric_value for each in card.data.eval_results}
    assert found == {"validation": 108.35, "test": 101.85}


def test_every_figure_is_there():
    card = model_card(search_results(), 44)
    for figure in ("79,161,792", "4,736,128", "16.7 ×", "108.35", "101.85", "93.1 to 111.4"):
        assert figure in card
    for figure in ("341 µs", "4.90 MB", "84.2 %", "96.1 %", "0.0713", "recipes/44.yaml"):
        assert figure in card


def test_the_recipe_is_one_that_compress_reads():
    card = model_card(search_results(), 44)
    (block,) = re.findall(r"```yaml\n(.*?)```", card, flags=re.DOTALL)
    assert yaml.safe_load(block) == SMALL


def test_what_was_measured_for_the_chosen_one_is_not_said_of_another():
    card = model_card(search_results(), 2)
    assert "101.85" not in card and "84.2 %" not in card
    assert "The test text was not read for this model." in card
    assert [each.dataset_split for each in ModelCard(card).data.eval_results] == ["validation"]


def test_what_grew_is_not_called_less():
    results = search_results()
    chosen = next(each for each in results["candidates"] if each["number"] == 44)
    chosen.update(bytes=158_323_584, memory=158_484_792, microseconds_per_token=5_000.0)
    card = model_card(results, 44)
    assert card.count("2.00 × larger") == 3 and "2.00 × slower" in card
    assert "less |" not in card
    assert "16.7 × smaller" in model_card(search_results(), 44)


def test_how_often_the_test_text_was_read():
    results = search_results()
    for readings, said in ((None, "test tokens"), (1, "read once"), (2, "read 2 times")):
        results["test"]["readings"] = readings
        assert f"{said}, by the C library" in model_card(results, 44)


def test_estimates_are_called_so():
    card = model_card(one_candidate(), 1)
    assert "The times are estimates for Cortex-A53, 1.2 GHz (neon)" in card
    assert "medians" not in card


@pytest.mark.parametrize(
    ("licence", "head", "prose"),
    [
        (None, {"license": "other"}, "No licence was stated."),
        ("MIT", {"license": "mit"}, "Licence: MIT."),
        ("apache-2.0", {"license": "apache-2.0"}, "Licence: apache-2.0."),
        (
            "My Own [1]",
            {"license": "other", "license_name": "my-own-1"},
            r"Licence: My Own \[1\].",
        ),
    ],
)
def test_licences(licence, head, prose):
    card = model_card({**search_results(), "data": "mine"}, 44, licence)
    data = ModelCard(card).data.to_dict()
    assert {name: data[name] for name in data if name.startswith("license")} == head
    assert prose in card


def test_terms_of_the_text_are_said_with_and_without_a_licence():
    for licence, prose in (
        ("MIT", "Licence of the weights: MIT."),
        (None, "No licence was stated."),
    ):
        card = model_card(search_results(), 44, licence)
        assert "Penn Treebank, which is free for research use only; its terms apply." in card
        assert prose in card


def test_strings_stay_strings():
    results = hostile()
    card = model_card(results, 44, HOSTILE)
    parsed = ModelCard(card)
    assert parsed.data.eval_results[0].dataset_name == data_name(results)
    outside_code = re.sub(r"(`{3,})\S*\n.*?\1", "", parsed.text, flags=re.DOTALL)
    outside_code = re.sub(r"(`+)[^`\n].*?\1", "", outside_code)
    assert "<img" not in outside_code


def test_without_a_budget_the_first_answer_was_measured_further():
    results = without_budget()
    results["test"] = search_results()["test"]
    assert "101.85" in model_card(results, results["answers"]["closest"])
    assert "101.85" not in model_card(results, results["answers"]["smallest"])


def test_a_card_names_no_folder():
    results = {**search_results(), "data": "/home/somebody/texts/mine"}
    head, _, body = model_card(results, 44).removeprefix("---").partition("\n---\n")
    assert "somebody" not in head + body.replace("```", "")


def test_a_number_that_is_not_there():
    with pytest.raises(UsageError, match="no candidate has the number 99; there are: 1"):
        model_card(one_candidate(), 99)

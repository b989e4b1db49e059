"""Recipes: what is accepted, what is refused, and in which words."""

from __future__ import annotations

import pytest

from terselm.compress.recipe import Recipe, load_recipe, presets, selected_weights
from terselm.errors import UsageError
from tests.tiny import make_model


def test_presets_are_valid_and_survive_a_round_trip():
    for name in presets():
        recipe = load_recipe(name)
        assert Recipe.from_list(recipe.as_list()) == recipe


def test_a_file_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("- {method: low_rank, weights: 'cells.* output', rank: 0.5}\n")
    (step,) = load_recipe(path).steps
    assert step.weights == ("cells.*", "output")
    assert step.method.rank == 0.5
    assert step.describe() == "low_rank rank=0.5 on cells.* output"


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"method": "quantise"}, "unknown method 'quantise'; did you mean 'quantize'"),
        ({"method": "quantize", "bit": 4}, "unknown option 'bit'; did you mean 'bits'"),
        ({"method": "quantize", "bits": 5}, "bits"),
        ({"method": "quantize", "bits": 4, "group": 7}, "group"),
        ({"method": "low_rank"}, "rank"),
        ({"method": "low_rank", "rank": 0}, "rank"),
        ({"method": "low_rank", "rank": 1.5}, "rank"),
        ({"method": "low_rank", "rank": -3}, "rank"),
        ({"method": "low_rank", "rank": float("nan")}, "rank"),
        ({"method": "low_rank", "ranks": {}}, "ranks: "),
        ({"method": "low_rank", "rank": 4, "damping": 0}, "damping: "),
        ({"method": "group_reduce", "rank": 0.5, "damping": 0}, "damping: "),
        ({"method": "shared_projection", "rank": 4, "damping": 0}, "damping: "),
        ({"method": "prune_vocabulary"}, "exactly one of keep and coverage"),
        ({"method": "recover", "distill_weight": 0.9}, "distill_weight goes with distill: true"),
        ({"method": "recover", "temperature": 2.0}, "temperature goes with distill: true"),
        ({"method": "recover", "distill_samples": 256}, "distill_samples goes with distill: true"),
        (
            {"method": "prune_gradually", "sparsity": 0.5, "end": 9, "temperature": 2.0},
            "temperature goes with distill: true",
        ),
        ({"method": "recover", "weights": "output"}, "whole model"),
        ({"method": "recover", "epochs": 0}, "epochs"),
        ({"weights": "*"}, "expected {method: NAME"),
        ("quantize", "expected {method: NAME"),
        ({"method": "quantize", "weights": 3}, "weights is 3"),
    ],
)
def test_a_wrong_step_is_named(item, message):
    with pytest.raises(UsageError, match="step 2") as caught:
        Recipe.from_list([{"method": "quantize"}, item])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("items", [[], None, {}, "quantize", {"method": "quantize"}])
def test_something_that_is_no_list_of_steps(items):
    with pytest.raises(UsageError, match="a recipe is a list"):
        Recipe.from_list(items)


@pytest.mark.parametrize(
    ("text", "message"), [("- {method: [", "not valid YAML"), ("", "a recipe is a list")]
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        load_recipe(path)
    assert "broken.yaml" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_by_its_name_is_a_recipe():
    assert load_recipe("unpack").as_list() == [{"method": "unpack"}]
    with pytest.raises(UsageError, match=r"recipe low_rank: step 1 \(low_rank\)"):
        load_recipe("low_rank")


@pytest.mark.parametrize(("word", "meant"), [("balansed", "balanced"), ("unpak", "unpack")])
def test_neither_file_nor_preset_nor_method(word, meant):
    with pytest.raises(UsageError, match=f"did you mean '{meant}'"):
        load_recipe(word)


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ("*", ["embedding", "cells.0.weight_ih", "cells.0.weight_hh", "output"]),
        ("cells.*", ["cells.0.weight_ih", "cells.0.weight_hh"]),
        ("*_hh output", ["cells.0.weight_hh", "output"]),
        ("embedding embedding", ["embedding"]),
    ],
)
def test_patterns_select_weights(weights, expected):
    recipe = Recipe.from_list([{"method": "quantize", "weights": weights}])
    assert selected_weights(recipe.steps[0], make_model("gru", layers=1)) == expected


def test_a_tied_name_stands_for_its_weight():
    recipe = Recipe.from_list([{"method": "quantize", "weights": "embedding output"}])
    assert selected_weights(recipe.steps[0], make_model("gru", tied=True)) == ["embedding"]


def test_a_pattern_without_a_match_names_the_nearest():
    recipe = Recipe.from_list([{"method": "quantize", "weights": "embeding"}])
    with pytest.raises(UsageError, match="'embeding' matches no weight.*'embedding'"):
        selected_weights(recipe.steps[0], make_model("lstm"))

"""Which weights a recipe left as they were, and token ids in another vocabulary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from terselm.compress.apply import compress
from terselm.compress.base import Context
from terselm.compress.changes import renumbered
from terselm.compress.recipe import Recipe
from terselm.errors import UsageError
from terselm.text.build import vocabulary_from_words
from tests.tiny import WORDS, make_model

CALIBRATION = np.random.default_rng(0).integers(len(WORDS), size=32 * 40).astype(np.uint16)
CELLS_0 = ("cells.0.weight_ih", "cells.0.weight_hh")
CELLS_1 = ("cells.1.weight_ih", "cells.1.weight_hh")


def move_output(model, settings, teacher):
    """Stands for training that moves one matrix only."""
    with torch.no_grad():
        for parameter in model.output.weight.parameters():
            parameter.add_(0.01)
    model.settle()
    return model


def applied(*items, model=None):
    context = Context(recover=move_output, calibration=CALIBRATION)
    return compress(model or make_model("lstm"), Recipe.from_list(list(items)), context)


@pytest.mark.parametrize(
    ("items", "untouched", "same_form"),
    [
        # Fewer units of layer 0: its own matrices, and the one that reads them.
        (
            [{"method": "prune_units", "keep": 10, "layers": [0]}],
            ("embedding", "cells.1.weight_hh", "output"),
            (),
        ),
        ([{"method": "prune_vocabulary", "keep": 20}], CELLS_0 + CELLS_1, ()),
        (
            [{"method": "prune_vocabulary", "keep": 37}],
            ("embedding", *CELLS_0, *CELLS_1, "output"),
            (),
        ),
        ([{"method": "recover"}], ("embedding", *CELLS_0, *CELLS_1), ("output",)),
        (
            [{"method": "sparse_variational", "matrices": "output"}],
            ("embedding", *CELLS_0, *CELLS_1),
            ("output",),
        ),
        (
            [{"method": "prune_gradually", "sparsity": 0.5, "end": 1, "matrices": "embedding"}],
            (*CELLS_0, *CELLS_1),
            ("output",),
        ),
        (
            [{"method": "quantize", "weights": "cells.0.*"}, {"method": "recover"}],
            ("embedding", *CELLS_1),
            ("output",),
        ),
        (
            [{"method": "quantize", "weights": "cells.*"}],
            ("embedding", "output"),
            (),
        ),
    ],
    ids=str,
)
def test_what_a_recipe_left_as_it_was(items, untouched, same_form):
    found = applied(*items)
    assert found.untouched == untouched
    assert found.same_form == same_form


def test_a_shared_projection_changes_every_matrix_it_factors():
    found = applied({"method": "shared_projection", "rank": 6})
    assert not set(found.untouched) & {"cells.0.weight_hh", "cells.0.weight_hr", "output"}
    assert found.same_form == ()


def test_ids_in_a_smaller_vocabulary():
    old = vocabulary_from_words(["<eos>", "<unk>", "a", "b", "c"])
    new = vocabulary_from_words(["c", "<eos>", "<unk>", "a"])
    ids = renumbered(np.array([2, 3, 4, 0, 1, 3], np.uint16), old, new)
    assert [new.words[number] for number in ids] == ["a", "<unk>", "c", "<eos>", "<unk>", "<unk>"]
    with pytest.raises(UsageError, match="has no <unk>"):
        renumbered(ids, old, vocabulary_from_words(["<eos>", "a", "c"]))


def test_calibration_goes_along_with_the_vocabulary():
    """A step after `prune_vocabulary` sees the text as the smaller model reads it."""
    items = [{"method": "prune_vocabulary", "keep": 12}, {"method": "gptq", "bits": 4}]
    found = applied(*items)
    first = applied(items[0]).model
    words = [WORDS[number] for number in CALIBRATION]
    ids = np.array([first.vocabulary.id_of(word) for word in words])
    expected = compress(first, Recipe.from_list(items[1:]), Context(calibration=ids)).model
    for name, op in expected.weights().items():
        assert torch.equal(found.model.weights()[name].dense(), op.dense()), name

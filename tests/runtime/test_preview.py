"""A preview of the output layer finds what all scores would find, in whatever form it is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from terselm.errors import UsageError
from terselm.linear.block_sparse import BlockPattern, BlockSparse
from terselm.linear.dense import Dense
from terselm.linear.grouped_rows import GroupedRows
from terselm.linear.low_rank import LowRank
from terselm.linear.row_blocks import RowBlocks
from terselm.models.checkpoint import save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.runtime import Model, kernel_names
from terselm.text.build import vocabulary_from_words
from tests.runtime.test_parity import tamed
from tests.tiny import FORM_BUILDERS, make_output_variant, random_quantized

WORDS, HIDDEN = 403, 160
TOKENS = [3, 0, 77, 250]
PREVIEWED = ["dense", "quantized", "row_blocks/leaves", "grouped_rows/leaves"]
"""Forms that take enough bytes for a preview in 2 bits."""

FORMS = {
    **FORM_BUILDERS,
    "low_rank, wide": lambda rows, columns: LowRank(
        Dense.initialize(rows, 120), random_quantized(120, columns, 8, None)
    ),
    "row_blocks/leaves": lambda rows, columns: RowBlocks(
        [Dense.initialize(rows - 99, columns), random_quantized(99, columns, 8, None)]
    ),
    "grouped_rows/leaves": lambda rows, columns: GroupedRows(
        [Dense.initialize(rows // 2, columns), Dense.initialize(rows - rows // 2, columns)],
        (torch.randperm(rows) >= rows // 2).long(),
    ),
}
# Their rows are not looked up one by one as they are multiplied.
REFUSED = ("row_blocks", "row_blocks/mixed", "grouped_rows")


def refused(form: str) -> bool:
    return form in REFUSED or form.partition("/")[0] in ("tensor_train", "placed_blocks")


def make(form: str | None, **settings: object) -> LanguageModel:
    torch.manual_seed(len(form or ""))
    words = ["<eos>", "<unk>", *(f"w{number:03d}" for number in range(WORDS - 2))]
    config = ModelConfig(
        cell="gru",
        hidden=(HIDDEN,),
        **{"embedding": 8, **settings},  # type: ignore[arg-type]
    )
    model = LanguageModel(config, vocabulary_from_words(words)).eval()
    with torch.no_grad():
        model.output.bias.uniform_(-1, 1)
        for name, op in model.weights().items():
            if name == "output" and form is not None:
                model.replace_weight(name, tamed(FORMS[form](*op.shape)))
            elif isinstance(op, Dense):
                op.weight.mul_(4)
    return model


def check(full: Model, previewed: Model, *, exact: bool) -> None:
    """The same words in the same order (but for ties), log-probabilities off by one number.

    Fast mode may find other words, with scores off by one number too.
    """
    state = full.state()
    for token in TOKENS:
        full.step(state, token)
        every = full.log_probabilities(state)
        for k, prefix, left_out in (
            (1, "", []),
            (9, "", [5, 9]),
            (WORDS + 1, "", []),
            (4, "w1", []),
        ):
            expected = full.top(state, k, prefix=prefix, exclude=left_out)
            found = previewed.top(state, k, prefix=prefix, exclude=left_out)
            assert len(found) == len(expected)
            assert found == sorted(found, key=lambda choice: (-choice[1], choice[0]))
            shift = found[0][1] - every[found[0][0]]
            for (word, score), (_, best) in zip(found, expected, strict=True):
                tolerance = 1e-5 * (1 + abs(best))
                assert abs(score - shift - every[word]) <= tolerance
                if exact or prefix:
                    assert abs(every[word] - best) <= tolerance
            assert abs(shift) < 0.2


@pytest.mark.parametrize("form", [form for form in FORMS if not refused(form)])
def test_every_form(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make(form), path)
    for bits, kernels in enumerate([*kernel_names()[:2], "portable"], start=2):
        check(Model(path, kernels=kernels), Model(path, kernels=kernels, preview=bits), exact=True)


@pytest.mark.parametrize(
    "settings",
    [{"embedding": HIDDEN, "tied": True}, {"embedding": 120, "tied": True}],
    ids=["tied", "tied with a projection"],
)
def test_tied_outputs(settings: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make(None, **settings), path)
    previewed = Model(path, preview=4)
    assert previewed.preview == 4
    check(Model(path), previewed, exact=True)


@pytest.mark.parametrize("form", PREVIEWED)
def test_what_saves_bytes_is_previewed(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make(form), path)
    full, previewed = Model(path), Model(path, preview=2, preview_mode="fast")
    assert previewed.preview == 2
    assert previewed.working_bytes() > full.working_bytes()
    check(full, previewed, exact=False)


@pytest.mark.parametrize("form", PREVIEWED)
def test_fast_mode_misses_few_words(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make(form), path)
    full, fast = Model(path), Model(path, preview=2, preview_mode="fast")
    assert fast.preview == 2
    k, missing = 10, 0
    state = full.state()
    tokens = np.random.default_rng(1).integers(WORDS, size=60).tolist()
    for token in tokens:
        full.step(state, token)
        every = full.log_probabilities(state)
        expected, found = full.top(state, k), fast.top(state, k)
        assert found[0][0] == expected[0][0]
        assert len(dict(found)) == k
        missing += len(dict(expected).keys() - dict(found).keys())
        shifts = [score - every[word] for word, score in found]
        assert max(shifts) - min(shifts) <= 1e-5 * (1 + abs(found[-1][1]))
        assert abs(shifts[0]) < 0.2
    assert missing <= 0.005 * k * len(tokens)


@pytest.mark.parametrize("form", ["quantized/4 bits, rows", "product_codes", "low_rank"])
def test_what_saves_none_is_left_out(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make(form), path)
    full, previewed = Model(path), Model(path, preview=4)
    assert previewed.preview == 0
    assert previewed.working_bytes() == full.working_bytes()
    assert np.array_equal(previewed.top(full.state(), 9), full.top(full.state(), 9))


def test_scores_that_differ_by_less_than_the_sum_leaves(tmp_path: Path) -> None:
    """They are equal as log-probabilities, and so in order of their numbers."""
    model = make("dense")
    with torch.no_grad():
        model.output.bias.zero_()
        model.weights()["output"].weight.mul_(1e-6)
    path = tmp_path / "model.safetensors"
    save(model, path)
    previewed = Model(path, preview=2)
    assert previewed.preview == 2
    found = previewed.top(previewed.state(), WORDS)
    assert len({score for _, score in found}) < WORDS / 4
    assert found == sorted(found, key=lambda choice: (-choice[1], choice[0]))


def test_a_matrix_with_blocks_of_zeros_has_none(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    mask = torch.ones(-(-WORDS // 4), -(-HIDDEN // 4), dtype=torch.bool)
    pattern = BlockPattern((WORDS, HIDDEN), (4, 4), mask)
    model = make("dense")
    model.replace_weight("output", BlockSparse.of(torch.randn(WORDS, HIDDEN), pattern, "float32"))
    save(model, path)
    assert Model(path, preview=2).preview == 0


@pytest.mark.parametrize("form", [form for form in FORMS if refused(form)])
def test_what_can_have_none_is_refused(form: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make(form), path)
    with pytest.raises(UsageError, match="no preview"):
        Model(path, preview=4)


def test_adaptive_outputs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make_output_variant("adaptive"), path)
    with pytest.raises(UsageError, match="adaptive"):
        Model(path, preview=4)


def test_impossible_settings(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(make("dense"), path)
    with pytest.raises(UsageError, match="preview is 5"):
        Model(path, preview=5)
    with pytest.raises(UsageError, match="preview_mode 'quick'"):
        Model(path, preview=4, preview_mode="quick")

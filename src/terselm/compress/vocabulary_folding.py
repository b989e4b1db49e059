"""Folding rare words into `<unk>`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.errors import UsageError
from terselm.linear.base import LinearOp
from terselm.linear.dense import Dense
from terselm.linear.low_rank import LowRank
from terselm.models.language_model import LanguageModel
from terselm.text.word import WordVocabulary


def words_to_keep(
    counts: npt.NDArray[np.int64],
    always: Iterable[int],
    number: int | None,
    coverage: float | None,
) -> npt.NDArray[np.int64]:
    """Return the ids of the words that stay, int64, ascending.

    Parameters
    ----------
    counts : ndarray
        int64 [words], how often each word is in the text.
    always : iterable of int
        Ids that stay whatever their count (`<eos>`, `<unk>`); they are among `number`.
    number : int or None
        How many words stay; of equally frequent ones those with the lower id.
    coverage : float or None
        Where `number` is None: the fewest words that cover this share of all tokens.
    """
    fixed = np.zeros(len(counts), dtype=bool)
    fixed[list(always)] = True
    # Fixed words first, then by falling count; ties by id.
    order = np.lexsort((np.arange(len(counts)), -counts, ~fixed))
    if number is None:
        assert coverage is not None
        covered = np.cumsum(counts[order])
        number = int(np.searchsorted(covered, coverage * counts.sum())) + 1
    return np.sort(order[: max(number, int(fixed.sum()))])


def fold_words(
    model: LanguageModel,
    kept: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    merge: bool,
) -> LanguageModel:
    """Return a model that knows only the words `kept`; `model` stays as it is.

    Merged, the score of `<unk>` is log Σ exp(b_w) + v̄·h over `<unk>` and the folded words w
    with v̄ the mean of their rows weighted by exp(b_w): exact for h = 0, and a lower bound of
    the sum of their unnormalized probabilities for every h (Jensen's inequality). Its word
    vector is the mean of theirs, weighted by how often each occurs.

    Parameters
    ----------
    model : LanguageModel
        With a vocabulary of words that has `<unk>`. Embedding and output must be dense, or low
        rank with a dense left factor.
    kept : ndarray
        int64, ascending, `<eos>` and `<unk>` among them.
    counts : ndarray
        int64 [words].
    merge : bool
        Whether `<unk>` takes the place of the folded words.

    Raises
    ------
    UsageError
        If embedding or output are stored in another form.
    """
    vocabulary = model.vocabulary
    assert isinstance(vocabulary, WordVocabulary) and vocabulary.unknown_id is not None
    unknown = vocabulary.unknown_id
    folded = np.setdiff1d(np.arange(len(vocabulary)), kept)
    group = torch.from_numpy(np.concatenate([[unknown], folded])).to(model.device)
    index = torch.from_numpy(kept).to(model.device)
    place = int(np.searchsorted(kept, unknown))
    bias = model.output.bias.detach().clone()
    by_probability = torch.softmax(bias[group].double(), dim=0).float()
    by_count = torch.from_numpy(counts[group.cpu().numpy()] + 1.0).to(bias)
    by_count = by_count / by_count.sum()
    if merge:
        bias[unknown] = torch.logsumexp(bias[group].double(), dim=0).float()
    words = WordVocabulary(
        [vocabulary.words[number] for number in kept],
        lowercase=vocabulary.lowercase,
        splitting=vocabulary.splitting,
    )
    with torch.device("meta"):
        smaller = LanguageModel(model.config, words)
    smaller.provenance = dict(model.provenance)
    for name, op in model.weights().items():
        if name in ("embedding", "output"):
            tied = name in model.ties().values()
            shares = by_probability if name == "output" or tied else by_count
            op = _fold(op, name, index, place, (group, shares) if merge else None)
        smaller.replace_weight(name, op)
    for name, vector in model.biases().items():
        smaller.replace_bias(name, bias[index] if name == "output.bias" else vector.detach())
    return smaller


def _fold(
    op: LinearOp, name: str, index: Tensor, place: int, mean: tuple[Tensor, Tensor] | None
) -> LinearOp:
    """Return the rows `index`; the one at `place` becomes a weighted mean of rows."""
    if isinstance(op, LowRank):
        left = _fold(op.left, f"{name}.left", index, place, mean)
        return op.with_children({"left": left, "right": op.right})
    if not isinstance(op, Dense):
        raise UsageError(
            f"words are rows of dense or low-rank weights, and {name} is {op.kind}; "
            "prune the vocabulary before the step that stored it so"
        )
    weight = op.weight.detach()
    rows = weight[index]
    if mean is not None:
        group, shares = mean
        rows[place] = shares @ weight[group]
    return Dense(rows, op.stored_type)

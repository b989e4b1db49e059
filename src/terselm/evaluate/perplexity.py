"""How well a model predicts a text: perplexity, bits a character, accuracy."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from terselm.errors import TerselmError
from terselm.evaluate.stream import (
    WINDOW,
    Progress,
    TokenIds,
    checked_ids,
    hidden_states,
    output_blocks,
    ready,
)
from terselm.models.language_model import LanguageModel
from terselm.text.token_cache import TokenizedSplit

Z95 = 1.96
LARGEST_EXPONENT = 709.0
"""exp of more does not fit a float64."""


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a text.

    Attributes
    ----------
    perplexity : float
        exp of the mean negative log-likelihood of a token.
    ci95 : (float, float) or None
        95 % interval of the perplexity, see `interval`; None below 4 tokens.
    tokens : int
        Tokens predicted, line ends among them.
    bits_per_character : float or None
        Bits of the whole text divided by its characters, line ends among them. Comparable
        between vocabularies as long as no token is unknown. None for a text without a count.
    average_word_prediction_accuracy : float
        1 / perplexity, as arXiv 1902.02380 calls it: the geometric mean of the probabilities
        given to the right words.
    top1_accuracy, top3_accuracy : float
        How often the right token was the first, or among the first three. A token that is level
        with the right one counts as being before it.
    seconds : float
        Wall-clock time of the measurement.
    unknown : int
        Tokens that stand for something outside the vocabulary.
    """

    perplexity: float
    ci95: tuple[float, float] | None
    tokens: int
    bits_per_character: float | None
    average_word_prediction_accuracy: float
    top1_accuracy: float
    top3_accuracy: float
    seconds: float
    unknown: int

    def as_dict(self) -> dict[str, Any]:
        """Return the measurement as JSON values."""
        return {**asdict(self), "ci95": None if self.ci95 is None else list(self.ci95)}


def evaluate(
    model: LanguageModel,
    split: TokenizedSplit,
    *,
    window: int = WINDOW,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model on a text.

    The text is one stream: the model reads the line end before the first token, the state is
    carried to the end, and every token is a target once. So the result depends on nothing but
    model and text.

    Parameters
    ----------
    model : LanguageModel
        On any device and in any mode; it is left as it is.
    split : TokenizedSplit
        The text, in tokens of the model's vocabulary.
    window : int
        Tokens a call; it changes the speed, not the result.
    progress : callable, optional
        Called with (tokens done, tokens in all).

    Raises
    ------
    UsageError
        If the text is empty or in another vocabulary, or the window is below 1.
    TerselmError
        If the model gives NaN, or probability zero to what is in the text.
    """
    started = time.perf_counter()
    nats, ranks = _measure(model, split.ids, None, window, progress, with_ranks=True)
    mean = float(nats.mean())
    if not mean <= LARGEST_EXPONENT:
        raise TerselmError(
            f"the perplexity is not a number that can be stated (mean of {mean} nats a token); "
            "the model is damaged or its training diverged"
        )
    tokens = len(nats)
    characters = split.characters
    return Evaluation(
        perplexity=math.exp(mean),
        ci95=interval(nats),
        tokens=tokens,
        bits_per_character=float(nats.sum()) / math.log(2) / characters if characters else None,
        average_word_prediction_accuracy=math.exp(-mean),
        top1_accuracy=float((ranks < 1).mean()),
        top3_accuracy=float((ranks < 3).mean()),
        seconds=time.perf_counter() - started,
        unknown=int(split.unknown),
    )


def perplexity(
    model: LanguageModel,
    ids: TokenIds,
    start_id: int | None = None,
    limit: int | None = None,
) -> float:
    """Return the perplexity alone, as `evaluate` measures it; for use while training.

    Parameters
    ----------
    model : LanguageModel
    ids : sequence of int
        The tokens of the text.
    start_id : int, optional
        What the model reads first; the vocabulary's line end if left out.
    limit : int, optional
        Stop after so many tokens.

    Returns
    -------
    float
        Infinite where it is too large for a number, NaN where the model gives NaN.

    Raises
    ------
    UsageError
        If there is no token, or one that is not in the vocabulary.
    """
    nats, _ = _measure(model, ids[:limit], start_id, WINDOW, None, with_ranks=False)
    mean = float(nats.mean())
    return math.inf if mean > LARGEST_EXPONENT else math.exp(mean)


def interval(nats: npt.NDArray[np.float64]) -> tuple[float, float] | None:
    """Return the 95 % interval of the perplexity by the method of batch means.

    The nats of neighbouring tokens are correlated (a hard sentence, an article on one subject),
    so the usual standard error, which takes them for independent, is too small: on the
    validation text of the Penn Treebank by a factor of four. The text is cut into about √n
    blocks of about √n consecutive tokens; the means of such blocks depend far less on one
    another, and their spread gives the standard error of the mean. The interval is
    exp(mean ± 1.96 standard errors). Subjects that go on for longer than a block still make it
    somewhat too narrow.

    It says how much the perplexity would differ on other text of this kind and length. Two
    models measured on the same text differ far more reliably than their intervals suggest.

    Parameters
    ----------
    nats : ndarray
        float64 [n], in the order of the text.

    Returns
    -------
    (float, float) or None
        None below 4 tokens, where there is nothing to estimate from.
    """
    blocks = math.isqrt(len(nats))
    if blocks < 2:
        return None
    means = np.array([block.mean() for block in np.array_split(nats, blocks)])
    error = Z95 * float(means.std(ddof=1)) / math.sqrt(blocks)
    mean = float(nats.mean())
    return math.exp(mean - error), math.exp(min(mean + error, LARGEST_EXPONENT))


def ranks_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Return how many other tokens score at least as high as the target, int32 [n].

    Parameters
    ----------
    logits : Tensor
        float32 [n, vocabulary].
    targets : Tensor
        int64 [n].
    """
    target_logits = logits.gather(1, targets.unsqueeze(1))
    return (logits >= target_logits).sum(dim=1, dtype=torch.int32) - 1


def _measure(
    model: LanguageModel,
    ids: TokenIds,
    start_id: int | None,
    window: int,
    progress: Progress | None,
    with_ranks: bool,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int32]]:
    """Return the nats of every token, float64 [n], and its rank, int32 [n] or empty."""
    tokens = checked_ids(model, ids, window)
    start = model.vocabulary.start_id if start_id is None else start_id
    nats: list[Tensor] = []
    ranks: list[Tensor] = []
    with torch.inference_mode():
        frozen = ready(model)
        windows = hidden_states(frozen, tokens, start, window, progress)
        for window_hidden, window_targets in windows:
            blocks = output_blocks(window_hidden, window_targets, len(frozen.vocabulary))
            for hidden, targets in blocks:
                logits = frozen.output.logits(hidden)
                loss = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
                nats.append(loss.double())
                if with_ranks:
                    ranks.append(ranks_of(logits, targets))
    return _joined(nats), _joined(ranks)


def _joined(parts: list[Tensor]) -> npt.NDArray[Any]:
    return torch.cat(parts).cpu().numpy() if parts else np.empty(0, np.int32)

"""What is said about a text that was measured, whichever engine measured it. No torch here."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from terselm.errors import TerselmError
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


def evaluation_of(
    nats: npt.NDArray[np.float64],
    ranks: npt.NDArray[Any],
    split: TokenizedSplit,
    seconds: float,
) -> Evaluation:
    """Return what nats and ranks of every token say.

    Parameters
    ----------
    nats : ndarray
        float64 [tokens], in the order of the text.
    ranks : ndarray
        Integers [tokens], how many other tokens were at least as likely.
    split : TokenizedSplit
        The text.
    seconds : float
        What the measurement took.

    Raises
    ------
    TerselmError
        If there is NaN, or a token had probability zero.
    """
    mean = float(nats.mean())
    if not mean <= LARGEST_EXPONENT:
        raise TerselmError(unstatable(mean))
    characters = split.characters
    return Evaluation(
        perplexity=math.exp(mean),
        ci95=interval(nats),
        tokens=len(nats),
        bits_per_character=float(nats.sum()) / math.log(2) / characters if characters else None,
        average_word_prediction_accuracy=math.exp(-mean),
        top1_accuracy=float((ranks < 1).mean()),
        top3_accuracy=float((ranks < 3).mean()),
        seconds=seconds,
        unknown=int(split.unknown),
    )


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
    return bounded_perplexity(mean - error), bounded_perplexity(mean + error)


def bounded_perplexity(nats: float) -> float:
    """Return exp(nats), or the greatest that float64 holds."""
    return math.exp(min(nats, LARGEST_EXPONENT))


def unstatable(mean: float) -> str:
    """Return what is wrong with a model of this mean, NaN or too large, in nats a token."""
    return (
        f"the perplexity is not a number that can be stated (mean of {mean} nats a token); "
        "the model is damaged or its training diverged"
    )

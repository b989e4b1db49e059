"""The text that methods look at the inputs of matrices on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from terselm.cli.loading import split_of
from terselm.cli.output import Output
from terselm.compress.base import CALIBRATION_TOKENS
from terselm.errors import UsageError
from terselm.models.sampling import count_tokens
from terselm.text.base import UNKNOWN, Vocabulary


@dataclass(frozen=True)
class Calibration:
    """Text in the tokens of a model.

    Attributes
    ----------
    ids : ndarray
        uint16 or uint32 [tokens].
    unknown : int
        How many stand for something outside the vocabulary.
    """

    ids: npt.NDArray[np.integer[Any]]
    unknown: int

    def as_dict(self) -> dict[str, Any]:
        """Return the counts as JSON values."""
        return {"tokens": len(self.ids), "unknown": self.unknown}


def calibration_text(
    data: str, vocabulary: Vocabulary, output: Output, tokens: int | None = None
) -> Calibration:
    """Return the start of the training text, and remark on tokens that the model does not know.

    `tokens` is how much of it; `CALIBRATION_TOKENS` if not given.

    Raises
    ------
    UsageError
        If a word is not in the vocabulary and there is no `<unk>`.
    """
    try:
        ids = split_of(data, "train", vocabulary).ids[: tokens or CALIBRATION_TOKENS]
    except UsageError as error:
        raise UsageError(f"calibration text: {error}") from None
    unknown = vocabulary.count_unknown(ids)
    if unknown:
        output.remark(
            f"calibration text: {unknown:,} of {len(ids):,} tokens are not in the vocabulary "
            f"(or say {UNKNOWN}) and were read as {UNKNOWN}"
        )
    return Calibration(ids, unknown)


def token_counts(data: str, vocabulary: Vocabulary) -> npt.NDArray[np.int64]:
    """Return how often each token is in the whole training text, int64 [vocabulary].

    Raises
    ------
    UsageError
        If a word is not in the vocabulary and there is no `<unk>`.
    """
    return count_tokens(split_of(data, "train", vocabulary).ids, len(vocabulary))

"""The most likely next words."""

from __future__ import annotations

from collections.abc import Collection

import torch

from terselm.errors import TerselmError, UsageError
from terselm.models.language_model import LanguageModel

EXCLUDED = -1.0
"""Below every probability."""


def predict(
    model: LanguageModel,
    text: str,
    k: int = 5,
    *,
    exclude: Collection[str] = (),
    with_unknown: bool = False,
) -> list[tuple[str, float]]:
    """Return the most likely tokens after a text, most likely first.

    The model reads the line end, then the text, from the zero state.

    Parameters
    ----------
    model : LanguageModel
        With a vocabulary of words, characters or byte pairs; it is left as it is.
    text : str
        What was said so far; may be empty. See `count_unknown` for how much of it the model
        does not know.
    k : int
        How many.
    exclude : collection of str
        Tokens to leave out, such as "<eos>". One that the vocabulary lacks does not matter.
    with_unknown : bool
        Whether the token for unknown words may be suggested; nobody can type it.

    Returns
    -------
    list of (str, float)
        Token and probability. Probabilities are those among all tokens, the left-out ones
        included; tokens of equal probability come in the order of their ids.

    Raises
    ------
    UsageError
        If k is below 1 or there are fewer tokens to choose from.
    TerselmError
        If the model gives NaN.
    """
    vocabulary = model.vocabulary
    words = vocabulary.words
    unwanted = frozenset(exclude)
    unknown_id = None if with_unknown else vocabulary.unknown_id
    left_out = [
        number for number, word in enumerate(words) if word in unwanted or number == unknown_id
    ]
    choices = len(vocabulary) - len(left_out)
    if not 1 <= k <= choices:
        raise UsageError(f"k is {k}; it must be from 1 to {choices}, the tokens to choose from")
    probabilities = next_probabilities(model, text)
    probabilities[left_out] = EXCLUDED
    order = torch.sort(probabilities, descending=True, stable=True).indices[:k].tolist()
    return [(words[number], float(probabilities[number])) for number in order]


def next_probabilities(model: LanguageModel, text: str) -> torch.Tensor:
    """Return the probability of every token after a text, float64 [vocabulary] on the CPU.

    Raises
    ------
    TerselmError
        If the model gives NaN.
    """
    vocabulary = model.vocabulary
    ids = [vocabulary.start_id, *vocabulary.encode(text)]
    with torch.no_grad():
        tokens = torch.tensor(ids, device=model.device).unsqueeze(1)
        # Without a regularization, nothing is dropped in training mode either.
        hidden = model.hidden(tokens, model.initial_state(1)).output[-1, 0]
        probabilities = model.output.logits(hidden).double().cpu().softmax(dim=0)
    if not torch.isfinite(probabilities).all():
        raise TerselmError("the model gives NaN; it is damaged or its training diverged")
    return probabilities


def count_unknown(model: LanguageModel, text: str) -> int:
    """Return how many tokens of a text stand for something outside the vocabulary."""
    return model.vocabulary.count_unknown(model.vocabulary.encode(text))

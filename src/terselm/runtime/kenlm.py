"""The names of KenLM's Python module, so that a program that scores with it changes one line."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator

from terselm.errors import UsageError
from terselm.runtime.context import encoded
from terselm.runtime.model import Model
from terselm.runtime.state import State

LOG10 = math.log(10)
SENTENCE_END = "</s>"


class KenLM:
    """A model file under the names of `kenlm.Model`; scores are base-10 logarithms.

    Words are split at ASCII white space, as there, and put into lower case where the vocabulary is.
    A word outside it scores as `<unk>`, which is unknown itself; "</s>" is the end of the sentence,
    whatever the model calls it.

    Parameters
    ----------
    path : str or path-like
        A model file with a vocabulary of words.

    Raises
    ------
    UsageError
        If its tokens are not words.
    """

    order = math.inf
    """A recurrent model forgets no word by construction."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.model = Model(path)
        if self.model.describe().vocabulary_kind != "words":
            raise UsageError("scores in words need a model whose tokens are words")

    def __contains__(self, word: str) -> bool:
        return self._find(word) is not None

    def new_state(self) -> State:
        """Return a state to be written to: that before anything was read."""
        state = self.model.state()
        state.clear()
        return state

    def BeginSentenceWrite(self, state: State) -> None:  # noqa: N802
        """Make `state` that at the start of a sentence."""
        state.assign(self.model.state())

    def NullContextWrite(self, state: State) -> None:  # noqa: N802
        """Make `state` that without any context."""
        state.clear()

    def BaseScore(self, in_state: State, word: str, out_state: State) -> float:  # noqa: N802
        """Return log10 P(word | in_state) and write the state after it to `out_state`."""
        token = self._token(word)
        score = float(self.model.score_tokens(in_state, [token])[0])
        out_state.assign(in_state)
        self.model.step(out_state, token)
        return score / LOG10

    def full_scores(
        self, sentence: str, bos: bool = True, eos: bool = True
    ) -> Iterator[tuple[float, int, bool]]:
        """Yield (log10 probability, words of context and itself, whether unknown) of each word."""
        words = _words(sentence)
        tokens = [self._token(word) for word in words]
        unknown = [token == self.model.unknown_token for token in tokens]
        if eos:
            tokens.append(self.model.start_token)
            unknown.append(False)
        state = self.model.state() if bos else self.new_state()
        scores = self.model.score_sequence(state, tokens) / LOG10
        for number, (score, is_unknown) in enumerate(zip(scores, unknown, strict=True)):
            yield float(score), number + 1 + bos, is_unknown

    def score(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """Return log10 of the probability of a sentence."""
        return sum(score for score, _, _ in self.full_scores(sentence, bos, eos))

    def perplexity(self, sentence: str) -> float:
        """Return the perplexity of a sentence, its end included."""
        words = len(_words(sentence)) + 1
        return float(10.0 ** (-self.score(sentence) / words))

    def _token(self, word: str) -> int:
        token = self._find(word)
        if token is None:
            token = self.model.unknown_token
        if token is None:
            raise UsageError(f"{word!r} is not in the vocabulary, which has no <unk>")
        return token

    def _find(self, word: str) -> int | None:
        """Return the token of a word, None if it is `<unk>` or counts as that."""
        token = self.model.find(word)
        if token is None and word == SENTENCE_END:
            return self.model.start_token
        if token is None and self.model.unknown_token is not None:
            tokens = self.model.tokenize(word)  # in lower case, if the vocabulary is
            token = int(tokens[0]) if len(tokens) == 1 else None
        return None if token == self.model.unknown_token else token


def _words(sentence: str) -> list[str]:
    """Return what is between ASCII white space, as KenLM does."""
    return [word.decode() for word in encoded(sentence).split()]

"""A model file, run by the C library."""

from __future__ import annotations

import ctypes
import math
import os
import threading
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from terselm.errors import UsageError
from terselm.runtime.context import (
    Context,
    Tokens,
    addresses,
    encoded,
    options_of,
    output_array,
    token_ids,
)
from terselm.runtime.description import Description, read_description
from terselm.runtime.library import (
    ARGUMENT,
    MAX_TOKEN_BYTES,
    NO_TOKEN,
    Choice,
    check,
    library,
)
from terselm.runtime.opened import Opened
from terselm.runtime.state import State


class Model:
    """A model file, opened by the C library. Threads may share it: each has its own memory.

    Parameters
    ----------
    path : str or path-like
    batch : int
        States that can be stepped together; also the tokens of a sequence whose output layer is
        computed at once.
    threads : int
        Threads that share large products.
    kernels : str, optional
        One of `kernel_names()`; the fastest of this machine if left out.
    trusted : bool
        Do not compare the checksum, which takes most of the time of opening; for a file that
        something else vouches for.
    preview : {0, 2, 3, 4}
        Bits of a preview of the output layer that `top` and `predict` read in the place of the
        whole of it; 0 for none. The attribute `preview` is 0, too, where one would save less than
        a quarter of the bytes and was left out.
    preview_mode : {"exact", "fast"}
        "exact" finds the same words in the same order with the same scores; "fast" may miss a word
        that only an error of four standard deviations would save. With both, log-probabilities
        share a small error, that of the sum over all words.

    Raises
    ------
    TerselmError
        If the file is not a whole, sound model file; the message says what is wrong with it.
    UsageError
        If this machine cannot run these kernels, or batch, threads or preview are impossible.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        batch: int = 1,
        threads: int = 1,
        kernels: str | None = None,
        trusted: bool = False,
        preview: int = 0,
        preview_mode: str = "exact",
    ) -> None:
        self._opened = Opened(path, trusted)
        self._options = options_of(batch, threads, kernels, preview, preview_mode)
        self._contexts = threading.local()
        self.batch = batch
        calls = library()
        self.start_token: int = calls.tlm_start_token(self._opened.handle)
        unknown = calls.tlm_unknown_token(self._opened.handle)
        self.unknown_token: int | None = None if unknown == NO_TOKEN else unknown
        self._size = self.describe().vocabulary_size
        self.kernels: str = calls.tlm_context_kernels(self._context()).decode()
        self.preview: int = calls.tlm_context_preview(self._context())

    def _context(self) -> ctypes.c_void_p:
        """Return the memory of this thread, made when it first computes."""
        holder: Context | None = getattr(self._contexts, "context", None)
        if holder is None:
            holder = Context(self._opened, self._options)
            self._contexts.context = holder
        return holder.handle

    def describe(self) -> Description:
        """Return what the model is."""
        return read_description(self._opened.handle)

    def __len__(self) -> int:
        """Return the number of tokens."""
        return self._size

    def working_bytes(self) -> int:
        """Return the bytes of memory that one thread computes in."""
        found: int = library().tlm_context_bytes(self._context())
        return found

    def state(self) -> State:
        """Return the state at the start of a text: the line end has been read."""
        state = State(self._opened)
        self.step(state, self.start_token)
        return state

    def step(self, state: State, token: int) -> None:
        """Read one token: `state` becomes the state after it.

        Raises
        ------
        UsageError
            If there is no such token.
        """
        if not 0 <= token < NO_TOKEN:
            raise UsageError(f"token {token} is outside the vocabulary")
        status = library().tlm_step(self._context(), state.address_in(self._opened), token)
        if status == ARGUMENT:
            raise UsageError(f"token {token} is outside the vocabulary of {len(self):,}")
        check(status, "step")

    def step_many(self, states: Sequence[State], tokens: Tokens) -> None:
        """Read a token in each of several different states, at most `batch`.

        Raises
        ------
        UsageError
            If these are not as many tokens as states, too many, or outside the vocabulary; if a
            state is there twice or is of another model.
        """
        ids = token_ids(tokens)
        if len({id(state) for state in states}) != len(states):
            raise UsageError("a state is there twice; each can read one token at a time")
        if len(ids) != len(states) or len(states) > self.batch:
            raise UsageError(f"{len(states)} states and {len(ids)} tokens; batch is {self.batch}")
        status = library().tlm_step_many(
            self._context(), len(ids), addresses(states, self._opened), ids.ctypes.data
        )
        check(status, "tokens")

    def log_probabilities(
        self, state: State, out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return the natural-log probability of every token, float32 [vocabulary].

        Parameters
        ----------
        state : State
        out : ndarray, optional
            Where to write them, float32 [vocabulary], contiguous.

        Raises
        ------
        UsageError
            If `out` is another array.
        """
        out = output_array(out, (self._size,))
        status = library().tlm_log_probabilities(
            self._context(), state.address_in(self._opened), out.ctypes.data
        )
        check(status, "state")
        return out

    def log_probabilities_many(
        self, states: Sequence[State], out: npt.NDArray[np.float32] | None = None
    ) -> npt.NDArray[np.float32]:
        """Return those of several states, float32 [states, vocabulary].

        Parameters
        ----------
        states : sequence of State
        out : ndarray, optional
            Where to write them.

        Raises
        ------
        UsageError
            If there are more states than `batch`, or `out` is another array.
        """
        if len(states) > self.batch:
            raise UsageError(f"{len(states)} states; batch is {self.batch}")
        out = output_array(out, (len(states), self._size))
        status = library().tlm_log_probabilities_many(
            self._context(), len(states), addresses(states, self._opened), out.ctypes.data
        )
        check(status, "states")
        return out

    def score_tokens(self, state: State, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Return the natural-log probabilities of given tokens after a state, float32 [n].

        Raises
        ------
        UsageError
            If one is outside the vocabulary.
        """
        ids = token_ids(tokens)
        out = np.empty(len(ids), np.float32)
        status = library().tlm_score_tokens(
            self._context(),
            state.address_in(self._opened),
            ids.ctypes.data,
            len(ids),
            out.ctypes.data,
        )
        check(status, "tokens")
        return out

    def score_sequence(self, state: State, tokens: Tokens) -> npt.NDArray[np.float32]:
        """Read tokens; return the natural-log probability of each given those before.

        Parameters
        ----------
        state : State
            Becomes the state after the last.
        tokens : sequence of int

        Returns
        -------
        ndarray
            float32 [tokens].

        Raises
        ------
        UsageError
            If one is outside the vocabulary.
        """
        ids = token_ids(tokens)
        out = np.empty(len(ids), np.float32)
        status = library().tlm_score_sequence(
            self._context(),
            state.address_in(self._opened),
            ids.ctypes.data,
            len(ids),
            out.ctypes.data,
            None,
        )
        check(status, "tokens")
        return out

    def rank_sequence(
        self, state: State, tokens: Tokens
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32]]:
        """Read tokens as `score_sequence` does; return their scores and ranks.

        Returns
        -------
        scores : ndarray
            float32 [tokens], natural-log probabilities.
        ranks : ndarray
            uint32 [tokens], how many other tokens are at least as likely.

        Raises
        ------
        UsageError
            If one is outside the vocabulary.
        """
        ids = token_ids(tokens)
        scores, ranks = np.empty(len(ids), np.float32), np.empty(len(ids), np.uint32)
        status = library().tlm_rank_sequence(
            self._context(),
            state.address_in(self._opened),
            ids.ctypes.data,
            len(ids),
            scores.ctypes.data,
            ranks.ctypes.data,
        )
        check(status, "tokens")
        return scores, ranks

    def top(
        self, state: State, k: int = 5, *, prefix: str = "", exclude: Collection[int] = ()
    ) -> list[tuple[int, float]]:
        """Return the most likely tokens after a state and their natural-log probabilities.

        Parameters
        ----------
        state : State
        k : int
            How many, at most.
        prefix : str
            Only tokens whose text begins with it.
        exclude : collection of int
            Tokens to leave out.

        Raises
        ------
        UsageError
            If k is below 1.
        """
        if k < 1:
            raise UsageError(f"k is {k}; it must be at least 1")
        k = min(k, len(self))
        text, left_out = encoded(prefix), token_ids(list(exclude))
        choices, found = (Choice * k)(), ctypes.c_uint32()
        status = library().tlm_top(
            self._context(),
            state.address_in(self._opened),
            text,
            len(text),
            left_out.ctypes.data,
            len(left_out),
            k,
            choices,
            ctypes.byref(found),
        )
        check(status, "top")
        return [(choice.token, choice.log_probability) for choice in choices[: found.value]]

    def predict(
        self, text: str = "", k: int = 5, *, prefix: str = "", exclude: Iterable[str] = ()
    ) -> list[tuple[str, float]]:
        """Return the most likely tokens after a text and their probabilities.

        The token for unknown words is left out. Probabilities are those among all tokens.

        Raises
        ------
        UsageError
            If k is below 1, or the text holds something outside a vocabulary that has no token
            for it.
        """
        state = self.state()
        for token in self.tokenize(text).tolist():
            self.step(state, token)
        left_out = {token for word in exclude if (token := self.find(word)) is not None}
        if self.unknown_token is not None:
            left_out.add(self.unknown_token)
        found = self.top(state, k, prefix=prefix, exclude=left_out)
        return [(self.text_of(token), math.exp(score)) for token, score in found]

    def tokenize(self, text: str) -> npt.NDArray[np.uint32]:
        """Return the tokens of a text, uint32 [n]; each newline becomes the line end.

        Raises
        ------
        UsageError
            If something is outside a vocabulary that has no token for it.
        """
        data = encoded(text)
        count = ctypes.c_size_t()
        ids = np.empty(len(data), np.uint32)  # no token is shorter than a byte
        status = library().tlm_tokenize(
            self._opened.handle, data, len(data), ids.ctypes.data, len(ids), ctypes.byref(count)
        )
        if status == ARGUMENT:
            raise UsageError("the text holds something that is not in the vocabulary")
        check(status, "text")
        return ids[: count.value].copy()

    def text_of(self, token: int) -> str:
        r"""Return the text of a token; bytes that are no UTF-8 by themselves as `\xNN`.

        Raises
        ------
        UsageError
            If there is no such token.
        """
        text, size = ctypes.create_string_buffer(MAX_TOKEN_BYTES), ctypes.c_uint32()
        if not 0 <= token < NO_TOKEN:
            raise UsageError(f"token {token} is outside the vocabulary")
        status = library().tlm_token_text(self._opened.handle, token, text, ctypes.byref(size))
        check(status, f"token {token}")
        return text.raw[: size.value].decode(errors="backslashreplace")

    def find(self, word: str) -> int | None:
        """Return the token with exactly this text, None if there is none."""
        data = encoded(word)
        token: int = library().tlm_find_token(self._opened.handle, data, len(data))
        return None if token == NO_TOKEN else token

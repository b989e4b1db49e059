"""`terselm demo`: a keyboard with suggestions, in the terminal."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from terselm.cli.model_argument import chosen_model
from terselm.cli.options import Debug, ModelOrUsual
from terselm.errors import UsageError
from terselm.text.splitting import split_at_punctuation

if TYPE_CHECKING:
    from terselm.runtime.model import Model

SUGGESTIONS = 3
CONTINUATION = 40
"""Tokens of a continuation, where tokens are characters or pieces of words."""


def demo(model: ModelOrUsual = None, debug: Debug = False) -> None:
    """Type, and see what the model suggests, as a keyboard does.

    A line that ends in the middle of a word is completed; after a space the next word is
    suggested. Ctrl-D ends.

    **Example**: echo "the company sa" | terselm demo small.safetensors
    """
    from terselm.report.sizes import human_bytes
    from terselm.runtime.model import Model

    opened = Model(chosen_model(model, _remark))
    about = opened.describe()
    print(
        f"{human_bytes(about.file_bytes)}, {about.vocabulary_size:,} {about.vocabulary_kind}. "
        "Type the beginning of a sentence and press Enter; Ctrl-D ends."
    )
    while (line := _read()) is not None:
        started = time.perf_counter()
        try:
            text = suggestions(opened, line)
        except UsageError as error:
            print(f"  {error}")
            continue
        milliseconds = 1e3 * (time.perf_counter() - started)
        print(f"  {text}    ({milliseconds:.1f} ms)")


def suggestions(model: Model, line: str) -> str:
    """Return what a keyboard would show after a line, as one line of text.

    Parameters
    ----------
    model : Model
    line : str

    Raises
    ------
    UsageError
        If the line holds something that the model does not know and has no token for.
    """
    if model.describe().vocabulary_kind != "words":
        return _continued(model, line)
    begun = _begun_word(model, line)
    before = line[: len(line) - len(begun)]
    found = model.predict(before, SUGGESTIONS, prefix=begun)
    if not found and begun != begun.lower():
        found = model.predict(before, SUGGESTIONS, prefix=begun.lower())
    if not found:
        return f"no word begins with {begun!r}"
    return "   ".join(f"{word} {100 * probability:.1f} %" for word, probability in found)


def _begun_word(model: Model, line: str) -> str:
    """Return what the line ends in of a word, as the model's vocabulary splits it."""
    if not line or line[-1].isspace():
        return ""
    last = line.split()[-1]
    pieces = split_at_punctuation(last)
    try:
        splits = len(pieces) > 1 and len(model.tokenize(last)) == len(pieces)
    except UsageError:  # a begun word is no word, and there is no token for what is none
        splits = False
    if not splits:
        return last
    return pieces[-1] if pieces[-1][-1].isalnum() else ""


def _continued(model: Model, line: str) -> str:
    """Return the line with the likeliest token appended again and again, up to the line's end."""
    state = model.state()
    for token in model.tokenize(line).tolist():
        model.step(state, token)
    unknown = () if model.unknown_token is None else (model.unknown_token,)
    text = line
    for _ in range(CONTINUATION):
        (token, _), *_ = model.top(state, 1, exclude=unknown)
        if token == model.start_token:
            break
        text += model.text_of(token)
        model.step(state, token)
    return text


def _remark(text: str) -> None:
    print(text, file=sys.stderr)


def _read() -> str | None:
    try:
        return input("> " if sys.stdin.isatty() else "")
    except EOFError:
        return None

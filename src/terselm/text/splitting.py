"""How a line becomes words. Only ASCII counts, so that C code can do the same on bytes.

White space is space, tab, line feed, vertical tab, form feed and carriage return.
Punctuation is the 32 printable ASCII characters that are neither letters nor digits.
Everything else, control characters and all characters beyond ASCII included, is a letter.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal

from terselm.errors import UsageError
from terselm.registry import suggest

Splitting = Literal["spaces", "punctuation"]

SPACE = r" \t\n\r\f\v"
PUNCTUATION = r"!-/:-@\[-`{-~"
JOINERS = r"'._\-"
NOT_SPACE = re.compile(f"[^{SPACE}]+")
WORD_OR_MARK = re.compile(
    f"[^{SPACE}{PUNCTUATION}]+(?:[{JOINERS}][^{SPACE}{PUNCTUATION}]+)*|[{PUNCTUATION}]"
)
ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def split_at_spaces(line: str) -> list[str]:
    """Return the runs of characters between ASCII white space."""
    return NOT_SPACE.findall(line)


def split_at_punctuation(line: str) -> list[str]:
    """Return words and punctuation marks.

    Each ASCII punctuation character is a token of its own, except an apostrophe, hyphen,
    underscore or dot with a letter on both sides: "don't", "state-of-the-art", "os.path".
    """
    return WORD_OR_MARK.findall(line)


def splitter(splitting: str) -> Callable[[str], list[str]]:
    """Return the function that splits a line.

    Raises
    ------
    UsageError
        If `splitting` is neither "spaces" nor "punctuation".
    """
    ways = {"spaces": split_at_spaces, "punctuation": split_at_punctuation}
    if splitting not in ways:
        raise UsageError(f"unknown splitting {splitting!r}; {suggest(splitting, ways)}")
    return ways[splitting]


def lower_ascii(text: str) -> str:
    """Return `text` with A to Z in lower case and nothing else changed."""
    return text.translate(ASCII_LOWER)

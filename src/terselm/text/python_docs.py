"""The corpus `python-docs`: what the docstrings of Python's standard library say in English.

Every installation of Python has it, so there is something to train on without a download.
"""

from __future__ import annotations

import ast
import hashlib
import platform
import re
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

from terselm.errors import TerselmError
from terselm.files import atomic_write
from terselm.text.cache import cache_folder, make_folder

FORM = 1  # of the text; raise it when the rules below change
LEFT_OUT = {"idlelib", "lib2to3", "site-packages", "dist-packages", "test", "tests", "idle_test"}
SENTENCE_END = re.compile(r"(?<=[.!?:])\s+(?=[A-Z\"'(])")
LIST_ITEM = re.compile(r"\s*(?:[-*•+]|\d+[.)])\s")
GAP = re.compile(r"\S\s{3,}\S")
FEWEST_WORDS = 3
FEWEST_LETTERS = 0.72  # letters and spaces, of all characters; prose has more than 0.9
MOST_LETTER_FREE_WORDS = 0.25


def python_docs_file() -> Path:
    """Return the text file of the corpus, one sentence a line; it is made when first needed.

    Raises
    ------
    TerselmError
        If this Python came without its source files, or the cache cannot be written.
    """
    name = f"python-docs-{platform.python_implementation()}-{platform.python_version()}-{FORM}.txt"
    path = cache_folder() / "data" / name.lower()
    if not path.is_file() or not path.stat().st_size:
        library = Path(sysconfig.get_path("stdlib"))
        text = "".join(f"{sentence}\n" for sentence in sentences_of(library))
        if not text:
            raise TerselmError(
                f"no Python source files in {library}, so there is no corpus python-docs; "
                "give another text"
            )
        make_folder(path.parent)
        with atomic_write(path) as file:
            file.write(text.encode())
    return path


def sentences_of(library: Path) -> Iterator[str]:
    """Yield the sentences of all docstrings below a folder, each sentence once.

    The files are read, not imported. They come in an order that looks random but is always
    the same, so that any part of the text is like any other.

    Parameters
    ----------
    library : Path
        The folder of the standard library.
    """
    seen = set()
    for path in _shuffled(library):
        for docstring in _docstrings(path):
            for sentence in _sentences(docstring):
                if sentence not in seen:
                    seen.add(sentence)
                    yield sentence


def _shuffled(library: Path) -> list[Path]:
    found = {}
    for path in library.rglob("*.py"):
        parts = path.relative_to(library).with_suffix("").parts
        if not LEFT_OUT.intersection(parts):
            found[".".join(parts)] = path
    names = sorted(found, key=lambda name: (hashlib.sha256(name.encode()).digest(), name))
    return [found[name] for name in names]


def _docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a file in the order of its lines; none where it is no Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about the escapes in other people's strings
            tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return
    yield from _docstrings_of(tree)


def _docstrings_of(node: ast.AST) -> Iterator[str]:
    # ast.walk would look into every expression; definitions sit among statements.
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node)
        if docstring:
            yield docstring
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield from _docstrings_of(child)


def _sentences(docstring: str) -> Iterator[str]:
    for paragraph in _paragraphs(docstring):
        text = " ".join(" ".join(paragraph).split())
        for sentence in SENTENCE_END.split(text):
            if _is_prose(sentence):
                yield sentence


def _paragraphs(docstring: str) -> Iterator[list[str]]:
    """Yield runs of lines that belong together, without examples and tables."""
    lines: list[str] = []
    in_example = False
    for line in [*docstring.splitlines(), ""]:
        bare = line.strip()
        in_example = bool(bare) and (in_example or bare.startswith((">>>", "...")))
        skipped = not bare or in_example or _is_table(bare)
        if lines and (skipped or LIST_ITEM.match(line) or _indent(line) != _indent(lines[-1])):
            yield lines
            lines = []
        if not skipped:
            lines.append(line)


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_table(line: str) -> bool:
    return GAP.search(line) is not None or _share_of_letters(line) < FEWEST_LETTERS


def _is_prose(sentence: str) -> bool:
    words = sentence.split()
    if len(words) < FEWEST_WORDS or not sentence.isprintable():
        return False
    strange = sum(not any(map(str.isalpha, word)) for word in words)
    return (
        strange <= MOST_LETTER_FREE_WORDS * len(words)
        and _share_of_letters(sentence) >= FEWEST_LETTERS
    )


def _share_of_letters(text: str) -> float:
    return sum(character.isalpha() or character == " " for character in text) / len(text)

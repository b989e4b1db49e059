"""What an importer is, and importing a model from a file."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from terselm.errors import TerselmError, UsageError
from terselm.importers.state_dict import StateDict, read_state_dict
from terselm.linear.dense import STORED_TYPES
from terselm.models.language_model import LanguageModel
from terselm.registry import Registry, suggest
from terselm.text.build import (
    lines_with_other_spaces,
    read_vocabulary_file,
    vocabulary_from_words,
    vocabulary_in_order_of_appearance,
)
from terselm.text.corpus import open_corpus
from terselm.text.vocabulary import Vocabulary

IMPORTERS: Registry[type[Importer]] = Registry("importer", "terselm.importers")

NONLINEARITIES = ("tanh", "relu")


@dataclass(frozen=True)
class ImportOptions:
    """What a file of weights does not say.

    Attributes
    ----------
    vocabulary : Vocabulary
        The word of each row of the embedding.
    stored_type : {"float32", "float16"}
        How the model's file shall hold the matrices.
    nonlinearity : {"tanh", "relu"}
        Of a plain RNN; other cells ignore it.
    """

    vocabulary: Vocabulary
    stored_type: str = "float32"
    nonlinearity: str = "tanh"


@dataclass(frozen=True)
class Imported:
    """An imported model.

    Attributes
    ----------
    model : LanguageModel
        In evaluation mode, on the CPU.
    notes : tuple of str
        What was found out or decided on the way, a sentence each.
    """

    model: LanguageModel
    notes: tuple[str, ...]


class Importer(ABC):
    """Turns tensors in one foreign layout into a model. Has no state."""

    @classmethod
    @abstractmethod
    def recognizes(cls, names: Collection[str]) -> bool:
        """Return whether these names of tensors look like this layout."""

    @classmethod
    @abstractmethod
    def build(cls, tensors: Mapping[str, Tensor], options: ImportOptions) -> Imported:
        """Return the model that the tensors describe.

        Raises
        ------
        TerselmError
            If a tensor is missing, unexpected, of the wrong shape or not finite, or the
            vocabulary is of another size; the message names it.
        """


def import_model(
    source: str | Path,
    *,
    kind: str | None = None,
    vocabulary: str | Path | None = None,
    data: str | Path | None = None,
    stored_type: str = "float32",
    nonlinearity: str = "tanh",
) -> LanguageModel:
    """Import a model from a file of weights; see `import_with_notes`."""
    return import_with_notes(
        source,
        kind=kind,
        vocabulary=vocabulary,
        data=data,
        stored_type=stored_type,
        nonlinearity=nonlinearity,
    ).model


def import_with_notes(
    source: str | Path,
    *,
    kind: str | None = None,
    vocabulary: str | Path | None = None,
    data: str | Path | None = None,
    stored_type: str = "float32",
    nonlinearity: str = "tanh",
) -> Imported:
    """Import a model from a file of weights, and say what was found out on the way.

    Parameters
    ----------
    source : str or Path
        A state dict, in `.safetensors` or as `torch.save` writes it. No pickled code is run.
    kind : str, optional
        The layout, a registered importer; found by the names of the tensors if left out.
    vocabulary : str or Path, optional
        A file with one word a line; the line number, from 0, is the id.
    data : str or Path, optional
        The corpus that the model was trained on, if its ids are in the order in which the words
        appear there. Exactly one of `vocabulary` and `data` is needed.
    stored_type : {"float32", "float16"}
        How the model's file shall hold the matrices. float16 rounds, unless the source is
        float16 itself; biases are float32 in either case.
    nonlinearity : {"tanh", "relu"}
        Of a plain RNN, whose weights do not tell.

    Returns
    -------
    Imported
        Its model's provenance holds the source's name and SHA-256, and the notes.

    Raises
    ------
    UsageError
        If an option is impossible or a file does not exist.
    TerselmError
        If the source is damaged or is no state dict of a known layout.
    """
    _check_options(vocabulary, data, stored_type, nonlinearity)
    if kind is not None:
        IMPORTERS.get(kind)
    source = Path(source)
    state = read_state_dict(source)
    words, notes = _vocabulary(vocabulary, data)
    kind = kind or _detect(state, source)
    options = ImportOptions(words, stored_type, nonlinearity)
    try:
        imported = IMPORTERS.get(kind).build(state.tensors, options)
    except TerselmError as error:
        raise type(error)(f"{source}: {error}") from None
    imported = Imported(imported.model, (*imported.notes, *notes))
    imported.model.provenance = {
        "imported": {
            "file": state.file,
            "sha256": state.sha256,
            "importer": kind,
            "notes": list(imported.notes),
        }
    }
    return imported


def _check_options(
    vocabulary: str | Path | None, data: str | Path | None, stored_type: str, nonlinearity: str
) -> None:
    if (vocabulary is None) == (data is None):
        raise UsageError(
            "give either the vocabulary file or the corpus it was trained on (--vocabulary FILE "
            "or --data DIR): the weights do not say which word has which id"
        )
    if stored_type not in STORED_TYPES:
        raise UsageError(f"type is {stored_type!r}; {suggest(stored_type, STORED_TYPES)}")
    if nonlinearity not in NONLINEARITIES:
        raise UsageError(
            f"nonlinearity is {nonlinearity!r}; {suggest(nonlinearity, NONLINEARITIES)}"
        )


def _vocabulary(
    vocabulary: str | Path | None, data: str | Path | None
) -> tuple[Vocabulary, tuple[str, ...]]:
    """Return the vocabulary and what has to be said of it."""
    if data is not None:
        corpus = open_corpus(data)
        words = vocabulary_in_order_of_appearance(corpus)
        if not (odd := lines_with_other_spaces(corpus)):
            return words, ()
        note = (
            f"{odd:,} lines of {corpus.name} hold white space that terselm does not split at "
            "(no-break spaces and such); replace it by spaces before measuring"
        )
        return words, (note,)
    assert vocabulary is not None
    listed = read_vocabulary_file(vocabulary)
    try:
        return vocabulary_from_words(listed), ()
    except UsageError as error:
        raise UsageError(f"{vocabulary}: {str(error).removeprefix('vocabulary: ')}") from None


def _detect(state: StateDict, source: Path) -> str:
    for name in IMPORTERS:
        if IMPORTERS.get(name).recognizes(state.tensors.keys()):
            return name
    first = ", ".join(sorted(state.tensors)[:3])
    raise TerselmError(
        f"{source} is in no layout that terselm knows ({', '.join(IMPORTERS)}); "
        f"its tensors are called {first}, ..."
    )

"""Vocabularies: what to import, and how one is read from a model file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt

from terselm.errors import TerselmError, UsageError
from terselm.text.base import END, UNKNOWN, Vocabulary
from terselm.text.byte_pair import BytePairVocabulary
from terselm.text.characters import CharacterVocabulary
from terselm.text.word import WordVocabulary

__all__ = [
    "END",
    "UNKNOWN",
    "BytePairVocabulary",
    "CharacterVocabulary",
    "Vocabulary",
    "WordVocabulary",
    "vocabulary_from_file",
]


def vocabulary_from_file(spec: Any, tensors: Mapping[str, npt.NDArray[Any]]) -> Vocabulary:
    """Return the vocabulary of a model file, trusting nothing in it.

    Parameters
    ----------
    spec : dict
        What `Vocabulary.spec` returned.
    tensors : mapping of str to ndarray
        What `Vocabulary.tensors` returned; others are ignored.

    Raises
    ------
    TerselmError
        If they describe no vocabulary; the message names the field.
    """
    if not isinstance(spec, Mapping):
        raise TerselmError("vocabulary is not described")
    kinds: dict[str, type[Vocabulary]] = {
        cls.kind: cls for cls in (WordVocabulary, CharacterVocabulary, BytePairVocabulary)
    }
    kind = spec.get("kind")
    if not isinstance(kind, str) or kind not in kinds:
        raise TerselmError(f"vocabulary.kind is {kind!r}, not one of {', '.join(kinds)}")
    try:
        return kinds[kind].from_file(spec, tensors)
    except UsageError as error:  # the file is at fault, not the request
        raise TerselmError(str(error)) from None

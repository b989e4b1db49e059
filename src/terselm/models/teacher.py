"""Who teaches: a model, or several whose distributions are averaged."""

from __future__ import annotations

from collections.abc import Sequence

from terselm.models.language_model import LanguageModel

Teacher = LanguageModel | Sequence[LanguageModel]
"""Several together predict better than the best of them (Hinton et al. 2015, arXiv 1503.02531)."""


def teachers_of(teacher: Teacher | None) -> tuple[LanguageModel, ...]:
    """Return the models, none of them or one or more."""
    if teacher is None:
        return ()
    return (teacher,) if isinstance(teacher, LanguageModel) else tuple(teacher)

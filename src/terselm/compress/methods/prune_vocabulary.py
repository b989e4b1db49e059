"""Removal of rare words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, model_validator
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, ModelMethod, register_method
from terselm.compress.vocabulary_folding import fold_words, words_to_keep
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.models.output import FullSoftmax
from terselm.models.sampling import count_tokens
from terselm.text.word import WordVocabulary

Count = Annotated[int, Field(ge=3)]
Share = Annotated[float, Field(gt=0.0, le=1.0)]


@register_method("prune_vocabulary")
@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class PruneVocabulary(ModelMethod):
    """Fold rare words into `<unk>`: their rows of embedding and output go, and their spelling.

    **The perplexity of the result does not compare with that of the model before.** A folded
    word in the text is scored as `<unk>`, which is easier than the word itself, so perplexity
    falls although the model knows less. Read it together with the coverage, the share of the
    text's known words that still have a token of their own, or spread the probability of `<unk>`
    over the folded words. The model's provenance says under `vocabulary_pruning` how many
    words are left of how many there were before the first such step, what they cover of the
    text as it was known then, and how many tokens of text were counted.

    Words are counted in the whole training text where the caller counts it, as `terselm compress`
    does (`Context.count_tokens`), otherwise in the calibration text. What reads `<unk>` in the
    text itself is no known word, and counts neither as covered nor as lost.

    Paper: Chirkova, Lobacheva, Vetrov 2018 (arXiv 1810.10927) drop words of a recurrent network
    by learned noise; frequency is the plain rule.

    Recipe::

        - {method: prune_vocabulary, keep: 8000}
        - {method: prune_vocabulary, coverage: 0.99}

    Cost: embedding, output and word list shrink in proportion. Needs text (`--data`).

    When not: where every word must be typed or scored as itself. Quantizing the rows of rare
    words more coarsely keeps them.

    Parameters
    ----------
    keep : int or None
        How many words stay, the most frequent ones, `<eos>` and `<unk>` among them.
    coverage : float or None
        Or: the smallest number of words that cover this share of the text's known words.
        Exactly one of `keep` and `coverage` is given.
    unknown : {"merge", "keep"}
        "merge": the bias of `<unk>` becomes the log-sum-exp of its bias and those of the
        folded words, and its rows their means weighted by frequency (in the output by
        exp(bias)): to first order `<unk>` gets all their probability. "keep": nothing changes
        for `<unk>`, and the probability of folded words is shared by all that stay.
    """

    keep: Count | None = None
    coverage: Share | None = None
    unknown: Literal["merge", "keep"] = "merge"

    @model_validator(mode="after")
    def _check(self) -> PruneVocabulary:
        if (self.keep is None) == (self.coverage is None):
            raise ValueError("give exactly one of keep and coverage")
        return self

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the model with fewer words.

        Raises
        ------
        UsageError
            If there is no text, the tokens are not words, there is no `<unk>`, the output
            layer is no plain softmax, or an earlier step left less than is asked for.
        """
        vocabulary = model.vocabulary
        if not isinstance(vocabulary, WordVocabulary):
            raise UsageError(
                f"works on words, and this model's tokens are {vocabulary.kind}; leave it out"
            )
        if not isinstance(model.output, FullSoftmax):
            raise UsageError(
                f"works on an output that scores every word, and this one is {model.output.kind}; "
                "leave it out"
            )
        if vocabulary.unknown_id is None:
            raise UsageError("the vocabulary has no <unk> that rare words could be folded into")
        if self.keep is not None and self.keep > len(vocabulary):
            raise UsageError(
                f"keep is {self.keep}, and the vocabulary has {len(vocabulary)} words; "
                f"use at most {len(vocabulary)}"
            )
        counts = _counts(vocabulary, context)
        known = counts.copy()
        known[vocabulary.unknown_id] = 0
        before = _Before.of(model)
        if self.coverage is not None and self.coverage > before.coverage:
            raise UsageError(
                f"coverage is {self.coverage:g}, and an earlier prune_vocabulary left "
                f"{before.coverage:g}; use at most that"
            )
        share = None if self.coverage is None else self.coverage / before.coverage
        always = (vocabulary.start_id, vocabulary.unknown_id)
        kept = words_to_keep(known, always, self.keep, share)
        if len(kept) == len(vocabulary):
            return model
        with torch.no_grad():
            smaller = fold_words(model, kept, counts, merge=self.unknown == "merge")
        covered = float(known[kept].sum() / max(1, known.sum()))
        smaller.provenance["vocabulary_pruning"] = {
            "words": len(kept),
            "words_before": before.words,
            "coverage": round(before.coverage * covered, 6),
            "tokens": int(counts.sum()),
        }
        return smaller


@dataclass(frozen=True)
class _Before:
    """How many words there were before the first step of this kind, and what is left of the text.

    Attributes
    ----------
    words : int
    coverage : float
        Of the known words of the text the share that still is one.
    """

    words: int
    coverage: float

    @classmethod
    def of(cls, model: LanguageModel) -> _Before:
        """Return what the model's provenance says, which in a file of another make is anything."""
        said: Any = model.provenance.get("vocabulary_pruning")
        said = said if isinstance(said, Mapping) else {}
        words, coverage = said.get("words_before"), said.get("coverage")
        return cls(
            words if isinstance(words, int) else len(model.vocabulary),
            coverage if isinstance(coverage, float) and 0 < coverage <= 1 else 1.0,
        )


def _counts(vocabulary: WordVocabulary, context: Context) -> npt.NDArray[np.int64]:
    """Return how often each word is in the text, int64 [words]."""
    if context.count_tokens is not None:
        return context.count_tokens(vocabulary)
    if context.calibration is None:
        raise UsageError("needs text to count words in; give --data")
    return count_tokens(context.calibration, len(vocabulary))

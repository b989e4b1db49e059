"""Removal of rare words."""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from pydantic.dataclasses import dataclass

from terselm.compress.base import OPTIONS, Context, ModelMethod, register_method
from terselm.compress.vocabulary_folding import fold_words, words_to_keep
from terselm.errors import UsageError
from terselm.models.language_model import LanguageModel
from terselm.models.output import FullSoftmax
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
    text's tokens that still have a word of their own, or spread the probability of `<unk>`
    over the folded words. The model's provenance says under `vocabulary_pruning` how many
    words are left and what they cover.

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
        Or: the smallest number of words that cover this share of the text's tokens.
    unknown : {"merge", "keep"}
        "merge": the bias of `<unk>` becomes the log-sum-exp of its bias and those of the
        folded words, and its rows their means weighted by frequency (in the output by
        exp(bias)): to first order `<unk>` gets all their probability. "keep": nothing changes
        for `<unk>`, and the probability of folded words is shared by all that stay.
    """

    keep: Count | None = None
    coverage: Share | None = None
    unknown: Literal["merge", "keep"] = "merge"

    def apply(self, model: LanguageModel, context: Context) -> LanguageModel:
        """Return the model with fewer words.

        Raises
        ------
        UsageError
            If there is no text, the tokens are not words, there is no `<unk>`, or the output
            layer is no plain softmax.
        """
        vocabulary = model.vocabulary
        if (self.keep is None) == (self.coverage is None):
            raise UsageError("give one of keep and coverage")
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
        if context.calibration is None:
            raise UsageError("needs text to count words in; give --data")
        counts = np.bincount(
            np.asarray(context.calibration, dtype=np.int64), minlength=len(vocabulary)
        )
        always = (vocabulary.start_id, vocabulary.unknown_id)
        kept = words_to_keep(counts, always, self.keep, self.coverage)
        if len(kept) == len(vocabulary):
            return model
        with torch.no_grad():
            smaller = fold_words(model, kept, counts, merge=self.unknown == "merge")
        smaller.provenance["vocabulary_pruning"] = {
            "words": len(kept),
            "words_before": len(vocabulary),
            "coverage": _coverage(counts, kept),
        }
        return smaller


def _coverage(counts: npt.NDArray[np.int64], kept: npt.NDArray[np.int64]) -> float:
    return round(float(counts[kept].sum() / max(1, counts.sum())), 6)

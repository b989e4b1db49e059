"""Write the tiniest model of every kind: what `make fuzz` starts from.

Usage: python native/tests/make_corpus.py FOLDER (terselm must be importable). The files are kept
in the repository, so that fuzzing needs no Python.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from model_file import File
from tests.tiny import FORM_BUILDERS

from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.byte_pair import BytePairVocabulary
from terselm.text.characters import CharacterVocabulary
from terselm.text.vocabulary import Vocabulary
from terselm.text.word import WordVocabulary

CELLS: dict[str, dict[str, Any]] = {
    "lstm": {"cell": "lstm"},
    "lstm-projected": {"cell": "lstm", "projection": 2},
    "gru": {"cell": "gru"},
    "rnn_tanh": {"cell": "rnn_tanh"},
    "rnn_relu": {"cell": "rnn_relu"},
    "projected_gru": {"cell": "projected_gru", "projection": 2},
    "projected_rnn_tanh": {"cell": "projected_rnn_tanh", "projection": 2},
    "tied": {"cell": "gru", "tied": True, "embedding": 3},
    "tied-projected": {"cell": "gru", "tied": True},
    "half-bias": {"cell": "gru", "output_bias": "float16"},
    "adaptive": {"cell": "gru", "output": "adaptive", "cutoffs": (1, 2), "division": 1},
}
VOCABULARIES: dict[str, Vocabulary] = {
    "words": WordVocabulary(["w01", "the", "<unk>", "<eos>", "w012"], True, "punctuation"),
    "characters": CharacterVocabulary(["a", "\n", "é", "<unk>"]),
    "bpe": BytePairVocabulary([(98, 98), (257, 98), (33, 117), (259, 105), (98, 257)], True),
}


def tiny_model(vocabulary: Vocabulary, **settings: Any) -> LanguageModel:
    torch.manual_seed(0)
    config = ModelConfig(**{"cell": "rnn_tanh", "hidden": (3,), "embedding": 2, **settings})
    counts = torch.arange(len(vocabulary)).numpy() if config.output == "adaptive" else None
    return LanguageModel(config, vocabulary, counts).eval()


def main() -> None:
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    plain = WordVocabulary(["<eos>", "<unk>", "w"])

    def write(name: str, model: LanguageModel) -> None:
        (folder / name).write_bytes(File(model).bytes())

    for name, settings in CELLS.items():
        write(f"cell-{name}", tiny_model(plain, **settings))
    for name, vocabulary in VOCABULARIES.items():
        write(f"vocabulary-{name}", tiny_model(vocabulary, hidden=(1,), embedding=1))
    for form, build in FORM_BUILDERS.items():
        model = tiny_model(plain, hidden=(4,), embedding=4)
        for name in ("embedding", "cells.0.weight_hh"):
            model.replace_weight(name, build(*model.weights()[name].shape))
        write("form-" + "".join(c if c.isalnum() else "_" for c in form), model)


if __name__ == "__main__":
    main()

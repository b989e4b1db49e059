"""Train a tiny GRU, compress it with a recipe of two steps, and use it, all from Python."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch

import terselm
from terselm.compress.apply import compress
from terselm.evaluate.perplexity import perplexity
from terselm.evaluate.predict import predict
from terselm.models.config import ModelConfig
from terselm.text.build import build_vocabulary
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import tokenize
from terselm.train.config import TrainingConfig
from terselm.train.loop import fit

TEXT = "the cat sat on the mat\nthe dog sat on the rug\na cat and a dog ran\n" * 400


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder, "animals.txt")
        text.write_text(TEXT)
        corpus = open_corpus(text)
        vocabulary = build_vocabulary(corpus)
        train, valid, test = (
            tokenize(corpus, split, vocabulary) for split in ("train", "valid", "test")
        )

        torch.manual_seed(0)
        config = ModelConfig(cell="gru", hidden=(32,), embedding=16)
        model = terselm.LanguageModel(config, vocabulary)
        training = TrainingConfig(optimizer="adam", learning_rate=0.01, epochs=2, batch=8)
        model = fit(
            model, train.ids, training, validate=lambda now: perplexity(now, valid.ids)
        ).model

        recipe = terselm.Recipe.from_list(
            [
                {"method": "low_rank", "weights": "cells.*", "rank": 0.6},
                {"method": "quantize", "weights": "*", "bits": 4, "group": 16},
            ]
        )
        small = compress(model, recipe).model
        path = Path(folder, "small.safetensors")
        size = terselm.save(small, path)

        small = terselm.load(path)
        print(f"{size} bytes, test perplexity {perplexity(small, test.ids):.2f}")
        for word, probability in predict(small, "the cat", k=3):
            print(f"the cat {word}  {probability:.1%}")


if __name__ == "__main__":
    main()

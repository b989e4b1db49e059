"""A small trained model and its text."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from terselm.models.checkpoint import save
from terselm.models.config import ModelConfig
from terselm.models.language_model import LanguageModel
from terselm.text.build import vocabulary_from_words
from terselm.text.corpus import open_corpus
from terselm.text.token_cache import tokenize
from terselm.train.config import make_training_config
from terselm.train.loop import fit

WORDS = 120
FOLLOWERS = 6


@dataclass(frozen=True)
class Trained:
    """A model file and the folder of its corpus."""

    model: Path
    data: Path


def sentences(random: np.random.Generator, count: int) -> list[str]:
    """Text of a chain in which every word has few followers, unevenly likely."""
    followers = np.random.default_rng(7).integers(0, WORDS, (WORDS, FOLLOWERS))
    shares = np.array([0.4, 0.25, 0.15, 0.1, 0.06, 0.04])
    lines, word = [], 0
    for _ in range(count):
        line = []
        for _ in range(12):
            word = int(followers[word, random.choice(FOLLOWERS, p=shares)])
            line.append(f"w{word:03d}")
        lines.append(" ".join(line))
    return lines


def search_command(*arguments: str) -> list[str]:
    """Return the command of a search that tries and trains little, however long it may."""
    little = (
        "import sys; from terselm.pipeline import jobs, search; "
        "search.SAMPLED, search.MOST_EPOCHS, jobs.FIRST_PRICES = 8, 0.1, (1.0,); "
        "from terselm.cli.main import main; main(sys.argv[1:])"
    )
    return [sys.executable, "-c", little, "search", *arguments]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    data = folder / "text"
    data.mkdir()
    random = np.random.default_rng(1)
    for split, count in (("train", 1500), ("valid", 200), ("test", 200)):
        (data / f"{split}.txt").write_text("\n".join(sentences(random, count)) + "\n")
    words = ["<eos>", "<unk>", *(f"w{number:03d}" for number in range(WORDS))]
    vocabulary = vocabulary_from_words(words)
    config = ModelConfig(cell="lstm", hidden=(48,), embedding=48)
    model = LanguageModel(config, vocabulary)
    ids = tokenize(open_corpus(str(data)), "train", vocabulary).ids
    settings = {"optimizer": "adam", "learning_rate": 0.01, "epochs": 3, "batch": 16, "window": 20}
    result = fit(model, ids, make_training_config({**settings, "seed": 0}))
    path = folder / "small.safetensors"
    save(result.model, path)
    return Trained(path, data)

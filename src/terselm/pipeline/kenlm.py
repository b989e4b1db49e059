"""N-gram models of KenLM on the same text, where its programs are installed."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terselm.text.corpus import Corpus

ORDERS = (2, 3, 5)
PROGRAMS = ("lmplz", "build_binary", "query")
QUANTIZED = ["-q", "8", "-b", "8", "-a", "64", "trie"]
SECONDS = 900


def compare_with_kenlm(
    corpus: Corpus, folder: Path, say: Callable[[str], None], split: str = "valid"
) -> list[dict[str, Any]] | None:
    """Train and measure n-gram models of the corpus by KenLM's own programs.

    Tries with 8-bit probabilities, modified Kneser-Ney smoothing. The perplexity is that of a
    text with line ends, as `query` prints it.

    Parameters
    ----------
    corpus : Corpus
    folder : Path
        For temporary files.
    say : callable
        Told what is done.
    split : {"valid", "test"}
        The text that is measured.

    Returns
    -------
    list of dict or None
        Order, kind, bytes and perplexity of each; None where the programs are not on the path.
    """
    if any(shutil.which(program) is None for program in PROGRAMS):
        return None
    say("training n-gram models by KenLM for comparison")
    with tempfile.TemporaryDirectory(dir=folder) as name:
        place = Path(name)
        texts = {"train": "train", "measured": split}
        for file, part in texts.items():
            lines = "".join(f"{line.strip()}\n" for line in corpus.lines(part))
            # KenLM keeps this word for itself; any other spelling is a word like others.
            (place / file).write_text(lines.replace("<unk>", "<UNK>"), encoding="utf-8")
        found = [_model(place, order) for order in ORDERS]
    return [each for each in found if each is not None]


def _model(place: Path, order: int) -> dict[str, Any] | None:
    text, arpa, binary = place / "train", place / "arpa", place / "binary"
    options = ["-o", str(order), "-S", "20%", "-T", str(place), "--discount_fallback"]
    if _run(["lmplz", *options, "--text", str(text), "--arpa", str(arpa)]) is None:
        return None
    if _run(["build_binary", *QUANTIZED, str(arpa), str(binary)]) is None:
        return None
    printed = _run(["query", "-v", "summary", str(binary)], place / "measured")
    perplexity = re.search(r"Perplexity including OOVs:\s*([0-9.eE+]+)", printed or "")
    if perplexity is None:
        return None
    return {
        "order": order,
        "kind": "trie, 8 bits",
        "bytes": binary.stat().st_size,
        "perplexity": float(perplexity.group(1)),
    }


def _run(command: list[str], text: Path | None = None) -> str | None:
    """Return what a program printed; None if it failed."""
    with (text or Path("/dev/null")).open("rb") as file:
        try:
            done = subprocess.run(command, stdin=file, capture_output=True, timeout=SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            return None
    return done.stdout.decode(errors="replace") if done.returncode == 0 else None

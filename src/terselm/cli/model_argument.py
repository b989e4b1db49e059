"""MODEL where it may be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from terselm.errors import UsageError
from terselm.zoo import PREFIX, model_path, usual

FILE = ".safetensors"
OTHER_FILES = frozenset({".bin", ".ckpt", ".gguf", ".h5", ".onnx", ".pkl", ".pt", ".pth"})
"""What models of other programs are called; no text ends so but one on such a file."""


def chosen_model(model: str | None, remark: Callable[[str], None]) -> Path:
    """Return the file of a model; where none is named, remark which one is taken."""
    if model is not None:
        return model_path(model)
    entry = usual()
    remark(f"no MODEL given: {PREFIX}{entry.name}")
    return entry.model


def check_is_text(argument: str) -> None:
    """Refuse the name of a model in the place of a text.

    Raises
    ------
    UsageError
        If it is `zoo:NAME`, ends as the name of a model file does, or names a file with an ending.
    """
    path = Path(argument)
    one_word = len(argument.split()) == 1
    like_a_model = path.suffix == FILE or (one_word and path.suffix in OTHER_FILES)
    there = one_word and bool(path.suffix) and path.is_file()
    if argument.startswith(PREFIX) or there:
        raise UsageError(f"no TEXT after {argument}; say what comes before the word to predict")
    if like_a_model:
        raise UsageError(
            f"cannot find {argument}; give a model file that is there, or zoo:NAME, and then TEXT"
        )

"""Train recurrent language models and compress them for small devices.

The names below are loaded when first used, so that `import terselm` needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from terselm.compress.recipe import Recipe
    from terselm.models.checkpoint import load, save
    from terselm.models.language_model import LanguageModel
    from terselm.pipeline.budget import Budget
    from terselm.pipeline.run import search

__version__ = "0.1.0"

__all__ = ["Budget", "LanguageModel", "Recipe", "__version__", "load", "save", "search"]

_HOMES = {
    "Budget": "terselm.pipeline.budget",
    "LanguageModel": "terselm.models.language_model",
    "Recipe": "terselm.compress.recipe",
    "load": "terselm.models.checkpoint",
    "save": "terselm.models.checkpoint",
    "search": "terselm.pipeline.run",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'terselm' has no attribute {name!r}")
    try:
        value = getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "terselm":
            raise
        raise ImportError(
            f"terselm.{name} needs {error.name}; pip install 'terselm[train]'", name=error.name
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

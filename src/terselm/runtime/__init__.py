"""Running a model file with the C library: numpy is all it needs.

`Model` opens a file and predicts; `State` is where a text is.
"""

from terselm.runtime.description import Description
from terselm.runtime.kenlm import KenLM
from terselm.runtime.library import kernel_names, library_path
from terselm.runtime.model import Model
from terselm.runtime.state import State

__all__ = ["Description", "KenLM", "Model", "State", "kernel_names", "library_path"]

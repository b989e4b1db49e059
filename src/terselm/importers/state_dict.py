"""Reading names and tensors out of a foreign file, without running anything in it."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from terselm.errors import TerselmError, UsageError

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TORCH_MAGICS = (b"PK\x03\x04", b"\x80\x02")
"""Of a zip archive (torch from 1.6) and of a pickle in protocol 2 (before)."""

WRAPPER = "module."
"""What `DataParallel` puts before every name."""


@dataclass(frozen=True)
class StateDict:
    """The content of a foreign file.

    Attributes
    ----------
    tensors : dict of str to Tensor
        In their types of the file, on the CPU. Each is float16, bfloat16, float32 or float64.
    file : str
        Name of the file, without its folder.
    sha256 : str
        Of the file, in hexadecimal.
    """

    tensors: dict[str, Tensor]
    file: str
    sha256: str


def read_state_dict(source: Path) -> StateDict:
    """Read a state dict from a `.safetensors` file or one of `torch.save`; the content decides.

    A "module." before every name is taken away.

    Parameters
    ----------
    source : Path

    Raises
    ------
    UsageError
        If there is no such file.
    TerselmError
        If it is neither of the two, is damaged, holds pickled code or something else than named
        tensors of floats. One line each.
    """
    try:
        data = source.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"no file {source} to import") from None
    except OSError as error:
        raise TerselmError(f"cannot read {source}: {error.strerror}") from None
    # A .safetensors of the right length begins like a pickle, but goes on with its header.
    pickled = data.startswith(TORCH_MAGICS) and data[8:9] != b"{"
    content = _read_torch(data, source) if pickled else _read_safetensors(data, source)
    tensors = _checked(content, source, len(data))
    return StateDict(_unwrapped(tensors), source.name, hashlib.sha256(data).hexdigest())


def _read_safetensors(data: bytes, source: Path) -> dict[str, Tensor]:
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise TerselmError(
            f"{source} is neither a whole .safetensors file nor one of torch.save "
            f"({_one_line(error)}); get the file again"
        ) from None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata = header.get("__metadata__") or {}
    if "terselm" in metadata:
        raise TerselmError(f"{source} is a terselm model already; use it as it is")
    # safetensors' save_model stores a shared tensor once and notes its other names.
    for name, kept in metadata.items():
        if name not in tensors and kept in tensors:
            tensors[name] = tensors[kept]
    return tensors


def _read_torch(data: bytes, source: Path) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" ({found.group(1)})" if found else ""
        raise TerselmError(
            f"{source} holds pickled objects{what}, which terselm never runs; save the weights "
            "alone where the model is at hand: torch.save(model.state_dict(), 'weights.pt')"
        ) from None
    except Exception as error:  # torch raises many kinds for damaged archives
        raise TerselmError(
            f"{source} cannot be read as a file of torch.save ({_one_line(error)}); "
            "get the file again"
        ) from None


def _checked(content: Any, source: Path, file_size: int) -> dict[str, Tensor]:
    if not isinstance(content, Mapping):
        raise TerselmError(
            f"{source} holds a {type(content).__name__}, expected a state dict; save one: "
            "torch.save(model.state_dict(), 'weights.pt')"
        )
    if not content:
        raise TerselmError(f"{source} holds no tensors")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise TerselmError(
                f"{source}: {name!r} is a {type(tensor).__name__}, expected names and tensors "
                "only; save the state dict by itself: torch.save(model.state_dict(), 'weights.pt')"
            )
        if tensor.dtype not in FLOATS:
            raise TerselmError(
                f"{source}: {name} is {tensor.dtype}, "
                "expected float16, bfloat16, float32 or float64"
            )
        strange = tensor.device.type != "cpu" or tensor.layout != torch.strided
        # A view may claim to be far larger than what is stored.
        if strange or tensor.numel() * tensor.element_size() > file_size:
            raise TerselmError(f"{source}: {name} is not a plain tensor with all its numbers")
    return dict(content)


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    if not all(name.startswith(WRAPPER) for name in tensors):
        return tensors
    return {name.removeprefix(WRAPPER): tensor for name, tensor in tensors.items()}


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:120]}..."

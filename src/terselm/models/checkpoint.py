"""The model file: one `.safetensors` (docs/architecture.md, "The file")."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor

from terselm.errors import TerselmError
from terselm.files import atomic_write
from terselm.linear.base import op_from_file, read_finite
from terselm.models.config import ModelConfig, first_problem
from terselm.models.language_model import LanguageModel
from terselm.text.vocabulary import vocabulary_from_file

FORMAT = 1
ALIGNMENT = 64
DOCUMENT_KEY = "terselm"
DIGEST_KEY = "terselm.sha256"
BLANK_DIGEST = b"0" * 64
FILLER = "pad."
PICKLE_MAGICS = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""Of a zip archive of torch.save, and of pickles."""

TYPE_NAMES = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.int32: "I32",
    torch.uint32: "U32",
}


@dataclass(frozen=True)
class FileLayout:
    """A model as it goes into its file.

    Attributes
    ----------
    header : bytes
        The length field and the JSON header, padded so that the data starts at 64.
    tensors : dict of str to Tensor
        What the file stores, in order, fillers included.
    """

    header: bytes
    tensors: dict[str, Tensor]

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(map(_size, self.tensors.values()))


def lay_out(model: LanguageModel) -> FileLayout:
    """Return the header and the tensors of the file that `save` would write.

    Raises
    ------
    TerselmError
        If a tensor holds NaN or infinite values; the message names it.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in _stored_tensors(model):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise TerselmError(f"{name} holds NaN or infinite values; the model is not usable")
        tensors[name] = tensor
        rest = -_size(tensor) % ALIGNMENT
        if rest:
            tensors[f"{FILLER}{len(tensors)}"] = torch.zeros(rest, dtype=torch.uint8)
    return FileLayout(_header(_document(model), tensors), tensors)


def save(model: LanguageModel, path: str | Path) -> int:
    """Write the model to one file, whole or not at all.

    Parameters
    ----------
    model : LanguageModel
    path : str or Path
        Where to; an existing file is replaced when the new one is complete.

    Returns
    -------
    int
        Bytes of the file.

    Raises
    ------
    TerselmError
        If the model holds NaN or infinite values, or the file cannot be written.
    """
    layout = lay_out(model)
    digest = hashlib.sha256(layout.header)
    chunks = [tensor.contiguous().numpy().tobytes() for tensor in layout.tensors.values()]
    for chunk in chunks:
        digest.update(chunk)
    header = layout.header.replace(BLANK_DIGEST, digest.hexdigest().encode(), 1)
    with atomic_write(path) as file:
        file.write(header)
        for chunk in chunks:
            file.write(chunk)
    return layout.size


def load(path: str | Path, device: torch.device | str = "cpu") -> LanguageModel:
    """Read a model from its file. Nothing in the file is ever run as code.

    Parameters
    ----------
    path : str or Path
    device : torch.device or str
        Where its parameters go.

    Returns
    -------
    LanguageModel
        In evaluation mode.

    Raises
    ------
    TerselmError
        If the file is missing, is no terselm model, is truncated or altered, or describes
        something impossible.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TerselmError(
            f"cannot read {path}: {error.strerror}; give a model file that terselm wrote"
        ) from None
    metadata = _read_metadata(data, path)
    try:
        tensors = safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise TerselmError(f"{path} is damaged ({error}); get the file again") from None
    _check_digest(data, metadata, path)
    try:
        document = json.loads(metadata[DOCUMENT_KEY])
    except (ValueError, RecursionError):  # also a number of too many digits
        raise TerselmError(f"{path}: its description is not valid JSON") from None
    try:
        model = _build(document, tensors)
    except RecursionError:
        raise TerselmError(f"{path}: its description is nested too deeply") from None
    except TerselmError as error:
        raise TerselmError(f"{path}: {error}") from None
    return model.to(device).eval()


def _stored_tensors(model: LanguageModel) -> Iterator[tuple[str, Tensor]]:
    for name, op in model.weights().items():
        for part, tensor in op.tensors().items():
            yield f"{name}.{part}", tensor.cpu()
    for name, bias in model.stored_biases().items():
        yield name, bias.cpu()
    yield from model.output.tables().items()
    for name, array in model.vocabulary.tensors().items():
        yield name, torch.from_numpy(array)


def _document(model: LanguageModel) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "config": model.config.model_dump(mode="json"),
        "weights": {name: op.spec() for name, op in model.weights().items()},
        "ties": model.ties(),
        "vocabulary": model.vocabulary.spec(),
        "provenance": _finite(model.provenance),
    }


def _finite(value: Any) -> Any:
    """Return JSON values with null for what JSON has no number for, such as a perplexity of inf."""
    if isinstance(value, Mapping):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _header(document: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    # The digest comes first, so that its 64 zeros are the first ones in the header.
    entries: dict[str, Any] = {
        "__metadata__": {
            DIGEST_KEY: BLANK_DIGEST.decode(),
            DOCUMENT_KEY: json.dumps(
                document, separators=(",", ":"), ensure_ascii=False, allow_nan=False
            ),
        }
    }
    start = 0
    for name, tensor in tensors.items():
        end = start + _size(tensor)
        entries[name] = {
            "dtype": TYPE_NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    # The name of a file that something was made from may be no UTF-8.
    encoded = text.encode(errors="replace")
    encoded += b" " * (-(8 + len(encoded)) % ALIGNMENT)
    return len(encoded).to_bytes(8, "little") + encoded


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _read_metadata(data: bytes, path: Path) -> dict[str, str]:
    """Return the metadata of the header, without trusting a length."""
    if data[8:9] != b"{" and data.startswith(PICKLE_MAGICS):
        raise TerselmError(
            f"{path} is a pickle, not a safetensors file; import it: terselm import {path.name}"
        )
    if data[8:9] != b"{":
        raise TerselmError(f"{path} is no terselm model file; give a model file that terselm wrote")
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise TerselmError(f"{path} is damaged (its header is cut off); get the file again")
    try:
        header = json.loads(data[8 : 8 + length])
        metadata = header.get("__metadata__", {})
        known = isinstance(metadata.get(DOCUMENT_KEY), str)
    except (ValueError, AttributeError, RecursionError):
        raise TerselmError(
            f"{path} is not a safetensors file (its header is not JSON); get the file again"
        ) from None
    if not known:
        raise TerselmError(
            f"{path} is not a terselm model; to import a state dict: terselm import {path.name}"
        )
    return dict(metadata)


def _check_digest(data: bytes, metadata: Mapping[str, str], path: Path) -> None:
    stated = metadata.get(DIGEST_KEY, "")
    length = 8 + int.from_bytes(data[:8], "little")
    position = data.find(stated.encode(), 0, length) if len(stated) == 64 else -1
    if position >= 0:
        digest = hashlib.sha256(data[:position])
        digest.update(BLANK_DIGEST)
        digest.update(memoryview(data)[position + 64 :])
        if digest.hexdigest() == stated:
            return
    raise TerselmError(f"{path} was altered or damaged (its checksum differs); get the file again")


def _build(document: Any, tensors: Mapping[str, Tensor]) -> LanguageModel:
    if not isinstance(document, dict):
        raise TerselmError("its description is not a JSON object")
    if type(document.get("format")) is not int or document["format"] != FORMAT:
        raise TerselmError(
            f"format is {document.get('format')!r}, this terselm reads {FORMAT}; update terselm"
        )
    specs, ties = document.get("weights"), document.get("ties")
    if not isinstance(specs, dict) or ties not in ({}, {"output": "embedding"}):
        raise TerselmError("its weights or ties are not described")
    try:
        # As JSON and strictly: "10" is no number, and the C library does not take it for one.
        config = ModelConfig.model_validate_json(json.dumps(document.get("config")), strict=True)
    except ValidationError as error:
        raise TerselmError(f"config.{first_problem(error)}") from None
    vocabulary = vocabulary_from_file(document.get("vocabulary"), _vocabulary_arrays(tensors))
    # On the meta device nothing is allocated before the sizes in the file are checked.
    with torch.device("meta"):
        model = LanguageModel(config, vocabulary)
    if ties != model.ties():
        raise TerselmError("ties do not fit config.tied")
    expected = model.weights()
    if set(specs) != set(expected):
        odd = sorted(set(specs) ^ set(expected))
        raise TerselmError(f"weights do not fit the config: {', '.join(odd)}")
    for name, old in expected.items():
        spec = specs[name]
        # A small file may describe a matrix of any size, so one of another shape is not built.
        if isinstance(spec, Mapping) and spec.get("shape") != list(old.shape):
            shape = spec.get("shape")
            raise TerselmError(f"{name} is {shape!r}, the config needs {list(old.shape)}")
        model.replace_weight(name, op_from_file(spec, tensors, name))
    for name, bias in model.stored_biases().items():
        stored = read_finite(tensors, name, bias.dtype, tuple(bias.shape))
        model.replace_bias(name, stored)
    model.output.load_tables(tensors)
    provenance = document.get("provenance")
    model.provenance = provenance if isinstance(provenance, dict) else {}
    return model


def _vocabulary_arrays(tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return the vocabulary's tensors; NumPy has neither all of torch's types nor its shapes."""
    arrays = {}
    for name, tensor in tensors.items():
        if name.startswith("vocabulary."):
            if tensor.dtype not in TYPE_NAMES or tensor.dim() not in (1, 2):
                kind = f"{tensor.dtype}, {list(tensor.shape)}"
                raise TerselmError(f"{name} is {kind}, which no vocabulary holds")
            arrays[name] = tensor.numpy()
    return arrays

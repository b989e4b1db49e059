"""What a perfect coder could still take out of a model's file, and what xz does.

    python benchmarks/entropy_check.py NAME=MODEL [NAME=MODEL ...]

Writes results/entropy.json and .md. A part's entropy is that of its symbols taken alone, as a
coder reaches it that knows how often each comes in this part: codes of quantized matrices by
matrix, scales as 16-bit numbers, everything else byte by byte. Files are read in place, so
nothing of this is done to them; the table says what that costs.
"""

from __future__ import annotations

import json
import lzma
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import describe_machine
from torch import Tensor

from terselm.files import write_bytes
from terselm.linear.base import LinearOp
from terselm.linear.quantized import Quantized
from terselm.models.checkpoint import FILLER, lay_out, load
from terselm.models.language_model import LanguageModel

RESULTS = Path(__file__).resolve().parent / "results"


def entropy_bytes(symbols: np.ndarray) -> float:
    """Return the bytes of the symbols at their order-0 entropy."""
    _, counts = np.unique(symbols, return_counts=True)
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


def raw(tensor: Tensor) -> np.ndarray:
    return np.frombuffer(tensor.contiguous().numpy().tobytes(), dtype=np.uint8)


def parts_of(model: LanguageModel) -> dict[str, dict[str, float]]:
    """Return bytes and entropy in bytes by kind of content; they add up to the file's tensors."""
    tensors = dict(lay_out(model).tensors)
    parts: dict[str, dict[str, float]] = {}

    def add(kind: str, size: int, entropy: float) -> None:
        part = parts.setdefault(kind, {"bytes": 0, "entropy_bytes": 0.0})
        part["bytes"] += size
        part["entropy_bytes"] += entropy

    def add_leaf(name: str, leaf: LinearOp) -> None:
        for part in leaf.tensors():
            tensor = tensors.pop(f"{name}.{part}")
            size = tensor.nbytes
            if part == "codes" and isinstance(leaf, Quantized):
                add(f"{leaf.bits}-bit codes", size, entropy_bytes(leaf.codes.numpy()))
            elif part == "scales":
                add("scales", size, entropy_bytes(raw(tensor).view(np.uint16)))
            else:
                add(f"{leaf.kind}: {part}", size, entropy_bytes(raw(tensor)))

    for name, leaf in model.leaves().items():
        add_leaf(name, leaf)
    biases = model.biases()
    for name, tensor in tensors.items():
        if name in biases:
            kind = "biases"
        elif name.startswith("vocabulary."):
            kind = "words"
        else:
            kind = "fillers" if name.startswith(FILLER) else name
        add(kind, tensor.nbytes, entropy_bytes(raw(tensor)))
    return parts


def checked(path: Path) -> dict[str, Any]:
    data = path.read_bytes()
    return {
        "bytes": len(data),
        "xz_bytes": len(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME)),
        "parts": parts_of(load(path)),
    }


def markdown(found: dict[str, dict[str, Any]]) -> str:
    lines = ["| model | part | bytes | at its entropy | |", "|---|---|--:|--:|--:|"]
    for name, model in found.items():
        for part, sizes in sorted(model["parts"].items(), key=lambda each: -each[1]["bytes"]):
            share = sizes["entropy_bytes"] / sizes["bytes"]
            lines.append(
                f"| {name} | {part} | {sizes['bytes']:,} | {sizes['entropy_bytes']:,.0f} "
                f"| {100 * share:.0f} % |"
            )
        share = model["xz_bytes"] / model["bytes"]
        lines.append(
            f"| {name} | **the file, by xz** | {model['bytes']:,} | {model['xz_bytes']:,} "
            f"| {100 * share:.0f} % |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    given = [argument.partition("=") for argument in sys.argv[1:]]
    found = {name: checked(Path(path)) for name, _, path in given}
    result = {"machine": describe_machine(), "models": found}
    write_bytes(RESULTS / "entropy.json", json.dumps(result, indent=1).encode() + b"\n")
    write_bytes(RESULTS / "entropy.md", markdown(found).encode())
    print(markdown(found))


if __name__ == "__main__":
    main()

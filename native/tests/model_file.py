"""Model files in parts that can be changed one by one; for make_malformed.py."""

from __future__ import annotations

import copy
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from terselm.models.checkpoint import lay_out
from terselm.models.language_model import LanguageModel

BLANK = "0" * 64
FILLER = "pad."
FILL: dict[str, Any] = {"dtype": "U8"}


class File:
    """A model file in parts that can be changed one by one."""

    def __init__(self, model: LanguageModel) -> None:
        layout = lay_out(model)
        header = json.loads(layout.header[8:])
        self.document: Any = json.loads(header.pop("__metadata__")["terselm"])
        self.entries: dict[str, Any] = header
        self.data = bytearray(
            b"".join(tensor.contiguous().numpy().tobytes() for tensor in layout.tensors.values())
        )
        self.header_text: Callable[[str], str] = lambda text: text
        self.document_text: Callable[[str], str] = lambda text: text

    def copy(self) -> File:
        return copy.deepcopy(self)

    def span(self, name: str) -> tuple[int, int]:
        start, end = self.entries[name]["data_offsets"]
        return start, end

    def write(self, name: str, at: int, content: bytes) -> None:
        start = self.span(name)[0] + at
        self.data[start : start + len(content)] = content

    def read(self, name: str) -> bytes:
        start, end = self.span(name)
        return bytes(self.data[start:end])

    def replace(self, name: str, dtype: str, shape: list[int], content: bytes) -> None:
        """Put another tensor, or a new one, under this name; everything is laid out anew."""
        kept = {key: entry for key, entry in self.entries.items() if not key.startswith(FILLER)}
        parts = {key: self.read(key) for key in kept} | {name: content}
        kept[name] = {"dtype": dtype, "shape": shape}
        self.entries, self.data = {}, bytearray()
        for key, part in parts.items():
            if len(self.data) % 64:
                self._add(f"{FILLER}{len(self.entries)}", FILL, bytes(-len(self.data) % 64))
            self._add(key, kept[key], part)

    def _add(self, name: str, entry: dict[str, Any], content: bytes) -> None:
        start = len(self.data)
        self.data += content
        shape = [len(content)] if entry is FILL else entry["shape"]
        offsets = [start, len(self.data)]
        self.entries[name] = {"dtype": entry["dtype"], "shape": shape, "data_offsets": offsets}

    def spec(self, weight: str) -> dict[str, Any]:
        spec: dict[str, Any] = self.document["weights"][weight]
        return spec

    def bytes(self, *, digest: bool = True) -> bytes:
        text = self.document_text(json.dumps(self.document, separators=(",", ":")))
        metadata = {"terselm.sha256": BLANK, "terselm": text}
        header = self.header_text(json.dumps({"__metadata__": metadata, **self.entries}))
        raw = header.encode(errors="surrogateescape")
        raw += b" " * (-(8 + len(raw)) % 64)
        whole = struct.pack("<Q", len(raw)) + raw + self.data
        if digest:
            found = hashlib.sha256(whole).hexdigest().encode()
            whole = whole.replace(BLANK.encode(), found, 1)
        return whole


class Manifest:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, content: bytes, status: int = 0, words: str = "") -> None:
        file_name = "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
        (self.folder / file_name).write_bytes(content)
        self.lines.append(f"{file_name}\t{status}\t{words}\n")

    def close(self) -> None:
        if len({line.split("\t")[0] for line in self.lines}) != len(self.lines):
            raise ValueError("two files have one name")
        (self.folder / "manifest.txt").write_text("".join(self.lines))

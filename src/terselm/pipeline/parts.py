"""Which parts of a model file a token's time goes to."""

from __future__ import annotations

from terselm.evaluate.cost import Inspection, Part


def parts_by_time(parts: Inspection) -> tuple[list[Part], list[Part]]:
    """Return the parts that a token reads: of embedding and recurrent layers, and of the output.

    Their biases are among them.
    """
    read = [part for part in parts.parts if part.bytes_read]
    output = [part for part in read if _is_output(part, parts)]
    return [part for part in read if not _is_output(part, parts)], output


def _is_output(part: Part, parts: Inspection) -> bool:
    if part.name.startswith("output"):
        return True
    # A tied embedding is read for the output layer.
    return parts.tied and part.name == "embedding"

"""C source: the model file as an array in flash, with the memory that it needs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from terselm.exporters.base import EXPORTERS, Exporter, Source
from terselm.files import atomic_write

WORD = 8
WORDS_A_LINE = 4
LINES_AT_ONCE = 1 << 15

HEADER = """\
/* A language model for microcontrollers, made by terselm export from {file}.
 *
 * {cell}, {tokens:,} tokens ({kind}){quality}
 *
 * flash   {flash:>11,} bytes   the model file, constant
 * RAM     {total:>11,} bytes   {macro}_TOTAL_RAM, in one block:
 *         {model:>11,} bytes   the model ({opening:,} while it is opened)
 *         {context:>11,} bytes   the context: working memory
 *         {state:>11,} bytes   the state: where a text is
 *
 * The library itself computed these on a 64-bit machine. They are exact there; with pointers of 32
 * bits it takes less. The stack and the code of the library are not in them.
 *
 * Include this file in one source file. Compile terselm's native/src with -DTLM_NO_MALLOC. Use:
 *
 *     {macro}_STATIC_MEMORY(memory);
 *     tlm_model *model;
 *     tlm_context *context;
 *     void *state;
 *     tlm_choice best[3];
 *     uint32_t found;
 *     if ({name}_open(memory, &model, &context, &state) == TLM_OK) {{
 *         tlm_step(context, state, tlm_find_token(model, "a", 1));
 *         tlm_top(context, state, NULL, 0, NULL, 0, 3, best, &found);
 *     }}
 *
 * The file's checksum is not compared: what is in flash is vouched for by the firmware. To compare
 * it, open with tlm_open_in. */
#ifndef {macro}_H
#define {macro}_H

#include <stdint.h>

#include "terselm.h"

#define {macro}_SIZE {flash}
#define {macro}_MODEL_RAM {model}
#define {macro}_OPENING_RAM {opening}
#define {macro}_CONTEXT_RAM {context}
#define {macro}_STATE_RAM {state}
#define {macro}_TOTAL_RAM {total}

#ifdef __cplusplus
#define {macro}_ALIGNED alignas(64)
#else
#define {macro}_ALIGNED _Alignas(64)
#endif

/* Memory for one model, one context and one state. */
#define {macro}_STATIC_MEMORY(memory) \\
    {macro}_ALIGNED static unsigned char memory[{macro}_TOTAL_RAM]

/* The bytes of the file, lowest first in each word. */
{macro}_ALIGNED static const uint64_t {name}_file[] = {{
"""

FOOTER = """\
}};

/* Open all that is needed in {macro}_TOTAL_RAM bytes at a multiple of 64; the state is that at the
 * start of a text. Nothing is allocated, and nothing has to be closed. */
static inline tlm_status {name}_open(void *memory, tlm_model **model, tlm_context **context,
                                     void **state)
{{
    unsigned char *at = (unsigned char *)memory;
    size_t size, left = {macro}_TOTAL_RAM;
    tlm_status status = tlm_open_trusted_in({name}_file, {macro}_SIZE, at, left, model, NULL, 0);
    if (status == TLM_OK) {{
        size = (tlm_model_bytes(*model) + 63) / 64 * 64;
        at += size;
        left = size < left ? left - size : 0;
        status = tlm_context_size(*model, NULL, &size);
    }}
    if (status == TLM_OK && (size > left || tlm_state_size(*model) > left - size))
        status = TLM_ERROR_MEMORY; /* a library that needs more than the one that exported */
    if (status == TLM_OK)
        status = tlm_context_open_in(*model, NULL, at, size, context);
    if (status == TLM_OK) {{
        *state = at + size;
        status = tlm_state_init(*model, *state);
    }}
    return status == TLM_OK ? tlm_step(*context, *state, tlm_start_token(*model)) : status;
}}

#endif
"""


@EXPORTERS.register("c_array")
class CArray(Exporter):
    """A header for C11 and C++11: the file as a constant array, and memory of the exact size."""

    @classmethod
    def write(cls, source: Source, out: Path, name: str) -> None:
        """Write the header; see `Exporter.write`."""
        values = {"name": name, "macro": name.upper(), **_about(source)}
        with atomic_write(out) as file:
            file.write(HEADER.format(**values).encode("ascii"))
            for lines in array_lines(source.content):
                file.write(lines)
            file.write(FOOTER.format(**values).encode("ascii"))


def array_lines(content: bytes) -> Iterator[bytes]:
    """Yield the lines of an array of uint64_t that holds `content`, many lines at once.

    Words of eight bytes, filled up with zeros, take half the text that single bytes do, and a
    compiler an eighth of the time.
    """
    step = WORD * WORDS_A_LINE
    for start in range(0, len(content), step * LINES_AT_ONCE):
        part = content[start : start + step * LINES_AT_ONCE]
        whole = len(part) // step * step
        if whole:
            yield _lines(part[:whole], WORDS_A_LINE)
        rest = part[whole:]
        if rest:
            rest += bytes(-len(rest) % WORD)
            yield _lines(rest, len(rest) // WORD)


def _lines(content: bytes, words_a_line: int) -> bytes:
    digits = np.frombuffer(content, "<u8").astype(">u8").tobytes().hex().encode()
    words = np.frombuffer(digits, "S16").reshape(-1, words_a_line)
    text = np.full((*words.shape, 19), b" ", "S1")
    text[..., :2] = np.frombuffer(b"0x", "S1")
    text[..., 2:18] = np.frombuffer(digits, "S1").reshape(*words.shape, 16)
    text[..., 18] = b","
    lines = text.reshape(len(words), -1)
    ends = np.full((len(words), 1), b"\n", "S1")
    return np.concatenate([lines, ends], axis=1).tobytes()


def _about(source: Source) -> dict[str, object]:
    """Return what the comment says. The library has checked the fields that are read here."""
    config, vocabulary = source.document["config"], source.document["vocabulary"]
    hidden = "-".join(str(size) for size in config["hidden"])
    perplexities = ", ".join(
        f"{value:.2f} ({_plain(split)})" for split, value in source.perplexities.items()
    )
    return {
        "file": _plain(source.file_name),
        "cell": f"{config['cell']} {hidden}",
        "tokens": vocabulary["size"],
        "kind": vocabulary["kind"],
        "quality": f", perplexity {perplexities}" if perplexities else "",
        "flash": len(source.content),
        "total": source.needs.total,
        "model": source.needs.model,
        "opening": source.needs.opening,
        "context": source.needs.context,
        "state": source.needs.state,
    }


def _plain(text: str) -> str:
    """Return text that cannot end a comment or begin a new line."""
    return "".join(c if (c.isalnum() and c.isascii()) or c in " ._-" else "?" for c in text)

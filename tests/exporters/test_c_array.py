"""C source of a model: a compiler finds in it the bytes of the file and the sizes of memory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from terselm.errors import TerselmError, UsageError
from terselm.exporters.base import export_model
from terselm.exporters.c_array import array_lines
from terselm.models.checkpoint import save
from terselm.runtime.memory import memory_needs
from tests.tiny import make_model, rewrite

INCLUDE = Path(__file__).resolve().parents[2] / "native" / "include"
PROGRAM = """
#include <stdio.h>
#include "tiny.h"
TINY_STATIC_MEMORY(memory);
int main(void) {
    fprintf(stderr, "%d %d %d %d %d %d %d", TINY_MODEL_RAM, TINY_OPENING_RAM, TINY_CONTEXT_RAM,
            TINY_STATE_RAM, TINY_TOTAL_RAM, (int)sizeof memory,
            (int)((uintptr_t)tiny_file % 64 + (uintptr_t)memory % 64));
    return fwrite(tiny_file, 1, TINY_SIZE, stdout) == TINY_SIZE ? 0 : 1;
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.safetensors"
    made = make_model("gru", hidden=13)
    made.provenance = {"perplexity": {"valid": 12.345, "*/ #error\n": 1.0, "test": None}}
    save(made, path)
    return path


@pytest.mark.parametrize("compiler", [["cc", "-std=c11"], ["c++", "-std=c++11", "-x", "c++"]])
def test_a_compiler_reads_the_file_back(model: Path, tmp_path: Path, compiler: list[str]):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"{compiler[0]} is not installed")
    exported = export_model(model, tmp_path / "tiny.h", target="c-array")
    (tmp_path / "program.c").write_text(PROGRAM)
    flags = ["-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", f"-I{INCLUDE}", f"-I{tmp_path}"]
    program = tmp_path / "program"
    built = subprocess.run(
        [*compiler, *flags, tmp_path / "program.c", "-o", program], capture_output=True, check=False
    )
    assert built.returncode == 0, built.stderr.decode()
    done = subprocess.run([program], capture_output=True, check=True)
    assert done.stdout == model.read_bytes()
    needs = exported.needs
    sizes = [needs.model, needs.opening, needs.context, needs.state, needs.total, needs.total, 0]
    assert done.stderr.decode().split() == [str(size) for size in sizes]


@pytest.mark.parametrize("size", [1, 7, 8, 31, 32, 33, 64, 100])
def test_words_hold_the_bytes_and_zeros(size: int):
    content = bytes((7 * i + 129) % 256 for i in range(size))
    text = b"".join(array_lines(content)).decode("ascii")
    words = [int(word, 16) for word in text.replace("\n", "").removesuffix(",").split(",")]
    read = b"".join(word.to_bytes(8, "little") for word in words)
    assert read == content + bytes(-size % 8)


def test_the_comment_says_what_it_is(model: Path, tmp_path: Path):
    export_model(model, tmp_path / "tiny.h", target="c-array")
    comment = (tmp_path / "tiny.h").read_text().partition("*/")[0]
    assert "gru 13-13, 37 tokens (words)" in comment
    assert "12.35 (valid)" in comment or "12.34 (valid)" in comment
    assert f"{model.stat().st_size:,} bytes" in comment
    assert "TINY_STATIC_MEMORY(memory);" in comment  # nothing in the file ended the comment


@pytest.mark.parametrize(
    ("out", "name", "expected"),
    [
        ("my-model.h", None, "my_model"),
        ("2.h", None, "model_2"),
        ("tlm.h", None, "model_tlm"),
        ("tlm_context.h", None, "model_tlm_context"),
        ("terselm.h", None, "model_terselm"),
        ("tlmodel.h", None, "tlmodel"),
        ("x.h", "Words", "Words"),
    ],
)
def test_names(model: Path, tmp_path: Path, out: str, name: str | None, expected: str):
    exported = export_model(model, tmp_path / out, target="c-array", name=name)
    assert exported.name == expected
    text = (tmp_path / out).read_text()
    assert f"{expected}_open(" in text
    assert f"#define {expected.upper()}_SIZE {model.stat().st_size}\n" in text


@pytest.mark.parametrize(
    "name", ["", "1st", "a b", "a-b", "tlm", "TLM", "tlm_context", "Tlm_x", "terselm", "é", "_x"]
)
def test_a_name_that_c_cannot_have(model: Path, tmp_path: Path, name: str):
    with pytest.raises(UsageError, match="name is"):
        export_model(model, tmp_path / "x.h", target="c-array", name=name)
    assert not (tmp_path / "x.h").exists()


def test_memory_is_what_the_parts_are(model: Path):
    needs = memory_needs(model.read_bytes())
    assert needs.state == 2 * 13 * 4
    assert needs.model <= needs.opening <= needs.total
    assert needs.total >= needs.model + needs.context + needs.state


def test_a_damaged_file_is_refused(model: Path):
    content = bytearray(model.read_bytes())
    content[-1] ^= 1
    with pytest.raises(TerselmError, match="altered or damaged"):
        memory_needs(bytes(content))
    with pytest.raises(TerselmError, match="cut off"):
        memory_needs(b"")


@pytest.mark.parametrize("provenance", [None, [1], "x", {"perplexity": {"valid": True}}])
def test_a_provenance_that_states_nothing(model: Path, tmp_path: Path, provenance: object):
    rewrite(model, lambda document: document.update(provenance=provenance))
    export_model(model, tmp_path / "tiny.h", target="c-array")
    assert "perplexity" not in (tmp_path / "tiny.h").read_text()

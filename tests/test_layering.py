"""The rooms of src/terselm know only lower rooms (docs/architecture.md), and files stay small."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PACKAGE = REPOSITORY / "src" / "terselm"
SOURCES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# A room may import itself and the rooms of the lines above its own, not its neighbours.
LAYERS = (
    {"errors", "recipes"},
    {"registry", "files"},
    {"text", "linear", "zoo"},
    {"cells"},
    {"models", "runtime"},
    {"train", "evaluate", "compress", "importers", "exporters"},
    {"report"},
    {"pipeline"},
    {"experiments"},
    {"cli"},
    {"__main__"},
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
ALLOWED = {
    room: {other for other in LEVEL if LEVEL[other] < level} for room, level in LEVEL.items()
} | {"runtime": {"errors"}}

WITHOUT_TORCH = {"errors", "registry", "files", "text", "runtime", "zoo"}
TORCH_ALLOWED_IN = {"terselm.text.batches"}


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room of `terselm.room.file`; `__init__` for the package itself."""
    return [*module.split("."), "__init__"][1]


def imports(tree: ast.AST, package: str) -> Iterator[tuple[int, str, str]]:
    """Every import, wherever it stands, as (line, module, name taken from it or "")."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = package.split(".")[: len(package.split(".")) - node.level + 1]
                module = ".".join([*base, module] if module else base)
            yield from ((node.lineno, module, alias.name) for alias in node.names)
        elif is_import_call(node):
            yield node.lineno, node.args[0].value, ""


def is_import_call(node: ast.AST) -> bool:
    """Whether the node is import_module("...") or __import__("...") of a fixed name."""
    return (
        isinstance(node, ast.Call)
        and (getattr(node.func, "attr", None) or getattr(node.func, "id", None))
        in {"import_module", "__import__"}
        and bool(node.args)
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def violations(source: str, module: str, is_package: bool = False) -> list[str]:
    """What the file does that the architecture forbids, one line each."""
    room = room_of(module)
    if room == "__init__":
        return eager_imports(source)
    if room not in LEVEL:
        return [f"room {room!r} is not in docs/architecture.md"]
    package = module if is_package else module.rpartition(".")[0]
    found = []
    for line, target, name in imports(ast.parse(source), package):
        top = target.partition(".")[0]
        if name == "*":
            found.append(f"{line}: import * from {target}")
        if top == "torch" and room in WITHOUT_TORCH and module not in TORCH_ALLOWED_IN:
            found.append(f"{line}: {module} must work without torch")
        if top != "terselm" or (target == top and name == "__version__"):
            continue
        other = room_of(f"{target}.{name}" if target == top and name else target)
        if other != room and other not in ALLOWED[room]:
            found.append(f"{line}: {room} must not import {other}")
    return found


def eager_imports(source: str) -> list[str]:
    """Imports of our own in terselm/__init__.py that run when it is imported."""
    found = []
    for node in ast.parse(source).body:
        if isinstance(node, ast.If) and getattr(node.test, "id", None) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.FunctionDef):
            continue
        found += [
            f"{line}: terselm/__init__.py must load {target} lazily"
            for line, target, _ in imports(node, "terselm")
            if target.partition(".")[0] in {"terselm", "torch", "numpy"}
        ]
    return found


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_imports_point_downwards(path: Path):
    found = violations(
        path.read_text(encoding="utf-8"), module_name(path), path.name == "__init__.py"
    )
    assert not found, f"{path.relative_to(REPOSITORY)}: " + "; ".join(found)


@pytest.mark.parametrize("path", SOURCES, ids=module_name)
def test_files_stay_small(path: Path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES, (
        f"{path.relative_to(REPOSITORY)} has {lines} lines; split it by subject"
    )


def test_every_room_is_on_the_map():
    page = (REPOSITORY / "docs" / "architecture.md").read_text(encoding="utf-8")
    on_map = set(re.findall(r"^\| `([a-z_]+)(?:/|\.py)` \|", page, flags=re.MULTILINE))
    rooms = {room_of(module_name(path)) for path in SOURCES} - {"__init__", "__main__"}
    assert rooms <= on_map, f"rooms missing from docs/architecture.md: {sorted(rooms - on_map)}"
    assert on_map <= LEVEL.keys(), f"rooms missing from LAYERS: {sorted(on_map - LEVEL.keys())}"


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("terselm.linear.dense", "from terselm.cells.base import CELLS", "linear must not import"),
        ("terselm.linear.dense", "import terselm.text.corpus", "linear must not import text"),
        ("terselm.linear.dense", "from ..models import output", "linear must not import models"),
        ("terselm.linear.dense", "from .. import cli", "linear must not import cli"),
        ("terselm.compress.apply", "from terselm.train import loop", "must not import train"),
        ("terselm.compress.apply", "def f():\n  import terselm.cli", "must not import cli"),
        ("terselm.compress.apply", "import_module('terselm.cli')", "must not import cli"),
        ("terselm.train.loop", "from terselm import evaluate", "train must not import evaluate"),
        ("terselm.train.loop", "if TYPE_CHECKING:\n  import terselm.cli", "must not import cli"),
        ("terselm.runtime.model", "from terselm import text", "must not import text"),
        ("terselm.files", "import terselm", "files must not import __init__"),
        ("terselm.cli.train", "from terselm import load", "cli must not import load"),
        ("terselm.text.corpus", "import torch.nn", "must work without torch"),
        ("terselm.text.corpus", "from torch import Tensor", "must work without torch"),
        ("terselm.cli.train", "from terselm.train.loop import *", "import *"),
        ("terselm.kitchen.sink", "", "'kitchen' is not in docs"),
        ("terselm", "from terselm.models import checkpoint", "lazily"),
        ("terselm", "try:\n  import torch\nexcept ImportError: pass", "lazily"),
    ],
)
def test_a_planted_violation_is_caught(module: str, source: str, message: str):
    (found,) = violations(source, module)
    assert message in found


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("terselm.cells.lstm", "import torch\nfrom terselm.linear.base import LinearOp"),
        ("terselm.cells.lstm", "from .base import CELLS"),
        ("terselm.text.batches", "import torch\nfrom terselm.errors import TerselmError"),
        ("terselm.cli.train", "from terselm import __version__\nfrom terselm.train import loop"),
        ("terselm.report.table", "from terselm.evaluate.cost import cost_of"),
        ("terselm.__main__", "from terselm.cli.main import main"),
        ("terselm", "if TYPE_CHECKING:\n  from terselm.models.checkpoint import load"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str):
    assert violations(source, module) == []

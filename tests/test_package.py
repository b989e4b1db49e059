"""What a user gets from `import terselm`."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import terselm

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_brings_in_nothing_but_the_standard_library():
    code = (
        "import sys, json; before = set(sys.modules); import terselm; "
        "print(json.dumps(sorted({m.partition('.')[0] for m in set(sys.modules) - before})))"
    )
    loaded = set(json.loads(run_python(code)))
    assert "terselm" in loaded
    assert loaded - sys.stdlib_module_names == {"terselm"}


def test_import_loads_no_room():
    code = "import sys, terselm; print([m for m in sys.modules if m.startswith('terselm.')])"
    assert run_python(code).strip() == "[]"


def test_version_is_that_of_the_project():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    assert terselm.__version__ == project["version"]


def test_public_names_resolve_and_are_listed():
    pytest.importorskip("torch")
    for name in terselm.__all__:
        assert getattr(terselm, name) is not None
        assert name in dir(terselm)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        terselm.lode  # noqa: B018


def test_missing_torch_is_one_line_that_says_what_to_install():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import terselm\n"
        "try: terselm.load\n"
        "except ImportError as error: print(error)\n"
    )
    assert run_python(code).strip() == "terselm.load needs torch; pip install 'terselm[train]'"

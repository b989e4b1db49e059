"""What every test may ask for: corpora, trained checkpoints, a private cache, fixed seeds."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).parents[1]
MISSING = "NEEDS DATA:"
NO_BROWSER = "NEEDS A BROWSER:"


LONGEST = (
    *("pipeline/test_hosts.py", "contracts/test_methods.py", "pipeline/test_search.py"),
    *("experiments/test_reproduce.py", "train/test_resume.py", "train/test_loop.py"),
    *("cli/test_recovery.py", "report/test_search_page.py", "report/test_search_report.py"),
)
"""Files that take longest, which begin first: else one process is left alone with them."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent
    place = {tests / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_configure() -> None:
    # One process a core already; torch and BLAS read these when they are first imported.
    if "PYTEST_XDIST_WORKER" in os.environ:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(name, "1")


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of this run alone; under xdist, of this worker."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERSELM_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """No test can lose power: a file need not be on the disk, 10 ms each, to be read again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


def find_folder(variable: str, usual: Path) -> Path:
    """The folder that `variable` names (it must exist) or the usual one (else skip)."""
    named = os.environ.get(variable)
    if named:
        if not Path(named).is_dir():
            pytest.fail(f"{variable}={named} is not a folder", pytrace=False)
        return Path(named)
    if not usual.is_dir():
        pytest.skip(f"{MISSING} set {variable} to a folder like {usual.parent.name}/{usual.name}")
    return usual


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of corpora: TERSELM_DATA, else shared/data beside the checkout."""
    return find_folder("TERSELM_DATA", REPOSITORY.parent / "shared" / "data").resolve()


@pytest.fixture(scope="session")
def ptb_folder(data_root: Path) -> Path:
    """The Penn Treebank: ptb.train.txt, ptb.valid.txt, ptb.test.txt."""
    folder = data_root / "ptb"
    if not (folder / "ptb.train.txt").is_file():
        pytest.skip(f"{MISSING} no ptb/ptb.train.txt in TERSELM_DATA")
    return folder


@pytest.fixture(scope="session")
def shared_checkpoints(request: pytest.FixtureRequest) -> Path:
    """The folder of trained checkpoints: TERSELM_CHECKPOINTS, else beside the corpora."""
    if os.environ.get("TERSELM_CHECKPOINTS"):
        return find_folder("TERSELM_CHECKPOINTS", REPOSITORY)
    usual = request.getfixturevalue("data_root").parent / "checkpoints"
    return find_folder("TERSELM_CHECKPOINTS", usual)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for sign, what in (
        (MISSING, "no corpora or checkpoints (set TERSELM_DATA, TERSELM_CHECKPOINTS)"),
        (NO_BROWSER, "no browser (install playwright and chromium)"),
    ):
        missing = sum(
            isinstance(report.longrepr, tuple) and sign in report.longrepr[2]
            for report in terminalreporter.stats.get("skipped", [])
        )
        if missing:
            line = f"{missing} test(s) did NOT run: {what}"
            terminalreporter.write_sep("!", line, yellow=True, bold=True)

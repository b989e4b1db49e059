"""A folder of experiment files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from pathlib import Path

from terselm.errors import UsageError
from terselm.experiments.experiment import Experiment, load_experiment, named_run
from terselm.registry import suggest

Suite = Mapping[str, Experiment]


def find_suite(where: str) -> Path:
    """Return the folder of a suite: that of one that comes with terselm, by name, or any other.

    A name comes first, so that results in a folder of the same name do not hide the suite.

    Raises
    ------
    UsageError
        If there is no such folder.
    """
    known = {path.name: path for root in suite_roots() for path in root.iterdir() if path.is_dir()}
    if where in known:
        return known[where]
    if Path(where).is_dir():
        return Path(where)
    raise UsageError(f"no folder and no suite {where!r}; {suggest(where, known)}")


def suite_roots() -> list[Path]:
    """Return the folders with suites: in the installed package, and in a checkout."""
    package = Path(str(resources.files("terselm")))
    roots = (package / "experiments" / "suites", package.parents[1] / "benchmarks" / "experiments")
    return [root for root in roots if root.is_dir()]


def load_suite(folder: Path) -> dict[str, Experiment]:
    """Read every experiment of a folder; its name is the file's.

    Returns
    -------
    dict
        In an order in which each comes after those that it needs.

    Raises
    ------
    UsageError
        If there are none, one is wrong, or one needs what is not there or itself.
    """
    found = {path.stem: load_experiment(path) for path in sorted(folder.glob("*.yaml"))}
    if not found:
        raise UsageError(f"{folder} holds no experiment (*.yaml)")
    for name, experiment in found.items():
        if (run := named_run(name)) is not None:
            raise UsageError(
                f"{folder / name}.yaml: the runs of {run[0]!r} are called so; give another name"
            )
        for other in experiment.needs():
            if other not in found:
                raise UsageError(
                    f"{folder / name}.yaml needs {other!r}; {suggest(other, sorted(found))}"
                )
    try:
        order = TopologicalSorter({name: each.needs() for name, each in found.items()})
        return {name: found[name] for name in order.static_order()}
    except CycleError as error:
        raise UsageError(f"{folder}: experiments need each other: {error.args[1]}") from None


def chosen_seeds(suite: Suite, rows: Sequence[str], seeds: Sequence[int]) -> frozenset[int]:
    """Return the seeds asked for.

    Raises
    ------
    UsageError
        If no row has one of them.
    """
    known = {seed for name in rows for seed in suite[name].seeds}
    for seed in seeds:
        if seed not in known:
            listed = ", ".join(map(str, sorted(known)))
            raise UsageError(f"--seeds: no row has seed {seed}; they have {listed}")
    return frozenset(seeds)


def chosen_rows(suite: Suite, rows: Sequence[str]) -> list[str]:
    """Return the rows asked for, or all, in the suite's order.

    Raises
    ------
    UsageError
        If there is no such row.
    """
    for name in rows:
        if name not in suite:
            raise UsageError(f"--rows: no experiment {name!r}; {suggest(name, sorted(suite))}")
    return [name for name in suite if name in rows or not rows]


def needed_rows(suite: Suite, rows: Sequence[str]) -> list[str]:
    """Return the rows and what they need, in the suite's order."""
    wanted = set(rows)
    # The suite is in the order of its needs, so that one pass from the end finds them all.
    for name in reversed(list(suite)):
        if name in wanted:
            wanted |= set(suite[name].needs())
    return [name for name in suite if name in wanted]

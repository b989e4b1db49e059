"""`terselm search`: say the budget, get the model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from terselm.cli.options import Data, Debug, Json, Kernels, ModelFile, Seed
from terselm.cli.output import Output
from terselm.errors import TerselmError, UsageError

if TYPE_CHECKING:
    from terselm.pipeline.budget import Budget
    from terselm.pipeline.measurement import Candidate

BUDGET, RUN, WORKERS = "Budget", "Run", "Workers"


def _limit(flag: str, text: str, panel: str = BUDGET) -> Any:
    return typer.Option(flag, help=text, rich_help_panel=panel, show_default=False)


def search(
    model: ModelFile,
    data: Data,
    max_size: Annotated[
        str | None, _limit("--max-size", "Of the file: 5MB, 5MiB, or 25% of the model's.")
    ] = None,
    max_latency: Annotated[
        str | None, _limit("--max-latency", "Of a token, one thread: 200us, 0.2ms, or 25%.")
    ] = None,
    max_memory: Annotated[
        str | None, _limit("--max-memory", "To run it: file, working memory and a state.")
    ] = None,
    max_perplexity: Annotated[
        str | None, _limit("--max-perplexity", "On validation text: 85, +2.5 or +3%.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            help="Folder for report and models. [MODEL-search]",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    time_limit: Annotated[
        str, typer.Option("--time-limit", help="600, 90s, 10min, 2h.", rich_help_panel=RUN)
    ] = "10min",
    rounds: Annotated[
        int | None,
        typer.Option(
            "--rounds",
            help="Rounds of trying and training; as many as there is time for.",
            min=1,
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the search in --out.", rich_help_panel=RUN),
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Search although the model keeps the budget as it is.",
            rich_help_panel=RUN,
        ),
    ] = False,
    device_profile: Annotated[
        Path | None,
        typer.Option(
            "--device-profile",
            metavar="FILE",
            help="What tlm-bench --json wrote on the device; times are then estimates for it.",
            show_default=False,
            rich_help_panel=RUN,
        ),
    ] = None,
    seed: Seed = 0,
    kernels: Kernels = None,
    jobs: Annotated[
        int,
        typer.Option("--jobs", help="Processes on this machine.", min=1, rich_help_panel=WORKERS),
    ] = 1,
    storage: Annotated[
        str | None,
        typer.Option(
            "--storage",
            metavar="URL",
            help="Where the trials are kept, such as postgresql://user@host/database; "
            "a file in --out if left out.",
            show_default=False,
            rich_help_panel=WORKERS,
        ),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(
            "--study",
            help="Name of the study in the storage.",
            show_default=False,
            rich_help_panel=WORKERS,
        ),
    ] = None,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker",
            help="Do trials of a search that runs elsewhere with this --storage.",
            rich_help_panel=WORKERS,
        ),
    ] = False,
    worker_of: Annotated[int | None, typer.Option("--worker-of", hidden=True)] = None,
    ray: Annotated[
        str | None,
        typer.Option(
            "--ray",
            metavar="ADDRESS",
            help="Do the trials as tasks of a Ray cluster; local starts one here.",
            show_default=False,
            rich_help_panel=WORKERS,
        ),
    ] = None,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Find the best form of MODEL within a budget, and report the whole trade-off.

    Every candidate is made, written and measured: bytes of its file, perplexity on validation
    text and time by the C library. Without a budget three answers are offered: closest, balanced
    and smallest. The folder --out has report.html, results.json and the models with their cards.

    **Example**: terselm search lstm.safetensors --data ptb --max-size 5MB --max-latency 200us
    """
    from terselm.pipeline.run import Workers, work
    from terselm.pipeline.run import search as find
    from terselm.pipeline.units import read_seconds

    output = Output(json)
    budget = _budget(max_size, max_latency, max_memory, max_perplexity)
    seconds = read_seconds(time_limit, "--time-limit")
    workers = Workers(jobs=jobs, storage=storage, study=study, ray=ray)
    watcher = _Printed(output)
    folder = out if out is not None else Path(f"{model.stem}-search")
    if worker:
        if storage is None:
            raise UsageError("--worker needs --storage, the address of the search's study")
        work(
            model,
            data=data,
            out=folder,
            seed=seed,
            kernels=kernels,
            device_profile=device_profile,
            workers=workers,
            parent=worker_of,
            watcher=watcher,
        )
        return
    results = find(
        model,
        budget,
        data=data,
        out=folder,
        time_limit=seconds,
        rounds=rounds,
        seed=seed,
        kernels=kernels,
        device_profile=device_profile,
        workers=workers,
        resume=resume,
        force=force,
        watcher=watcher,
    )
    _show(results, model, folder, output)


def _budget(
    size: str | None, latency: str | None, memory: str | None, perplexity: str | None
) -> Budget | None:
    from terselm.pipeline.budget import Budget

    limits = (size, latency, memory, perplexity)
    return None if all(limit is None for limit in limits) else Budget(*limits)


def _show(results: dict[str, Any], model: Path, folder: Path, output: Output) -> None:
    from terselm.report.search_tables import answers_table, front_table

    if results.get("fits"):
        output.result(
            {"model": str(model), **results},
            f"{model.name} keeps the budget as it is; nothing was changed (--force searches)",
        )
        return
    tables = [front_table(results)]
    if results["answers"]:
        tables.append(answers_table(results))
    names = [*results["answers"], *(["chosen"] if results["chosen"] is not None else [])]
    files = [f"{folder / name / 'model.safetensors'}" for name in names]
    output.result(
        {**results, "out": str(folder)},
        *tables,
        results["message"],
        *(f"wrote {file}" for file in files),
        f"report: {folder / 'report.html'}",
    )
    if not results["met"]:
        raise TerselmError(results["message"])


class _Printed:
    """Prints what a search does on stderr, a line each."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def phase(self, text: str) -> None:
        self._output.remark(f"• {text}")

    def tried(self, candidate: Candidate) -> None:
        found = candidate.measured
        self._output.remark(
            f"{candidate.number:5d}  {found.bytes:>11,} B  {found.perplexity:8.2f}  "
            f"{found.microseconds:8.1f} µs  {candidate.label}"
        )

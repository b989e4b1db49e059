"""The `terselm` command: finds the verb, turns errors into one line and an exit code."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from terselm import __version__
from terselm.cli import (
    bench,
    compress,
    data,
    demo,
    evaluate,
    export,
    import_model,
    inspect,
    merge,
    predict,
    quickstart,
    report,
    reproduce,
    search,
    train,
    verify,
    zoo,
)
from terselm.errors import TerselmError

INTERRUPTED = 130


def build_app() -> typer.Typer:
    """Return the command with all its verbs."""
    app = typer.Typer(
        name="terselm",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
        help="Make recurrent language models small: train, compress, search, predict.",
        epilog="A first look: terselm quickstart",
    )
    app.callback()(_version_option)
    app.command("quickstart")(quickstart.quickstart)
    app.command("train")(train.train)
    app.command("compress")(compress.compress)
    app.command("merge")(merge.merge)
    app.command("search")(search.search)
    app.command("report")(report.report)
    app.command("reproduce")(reproduce.reproduce)
    app.command("evaluate")(evaluate.evaluate)
    app.command("bench")(bench.bench)
    app.command("inspect")(inspect.inspect)
    app.command("predict")(predict.predict)
    app.command("demo")(demo.demo)
    app.command("verify")(verify.verify)
    app.command("import")(import_model.import_model)
    app.command("export")(export.export)
    app.add_typer(data.build_app(), name="data")
    app.add_typer(zoo.build_app(), name="zoo")
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 good, 1 the job failed, 2 bad usage."""
    warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
    settings: dict[str, Any] = {"debug": False}
    code = _run(sys.argv[1:] if arguments is None else list(arguments), settings)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from terselm.train.distributed import end_process

        end_process(code)
    sys.exit(code)


def _run(arguments: Sequence[str], settings: dict[str, Any]) -> int:
    command = typer.main.get_command(build_app())
    if not arguments:
        arguments = ["--help"]
    try:
        code = command.main(
            args=list(arguments), prog_name="terselm", standalone_mode=False, obj=settings
        )
        return code if isinstance(code, int) else 0
    except TerselmError as error:
        return _fail(error, str(error), error.exit_code, settings)
    except typer.TyperException as error:
        return _fail(error, _usage_message(error), 2, settings)
    except (KeyboardInterrupt, typer.Abort):
        print("terselm: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of a pipe went away (`| head`); nothing is left to be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (OSError, MemoryError) as error:
        return _fail(error, f"{type(error).__name__}: {error}", 1, settings)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
        message = "out of memory; take a smaller batch or a smaller model"
        return _fail(error, message, 1, settings)


def _usage_message(error: typer.TyperException) -> str:
    context = getattr(error, "ctx", None)
    formatted = getattr(error, "format_message", error.__str__)()
    return f"{formatted} (see: {context.command_path} --help)" if context else formatted


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether PyTorch found no memory, of which its CPU allocator tells in words alone."""
    name = type(error).__name__
    return name == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _fail(error: BaseException, message: str, code: int, settings: dict[str, Any]) -> int:
    if settings["debug"]:
        raise error
    print(f"terselm: {' '.join(message.split())}", file=sys.stderr)
    return code


def _show_version(value: bool) -> None:
    if value:
        print(f"terselm {__version__}")
        raise typer.Exit


def _version_option(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Nothing to do: the option's callback did it."""


if __name__ == "__main__":
    main()

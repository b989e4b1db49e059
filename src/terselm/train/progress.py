"""A progress bar on stderr while a model is trained."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from terselm.train.metrics import EpochRecord, RunInfo, StepRecord, Stopped


class ProgressObserver:
    """Shows epoch, loss, perplexity, tokens a second and the time left.

    Where stderr is no terminal there is no bar, only one plain line an epoch.

    Parameters
    ----------
    label : str
        What the run is for, before every line.
    console : Console or None
        None: stderr.
    """

    def __init__(self, label: str = "train", console: Console | None = None) -> None:
        self._label = label
        self._console = Console(stderr=True) if console is None else console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._epochs = 0

    def on_start(self, info: RunInfo) -> None:
        """Show the bar."""
        self._epochs = info.epochs
        if not self._console.is_terminal:
            return
        self._progress = Progress(
            TextColumn(self._label),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[numbers]}"),
            TextColumn("time left"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            expand=True,
        )
        # The run's own part comes first, so that the time left is right after a resume.
        self._task = self._progress.add_task(
            f"epoch {info.epoch}/{info.epochs}",
            total=float(info.epochs),
            completed=info.epoch - 1,
            numbers="",
        )
        self._progress.start()

    def on_step(self, record: StepRecord) -> None:
        """Move the bar."""
        if self._progress is not None:
            self._progress.update(
                self._task,
                description=f"epoch {record.epoch}/{self._epochs}",
                completed=record.epoch - 1 + record.epoch_done,
                numbers=(
                    f"loss {record.loss:.3f}  perplexity {record.perplexity:.1f}  "
                    f"{record.tokens_per_second:,.0f} tokens/s"
                ),
            )

    def on_epoch(self, record: EpochRecord) -> None:
        """Print the epoch's line."""
        parts = [
            f"{self._label}: epoch {record.epoch}/{self._epochs}"
            + ("" if record.complete else " (cut short)"),
            f"loss {record.loss:.4f}",
            f"perplexity {record.perplexity:.2f}",
        ]
        if record.valid_perplexity is not None:
            best = " (best)" if record.improved else ""
            parts.append(f"valid {record.valid_perplexity:.2f}{best}")
        parts += [
            f"rate {record.learning_rate:.4g}",
            f"{record.tokens_per_second:,.0f} tokens/s",
            f"{record.seconds:.0f} s",
        ]
        self._console.print(", ".join(parts), highlight=False, soft_wrap=True)

    def on_end(self, stopped: Stopped | None) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
        if stopped in ("early", "time", "interrupted"):
            why = {
                "early": "validation stopped improving",
                "time": "the time limit is reached",
                "interrupted": "interrupted; --resume goes on",
            }[stopped]
            self._console.print(f"{self._label}: stopped: {why}", highlight=False, soft_wrap=True)

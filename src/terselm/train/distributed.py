"""One process, or several under `accelerate launch` or torchrun."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import torch
from torch import Tensor, nn

from terselm.errors import UsageError
from terselm.train.objective import Objective

T = TypeVar("T")

STEPS_BETWEEN_AGREEMENTS = 10


class Workers:
    """The processes of a run; this class is a run in one process, without any library between.

    Parameters
    ----------
    device : {"auto", "cpu", "cuda"} or another torch device name

    Attributes
    ----------
    rank, world : int
        This process and how many there are.
    device : torch.device
        Where this process computes.
    """

    rank = 0
    world = 1

    def __init__(self, device: str) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError("device cuda: torch finds no CUDA device here; use cpu")

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def prepare(self, objective: Objective) -> nn.Module:
        """Return the module to call in training; gradients are means over the processes."""
        return objective.to(self.device)

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar."""
        loss.backward()

    def clip(self, parameters: Sequence[nn.Parameter], norm: float) -> Tensor:
        """Scale the gradients down to `norm`; return the norm before, a scalar."""
        return nn.utils.clip_grad_norm_(parameters, norm)

    def agree(self, wish: int, step: int, last: bool) -> int:
        """Return the greatest wish of all processes, on steps where they compare theirs, else 0.

        Parameters
        ----------
        wish : int
            Not negative; 0 is none.
        step : int
            Windows done in the epoch.
        last : bool
            Whether the epoch ends with it.
        """
        return wish

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes by rank, in the main process."""
        return [value]

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process do `work`; return, or raise, what came of it in every process."""
        return work()


class AcceleratedWorkers(Workers):
    """Several processes through Hugging Face accelerate, each with its share of the streams."""

    def __init__(self, device: str) -> None:
        from accelerate import Accelerator, DistributedDataParallelKwargs

        # Integer codes are buffers; they never change, so they need not travel at every step.
        options = DistributedDataParallelKwargs(broadcast_buffers=False)
        self._accelerator = Accelerator(cpu=device == "cpu", kwargs_handlers=[options])
        self.device = self._accelerator.device
        self.rank = self._accelerator.process_index
        self.world = self._accelerator.num_processes

    def prepare(self, objective: Objective) -> nn.Module:
        """Return the module wrapped in DistributedDataParallel."""
        with warnings.catch_warnings():
            # torch 2.13 has a new name for broadcast_buffers, which accelerate does not pass on.
            warnings.simplefilter("ignore", FutureWarning)
            wrapped: nn.Module = self._accelerator.prepare_model(objective)
        return wrapped

    def backward(self, loss: Tensor) -> None:
        """Compute the gradients of a scalar and take their mean over the processes."""
        self._accelerator.backward(loss)

    def clip(self, parameters: Sequence[nn.Parameter], norm: float) -> Tensor:
        """Scale the gradients down to `norm`; return the norm before, a scalar."""
        return self._accelerator.clip_grad_norm_(parameters, norm)

    def agree(self, wish: int, step: int, last: bool) -> int:
        """Return the greatest wish of all processes every few steps; see `Workers.agree`."""
        if not last and step % STEPS_BETWEEN_AGREEMENTS:
            return 0
        greatest = torch.tensor(wish, device=self.device)
        torch.distributed.all_reduce(greatest, torch.distributed.ReduceOp.MAX)
        return int(greatest)

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes by rank, in the main process."""
        values: list[Any] | None = [None] * self.world if self.is_main else None
        torch.distributed.gather_object(value, values)
        return values or []

    def on_main(self, work: Callable[[], T]) -> T:
        """Let the main process do `work`; return, or raise, what came of it in every process."""
        outcome: list[Any] = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except Exception as error:  # handed on as it is
                outcome[1] = error
        torch.distributed.broadcast_object_list(outcome)
        if outcome[1] is not None:
            raise outcome[1]
        return outcome[0]


def start_workers(device: str) -> Workers:
    """Return the processes that a launcher started this one among, or this one alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        return AcceleratedWorkers(device)
    return Workers(device)


def end_process(code: int) -> NoReturn:
    """End one of several processes with an exit code, without the interpreter's own teardown.

    Once in twenty runs torch 2.13 aborts there, in a thread of its process group, when all work
    is done and saved; a launcher would call the whole run failed.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

"""Times on a device that is not this machine, from what `tlm-bench` measured there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from terselm.errors import UsageError
from terselm.evaluate.cost import inspect
from terselm.models.language_model import LanguageModel
from terselm.pipeline.measurement import Measurement
from terselm.pipeline.parts import parts_by_time


@dataclass(frozen=True)
class DeviceProfile:
    """How long a token takes on a device, as a line over the bytes that it reads.

    A recurrent model that reads one token at a time waits for its weights, so the bytes of them
    say most about its time.

    Attributes
    ----------
    machine : str
        What the device calls itself.
    kernels : str
        Of the C library there.
    microseconds : float
        What a token takes beside its bytes; 0 with one measured model.
    microseconds_per_byte : float
    points : int
        Models that were measured.
    """

    machine: str
    kernels: str
    microseconds: float
    microseconds_per_byte: float
    points: int

    def as_dict(self) -> dict[str, Any]:
        """Return what a report says of it."""
        return {"machine": self.machine, "kernels": self.kernels, "points": self.points}

    def applied_to(self, measured: Measurement, model: LanguageModel) -> Measurement:
        """Return the measurement with the times that are expected on the device."""
        parts = inspect(model)
        recurrent = sum(part.bytes_read for part in parts_by_time(parts)[0])
        token = self.microseconds + self.microseconds_per_byte * parts.bytes_read
        step = token * recurrent / max(1, parts.bytes_read)
        return replace(measured, microseconds=token, step_microseconds=step, estimated_latency=True)


def read_profile(path: Path) -> DeviceProfile:
    """Read one object that `tlm-bench --json` printed, or a list of them for several models.

    Raises
    ------
    UsageError
        If the file cannot be read or is something else; the message says what.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"--device-profile {path}: {error.strerror}") from None
    except (UnicodeDecodeError, json.JSONDecodeError):
        raise UsageError(f"--device-profile {path}: not JSON; write {ADVICE}") from None
    objects = values if isinstance(values, list) else [values]
    try:
        points = [_point(each) for each in objects]
        machine, kernels = _device(objects[0])
    except (IndexError, KeyError, TypeError, ValueError):
        raise UsageError(
            f"--device-profile {path}: not what tlm-bench prints; write {ADVICE}"
        ) from None
    fixed, per_byte = _line(points)
    return DeviceProfile(machine, kernels, fixed, per_byte, len(points))


ADVICE = "it with: tlm-bench MODEL --json > FILE"


def _point(values: Mapping[str, Any]) -> tuple[float, float]:
    if values["device_profile"] != 1:
        raise ValueError("unknown version")
    read = float(values["model"]["bytes_read"])
    time = float(values["step_and_probabilities_us"]["median"])
    if not (0 < read < 1e15 and 0 < time < 1e12):
        raise ValueError("impossible")
    return read, time


def _device(values: Mapping[str, Any]) -> tuple[str, str]:
    machine = dict(values["machine"])
    name = machine.get("cpu") or f"{machine['system']} {machine['architecture']}"
    return str(name), str(values["kernels"])


def _line(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the constant and the slope of the line of least relative error, none below zero."""
    read = np.array([point[0] for point in points])
    time = np.array([point[1] for point in points])
    if len(np.unique(read)) > 1:
        rows = np.stack([1 / time, read / time], axis=1)
        (fixed, slope), *_ = np.linalg.lstsq(rows, np.ones(len(time)), rcond=None)
        if fixed >= 0 and slope > 0:
            return float(fixed), float(slope)
    return 0.0, float(np.exp(np.mean(np.log(time / read))))

"""What a model may take, as it is asked for and as it is checked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

from terselm.errors import UsageError
from terselm.pipeline.measurement import Measurement
from terselm.pipeline.units import read_bytes, read_microseconds
from terselm.report.sizes import human_number, told_apart


@dataclass(frozen=True)
class Budget:
    """Limits as a user writes them; any of them may be left out, not all.

    Attributes
    ----------
    max_size, max_memory : str, int or None
        Bytes ("5MB", "5MiB", 5000000) or a share of the source model's ("25%").
    max_latency : str, float or None
        Time of a token ("200us", "0.2ms"; a number is microseconds) or a share ("25%").
    max_perplexity : str, float or None
        A perplexity (85, "85") or how much more it may be ("+3%", "+2.5").
    """

    max_size: str | int | None = None
    max_latency: str | float | None = None
    max_memory: str | int | None = None
    max_perplexity: str | float | None = None

    def __post_init__(self) -> None:
        """Refuse an empty budget and what cannot be read.

        Raises
        ------
        UsageError
        """
        if not any(getattr(self, each.name) is not None for each in fields(self)):
            raise UsageError(
                "the budget has nothing in it; give max_size, max_latency, max_memory or "
                "max_perplexity"
            )
        readable = Measurement(1_000, 100.0, None, 1, True, 1.0, 1.0, 1_000)
        self.limits(readable)

    def as_dict(self) -> dict[str, str | float | None]:
        """Return the limits as they were written."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def limits(self, source: Measurement) -> Limits:
        """Return the limits in absolute numbers, given what the source model takes."""
        return Limits(
            size=_amount("max_size", self.max_size, source.bytes, read_bytes),
            latency=_amount(
                "max_latency", self.max_latency, source.microseconds, read_microseconds
            ),
            memory=_amount("max_memory", self.max_memory, source.memory, read_bytes),
            perplexity=_perplexity(self.max_perplexity, source.perplexity),
        )


@dataclass(frozen=True)
class Limits:
    """Limits in numbers; infinite where there is none.

    Attributes
    ----------
    size, memory : float
        Bytes.
    latency : float
        Microseconds a token.
    perplexity : float
    """

    size: float = math.inf
    latency: float = math.inf
    memory: float = math.inf
    perplexity: float = math.inf

    def excess(self, measured: Measurement) -> float:
        """Return by what factor the limit that is missed most is missed; at most 1 if none is."""
        return max(self.cost_excess(measured), measured.perplexity / self.perplexity)

    def cost_excess(self, measured: Measurement) -> float:
        """Return the same without the perplexity, which training can still change."""
        return max(
            measured.bytes / self.size,
            measured.microseconds / self.latency,
            measured.memory / self.memory,
        )

    def missed(self, measured: Measurement) -> list[str]:
        """Return the limits that are not kept, in words."""
        found = []
        for name, unit, value, limit, digits in (
            ("size", " bytes", measured.bytes, self.size, 0),
            ("latency", " µs", measured.microseconds, self.latency, 1),
            ("memory", " bytes", measured.memory, self.memory, 0),
            ("perplexity", "", measured.perplexity, self.perplexity, 2),
        ):
            if value > limit:
                one, other = told_apart(value, limit, _text_of(digits))
                found.append(f"{name} {one}{unit}, the limit is {other}")
        return found

    @property
    def costs(self) -> bool:
        """Whether size, latency or memory are limited."""
        return min(self.size, self.latency, self.memory) < math.inf

    def as_dict(self) -> dict[str, float | None]:
        """Return JSON values; None where there is no limit."""
        return {
            each.name: None if math.isinf(getattr(self, each.name)) else getattr(self, each.name)
            for each in fields(self)
        }


def _text_of(digits: int) -> Callable[[float, int], str]:
    if digits == 0:  # bytes, to the last one
        return lambda value, more: f"{value:,.{more}f}"
    return lambda value, more: human_number(value, digits + more)


def _amount(
    name: str, value: str | float | None, whole: float, read: Callable[[str, str], float]
) -> float:
    if value is None:
        return math.inf
    option = "--" + name.replace("_", "-")
    if not isinstance(value, str):
        return _positive(option, float(value))
    text = value.strip()
    if text.endswith("%"):
        return _positive(option, _number(option, text[:-1]) / 100) * whole
    return read(text, option)


def _perplexity(value: str | float | None, source: float) -> float:
    option = "--max-perplexity"
    if value is None:
        return math.inf
    if not isinstance(value, str):
        return _positive(option, float(value))
    text = value.strip()
    if not text.startswith("+"):
        if text.endswith("%"):
            raise UsageError(f"{option} is {value!r}; write +3% for three percent more")
        return _positive(option, _number(option, text))
    if text.endswith("%"):
        return source * (1 + _number(option, text[1:-1]) / 100)
    return source + _number(option, text[1:])


def _number(option: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise UsageError(f"{option} has {text!r} where a number should be")
    return value


def _positive(option: str, value: float) -> float:
    if not 0 < value < math.inf:
        raise UsageError(f"{option} is {value:g}; it must be more than nothing")
    return value

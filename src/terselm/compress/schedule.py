"""How fast something is asked for while a model trains."""

from __future__ import annotations

from dataclasses import dataclass

from terselm.errors import UsageError


@dataclass(frozen=True)
class CubicSchedule:
    """Sparsity that rises fast at first and slowly at the end.

    s(t) = final + (initial − final) · (1 − (t − begin) / (end − begin))³ between `begin` and
    `end`, in steps of `every` (Zhu & Gupta 2017, arXiv 1710.01878, eq. 1).

    Attributes
    ----------
    final : float
        In [0, 1).
    begin, end : int
        Training steps.
    initial : float
        In [0, final].
    every : int
        Steps between two changes.
    """

    final: float
    begin: int
    end: int
    initial: float = 0.0
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.final < 1:
            raise UsageError(f"sparsity is {self.final}; it must be in [0, 1)")
        if not 0 <= self.initial <= self.final:
            raise UsageError(
                f"initial {self.initial} is not in [0, sparsity]; use at most {self.final}"
            )
        if self.begin < 0:
            raise UsageError(f"begin is {self.begin}; it must be at least 0")
        if self.begin >= self.end:
            raise UsageError(
                f"begin {self.begin} is not before end {self.end}; "
                f"use an end of at least {self.begin + 1}"
            )
        if self.every < 1:
            raise UsageError(f"every is {self.every}; it must be at least 1")

    def sparsity(self, step: int) -> float:
        """Return the sparsity at a training step, counted from 0."""
        if step >= self.end:
            return self.final
        if step < self.begin:
            return self.initial
        done = (step - self.begin) // self.every * self.every / (self.end - self.begin)
        risen = self.final + (self.initial - self.final) * (1 - done) ** 3
        return max(self.initial, risen)  # rounding must not undercut where it starts

"""From sensitivities to a recipe of a given size, in closed form."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from terselm.linear.packing import ROW_MULTIPLE, packed_code_bytes, round_up
from terselm.pipeline.sensitivity import (
    FEWEST,
    MatrixSensitivity,
    Sensitivity,
    loss_at_bits,
    loss_at_rank,
)

WORDS = ("embedding", "output")
GROUPS: tuple[int | str, ...] = (16, 32, 64, "row")
"""Columns that may share a scale."""
STEPS = 48
"""Ranks that are looked at for each matrix, spread evenly from a fiftieth of what is possible."""
ROUNDS = 60
EVEN: Mapping[int, float] = MappingProxyType({})
"""The paces of a device where a byte takes as long in all widths."""
UNREAD = 0.02
"""What a byte of the file counts where bytes that are read are asked for."""


@dataclass(frozen=True)
class Knobs:
    """What a plan is asked for.

    Attributes
    ----------
    bytes : int
        The most that the plan may take, in the unit.
    unit : {"file", "read"}
        Bytes of the file, or bytes of the matrices that a token reads, which decide its time: of
        an embedding that is only looked up that is one row.
    group : int or str
        Columns that share a scale, of `GROUPS`.
    widths : tuple of int
        Widths of codes that may be used.
    rank_price : float
        How much a loss by low rank counts against one by few bits: training wins back most of
        the first and little of the second.
    words_price : float
        How much a loss in the embedding and the output layer counts.
    recurrent_rank, words_rank : bool
        Whether the recurrent layers, or embedding and output layer, may be factored.
    """

    bytes: int
    unit: str = "file"
    group: int | str = 32
    widths: tuple[int, ...] = (8, 4, 3, 2)
    rank_price: float = 1.0
    words_price: float = 1.0
    recurrent_rank: bool = True
    words_rank: bool = True

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Knobs:
        """Return what `as_dict` gave the values of."""
        return cls(**{**values, "widths": tuple(values["widths"])})


@dataclass(frozen=True)
class Storage:
    """How one matrix is to be stored.

    Attributes
    ----------
    rank : int or None
        None: not factored.
    bits : int
    bytes : int
        Of its codes and scales.
    read : int
        Bytes of them that a token reads, times the pace of their width.
    loss : float
        What it is expected to cost, weighed by the prices.
    """

    rank: int | None
    bits: int
    bytes: int
    read: int
    loss: float


@dataclass(frozen=True)
class Plan:
    """How every matrix is to be stored.

    Attributes
    ----------
    storage : dict of str to Storage
        By the name of the leaf.
    bytes, read : int
        Of all matrices.
    loss : float
        Expected, in nats a token times the prices; for comparing plans of like knobs.
    knobs : Knobs
    """

    storage: dict[str, Storage]
    bytes: int
    read: int
    loss: float
    knobs: Knobs = field(repr=False)


def make_plan(
    sensitivity: Sensitivity,
    knobs: Knobs,
    fixed_bytes: int,
    paces: Mapping[int, float] = EVEN,
) -> Plan | None:
    """Return the plan of least expected loss whose file has at most the bytes asked for.

    Losses are taken to add up. The plan is the optimum of the Lagrangian relaxation, found by
    bisection on the price of a byte (Shoham & Gersho 1988, IEEE Trans. ASSP 36).

    Parameters
    ----------
    sensitivity : Sensitivity
    knobs : Knobs
    fixed_bytes : int
        Bytes of the file that are no matrices; they count where the unit is the file.
    paces : mapping of int to float
        How many times as long a byte of codes of a width takes as one of the quickest width; 1 for
        those that are not there.

    Returns
    -------
    Plan or None
        None if nothing so small is possible with these knobs.
    """
    choices = _all_choices(sensitivity, knobs, paces)
    room = knobs.bytes - (fixed_bytes if knobs.unit == "file" else 0)
    if _least(choices, knobs) > room:
        return None
    low, high = 0.0, _dearest(choices, knobs)
    best = _pick(choices, high, knobs)
    for _ in range(ROUNDS):
        middle = (low * high) ** 0.5 if low > 0 else high / 1024
        found = _pick(choices, middle, knobs)
        if _total(found.storage, knobs) > room:
            low = middle
        else:
            high = middle
            best = found if (found.loss, found.bytes) <= (best.loss, best.bytes) else best
        if high < 1e-18 or (low > 0 and high / low < 1.0001):
            break
    return _spend_rest(best, choices, room)


def smallest_possible(
    sensitivity: Sensitivity,
    fixed_bytes: int,
    unit: str = "file",
    paces: Mapping[int, float] = EVEN,
) -> int:
    """Return the fewest bytes, in the unit, that a plan can be asked for.

    Parameters
    ----------
    sensitivity : Sensitivity
    fixed_bytes : int
        Bytes that come on top, those of the file that are no matrices.
    unit : {"file", "read"}
    paces : mapping of int to float
        As of `make_plan`.
    """
    of_groups = (Knobs(bytes=0, unit=unit, group=group) for group in GROUPS)
    least = min(_least(_all_choices(sensitivity, knobs, paces), knobs) for knobs in of_groups)
    return fixed_bytes + math.ceil(least)


def plan_recipe(plan: Plan) -> list[dict[str, Any]]:
    """Return the steps of a plan in the paper's order, without training.

    Low rank in the recurrent layers, then in embedding and output, then the codes.
    """
    cells = [name for name in plan.storage if not is_words(name)]
    words = [name for name in plan.storage if is_words(name)]
    return [*rank_steps(plan, cells), *rank_steps(plan, words), *code_steps(plan)]


def rank_steps(plan: Plan, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the low-rank step for the named matrices; none where none of them is factored."""
    ranks = {name: plan.storage[name].rank for name in names if plan.storage[name].rank}
    if not ranks:
        return []
    where = " ".join(ranks)
    return [{"method": "low_rank", "weights": where, "ranks": ranks, "weighting": "inputs"}]


def code_steps(plan: Plan, names: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Return the steps that quantize all matrices or the named ones, those of more bits first."""
    storage = plan.storage if names is None else {name: plan.storage[name] for name in names}
    steps: list[dict[str, Any]] = []
    for bits in sorted({each.bits for each in storage.values()}, reverse=True):
        alike = [name for name, each in storage.items() if each.bits == bits]
        where = "*" if len(alike) == len(plan.storage) else " ".join(alike)
        if bits == 8:
            steps.append({"method": "quantize", "weights": where, "bits": 8, "group": "row"})
        else:
            group = plan.knobs.group
            steps.append({"method": "gptq", "weights": where, "bits": bits, "group": group})
    return steps


def plan_label(plan: Plan) -> str:
    """Return a plan in a few words: "ranks 0.31 of the cells, 0.2 of the words; 4 and 3 bits"."""
    widths = sorted({each.bits for each in plan.storage.values()}, reverse=True)
    bits = " and ".join(str(width) for width in widths) + " bits"
    parts = [
        f"{what} at rank {_range([each.rank for each in factored if each.rank])}"
        for what, factored in _factored(plan)
        if factored
    ]
    return "; ".join([*parts, bits])


def is_words(name: str) -> bool:
    """Return whether a leaf belongs to the embedding or the output layer."""
    return name.split(".")[0] in WORDS


def quantized_bytes(rows: int, columns: int, bits: int, group: int | str) -> int:
    """Return the bytes of a uniformly quantized matrix in the file, fillers included."""
    groups = -(-columns // group) if isinstance(group, int) else 1
    scales = round_up(round_up(rows, ROW_MULTIPLE) * groups * 2, 64)
    return round_up(packed_code_bytes(rows, columns, bits), 64) + scales


def _factored(plan: Plan) -> list[tuple[str, list[Storage]]]:
    found = []
    for what, words in (("cells", False), ("words", True)):
        of_kind = [each for name, each in plan.storage.items() if is_words(name) == words]
        found.append((what, [each for each in of_kind if each.rank is not None]))
    return found


def _range(ranks: Sequence[int]) -> str:
    low, high = min(ranks), max(ranks)
    return str(low) if low == high else f"{low}-{high}"


def _all_choices(
    sensitivity: Sensitivity, knobs: Knobs, paces: Mapping[int, float]
) -> dict[str, list[Storage]]:
    return {each.name: _choices(each, knobs, paces) for each in sensitivity.matrices}


def _choices(matrix: MatrixSensitivity, knobs: Knobs, paces: Mapping[int, float]) -> list[Storage]:
    rows, columns = matrix.shape
    if matrix.numbers < FEWEST or not matrix.bits:
        size = quantized_bytes(rows, columns, 8, "row")
        return [Storage(None, 8, size, size, 0.0)]
    words = is_words(matrix.name)
    looked_up = matrix.looked_up
    price = knobs.words_price if words else 1.0
    found = []
    for bits in knobs.widths:
        group = "row" if bits == 8 else knobs.group
        rounding = price * loss_at_bits(matrix, bits)
        pace = paces.get(bits, 1.0)
        size = quantized_bytes(rows, columns, bits, group)
        read = size // rows if looked_up else size
        found.append(Storage(None, bits, size, math.ceil(pace * read), rounding))
        if not (knobs.words_rank if words else knobs.recurrent_rank):
            continue
        for rank in _ranks(matrix):
            left = quantized_bytes(rows, rank, bits, group)
            right = quantized_bytes(rank, columns, bits, group)
            if left + right >= size:
                break
            lost = price * knobs.rank_price * loss_at_rank(matrix, rank)
            read = right + (left // rows if looked_up else left)
            found.append(Storage(rank, bits, left + right, math.ceil(pace * read), rounding + lost))
    return _undominated(found, knobs)


def _ranks(matrix: MatrixSensitivity) -> list[int]:
    """Return ranks to look at, in multiples of 8 where there are enough."""
    most = len(matrix.errors) - 1
    if most < 2:
        return []
    wanted = {max(1, round(most * step / STEPS)) for step in range(1, STEPS + 1)}
    if most >= 64:
        wanted = {max(8, round(rank / 8) * 8) for rank in wanted}
    return sorted(rank for rank in wanted if rank <= most)


def _undominated(choices: Sequence[Storage], knobs: Knobs) -> list[Storage]:
    kept: list[Storage] = []
    for choice in sorted(choices, key=lambda each: (_cost(each, knobs), each.loss)):
        if not kept or choice.loss < kept[-1].loss:
            kept.append(choice)
    return kept


def _cost(choice: Storage, knobs: Knobs) -> float:
    if knobs.unit == "file":
        return choice.bytes
    # Among choices that read alike the smaller one.
    return choice.read + UNREAD * choice.bytes


def _least(choices: Mapping[str, Sequence[Storage]], knobs: Knobs) -> float:
    return sum(min(_cost(each, knobs) for each in of_one) for of_one in choices.values())


def _total(storage: Mapping[str, Storage], knobs: Knobs) -> float:
    return sum(_cost(each, knobs) for each in storage.values())


def _dearest(choices: Mapping[str, Sequence[Storage]], knobs: Knobs) -> float:
    """Return a price of a byte at which every matrix is as small as it can be."""
    steepest = 1e-12
    for first, *others in choices.values():
        for other in others:
            more = _cost(other, knobs) - _cost(first, knobs)
            if more > 0:
                steepest = max(steepest, (first.loss - other.loss) / more)
    return 2 * steepest


def _pick(choices: Mapping[str, Sequence[Storage]], price: float, knobs: Knobs) -> Plan:
    storage = {
        name: min(of_one, key=lambda each: (each.loss + price * _cost(each, knobs), each.bytes))
        for name, of_one in choices.items()
    }
    return _plan(storage, knobs)


def _plan(storage: dict[str, Storage], knobs: Knobs) -> Plan:
    return Plan(
        storage,
        sum(each.bytes for each in storage.values()),
        sum(each.read for each in storage.values()),
        sum(each.loss for each in storage.values()),
        knobs,
    )


def _spend_rest(plan: Plan, choices: Mapping[str, Sequence[Storage]], room: float) -> Plan:
    """Return the plan with what bytes are left spent where they save most."""
    storage = dict(plan.storage)
    knobs = plan.knobs
    left = room - _total(storage, knobs)
    while True:
        best: tuple[float, str, Storage] | None = None
        for name, of_one in choices.items():
            now = storage[name]
            for other in of_one:
                more = _cost(other, knobs) - _cost(now, knobs)
                saved = now.loss - other.loss
                if 0 < more <= left and saved > 0 and (best is None or saved / more > best[0]):
                    best = saved / more, name, other
        if best is None:
            return _plan(storage, knobs)
        _, name, other = best
        left -= _cost(other, knobs) - _cost(storage[name], knobs)
        storage[name] = other

"""The tables of the command line, made from measurements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from terselm.report.sizes import human_bytes, human_count, human_number, human_shape, human_share
from terselm.report.table import Column, Table

if TYPE_CHECKING:
    from terselm.evaluate.cost import Inspection, Part
    from terselm.evaluate.evaluation import Evaluation
    from terselm.exporters.base import Exported
    from terselm.runtime.timing import Timing

MORE_MACS = "*"
"""Stands before MACs that are more than those of the dense matrix."""


def inspection_table(inspection: Inspection) -> Table:
    """Return where the bytes of a model are: a row for each part, factors indented below.

    MACs beyond those of the dense matrix are marked; see `inspection_notes`.
    """
    columns = [
        Column("part", "left"),
        Column("stored as", "left", wrap=True),
        Column("shape"),
        Column("bytes"),
        Column("share"),
        Column("MACs\na step"),
        Column("read\na step"),
    ]
    slower = inspection.more_than_dense
    rows = []
    for part in inspection.parts:
        kind = part.kind.partition("(")[0] if part.leaves else part.kind
        mark = f"{MORE_MACS} " if part in slower else ""
        rows.append(_part_row(part, " = ".join((part.name, *part.tied)), kind, mark))
        for leaf in part.leaves:
            inner = leaf.name.removeprefix(f"{part.name}.")
            rows.append(_part_row(leaf, f"  {inner}", leaf.kind))
    total = (
        "the whole file",
        f"{human_count(inspection.parameters)} parameters",
        "",
        f"{inspection.bytes:,}",
        human_bytes(inspection.bytes),
        human_count(inspection.macs),
        human_bytes(inspection.bytes_read),
    )
    return Table(columns, rows, total)


def inspection_notes(inspection: Inspection) -> list[str]:
    """Return the lines below `inspection_table`: which weights multiply more than dense ones."""
    slower = inspection.more_than_dense
    if not slower:
        return []
    named = ", ".join(f"{part.name} ({_times(part.times_dense)})" for part in slower)
    return [f"{MORE_MACS} more multiply-adds a step than the dense matrix would need: {named}"]


def unit_of(tokens: str) -> str:
    """Return what one token is called: "word" of a vocabulary of words, "character", or "token"."""
    return {"words": "word", "characters": "character"}.get(tokens, "token")


def evaluation_table(evaluation: Evaluation, split: str, unit: str = "word") -> Table:
    """Return the measurements on one split, one a row; `unit` is what a token is called."""
    low_high = "–"
    if evaluation.ci95 is not None:
        low_high = " to ".join(human_number(end) for end in evaluation.ci95)
    unknown = human_share(evaluation.unknown / evaluation.tokens)
    rows = [
        ("perplexity", human_number(evaluation.perplexity)),
        ("95 % interval", low_high),
        ("bits a character", human_number(evaluation.bits_per_character, 4)),
        (f"right {unit} first", human_share(evaluation.top1_accuracy)),
        (f"right {unit} in first three", human_share(evaluation.top3_accuracy)),
        (
            '1 / perplexity (the paper\'s "accuracy")',
            f"{100 * evaluation.average_word_prediction_accuracy:.3f} %",
        ),
        ("tokens", f"{evaluation.tokens:,}"),
        ("unknown tokens", f"{evaluation.unknown:,} ({unknown})"),
        ("seconds", human_number(evaluation.seconds, 1)),
    ]
    return Table([Column(split, "left"), Column("")], rows)


def timing_table(timing: Timing) -> Table:
    """Return how long a model file takes, one figure a row."""
    rows = [
        ("microseconds a token, median", human_number(timing.token, 1)),
        ("the slowest twentieth, more than", human_number(timing.token_p95, 1)),
        ("microseconds without the output layer, median", human_number(timing.step, 1)),
        (f"tokens a second, {timing.batch} states together", f"{timing.tokens_per_second:,.0f}"),
        ("milliseconds from file to first prediction", human_number(timing.open_milliseconds, 2)),
        ("bytes of the file", f"{timing.file_bytes:,}"),
        ("bytes of memory beside it", f"{timing.working_bytes:,}"),
    ]
    threads = "1 thread" if timing.threads == 1 else f"{timing.threads} threads"
    return Table([Column(f"{timing.kernels}, {threads}", "left"), Column("")], rows)


def export_table(exported: Exported) -> Table:
    """Return what an exported model takes: flash, and RAM by part."""
    needs = exported.needs
    rows = [
        ("flash", "model file", f"{exported.flash:,}"),
        ("RAM", "model", f"{needs.model:,}"),
        ("RAM", "context", f"{needs.context:,}"),
        ("RAM", "state", f"{needs.state:,}"),
        ("RAM", "while opening", f"{needs.opening:,}"),
    ]
    total = ("RAM", "in one block", f"{needs.total:,}")
    return Table([Column("memory", "left"), Column("for", "left"), Column("bytes")], rows, total)


def prediction_table(predictions: Sequence[tuple[str, float]], unit: str = "word") -> Table:
    """Return words, or what a token is called, and their probabilities, in the order given."""
    rows = [
        (str(place), _visible(word), f"{100 * probability:.2f} %")
        for place, (word, probability) in enumerate(predictions, start=1)
    ]
    return Table([Column("#"), Column(unit, "left"), Column("probability")], rows)


def zoo_table(models: Sequence[Mapping[str, Any]]) -> Table:
    """Return the models of a zoo, one a row; see `terselm.zoo.Entry.as_dict`."""
    columns = [
        Column("name", "left"),
        Column("model", "left", wrap=True),
        Column("bytes"),
        Column("text", "left"),
        Column("test\nperplexity"),
        Column("µs a\ntoken"),
    ]
    rows = [
        (
            model["name"],
            model["title"],
            f"{model['bytes']:,}",
            model["data"],
            human_number(model["test_perplexity"]),
            human_number(model["microseconds_per_token"]),
        )
        for model in models
    ]
    return Table(columns, rows)


def compression_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return what each step of a recipe cost, compared with the first row.

    Parameters
    ----------
    rows : sequence of mapping
        `step` (str), `bytes` (int) and `perplexity` (float or None); the first row is the model
        as it was. The perplexity columns are left out where no row has one.
    """
    return _against_first(rows, "step", [])


def comparison_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return models side by side, compared with the first.

    Parameters
    ----------
    rows : sequence of mapping
        `model` (str), `bytes` (int), `perplexity` (float or None) and, where measured,
        `top1_accuracy` and `top3_accuracy` (fractions).
    """
    accuracies = [
        (Column(title), key)
        for title, key in (("top 1", "top1_accuracy"), ("top 3", "top3_accuracy"))
        if any(row.get(key) is not None for row in rows)
    ]
    return _against_first(rows, "model", accuracies)


def merging_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return the models that were merged and, set off, the one they make.

    Parameters
    ----------
    rows : sequence of mapping
        `model` (str), `bytes` (int), `weight` (float or None) and `perplexity` (float or None);
        the last row is the whole. Perplexities are left out where there are none.
    """
    measured = any(row["perplexity"] is not None for row in rows)
    columns = [Column("model", "left", wrap=True), Column("bytes"), Column("weight")]
    lines = [
        [
            str(row["model"]),
            f"{row['bytes']:,}",
            "" if row["weight"] is None else human_number(row["weight"], 3),
            *([human_number(row["perplexity"])] if measured else []),
        ]
        for row in rows
    ]
    if measured:
        columns.append(Column("valid\nperplexity"))
    return Table(columns, lines[:-1], lines[-1])


def _against_first(
    rows: Sequence[Mapping[str, Any]], label: str, shares: Sequence[tuple[Column, str]]
) -> Table:
    measured = any(row.get("perplexity") is not None for row in rows)
    columns = [Column(label, "left", wrap=True), Column("bytes"), Column("ratio")]
    if measured:
        columns += [Column("perplexity"), Column("change")]
    columns += [column for column, _ in shares]
    lines = []
    for row in rows:
        first = rows[0]
        line = [
            str(row[label]),
            f"{row['bytes']:,}",
            f"{first['bytes'] / row['bytes']:.2f} ×",
        ]
        if measured:
            perplexity = row.get("perplexity")
            line += [human_number(perplexity), _change(first.get("perplexity"), perplexity)]
            if row is first:
                line[-1] = ""
        for _, key in shares:
            share = row.get(key)
            line.append("–" if share is None else human_share(share))
        lines.append(line)
    return Table(columns, lines)


def _change(before: float | None, after: float | None) -> str:
    if before is None or after is None:
        return "–"
    return f"{100 * (after / before - 1):+.2f} %"


def _times(factor: float) -> str:
    """Return a factor above 1 so that it cannot be read as 1: "3.25 ×", "1.0004 ×"."""
    digits = 2
    while digits < 9 and float(f"{factor:.{digits}f}") <= 1:
        digits += 1
    return f"{factor:,.{digits}f} ×"


def _part_row(part: Part, name: str, kind: str, mark: str = "") -> tuple[str, ...]:
    return (
        name,
        kind,
        human_shape(part.shape),
        f"{part.bytes:,}",
        human_share(part.share),
        mark + human_count(part.macs) if part.macs else "",
        human_bytes(part.bytes_read) if part.bytes_read else "",
    )


def _visible(word: str) -> str:
    """Return a token so that spaces and newlines in it can be seen."""
    return word if word.strip() == word and word.isprintable() and word else repr(word)

"""The results of a search as tables: for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from terselm.report.search_reading import (
    ANSWERS,
    Values,
    change,
    find,
    interval,
    marks,
    microseconds,
    recipe_line,
    times,
)
from terselm.report.sizes import human_bytes, human_number
from terselm.report.table import Column, Table

CHOSEN = "→"
PARTIAL = " *"
COLUMNS = (
    Column(""),
    Column("#"),
    Column("bytes"),
    Column("smaller"),
    Column("perplexity"),
    Column("95 % interval"),
    Column("change"),
    Column("a token"),
    Column("memory"),
    Column("recipe", "left", wrap=True),
)


def front_table(results: Values) -> Table:
    """Return the source and the front of a search, smallest last; an arrow marks the chosen one.

    Parameters
    ----------
    results : mapping
        The results document of a search.

    Returns
    -------
    Table
        `rich` prints it; `.markdown()` is for files.
    """
    rows = [_row(results, results["source"], "", "source")]
    marked = marks(results)
    listed = list(reversed(results["front"]))
    numbers = {each["number"] for each in listed}
    # The chosen one may be beaten in bytes and perplexity, yet be the one that is fast enough.
    for number in marked.keys() - numbers:
        candidate = find(results, number)
        if candidate is not None:
            listed.append(candidate)
    for candidate in sorted(listed, key=lambda each: (-each["bytes"], each["perplexity"])):
        rows.append(_candidate_row(results, candidate, marked.get(candidate["number"], "")))
    return Table(COLUMNS, rows)


def answers_table(results: Values) -> Table:
    """Return the three answers to no budget, as far as there are any.

    Parameters
    ----------
    results : mapping
        The results document of a search.
    """
    columns = [Column("answer", "left"), *COLUMNS[1:]]
    rows = []
    for name, words in ANSWERS.items():
        candidate = find(results, (results.get("answers") or {}).get(name))
        if candidate is not None:
            recipe = recipe_line(candidate["recipe"])
            rows.append((words, *_row(results, candidate, str(candidate["number"]), recipe)[1:]))
    return Table(columns, rows)


def markdown_table(results: Values) -> str:
    """Return verdict, front and answers as Markdown, with the notes that the figures need.

    Parameters
    ----------
    results : mapping
        The results document of a search.

    Returns
    -------
    str
        Ends with a newline.
    """
    paragraphs = [_escaped(results["message"]), _markdown(front_table(results))]
    if results.get("answers"):
        paragraphs.append(_markdown(answers_table(results)))
    return "\n\n".join(paragraphs + notes(results)) + "\n"


def notes(results: Values) -> list[str]:
    """Return what a reader must know of the figures in a table, one sentence or two each."""
    found = [
        "The interval says how far the perplexity would move on other text of this kind; the "
        "rows are on the same text, so they compare far better than that."
    ]
    rows = [results["source"], *results["front"]]
    if not all(row["whole_text"] for row in rows):
        found.append(
            "Perplexities with a star were measured on the beginning of the text and "
            "scaled by the source model's."
        )
    if any(row["estimated_latency"] for row in rows):
        found.append(f"Times are estimates {_device(results)}, not measurements.")
    return found


def _device(results: Values) -> str:
    profile = results.get("device_profile")
    return "from a device profile" if profile is None else f"for {profile['machine']}"


def _candidate_row(results: Values, candidate: Values, mark: str) -> Sequence[str]:
    recipe = recipe_line(candidate["recipe"])
    row = _row(results, candidate, str(candidate["number"]), recipe)
    special = candidate["number"] in {results["chosen"], results["nearest"]}
    recipe = f"{mark}: {recipe}" if mark else recipe
    return (CHOSEN if special else "", *row[1:-1], recipe)


def _row(results: Values, measured: Values, number: str, recipe: str) -> Sequence[str]:
    source = results["source"]
    same = measured is source
    sign = "≈ " if measured["estimated_latency"] else ""
    return (
        "",
        number,
        f"{measured['bytes']:,}",
        "" if same else times(source["bytes"], measured["bytes"]),
        human_number(measured["perplexity"]) + ("" if measured["whole_text"] else PARTIAL),
        interval(measured, 1),
        "" if same else change(source["perplexity"], measured["perplexity"]),
        sign + microseconds(measured["microseconds_per_token"]),
        human_bytes(measured["memory"]),
        recipe,
    )


def _markdown(table: Table) -> str:
    # The table itself escapes the bars between cells.
    rows = [[_harmless(cell) for cell in row] for row in table.rows]
    return Table(table.columns, rows).markdown()


def _harmless(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\n", " ")


def _escaped(text: str) -> str:
    """Return a line that Markdown and the HTML inside it show as it stands."""
    for character in "\\`*_[]|#":
        text = text.replace(character, "\\" + character)
    return _harmless(text)

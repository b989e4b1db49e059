"""Tables: the numbers in them, their alignment, Markdown, and names with brackets."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from terselm.evaluate.cost import inspect
from terselm.evaluate.evaluation import Evaluation
from terselm.report.sizes import human_bytes, human_count, human_number, human_shape, human_share
from terselm.report.table import Column, Table
from terselm.report.tables import (
    comparison_table,
    compression_table,
    evaluation_table,
    inspection_notes,
    inspection_table,
    prediction_table,
)
from tests.tiny import FORM_BUILDERS, make_model, random_low_rank

STEPS = [
    {"step": "before", "bytes": 18_600_000, "perplexity": 117.668},
    {"step": "quantize(bits=8)", "bytes": 4_650_000, "perplexity": 117.7},
    {"step": "quantize(bits=4)", "bytes": 2_480_000, "perplexity": 120.0},
]


def printed(table, width=160):
    out = io.StringIO()
    Console(file=out, width=width, highlight=False).print(table)
    return out.getvalue()


def markdown_cells(table):
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.markdown().splitlines()
    ]


@pytest.mark.parametrize(
    "count, text",
    [
        (0, "0 B"),
        (96, "96 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (812_345, "812 kB"),
        (81_234, "81.2 kB"),
        (9_996, "10.0 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (4_654_321, "4.65 MB"),
        (39_561_744, "39.6 MB"),
        (2_500_000_000, "2.50 GB"),
        (12_345_678_000_000, "12,346 GB"),
    ],
)
def test_sizes_as_people_read_them(count, text):
    assert human_bytes(count) == text


def test_other_numbers():
    assert human_share(0) == "0 %"
    assert human_share(0.3744) == "37.4 %"
    assert human_shape((800, 200)) == "800×200"
    assert human_shape(()) == ""
    assert [human_count(count) for count in (0, 60, 9750, 6.5e6)] == ["0", "60", "9.75 k", "6.50 M"]
    assert human_number(None) == "–"
    assert human_number(1234.5) == "1,234.50"
    assert human_number(float("inf")) == "not finite"
    assert human_number(6.311061e37) == "6.31e+37"
    assert human_number(999_999.0) == "999,999.00"


def test_compression_steps():
    rows = markdown_cells(compression_table(STEPS))
    assert rows[0] == ["step", "bytes", "ratio", "perplexity", "change"]
    assert rows[2] == ["before", "18,600,000", "1.00 ×", "117.67", ""]
    assert rows[3] == ["quantize(bits=8)", "4,650,000", "4.00 ×", "117.70", "+0.03 %"]
    assert rows[4][2:] == ["7.50 ×", "120.00", "+1.98 %"]


def test_compression_steps_without_text():
    rows = [{**row, "perplexity": None} for row in STEPS]
    assert markdown_cells(compression_table(rows))[0] == ["step", "bytes", "ratio"]
    rows[2] = STEPS[2]
    assert markdown_cells(compression_table(rows))[4][3:] == ["120.00", "–"]


def test_comparison():
    rows = [
        {"model": "dense", "bytes": 8_000_000, "perplexity": 95.0, "top1_accuracy": 0.256},
        {"model": "4 bits", "bytes": 1_000_000, "perplexity": 96.9, "top1_accuracy": 0.25},
    ]
    cells = markdown_cells(comparison_table(rows))
    assert cells[0] == ["model", "bytes", "ratio", "perplexity", "change", "top 1"]
    assert cells[3] == ["4 bits", "1,000,000", "8.00 ×", "96.90", "+2.00 %", "25.0 %"]


def test_evaluation():
    evaluation = Evaluation(117.668, (113.2, 122.3), 73760, 1.2345, 0.0085, 0.25, 0.4, 3.21, 4794)
    rows = dict(row for row in markdown_cells(evaluation_table(evaluation, "valid"))[2:])
    assert rows["perplexity"] == "117.67"
    assert rows["95 % interval"] == "113.20 to 122.30"
    assert rows["bits a character"] == "1.2345"
    assert rows["tokens"] == "73,760"
    assert rows["unknown tokens"] == "4,794 (6.5 %)"
    assert rows['1 / perplexity (the paper\'s "accuracy")'] == "0.850 %"
    assert rows["right word first"] == "25.0 %"
    characters = dict(
        row for row in markdown_cells(evaluation_table(evaluation, "valid", "character"))[2:]
    )
    assert characters["right character in first three"] == "40.0 %"
    short = Evaluation(10.0, None, 3, None, 0.1, 0.0, 0.0, 0.1, 0)
    rows = dict(row for row in markdown_cells(evaluation_table(short, "valid"))[2:])
    assert rows["95 % interval"] == rows["bits a character"] == "–"


def test_inspection_shows_every_part_and_the_file():
    model = make_model("gru", tied=True)
    model.replace_weight("cells.0.weight_ih", FORM_BUILDERS["low_rank/quantized"](60, 20))
    found = inspect(model)
    table = inspection_table(found)
    text = printed(table)
    for part in found.parts:
        assert part.name in text
    assert "embedding = output" in text
    assert "quantized 8-bit" in text
    assert f"{found.bytes:,}" in text
    cells = markdown_cells(table)
    shown = [row for row in cells[2:-1] if not row[0].startswith(("left", "right"))]
    assert sum(int(row[3].replace(",", "")) for row in shown) == found.bytes
    assert cells[-1][0] == "the whole file"


def test_inspection_fits_a_usual_terminal_without_losing_anything():
    model = make_model("lstm", hidden=650)
    model.replace_weight("cells.0.weight_hh", FORM_BUILDERS["low_rank/quantized"](2600, 650))
    found = inspect(model)
    lines = printed(inspection_table(found), width=80).splitlines()
    assert all(len(line) <= 80 for line in lines)
    for part in found.parts:
        assert any(part.name in line and f"{part.bytes:,}" in line for line in lines)
    assert not any("…" in line for line in lines)


def test_a_table_of_its_least_width_loses_nothing():
    table = inspection_table(inspect(make_model("lstm", hidden=650)))
    assert 40 < table.least_width < 80
    text = printed(table, width=table.least_width)
    assert max(map(len, text.splitlines())) <= table.least_width
    for cell in (cell for row in [*table.rows, table.total] for cell in row):
        assert all(word in text for word in cell.split())


def test_inspection_marks_what_multiplies_more_than_dense():
    model = make_model("lstm", layers=1, hidden=20)
    assert inspection_notes(inspect(model)) == []
    model.replace_weight("output", random_low_rank(37, 20, 30))  # 30 · (37 + 20) of 740
    model.replace_weight("cells.0.weight_ih", random_low_rank(80, 10, 9))  # 810 of 800
    found = inspect(model)
    (note,) = inspection_notes(found)
    assert note.startswith("* more multiply-adds")
    assert note.endswith("need: cells.0.weight_ih (1.01 ×), output (2.31 ×)")
    macs = {row[0]: row[5] for row in markdown_cells(inspection_table(found))[2:]}
    assert macs["output"] == "* 1.71 k"
    assert macs["cells.0.weight_ih"] == "* 810"
    assert macs["cells.0.weight_hh"] == "1.60 k"


def test_predictions_show_white_space():
    text = printed(prediction_table([("the", 0.25), (" of", 0.125), ("\n", 0.0625)]))
    assert "25.00 %" in text
    assert "' of'" in text
    assert "'\\n'" in text


def test_brackets_and_bars_are_text():
    table = Table([Column("name", "left"), Column("n")], [("[red]x[/red] | y", "1")])
    assert "[red]x[/red] | y" in printed(table)
    assert "x[/red] \\| y" in table.markdown()


def test_markdown_is_aligned():
    table = compression_table(STEPS)
    lines = table.markdown().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1].startswith("| ---") and lines[1].endswith("-: |")


def test_a_row_of_the_wrong_length_is_a_mistake():
    with pytest.raises(ValueError, match="a row of 1 in a table of 2 columns"):
        Table([Column("a"), Column("b")], [("1",)])

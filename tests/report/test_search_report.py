"""What a search leaves behind: all files, also where there is next to nothing to show."""

from __future__ import annotations

import io
import json
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from rich.console import Console

from terselm.cli.main import main
from terselm.errors import TerselmError
from terselm.report.search_figure import front_figure
from terselm.report.search_page import tiles
from terselm.report.search_plots import ceiling
from terselm.report.search_reading import recipe_line, shown
from terselm.report.search_report import render_page, write_report
from terselm.report.search_shares import MOST, REST, group_parts
from terselm.report.search_tables import answers_table, front_table, markdown_table
from tests.report import search_fixture as searches

NAMES = [
    "report.html",
    "table.md",
    "front.svg",
    "front.png",
    "parts.svg",
    "parts.png",
    "sensitivity.svg",
    "sensitivity.png",
]
CASES = ("search_results", "without_budget", "bare", "one_candidate", "hostile")


def terminal(renderable) -> str:
    console = Console(file=io.StringIO(), width=220)
    console.print(renderable)
    return console.file.getvalue()


@pytest.mark.parametrize("name", CASES)
def test_every_file_is_written(tmp_path, name):
    written = write_report(getattr(searches, name)(), tmp_path)
    assert [path.name for path in written] == NAMES
    assert sorted(tmp_path.iterdir()) == sorted(written)
    for path in written:
        if path.suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        elif path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_the_same_results_give_the_same_files(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for folder in folders:
        folder.mkdir()
        write_report(searches.search_results(), folder)
    for name in NAMES:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(TerselmError, match="cannot write"):
        write_report(searches.bare(), tmp_path / "nowhere")


@pytest.mark.parametrize("strip", ["kenlm", "test", "agreement", "device_profile", "time_limit"])
def test_what_may_be_missing(strip):
    assert "<h1>" in render_page({**searches.search_results(), strip: None})


def test_the_terminal_marks_the_chosen_one():
    lines = terminal(front_table(searches.search_results())).splitlines()
    (chosen,) = [line for line in lines if line.startswith("→")]
    for figure in ("44", "4,736,128", "16.7 ×", "108.35", "99.2 to 118.5", "−1.9 %", "341 µs"):
        assert figure in chosen
    assert "rank_budget: share 0.4 → recover: dropout 0.4, epochs 1 → gptq" in chosen
    sizes = [
        int(size.replace(",", "")) for size in re.findall(r" (\d+,\d+,\d+) ", "\n".join(lines))
    ]
    assert len(sizes) == 8 and sizes == sorted(sizes, reverse=True)


def test_a_chosen_one_off_the_front_is_listed():
    text = terminal(front_table(searches.search_results(chosen=20)))
    assert re.search(r"^→ +20 ", text, flags=re.MULTILINE)


def test_the_three_answers():
    text = terminal(answers_table(searches.without_budget()))
    assert [line.split()[0] for line in text.splitlines()[2:]] == [
        "closest",
        "balanced",
        "smallest",
    ]
    assert terminal(answers_table(searches.search_results())).count("\n") == 2


def test_markdown_says_what_the_figures_need():
    text = markdown_table(searches.search_results())
    assert text.startswith("The budget is met")
    assert "measured on the beginning of the text" in text
    estimated = markdown_table(searches.one_candidate())
    assert "Times are estimates for Cortex-A53, 1.2 GHz" in estimated and "≈ 842 µs" in estimated
    assert "<img" not in markdown_table(searches.hostile())


def test_what_a_report_is_about():
    assert shown(searches.search_results()).role == "chosen"
    assert shown(searches.one_candidate()).role == "nearest"
    assert shown(searches.without_budget()).role == "closest"
    assert shown(searches.bare()) is None


def test_tiles_say_which_limit_is_missed():
    results = searches.search_results()
    results["limits"].update(latency=300.0, perplexity=109.0)
    kept = {tile.title: tile.kept for tile in tiles(results)}
    assert kept == {
        "size of the file": True,
        "perplexity": True,
        "time of a token": False,
        "memory": None,
    }


def test_a_limit_that_is_just_missed_does_not_look_kept():
    results = searches.search_results()
    results["limits"].update(size=4_736_127.0, latency=340.9999, perplexity=108.3499)
    size, perplexity, latency, _ = tiles(results)
    assert (size.after, size.note) == ("4.736128 MB", "at most 4.736127 MB")
    assert (latency.after, latency.note) == ("341.0000 µs", "at most 340.9999 µs")
    assert perplexity.after == "108.3500" and "at most 108.3499 ·" in perplexity.note


def test_the_page_says_how_often_the_test_text_was_read():
    results = searches.search_results()
    for readings, said in (
        (None, "was read for one model, after it was picked."),
        (1, "was read once, for one model, after it was picked."),
        (3, "was read 3 times: whenever the search, which was resumed, ended"),
    ):
        results["test"]["readings"] = readings
        page = render_page(results)
        assert f"<b>Test text</b> {said}" in page
        assert page.count("read once") == (2 if readings == 1 else 0)
    page = render_page({**results, "test": None})
    assert "<b>Test text</b> was not read." in page and "read 3 times" not in page


def test_a_change_beyond_all_measure_is_short():
    results = searches.search_results()
    results["candidates"][0]["perplexity"] = 1e300
    assert "+9.05e+299 %" in render_page(results)


def test_outliers_do_not_stretch_the_axis():
    results = searches.search_results()
    top = ceiling(results)
    assert 110.5 < top < 200
    results["candidates"][0]["perplexity"] = math.inf
    results["candidates"][1]["perplexity"] = 1e9
    assert ceiling(results) == top
    assert "∞" not in render_page(results) and "not finite" in render_page(results)
    results["limits"]["perplexity"] = 400.0
    assert ceiling(results) > 400


def test_an_axis_without_outliers_ends_at_its_highest_point():
    results = searches.search_results()
    keep = [each for each in results["candidates"] if each["perplexity"] < 115]
    results.update(candidates=keep)
    assert ceiling(results) == max(each["perplexity"] for each in keep)


def test_bars_hold_everything():
    parts = searches.search_results()["parts"]
    small = [{"name": f"p{n}", "kind": "x", "bytes": 10, "microseconds": 1.0} for n in range(30)]
    crowd = {"bytes": 300, "microseconds": 30.0, "parts": small}
    for whole in (parts, {"before": crowd, "after": None}):
        for bar in group_parts(whole):
            assert sum(piece.share for piece in bar.pieces) == pytest.approx(1)
            assert sum(piece.amount for piece in bar.pieces) == pytest.approx(bar.total, rel=0.01)
            assert len(bar.pieces) <= MOST + 1
            assert bar.pieces[-1].name == REST


def test_recipes_in_words():
    assert recipe_line(searches.TINY) == (
        "rank_budget: share 0.28 → recover: dropout 0.4, epochs 1, distill → "
        "gptq: bits 3, group 32 → recover: dropout 0.4, epochs 0.5, distill, train codes"
    )
    step = {"method": "low_rank", "weights": "cells.*", "rank": 0.4, "stacked": False}
    assert recipe_line([step]) == "low_rank on cells.*: rank 0.4"
    assert recipe_line([]) == "as it is"


def test_a_page_without_scripts_is_small_and_shows_the_front():
    page = render_page(searches.search_results(), scripts=False)
    assert "<script" not in page and "<noscript" not in page
    assert 'class="still"' in page and "data:image/svg+xml" in page
    assert len(page) < 500_000


def test_the_command_line_makes_the_page_again(tmp_path):
    results = tmp_path / "results.json"
    results.write_text(json.dumps(searches.search_results()))
    out = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["report", str(results), "--no-scripts", "--out", str(out)])
    assert not ended.value.code
    assert out.read_text() == render_page(searches.search_results(), scripts=False)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": 1}', "null"])
def test_what_is_no_result_is_refused_in_a_line(tmp_path, capsys, text: str):
    results = tmp_path / "results.json"
    results.write_text(text)
    with pytest.raises(SystemExit) as ended:
        main(["report", str(results), "--out", str(tmp_path / "page.html")])
    assert ended.value.code == 2
    assert "results.json" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()


def test_a_candidate_larger_than_the_source_is_called_larger():
    results = searches.search_results()
    results["candidates"][0]["bytes"] = 2 * results["source"]["bytes"]
    texts = [text for trace in front_figure(results).data for text in trace.text or ()]
    assert sum("(2.00 × larger)" in text for text in texts) == 1
    assert not any("0.50 ×" in text for text in texts)

"""The report of a search in a real browser, its tables and its model card."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from terselm.report.model_card import model_card
from terselm.report.search_report import render_page, write_report
from terselm.report.search_tables import answers_table, front_table, markdown_table
from tests.report.search_fixture import HOSTILE, search_results

REASON = "NEEDS BROWSER: install Debian's package chromium"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(REASON)
        pytest.skip(REASON)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture
def opened(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a report and fails on any error, and on any request that leaves it."""
    pages, troubles = [], []

    def open_page(results: dict[str, Any], width: int = 1180, **options: Any) -> Any:
        path = tmp_path / "report.html"
        path.write_text(render_page(results), encoding="utf-8")
        page = browser.new_page(viewport={"width": width, "height": 800}, **options)
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("console", lambda note: troubles.append(note.text))
        page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                request.url.startswith(("file:", "data:", "blob:")) or troubles.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not troubles


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1180])
def test_the_page_fits_and_is_quiet(opened: Callable[..., Any], width: int, scheme: str):
    page = opened(search_results(), width, color_scheme=scheme)
    page.wait_for_selector("#front .main-svg")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", background)[:3])) > 380
    assert light == (scheme == "light")


def test_a_point_tells_its_recipe(opened: Callable[..., Any]):
    page = opened(search_results())
    page.wait_for_selector("#front .scatterlayer .points path")
    page.locator("#front").scroll_into_view_if_needed()
    place = page.evaluate(
        """() => {
            const traces = document.querySelectorAll("#front .scatterlayer .trace");
            const boxes = Array.from(traces[traces.length - 2].querySelectorAll(".points path"));
            const box = boxes[0].getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2];
        }"""
    )
    page.mouse.move(place[0] - 3, place[1])
    page.mouse.move(*place)
    page.wait_for_selector("#front .hoverlayer .hovertext", state="attached")
    text = page.text_content("#front .hoverlayer")
    assert "perplexity" in text
    assert any(method in text for method in ("quantize", "gptq", "recover", "low_rank"))


def test_dark_and_back(opened: Callable[..., Any]):
    page = opened(search_results(), color_scheme="light")
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != before
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == before


def test_the_table_sorts_and_filters(opened: Callable[..., Any]):
    page = opened(search_results())
    page.click("#candidates th >> text=bytes")
    cells = page.eval_on_selector_all(
        "#candidates tbody tr td:nth-child(3)", "all => all.map((one) => +one.dataset.value)"
    )
    assert cells == sorted(cells)
    page.click("#candidates th >> text=bytes")
    first = page.eval_on_selector(
        "#candidates tbody tr td:nth-child(3)", "one => +one.dataset.value"
    )
    assert first == max(cells)
    page.fill("#filter", "tensor_train")
    shown = page.eval_on_selector_all(
        "#candidates tbody tr", "all => all.filter((one) => !one.hidden).length"
    )
    assert 0 < shown < len(cells)


def test_what_looks_like_markup_is_text(opened: Callable[..., Any]):
    results = search_results()
    for each in [*results["candidates"], *results["front"]]:
        each["label"] = HOSTILE
        each["recipe"] = [{"method": HOSTILE, "weights": "*"}]
    results["model"] = HOSTILE
    results["message"] = HOSTILE
    page = opened(results)
    page.wait_for_selector("#front .main-svg")
    assert page.inner_text("h1") == HOSTILE
    assert page.query_selector("img[src=x]") is None


def test_without_scripts_there_is_a_picture(opened: Callable[..., Any]):
    page = opened(search_results(), java_script_enabled=False)
    assert page.is_visible("img.still")
    assert page.is_visible("#candidates")
    assert not page.is_visible("#filter")


def emptied(**changes: Any) -> dict[str, Any]:
    return {**search_results(), **changes}


EMPTY = [
    emptied(chosen=None, nearest=3, met=False),
    emptied(chosen=None, nearest=None, test=None, agreement=None, kenlm=None, stages=[]),
    emptied(
        front=[], candidates=[], chosen=None, parts={**search_results()["parts"], "after": None}
    ),
    emptied(sensitivity={"tokens": 0, "weights": []}),
    emptied(candidates=search_results()["candidates"][:1], chosen=None),
]


@pytest.mark.parametrize("number", range(len(EMPTY)))
def test_what_is_missing_leaves_a_whole_report(number: int, tmp_path: Path):
    written = write_report(EMPTY[number], tmp_path)
    assert {path.name for path in written} >= {"report.html", "table.md", "front.svg", "front.png"}
    assert all(path.stat().st_size > 100 for path in written)


def test_tables_have_every_model_of_the_front():
    results = search_results()
    text = markdown_table(results)
    for each in results["front"]:
        assert f"{each['bytes']:,}" in text
    assert front_table(results) is not None
    some = {**results, "answers": {"closest": results["front"][0]["number"]}}
    assert "closest to the source" in answers_table(some).markdown()


def test_the_card_is_one_that_hugging_face_reads():
    results = search_results()
    number = results["chosen"]
    text = model_card(results, number, licence="apache-2.0")
    card = ModelCard(text)
    card.data.to_dict()
    chosen = next(each for each in results["candidates"] if each["number"] == number)
    assert card.data.license == "apache-2.0"
    values = [result.metric_value for result in card.data.eval_results]
    assert values[0] == pytest.approx(chosen["perplexity"], abs=1e-3)
    assert values[1] == pytest.approx(results["test"]["perplexity"], abs=1e-3)
    recipe = re.search(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert recipe is not None
    assert yaml.safe_load(recipe.group(1)) == chosen["recipe"]
    assert f"{chosen['bytes']:,} bytes" in text


def test_a_card_of_nothing_is_refused():
    with pytest.raises(ValueError, match="no candidate 9999"):
        model_card(search_results(), 9999)

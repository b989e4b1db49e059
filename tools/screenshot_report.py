"""Pictures of the report of a search, by a real browser.

python tools/screenshot_report.py RESULTS.json docs/pictures
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from terselm.report.search_report import render_page

VIEWS = (
    ("search-report", 1100, 860, "light"),
    ("search-report-dark", 1100, 860, "dark"),
    ("search-report-phone", 360, 760, "light"),
)


def main(results: str, folder: str) -> None:
    program = shutil.which("chromium")
    if program is None:
        sys.exit("there is no chromium on the path")
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        page_file = Path(name) / "report.html"
        values = json.loads(Path(results).read_text(encoding="utf-8"))
        page_file.write_text(render_page(values), encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for view, width, height, scheme in VIEWS:
            size = {"width": width, "height": height}
            page = browser.new_page(viewport=size, color_scheme=scheme)
            page.goto(page_file.as_uri())
            page.wait_for_selector("#front .main-svg")
            page.screenshot(path=Path(folder) / f"{view}.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

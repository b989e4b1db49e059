#!/usr/bin/env python3
"""Photograph the report of a search: light, dark and on a phone.

    python tools/screenshot_report.py RESULTS.json OUTDIR

Needs playwright (`pip install -e '.[dev]'`) and Chromium on the PATH.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from terselm.errors import TerselmError
from terselm.files import write_bytes
from terselm.report.search_report import render_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
VIEWS = {
    "search-report": {"width": 1200, "height": 1560, "scheme": "light", "scale": 1},
    "search-report-dark": {"width": 1200, "height": 1560, "scheme": "dark", "scale": 1},
    "search-report-phone": {"width": 360, "height": 1400, "scheme": "light", "scale": 2},
}
MOST_BYTES = 200_000


def find_browser() -> str | None:
    """The path of a Chromium; None where there is none."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)


@contextmanager
def open_browser(path: str) -> Iterator[Browser]:
    """A browser without windows, closed at the end."""
    with sync_playwright() as playwright:
        # Its sandbox does not run as root; the pages are our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def wait_for_chart(page: Page) -> None:
    """Wait until the picture of the front is drawn."""
    page.wait_for_selector("#front .points path, #front .scatterlayer", state="attached")
    page.wait_for_timeout(100)


def photograph(results: dict, folder: Path, browser: Browser) -> list[Path]:
    """Write the three pictures; the page opens as a reader opens it, from a file."""
    written = []
    with tempfile.TemporaryDirectory() as temporary:
        report = Path(temporary) / "report.html"
        report.write_text(render_page(results), encoding="utf-8")
        for name, view in VIEWS.items():
            context = browser.new_context(
                viewport={"width": view["width"], "height": view["height"]},
                color_scheme=view["scheme"],
                device_scale_factor=view["scale"],
            )
            page = context.new_page()
            page.goto(report.as_uri())
            wait_for_chart(page)
            written.append(folder / f"{name}.png")
            write_bytes(written[-1], small_png(page.screenshot()))
            context.close()
    return written


def small_png(data: bytes) -> bytes:
    """The picture in 256 colours or fewer, so that it takes less than `MOST_BYTES`."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    for colors in (256, 128, 64, 32):
        file = io.BytesIO()
        image.quantize(colors, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
        if file.tell() < MOST_BYTES:
            return file.getvalue()
    raise TerselmError(f"a picture takes more than {MOST_BYTES:,} bytes; make the views smaller")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results.json of terselm search")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args(arguments)
    path = find_browser()
    try:
        if path is None:
            raise TerselmError(f"no browser found; install one of {', '.join(BROWSERS)}")
        results = json.loads(options.results.read_text(encoding="utf-8"))
        options.folder.mkdir(parents=True, exist_ok=True)
        with open_browser(path) as browser:
            for picture in photograph(results, options.folder, browser):
                print(f"{picture}: {picture.stat().st_size:,} bytes")
    except (TerselmError, OSError, json.JSONDecodeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

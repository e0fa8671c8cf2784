"""The pictures of docs/report.md, and what a print of a page is like, in headless Chromium.

    python tools/report_pictures.py runs/demo/evaluation/report.html --out docs/images

Enters: a page of `report`. Leaves: report_fields.png (light), report_clips.png (dark, a mark being made) and
report_narrow.png (a telephone), and one line about its print on A4 upright: pages, columns of the widest table of
fields, and by how many pixels anything is wider than the paper (0: nothing is cut off). Needs playwright and Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path
from typing import Any

#: Width in CSS pixels between margins of 10 mm.
PAPER_PX, MARGIN = 718, "10mm"
WIDEST = """() => Math.max(0, ...[...document.querySelectorAll('body, table.fields, .matrix table, .bins')]
    .filter(one => one.checkVisibility()).map(one => one.getBoundingClientRect().right - innerWidth))"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path, help="report.html")
    parser.add_argument("--out", type=Path, help="folder for the pictures; unset: only the print is measured")
    parser.add_argument("--clip", default="crash/1.mp4", help="the clip that is open in the pictures")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        found = next(path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name)))
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        if options.out is not None:
            take_pictures(browser, options.page.resolve().as_uri(), options.clip, options.out)
        print(print_line(browser, options.page.resolve().as_uri()))
        browser.close()


def take_pictures(browser: Any, address: str, clip: str, out: Path) -> None:
    """The three pictures."""
    page = _opened(browser, 1280, 900, "light", address)
    page.screenshot(path=out / "report_fields.png")
    page = _opened(browser, 1280, 1500, "dark", f"{address}#order=given&clip={clip}", scale=0.625)
    page.keyboard.press("m")
    page.locator(".saying").first.wait_for()
    page.evaluate("document.getElementById('clips').scrollIntoView()")
    page.locator(".saying").first.scroll_into_view_if_needed()
    page.screenshot(path=out / "report_clips.png")
    page = _opened(browser, 390, 844, "light", f"{address}#clip={clip}")
    page.locator("#detail h3").scroll_into_view_if_needed()
    page.screenshot(path=out / "report_narrow.png")


def print_line(browser: Any, address: str) -> str:
    """What a print is like."""
    page = _opened(browser, PAPER_PX, 1000, "light", address)
    page.emulate_media(media="print")
    columns = page.evaluate(
        "() => Math.max(0, ...[...document.querySelectorAll('table.fields')].map(t => t.rows[0].cells.length))"
    )
    over = page.evaluate(WIDEST)
    margin = dict.fromkeys(("top", "bottom", "left", "right"), MARGIN)
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(format="A4", margin=margin)))
    return f"print on A4 upright: {pages} pages, {columns} columns, {over:.0f} pixels wider than the paper"


def _opened(browser: Any, width: int, height: int, scheme: str, address: str, scale: float = 1.0) -> Any:
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=scale
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_load_state("load")
    return page


if __name__ == "__main__":
    main()

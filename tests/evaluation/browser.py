"""A real browser for the tests of the pages: headless Chromium by playwright, one for a module."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)


@contextmanager
def chromium() -> Iterator[Any]:
    """A running browser; skips where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    flags = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=flags, timeout=300_000)
        yield browser
        browser.close()


class Opened:
    """A page in a browser; `troubles` are the messages of its console, its errors and its requests to elsewhere."""

    def __init__(self, browser: Any, path: Path, state: str = "", **more: Any) -> None:
        self.context = browser.new_context(accept_downloads=True, **more)
        self.context.set_default_timeout(120_000)
        self.troubles: list[str] = []
        self.page = self.context.new_page()
        self.page.on("console", lambda message: self.troubles.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.troubles.append(f"error: {error}"))
        self.page.on("request", lambda request: self._note(request.url))
        self.path = path
        self.go(state)

    def _note(self, url: str) -> None:
        if not url.startswith(("data:", "blob:")) and url.split("#")[0] != self.path.as_uri():
            self.troubles.append(f"request: {url}")

    def go(self, state: str = "") -> None:
        """Open the page anew, at a state of its own."""
        self.page.goto("about:blank")
        self.page.goto(self.path.as_uri() + state)

    def turn(self, state: str) -> None:
        """Go to another state of the page that is open, as a link in it does."""
        change = "state => new Promise(done => { addEventListener('hashchange', done); location.hash = state; })"
        if self.page.evaluate("location.hash") != state:
            self.page.evaluate(change, state or "#show=all")

    def text(self, selector: str) -> str:
        """The text of the first element."""
        return str(self.page.locator(selector).first.inner_text())

    def texts(self, selector: str) -> list[str]:
        """Of all, as they are in the document."""
        return [str(text) for text in self.page.locator(selector).all_text_contents()]

    def listed(self) -> list[int]:
        """Numbers of the clips in the list, in its order."""
        items = self.page.eval_on_selector_all("#list > li", "items => items.map(item => Number(item.dataset.clip))")
        return [int(number) for number in items]

    def press(self, key: str) -> None:
        self.page.keyboard.press(key)

"""A browser for the tests of the page: Debian's Chromium, without a window, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

OF_TILES = ("Tile %s", "Ignoring tile")
"""What OpenSeadragon says of tiles that are on their way when a page is left, or its server ends."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, for a module (playwright runs an event loop); tests that need it are skipped where it is not installed."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip("no Chromium on this machine: 'apt-get install chromium' for the tests of the page")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    with api.sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


class Visit:
    """A page in the browser, and what it complained of."""

    def __init__(self, page: Any) -> None:
        self.page, self.complaints = page, []
        page.on("console", lambda message: self._note(message.type, message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not text.startswith(OF_TILES) and "net::ERR_" not in text:
            self.complaints.append(text)

    def go(self, url: str, ready: str = ".view[data-ready]") -> Any:
        self.page.goto(url)
        self.page.wait_for_selector(ready, timeout=60_000)
        return self.page


@pytest.fixture
def visit(browser: Any) -> Iterator[Visit]:
    """A page of 1440 x 900 px; at the end nothing may have gone wrong in it."""
    page = browser.new_page(viewport={"width": 1440, "height": 900}, color_scheme="light")
    page.set_default_timeout(60_000)
    visit = Visit(page)
    yield visit
    page.close()
    assert visit.complaints == []

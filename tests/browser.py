"""A real Chromium, and what every page of ours must satisfy in it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1440, "height": 900}

# A browser that asks nobody about anything.
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-component-update
    --disable-background-networking --disable-sync""".split()


# While Playwright is open, its event loop runs in this thread and other tests cannot start theirs.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium, or any other."""
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip("no Chromium; scripts/setup_browser.sh installs one")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Page]:
    """A page that must not complain, and must not ask other hosts for anything.

    Args:
      browser: from the fixture.
      address: of the page.
      **options: of Playwright's `new_context`.
    """
    allowed = address.partition("//")[0] + "//" + address.partition("//")[2].partition("/")[0]
    context = browser.new_context(**options)
    context.set_default_timeout(120_000)
    problems: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: problems.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url.startswith((allowed, "data:"))
            else problems.append(f"request to {request.url}")
        ),
    )
    page.goto(address)
    yield page
    assert not problems
    context.close()


def assert_fits(page: Page) -> None:
    """Nothing makes the page wider than the window."""
    width, inner = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= inner


def assert_accessible(page: Page) -> None:
    """axe-core finds nothing serious or critical."""
    found = Axe().run(page).response["violations"]
    serious = [
        f"{rule['id']}: {rule['help']}: {node['html'][:200]}"
        for rule in found
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert not serious, "\n".join(serious)

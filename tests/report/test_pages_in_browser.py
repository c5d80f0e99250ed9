"""Pages that are files, in a real Chromium: on a phone and a desktop, light and dark."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from fraud.pipeline import cli
from fraud.pipeline.data_facts import Verdict
from tests.browser import DESKTOP, PHONE, assert_accessible, assert_fits, browser, opened
from tests.pipeline.recorded_runs import Records
from tests.report.test_run_report import HOSTILE, Root, evaluated
from tests.report.web.test_app import Site, summary

__all__ = ["browser"]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A report and a lineage, with hostile names in them."""
    folder = tmp_path_factory.mktemp("root")
    root = Root(folder)
    root.data(Verdict(True, notes=(HOSTILE,)))
    root.model(pushed=False)
    evaluated(root, "not_blessed")
    pages = {name: folder / f"{name}.html" for name in ("report", "lineage")}
    assert cli.main(["report", "r", "--root", str(folder), "--out", str(pages["report"])]) == 0
    from fraud.pipeline import lineage_graph
    from fraud.report import lineage_picture

    found = lineage_graph.find(root.records.plain, root.records.root.pushed, "r")
    pages["lineage"].write_text(lineage_picture.to_html(found), encoding="utf-8")
    return pages


@pytest.mark.parametrize("name", ["report", "lineage"])
@pytest.mark.parametrize(("window", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_it_fits_and_is_accessible(browser, pages, name, window, scheme):
    with opened(browser, pages[name].as_uri(), viewport=window, color_scheme=scheme) as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert_fits(page)
        assert_accessible(page)


def test_hostile_names_are_on_the_page_as_text(browser, pages):
    with opened(browser, pages["report"].as_uri()) as page:
        assert page.locator("script").count() == 0
        assert page.get_by_text("<script>alert(1)</script>").count() > 3


def test_the_page_can_be_read_by_keyboard(browser, pages):
    with opened(browser, pages["report"].as_uri(), viewport=PHONE) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Verdicts"
        regions = page.locator("[role=region]")
        assert regions.count() > 2
        assert all(region.get_attribute("tabindex") == "0" for region in regions.all())


@pytest.fixture(scope="module")
def address(tmp_path_factory) -> Iterator[str]:
    """The web page over a root with hostile names, served by a real server."""
    records = Records(tmp_path_factory.mktemp("site"))
    for number in (1, 2):
        train = (f"2026-01-0{number + 1}", f"2026-01-0{number + 4}")
        records.run(f"r{number}", f"2026-01-1{number}", train, f"{number}00")
        summary(records, f"r{number}", f"2026-01-1{number}")
    records.node("r3", "Trainer", {}, {}, state="FAILED", __execution_result__=HOSTILE)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(Site(records).app, log_level="warning"))
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.mark.parametrize(
    "path", ["/", "/runs/r1", "/runs/r3", "/lineage?of=200", "/compare?a=r1&b=r2"]
)
def test_pages_of_the_site_fit_and_are_accessible(browser, address, path):
    with opened(browser, address + path, viewport=PHONE, color_scheme="dark") as page:
        assert_fits(page)
        assert_accessible(page)


def test_lineage_is_followed_by_clicks(browser, address):
    with opened(browser, f"{address}/", viewport=DESKTOP) as page:
        page.get_by_role("link", name="Where it comes from").click()
        page.locator("svg.lineage a").first.click()
        assert "Lineage of artifact" in page.locator("h1").inner_text()
        page.get_by_role("link", name="Overview").click()
        page.get_by_label("Which models saw this day?").fill("2026-01-03")
        page.get_by_role("button", name="Show").click()
        assert "Lineage of 2026-01-03" in page.locator("h1").inner_text()

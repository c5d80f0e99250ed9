"""Pages that are files, in a real Chromium: on a phone and a desktop, light and dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud.pipeline import cli
from fraud.pipeline.data_facts import Verdict
from tests.browser import DESKTOP, PHONE, assert_accessible, assert_fits, browser, opened
from tests.report.test_run_report import HOSTILE, Root, evaluated

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

    found = lineage_graph.find(root.records.store, root.records.root.pushed, "r")
    pages["lineage"].write_text(lineage_picture.to_html(found), encoding="utf-8")
    return pages


@pytest.mark.parametrize("name", ["report", "lineage"])
@pytest.mark.parametrize("window", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_fits_and_is_accessible_in_light_and_dark(browser, pages, name, window):
    for scheme in ("light", "dark"):
        with opened(browser, pages[name].as_uri(), viewport=window, color_scheme=scheme) as page:
            for details in page.locator("details").all():
                details.evaluate("element => element.open = true")
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

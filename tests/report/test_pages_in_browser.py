"""Pages that are files, in a real Chromium: on a phone and a desktop, light and dark."""

from __future__ import annotations

import dataclasses
import json
import socket
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import uvicorn

from benchmarks.demo import page as demo_page
from fraud.codec import to_json
from fraud.models.evaluation import curves
from fraud.monitoring.alerts import Alert, Delivery, Raised
from fraud.monitoring.checks import Verdict as Check
from fraud.pipeline import cli, lineage
from fraud.pipeline.config import ModelCardText
from fraud.pipeline.data_facts import Verdict
from fraud.report import document, model_card
from tests.benchmarks.test_demo import document as demo_document
from tests.browser import DESKTOP, PHONE, assert_accessible, assert_fits, browser, opened
from tests.pipeline.recorded_runs import Records
from tests.report.test_model_card import FACTS, OVERALL
from tests.report.test_run_report import HOSTILE, Root, evaluated
from tests.report.web.test_app import Site, observed, summary

__all__ = ["browser"]

PAGES = ("report", "lineage", "day", "card", "demo")


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """A report, lineages, a model card and the demo's page, with hostile names in them."""
    folder = tmp_path_factory.mktemp("root")
    root = Root(folder)
    root.data(Verdict(True, notes=(HOSTILE,)))
    root.model(pushed=False)
    evaluated(root, "not_blessed")
    pages = {name: folder / f"{name}.html" for name in PAGES}
    assert cli.main(["report", "r", "--root", str(folder), "--out", str(pages["report"])]) == 0
    from fraud.pipeline import lineage_graph
    from fraud.report import lineage_picture

    root.records.run(HOSTILE[:100], "2026-01-12", ("2026-01-03", "2026-01-06"), "200")
    for name, asked in {"lineage": "r", "day": "2026-01-04"}.items():
        found = lineage_graph.find(root.records.plain, root.records.root.pushed, asked)
        pages[name].write_text(lineage_picture.to_html(found), encoding="utf-8")
    pages["card"].write_text(document.to_html(model_card.document(hostile_card())), "utf-8")
    pages["demo"].write_text(demo_page.render(demo_document()), encoding="utf-8")
    return pages


def hostile_card() -> model_card.Facts:
    """A model card whose every text is hostile."""
    words = dataclasses.asdict(ModelCardText(owners=(HOSTILE,), intended_use=HOSTILE))
    metrics = {"overall": OVERALL, "slices": {f"CHANNEL={HOSTILE}": OVERALL}}
    random = np.random.default_rng(0)
    labels = (random.random(500) < 0.1).astype(int)
    scores = np.clip(labels * 0.5 + random.normal(0.2, 0.2, 500), 0.0005, 1)
    return dataclasses.replace(
        FACTS,
        words=words,
        numeric=(HOSTILE,),
        categorical=(f"category {HOSTILE}",),
        metrics=metrics,
        notes=(HOSTILE,),
        curves={"challenger": curves.describe(labels, scores, scores > 0.5)},
        importance={HOSTILE: 0.5},
    )


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize(("window", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_it_fits_and_is_accessible(browser, pages, name, window, scheme):
    with opened(browser, pages[name].as_uri(), viewport=window, color_scheme=scheme) as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert_fits(page)
        assert_accessible(page)


@pytest.mark.parametrize(("name", "times"), [("report", 4), ("day", 1), ("card", 5)])
def test_hostile_names_are_on_the_page_as_text(browser, pages, name, times):
    with opened(browser, pages[name].as_uri()) as page:
        assert page.locator("script").count() == 0
        assert page.get_by_text("<script>alert(1)</script>").count() >= times


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
        data = {"windows": {"train": train}, "rows": {"train": 58415}}
        summary(records, f"r{number}", f"2026-01-1{number}", **data)
        long = {"words": f"{number} word" * 90, "name": f"{number}" + "x" * 400}
        records.node(f"r{number}", "Tuner", {}, {}, custom_config=json.dumps(long))
    records.node("r3", "Trainer", {}, {}, state="FAILED", __execution_result__=HOSTILE)
    restored = next(push for push in lineage.pushes(records.store) if push.version == "100")
    (records.root.pushed / "300").mkdir()
    facts = {"restored_version": "100", "replaced_version": "200", "user": HOSTILE}
    lineage.record_rollback(
        records.store, restored, records.root.pushed / "300", {**facts, "reason": HOSTILE}
    )
    observed(records, date(2026, 1, 20), Check.ACT, 0.5)
    observed(records, date(2026, 1, 21), Check.WARN, 0.7)
    alert = Raised(Alert("hold", HOSTILE, HOSTILE), 1e9, (Delivery("mail"),))
    records.root.alerts.mkdir()
    (records.root.alerts / "1.json").write_text(to_json(alert))
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
    "path",
    [
        "/",
        "/runs/r1",
        "/runs/r3",
        "/lineage?of=300",
        "/lineage?of=2026-01-04",
        "/compare?a=r1&b=r2",
    ],
)
@pytest.mark.parametrize(("window", "scheme"), [(PHONE, "dark"), (DESKTOP, "light")])
def test_pages_of_the_site_fit_and_are_accessible(browser, address, path, window, scheme):
    with opened(browser, address + path, viewport=window, color_scheme=scheme) as page:
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        assert_fits(page)
        assert_accessible(page)


@pytest.mark.parametrize(("window", "columns"), [(PHONE, 3), (DESKTOP, 3)])
def test_what_two_runs_measured_is_seen_without_scrolling(browser, address, window, columns):
    """Whatever their settings are."""
    with opened(browser, f"{address}/compare?a=r1&b=r2", viewport=window) as page:
        row = page.locator("tr", has_text="average precision").first
        name = row.locator("th").bounding_box()
        assert name and name["width"] > 80  # which a few letters a line would not need
        for cell in row.locator("td").all()[:columns]:
            box = cell.bounding_box()
            assert box and box["x"] + box["width"] <= window["width"]


def test_lineage_is_followed_by_clicks(browser, address):
    with opened(browser, f"{address}/", viewport=DESKTOP) as page:
        page.get_by_role("link", name="Where it comes from").click()
        page.locator("svg.lineage a").first.click()
        assert "Lineage of artifact" in page.locator("h1").inner_text()
        page.get_by_role("link", name="Overview").click()
        page.get_by_label("Which models saw this day?").fill("2026-01-03")
        page.get_by_role("button", name="Show").click()
        assert "Lineage of 2026-01-03" in page.locator("h1").inner_text()

"""What programs are told about what is live, and what people are: nothing that forges output."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.codec import to_json
from fraud.errors import BadInput
from fraud.files import digest, write_atomically
from fraud.models.specification import (
    EXAMPLE_VALUES_FILE,
    EXTRA,
    InputSpecification,
    example_values,
)
from fraud.pipeline import cli, lineage, production, releases
from fraud.pipeline.artifacts import RunSummary
from fraud.pipeline.commands import status
from fraud.pipeline.config import Config, Metadata
from fraud.pipeline.root import Root
from fraud.report import terminal
from fraud.text import is_plain
from tests.pipeline.release_graph import Bank

EVIL = "fine\nlive      version 9\x1b[2J\u202e\x9bK"


@pytest.fixture
def bank(tmp_path: Path) -> Bank:
    """A root with two versions."""
    bank = Bank(tmp_path)
    bank.run("1", "a", as_of="2026-03-14")
    bank.run("2", "b", as_of="2026-03-21")
    return bank


def test_programs_learn_what_is_live(bank, tmp_path):
    assert production.live(Metadata(), Root(tmp_path / "empty")) is None
    live = production.live(Metadata(), bank.root)
    assert live is not None
    version, _ = bank.live()
    assert (live.version, live.folder) == (version, bank.root.pushed / version)
    assert timedelta() <= datetime.now(timezone.utc) - live.since < timedelta(minutes=10)
    assert live.identity == lineage.identity_of(live.folder)
    assert live.digest == digest(live.folder)
    assert (live.run_id, live.as_of, live.restored) == ("2", "2026-03-21", None)
    with pytest.raises(BadInput, match=r"specification\.json: cannot be read"):
        live.specification()


def test_programs_roll_back(bank):
    first, second = bank.versions()
    before = production.live(Metadata(), bank.root)
    release, undone = production.roll_back(Metadata(), bank.root, "alerts doubled")
    assert (release.restored, release.replaced, undone) == (first, second, [])
    live = production.live(Metadata(), bank.root)
    assert (live.version, live.run_id, live.restored) == (release.version, "1", first)
    again, _ = production.roll_back(Metadata(), bank.root, "no, fine", to=second)
    live = production.live(Metadata(), bank.root)
    assert (live.version, live.identity) == (again.version, before.identity)


@pytest.mark.parametrize("reason", ["", " \n", EVIL])
def test_programs_need_a_reason_in_plain_text(bank, reason):
    before = bank.live()
    with pytest.raises(BadInput, match="reason: it"):
        production.roll_back(Metadata(), bank.root, reason)
    assert bank.live() == before


@pytest.fixture
def read_only(small_disk):
    """Makes the small disk read-only; files that are open for writing stay so."""

    def made() -> None:
        subprocess.run(["mount", "--bind", small_disk, small_disk], check=True)
        stack.callback(subprocess.run, ["umount", "--lazy", small_disk], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", small_disk], check=True)

    with ExitStack() as stack:
        yield made


def test_a_root_that_is_read_only_says_what_is_live_and_changes_nothing(
    small_disk, read_only, capsys
):
    bank = Bank(small_disk)
    bank.run("1", "a")
    bank.run("2", "b")
    version, _ = bank.live()
    read_only()
    assert production.live(Metadata(), bank.root).version == version
    with pytest.raises(BadInput, match="cannot be used as root: Read-only file system"):
        production.roll_back(Metadata(), bank.root, "bad")
    assert cli.main(["status", "--root", str(small_disk)]) == 0
    assert f"live      version {version}" in capsys.readouterr().out
    assert cli.main(["explain-decision", version, "--root", str(small_disk)]) == 0
    for command in ("verify", "prune", "rollback --reason x"):
        assert cli.main([*command.split(), "--root", str(small_disk)]) == 2
        assert "cannot be used as root: Read-only file system" in capsys.readouterr().err


def test_programs_are_told_of_what_was_interrupted_before(bank):
    last = releases.journal(bank.root)[-1]
    shutil.copytree(bank.root.pushed / last.version, bank.root.pushed / "1999999999")
    unfinished = {"version": "1999999999", "state": "prepared"}
    releases._write(bank.root, replace(last, **unfinished))
    assert production.live(Metadata(), bank.root).version == last.version
    _, undone = production.roll_back(Metadata(), bank.root, "bad")
    (line,) = undone
    assert "version 1999999999: its push was interrupted" in line


def test_a_champion_that_cannot_be_judged_is_said_to_be_one(bank, monkeypatch):
    document = status.status(Config(), bank.root)
    problem = document["live"]["judging_problem"]
    assert "specification.json: cannot be read" in problem
    said = status.render(document)
    assert f"warning   no challenger can be compared with the live model: {problem}" in said
    assert "fraud-pipeline run --accept-unjudged-champion" in said

    monkeypatch.setattr(InputSpecification, "read", lambda folder: None)
    document = status.status(Config(), bank.root)
    assert document["live"]["judging_problem"] is None
    assert "warning" not in status.render(document)

    # The code of a feature has changed since the model was exported.
    champion = next(lineage.champions(bank.store))
    (model,) = bank.store.get_artifacts_by_id([champion.model_id])
    monkeypatch.setattr(InputSpecification, "read", lambda folder: Config().inputs)
    values = lineage.model_folder(model) / EXTRA / EXAMPLE_VALUES_FILE
    values.parent.mkdir()
    values.write_text(to_json(example_values(Config().inputs) | {"night": []}))
    problem = status.status(Config(), bank.root)["live"]["judging_problem"]
    assert problem == "the code of its features has changed, which are now other values: night"
    values.unlink()

    # The latest run pushed nothing, and its data lacked what the champion reads.
    bank.run("3", "c", as_of="2026-03-22", blessed=0)
    (examples,) = lineage.artifacts_of_run(bank.store, "3", "Examples")
    examples.custom_properties["champion_problem"].string_value = "column MCC is missing"
    bank.store.put_artifacts([examples])
    document = status.status(Config(), bank.root)
    assert document["live"]["judging_problem"] == "column MCC is missing"

    model.state = mlmd.Artifact.DELETED
    bank.store.put_artifacts([model])
    problem = status.status(Config(), bank.root)["live"]["judging_problem"]
    assert problem == f"its model, artifact {model.id}, is recorded as deleted"


def test_a_problem_of_another_champion_is_none_of_the_live_ones(bank, monkeypatch):
    monkeypatch.setattr(InputSpecification, "read", lambda folder: None)

    def problem(of_run: str) -> str | None:
        """What `status` says once a run could not judge the champion."""
        (examples,) = lineage.artifacts_of_run(bank.store, of_run, "Examples")
        examples.custom_properties["champion_problem"].string_value = "column MCC is missing"
        bank.store.put_artifacts([examples])
        return status.status(Config(), bank.root)["live"]["judging_problem"]

    # It was of the champion before, and what was not compared was pushed on request.
    assert problem("2") is None
    bank.run("2-again", "b", as_of="2026-03-21")
    assert status.status(Config(), bank.root)["live"]["judging_problem"] is None
    bank.run("3", "c", as_of="2026-03-22", blessed=0)
    assert problem("3") == "column MCC is missing"
    production.roll_back(Metadata(), bank.root, "the model before can be judged")
    assert status.status(Config(), bank.root)["live"]["judging_problem"] is None


def texts(value: Any) -> Iterator[str]:
    """All texts in a JSON document."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from texts(item)


def is_one_of_ours(line: str) -> bool:
    return is_plain(line) and not line.startswith("live      version 9")


@pytest.mark.parametrize("command", ["status", "verify", "explain-decision"])
def test_nothing_that_was_recorded_can_forge_output(bank, command, capsys):
    with bank.root.pushing():
        release = releases.roll_back(bank.root, bank.store, None, EVIL)
    champion = next(lineage.champions(bank.store))
    for name in ("user", "reason"):
        champion.pushed.custom_properties[name].string_value = EVIL
    bank.store.put_artifacts([champion.pushed])
    (bank.root.pushed / EVIL).mkdir()
    write_atomically(bank.root.run("2") / "summary.json", json.dumps({"outcome": EVIL}))
    own = [command, "--root", str(bank.root.path)]
    own += [release.version] if command == "explain-decision" else []
    capsys.readouterr()
    cli.main(own)
    printed = capsys.readouterr().out
    assert "\\x1b[2J" in printed
    assert all(map(is_one_of_ours, printed.splitlines())), printed
    cli.main([*own, "--json"])
    document = capsys.readouterr().out
    assert document.isascii()
    # Programs get what was recorded.
    assert any(EVIL in text for text in texts(json.loads(document)))


def test_errors_show_what_was_recorded_as_text(bank, capsys):
    (bank.root.releases / "3.json").write_text(json.dumps({"kind": EVIL}))
    assert cli.main(["verify", "--root", str(bank.root.path)]) == 1
    error = capsys.readouterr().err
    assert all(map(is_plain, error.splitlines()))
    assert cli.main(["explain-decision", EVIL, "--root", str(bank.root.path)]) == 2
    assert all(map(is_plain, capsys.readouterr().err.splitlines()))


def test_a_summary_shows_reasons_as_text(capsys):
    from argparse import Namespace

    from fraud.pipeline.commands import common

    evil = RunSummary(run_id=EVIL, outcome="not_pushed", root="r", reasons=(EVIL,), notes=(EVIL,))
    common.show(Namespace(json=False), evil, terminal.render)
    assert all(map(is_one_of_ours, capsys.readouterr().out.splitlines()))

"""Lineage, back from a version and forward from a day, on a real ML Metadata."""

from __future__ import annotations

import json
import sys

import pytest

from fraud.errors import BadInput
from fraud.pipeline import cli, lineage, lineage_graph
from fraud.pipeline.lineage_graph import FEATURES, Origin, Reach
from fraud.pipeline.records import StoreRecords
from tests.pipeline.recorded_runs import Counting, Records

HOSTILE = "<script>alert(1)</script> \"'& " + "‮" + "x" * 200


@pytest.fixture
def records(tmp_path) -> Records:
    """Two runs that pushed 100 and 200, the second compared with the first."""
    records = Records(tmp_path)
    first = records.run("r1", "2026-01-10", ("2026-01-02", "2026-01-05"), "100")
    records.run("r2", "2026-01-11", ("2026-01-03", "2026-01-06"), "200", champion=first["model"])
    return records


def find(records: Records, asked: str | None = None) -> Origin | Reach:
    """The answer, which is the same from the SQLite file and from ML Metadata's client."""
    found = lineage_graph.find(records.plain, records.root.pushed, asked)
    assert found == lineage_graph.find(StoreRecords(records.store), records.root.pushed, asked)
    return found


def rolled_back(records: Records, reason: str = "too many alerts") -> str:
    restored = next(p for p in lineage.pushes(records.store) if p.version == "100")
    folder = records.root.pushed / "300"
    folder.mkdir()
    facts = {"restored_version": "100", "replaced_version": "200", "user": "x@y", "reason": reason}
    lineage.record_rollback(records.store, restored, folder, facts)
    return "300"


def test_a_version_leads_back_to_its_data_code_and_settings(records):
    found = find(records, "200")
    assert isinstance(found, Origin) and found.release
    assert (found.release.is_live, found.release.until) == (True, None)
    (data,) = found.data
    assert data.path == "/data/transactions"
    assert data.files[0].fingerprint.startswith("content")
    assert data.windows["train"] == ("2026-01-03", "2026-01-06")
    assert data.windows[FEATURES] == ("2026-01-02", "2026-01-11")
    by_node = {e.node: e for e in found.back.executions}
    assert by_node["Trainer"].settings == {"custom_config": {"epochs": 3}}
    assert by_node["Trainer"].code.packages == {"tfx": "1.16.0"}
    assert by_node["Pusher"].run_id == "r2"


def test_a_champion_is_named_but_not_what_it_was_made_from(records):
    found = find(records, "200")
    assert {e.run_id for e in found.back.executions} == {"r2"}
    evaluator = next(e for e in found.back.executions if e.node == "Evaluator")
    (champion,) = evaluator.inputs["baseline_model"]
    assert found.back.by_id[champion].properties["as_of"] == "2026-01-10"


def test_without_a_name_it_is_about_the_live_version(records):
    assert find(records).release.version == "200"
    rolled_back(records)
    found = find(records)
    assert (found.release.version, found.release.restored) == ("300", "100")
    assert {e.node for e in found.back.executions} >= {"rollback", "Pusher", "Trainer"}
    assert {e.run_id for e in found.back.executions} == {"", "r1"}


def test_rollbacks_are_told_by_the_versions_that_they_restore_and_take_back(records):
    rolled_back(records)
    (restored,), (taken_back,) = find(records, "100").restored, find(records, "200").taken_back
    assert restored.version == taken_back.version == "300"
    assert find(records, "100").taken_back == find(records, "200").restored == ()
    assert find(records, "200").release.replaced_by == "300"
    records.run("r3", "2026-01-12", ("2026-01-04", "2026-01-07"), "400")
    assert find(records, "400").taken_back == ()


@pytest.mark.parametrize(
    ("day", "roles"),
    [
        ("2026-01-01", {"r1": FEATURES}),
        ("2026-01-02", {"r1": "train", "r2": FEATURES}),
        ("2026-01-05", {"r1": "train", "r2": "train"}),
        ("2026-01-08", {"r1": FEATURES, "r2": FEATURES}),
        ("2026-01-10", {"r1": "recent", "r2": FEATURES}),
        ("2026-01-11", {"r2": "recent"}),
    ],
)
def test_a_day_leads_to_the_runs_that_read_it_and_how(records, day, roles):
    found = find(records, day)
    assert isinstance(found, Reach)
    assert {t.runs[0]: t.role for t in found.touched} == roles


def test_a_day_leads_to_models_and_every_version_of_them(records):
    rolled_back(records)
    first, second = find(records, "2026-01-03").touched
    assert [r.version for r in first.releases] == ["100", "300"]
    assert [r.version for r in second.releases] == ["200"]
    assert len(first.models) == 1 and first.models != second.models


def test_a_refused_day_led_to_no_model(records):
    records.run("r3", "2026-02-10", ("2026-02-01", "2026-02-05"), passed=False)
    (touched,) = find(records, "2026-02-02").touched
    assert (touched.gate, touched.models, touched.releases) == ("refused", (), ())


def test_a_day_that_was_refused_and_passed_later_says_so(records):
    """The gate stopped a run, its settings or the schema were mended, and the run was repeated."""
    made = records.run("r3", "2026-02-10", ("2026-02-01", "2026-02-05"), passed=False)
    examples = {"examples": made["examples"]}
    records.node("r4", "TransactionExampleGen", {}, examples, state="CACHED")
    verdict = records.artifact("fraud.DataVerdict", passed=1)
    records.node("r4", "DataGate", examples, {"verdict": verdict})
    model = records.artifact("Model", as_of="2026-02-10")
    records.node("r4", "Trainer", {**examples, "_DataGate.verdict": verdict}, {"model": model})
    (touched,) = find(records, "2026-02-02").touched
    assert (touched.gate, touched.models) == ("refused, then passed", (model.id,))


def test_runs_that_took_the_examples_from_the_cache_are_named(records):
    (examples,) = [a for a in records.store.get_artifacts_by_type("Examples") if a.id == 1]
    records.node("again", "TransactionExampleGen", {}, {"examples": examples}, state="CACHED")
    (touched,) = find(records, "2026-01-01").touched
    assert touched.runs == ("r1", "again")


def test_contents_that_a_day_has_had_are_told_apart(records, capsys):
    records.run("r3", "2026-01-11", ("2026-01-03", "2026-01-06"), "300", content="repaired")
    contents = {t.runs[0]: t.fingerprints for t in find(records, "2026-01-03").touched}
    assert contents["r2"] != contents["r3"]
    assert cli.main(["lineage", "2026-01-03", "--root", str(records.root.path)]) == 0
    assert "content B" in capsys.readouterr().out


def test_an_artifact_leads_both_ways_by_id_and_by_folder(records):
    found = find(records, "1")
    assert {a.type for a in found.forward.artifacts} >= {"Model", "PushedModel"}
    assert [a.id for a in found.back.artifacts] == [1]
    artifact = records.artifact("Schema", uri="/bank/schema/7")
    records.node("r1", "SchemaGen", {}, {"schema": artifact})
    assert find(records, "/bank/schema/7/").starts == (artifact.id,)


def test_an_artifact_is_named_by_a_relative_folder(records, monkeypatch):
    folder = records.root.artifacts / "SchemaGen" / "schema" / "7"
    artifact = records.artifact("Schema", uri=str(folder))
    records.node("r1", "SchemaGen", {}, {"schema": artifact})
    monkeypatch.chdir(records.root.path)
    assert find(records, "artifacts/SchemaGen/schema/7/").starts == (artifact.id,)


def test_a_run_leads_back_from_what_it_ended_with(records):
    found = find(records, "r1")
    assert [found.back.by_id[i].type for i in found.starts] == ["PushedModel"]


def test_what_a_later_run_read_from_the_cache_does_not_hide_the_end_of_a_run(records):
    """A run failed, and the next one went on from what it had made."""
    made = records.run("r3", "2026-02-10", ("2026-02-01", "2026-02-05"), passed=False)
    graph = records.artifact("TransformGraph")
    records.node("r3", "Transform", {"_DataGate.verdict": made["verdict"]}, {"graph": graph})
    records.node("r3", "Trainer", {"graph": graph}, {}, state="FAILED")
    records.node("r4", "Transform", {}, {"graph": graph}, state="CACHED")
    before = find(records, "r3").starts
    records.node("r4", "Trainer", {"graph": graph}, {"model": records.artifact("Model")})
    assert find(records, "r3").starts == before == (graph.id,)


@pytest.mark.parametrize("asked", ["999", "no-such-run", "/no/folder", "2026-13-01", "2020-01-01"])
def test_what_is_not_there_is_refused(records, asked, capsys):
    assert cli.main(["lineage", asked, "--root", str(records.root.path)]) == 2
    message = capsys.readouterr().err
    assert asked in message and "Traceback" not in message


def test_an_empty_root_is_refused(tmp_path, capsys):
    assert cli.main(["lineage", "--root", str(tmp_path / "none")]) == 2
    assert "nothing has run here" in capsys.readouterr().err
    with pytest.raises(BadInput, match="nothing is live"):
        find(Records(tmp_path / "empty"))


def test_the_command_prints_every_format(records, capsys):
    root = ["--root", str(records.root.path)]
    rolled_back(records, HOSTILE)

    def printed(*arguments: str) -> str:
        assert cli.main(["lineage", *arguments, *root]) == 0
        return capsys.readouterr().out

    text = printed("200")
    assert "Version 200" in text and "PushedModel" in text and "2026-01-03 … 2026-01-06" in text
    assert "(see above)" in text
    assert json.loads(printed("200", "--json"))["release"]["version"] == "200"
    dot = printed("200", "--format", "dot")
    assert dot.startswith("digraph") and "-> e" in dot and "style=dashed" in dot
    for asked in ("300", "2026-01-03"):
        page = printed(asked, "--format", "html")
        assert page.startswith("<!doctype html>")
        assert "<script" not in page
    assert "&lt;script&gt;" in printed("300", "--format", "html")


def test_properties_that_are_structures_become_plain_values(records, capsys):
    """TFX writes some properties as JSON in a protocol buffer."""
    anomalies = records.artifact("ExampleAnomalies")
    anomalies.custom_properties["blessed"].struct_value.update({"recent_train": 1})
    records.node("r2", "DistributionValidator", {}, {"anomalies": anomalies})
    command = ["lineage", str(anomalies.id), "--json", "--root", str(records.root.path)]
    assert cli.main(command) == 0
    (found,) = json.loads(capsys.readouterr().out)["back"]["artifacts"]
    assert found["properties"] == {"blessed": {"recent_train": 1}}


@pytest.mark.parametrize(
    "kind",
    [
        "plain",
        pytest.param(
            "store",
            marks=pytest.mark.skipif(
                sys.version_info >= (3, 11), reason="ML Metadata 1.21 has no filters"
            ),
        ),
    ],
)
def test_questions_do_not_multiply_with_the_runs(records, kind):
    """Every answer takes a fixed number of questions, whatever the number of runs."""

    def questions(asked: str) -> int:
        counting = Counting(getattr(records, kind))
        counted = counting if kind == "plain" else StoreRecords(counting)
        lineage_graph.find(counted, records.root.pushed, asked)
        return counting.questions

    before = questions("200"), questions("2026-01-03")
    for number in range(3, 9):
        records.run(f"r{number}", "2026-01-11", ("2026-01-03", "2026-01-06"), f"{number}00")
    assert (questions("200"), questions("2026-01-03")) == before

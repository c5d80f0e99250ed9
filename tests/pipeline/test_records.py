"""The records of ML Metadata, read from its file or by its client."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput
from fraud.pipeline import cli, lineage, records
from fraud.pipeline.config import Metadata
from fraud.pipeline.records import SqliteRecords, StoreRecords, find_records
from fraud.pipeline.root import Root
from tests.pipeline.recorded_runs import Records

INTERRUPTED = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size = 1")
database.execute("BEGIN IMMEDIATE")
database.execute("UPDATE Artifact SET uri = 'never committed'")
for _ in range(200):
    database.execute("INSERT INTO Artifact (type_id, uri) VALUES (1, ?)", ["x" * 4000])
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def recorded(tmp_path) -> Records:
    recorded = Records(tmp_path)
    recorded.run("r1", "2026-01-10", ("2026-01-02", "2026-01-05"), "100")
    return recorded


def test_the_numbers_of_the_tables_are_those_of_ml_metadata():
    states = mlmd.Execution.State
    for number, name in enumerate(records.EXECUTION_STATES):
        assert states.Name(number) == name
    assert set(records.INPUT_EVENTS) == set(lineage.INPUT_EVENTS)
    assert set(records.OUTPUT_EVENTS) == set(lineage.OUTPUT_EVENTS)
    assert set(records.DELETED_STATES) == {
        mlmd.Artifact.MARKED_FOR_DELETION,
        mlmd.Artifact.DELETED,
    }


def test_the_file_says_what_the_client_says(recorded):
    odd = recorded.artifact("Odd", "/folder", number=3, text="ä\n", empty="")
    odd.custom_properties["real"].double_value = 0.5
    odd.custom_properties["truth"].bool_value = True
    odd.custom_properties["structure"].struct_value.update({"a": [1, {"b": None}]})
    odd.custom_properties["wrapped"].struct_value.update({"__value__": ["x"]})
    odd.state = mlmd.Artifact.MARKED_FOR_DELETION
    failure = {"__execution_result__": "out of <memory>", "__hidden": "x"}
    recorded.node("r1", "Odd", {}, {"odd": odd}, state="FAILED", **failure)
    plain, client = recorded.plain, StoreRecords(recorded.store)
    everything = range(-1, 40)
    assert plain.artifacts(everything) == client.artifacts(everything) != []
    assert plain.executions(everything) == client.executions(everything) != []
    for question in ("links_of_artifacts", "links_of_executions"):
        answers = [sorted(getattr(of, question)(everything), key=str) for of in (plain, client)]
        assert answers[0] == answers[1] != []
    known = [execution.id for execution in client.executions(everything)]
    assert plain.places(known) == client.places(known)
    assert plain.executions_of_run("r1") == client.executions_of_run("r1") == known
    assert plain.executions_of_run("r2") is client.executions_of_run("r2") is None
    assert plain.artifacts_of_type("None") == client.artifacts_of_type("None") == []
    (found,) = plain.artifacts_at("/folder")
    assert [found] == client.artifacts_at("/folder")
    assert found.properties == {
        "number": 3,
        "text": "ä\n",
        "empty": "",
        "real": 0.5,
        "truth": True,
        "structure": {"a": [1, {"b": None}]},
        "wrapped": ["x"],
    }
    assert not found.is_kept
    assert plain.executions(known)[-1].error == "out of <memory>"
    assert "__hidden" not in plain.executions(known)[-1].properties


def test_a_property_goes_before_a_custom_one_of_its_name(recorded):
    kind = mlmd.ArtifactType(name="Twice", properties={"name": mlmd.STRING})
    twice = mlmd.Artifact(type_id=recorded.store.put_artifact_type(kind), uri="/twice")
    twice.properties["name"].string_value = "TFX's"
    twice.custom_properties["name"].string_value = "ours"
    recorded.store.put_artifacts([twice])
    for of in (recorded.plain, StoreRecords(recorded.store)):
        (found,) = of.artifacts_at("/twice")
        assert found.properties == {"name": "TFX's"}


def test_links_that_a_full_disk_left_behind_are_left_out(recorded):
    before = recorded.plain.links_of_executions(range(100))
    with sqlite3.connect(recorded.root.metadata) as database:
        database.execute("INSERT INTO Event (artifact_id, execution_id, type) VALUES (99, 1, 4)")
        database.execute("INSERT INTO Event (artifact_id, execution_id, type) VALUES (1, 99, 4)")
    assert recorded.plain.links_of_executions(range(100)) == before


def test_what_a_killed_process_left_half_written_is_taken_back(recorded):
    path = recorded.root.metadata
    before = recorded.plain.artifacts(range(100))
    killed = subprocess.run([sys.executable, "-c", INTERRUPTED, str(path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert os.path.getsize(f"{path}-journal") > 0
    assert SqliteRecords(path).artifacts(range(1000)) == before


def test_nothing_is_written(recorded):
    with pytest.raises(BadInput, match="readonly"):
        recorded.plain._rows("DELETE FROM Artifact")


def test_tables_of_another_version_are_left_to_the_client(recorded, monkeypatch):
    assert isinstance(find_records(Metadata(), recorded.root), SqliteRecords)
    monkeypatch.setattr(records, "SCHEMA_VERSION", 11)
    assert isinstance(find_records(Metadata(), recorded.root), StoreRecords)


def test_a_file_without_tables_is_left_to_the_client(tmp_path):
    root = Root(tmp_path)
    root.metadata.touch()
    assert isinstance(find_records(Metadata(), root), StoreRecords)


def test_what_is_no_database_is_named(tmp_path, capsys):
    path = tmp_path / "metadata.sqlite"
    path.write_text("no database" * 100)
    assert cli.main(["lineage", "--root", str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert str(path) in message and "Traceback" not in message


def test_nothing_heavy_is_imported_for_lineage(recorded):
    """What makes the command slow would come back unnoticed."""
    program = (
        "import sys; from fraud.pipeline import cli; "
        f"code = cli.main(['lineage', '100', '--root', {str(recorded.root.path)!r}]); "
        "heavy = {'ml_metadata', 'numpy', 'google.protobuf', 'jinja2', 'grpc'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

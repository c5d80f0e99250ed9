"""What ML Metadata's SQLite file contains after its disk was full in the middle of a write."""

from __future__ import annotations

import errno
import shutil
import sqlite3

import pytest
from ml_metadata.errors import InternalError
from ml_metadata.metadata_store import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import FraudPipelineError
from fraud.pipeline import cli, lineage, releases
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root
from fraud.pipeline.runners import launch, local

CONTEXTS = 3


def put(store: MetadataStore, number: int) -> None:
    """Records an execution with three outputs in three contexts, as TFX does."""
    kind = store.put_execution_type(mlmd.ExecutionType(name="Train"))
    model = store.put_artifact_type(mlmd.ArtifactType(name="Model"))
    outputs = []
    for index in range(3):
        event = mlmd.Event(type=mlmd.Event.OUTPUT)
        event.path.steps.add().key = "model"
        event.path.steps.add().index = index
        outputs.append((mlmd.Artifact(type_id=model, uri=f"{number}/{index}"), event))
    execution = mlmd.Execution(type_id=kind, last_known_state=mlmd.Execution.COMPLETE)
    execution.custom_properties["number"].int_value = number
    store.put_execution(execution, outputs, store.get_contexts())


def records(store: MetadataStore) -> list[tuple[int, int, list[str]]]:
    """Of each execution: its number, how many contexts it has, and the outputs by its events."""
    found = []
    for execution in store.get_executions():
        events = store.get_events_by_execution_ids([execution.id])
        artifacts = store.get_artifacts_by_id([e.artifact_id for e in events])
        assert all(len(event.path.steps) == 2 for event in events)
        number = execution.custom_properties["number"].int_value
        contexts = store.get_contexts_by_execution(execution.id)
        found.append((number, len(contexts), sorted(a.uri for a in artifacts)))
    return found


def expected(number: int) -> tuple[int, int, list[str]]:
    return number, CONTEXTS, [f"{number}/{index}" for index in range(3)]


def test_a_record_that_a_full_disk_broke_off_leaves_nothing_for_later_ones(small_disk):
    """SQLite takes the transaction back; ML Metadata goes on, and writes links to nothing."""
    root, filler = Root(small_disk), small_disk / "filler"
    store = lineage.open_store(lineage.connection_config(Metadata(), root))
    kind = store.put_context_type(mlmd.ContextType(name="run"))
    store.put_contexts([mlmd.Context(type_id=kind, name=str(i)) for i in range(CONTEXTS)])
    put(store, 0)
    done, broken = [expected(0)], 0
    for pages in range(40):
        left = shutil.disk_usage(small_disk).free
        filler.write_bytes(b"x" * (left - 4096 * pages))
        try:
            put(store, pages + 1)
            done.append(expected(pages + 1))
        except Exception as error:
            assert lineage.cause(error).endswith("the disk is full")
        filler.unlink()
        with sqlite3.connect(root.metadata) as database:
            broken += database.execute(
                "SELECT count(*) FROM Event WHERE execution_id NOT IN (SELECT id FROM Execution)"
            ).fetchone()[0]
        store = lineage.find_store(Metadata(), root)
        put(store, -pages)
        done.append(expected(-pages))
        assert records(store) == done
    assert broken, "the disk was never full at the moment that matters: nothing was tested"
    assert len(done) > 45


def test_without_space_for_ml_metadata_a_command_fails_and_says_so(small_disk):
    root, filler = Root(small_disk), small_disk / "filler"
    filler.write_bytes(b"x" * shutil.disk_usage(small_disk).free)
    with pytest.raises(FraudPipelineError, match="cannot be opened: the disk is full") as raised:
        lineage.open_store(lineage.connection_config(Metadata(), root))
    assert raised.value.exit_code == 1
    filler.unlink()
    assert lineage.find_store(Metadata(), root).get_artifacts() == []


@pytest.mark.parametrize(
    "text",
    [
        "Error when executing query: database or disk is full query: INSERT …",
        "Error when executing query: cannot commit - no transaction is active query: COMMIT;",
    ],
)
def test_a_node_whose_record_found_no_space_fails_with_that_reason(text):
    failure = launch.failure("Trainer", InternalError(text), "run.log")
    assert str(failure).startswith(
        "Trainer failed: ML Metadata did not record it: the disk is full\n"
    )


def test_a_model_that_cannot_be_copied_is_named_once(small_disk, tmp_path_factory):
    model = tmp_path_factory.mktemp("model") / "saved_model.pb"
    model.write_bytes(b"x" * (17 << 20))
    release = releases.Release(kind="push", model_id=1)
    with pytest.raises(FraudPipelineError) as raised:
        releases.publish(Root(small_disk), model.parent, release)
    assert str(raised.value).endswith(": [Errno 28] No space left on device")
    assert str(raised.value).count(str(model)) == 1
    assert list(small_disk.rglob("*")) == [small_disk / "pushed"]


@pytest.fixture
def run(small_disk, repository, capsys):
    """Calls `run` on the small disk: its exit code, and what it says last."""

    def call() -> tuple[int, str]:
        transactions = str(repository / "data" / "sample" / "transactions")
        code = cli.main(["run", "--data", transactions, "--root", str(small_disk)])
        return code, capsys.readouterr().err.splitlines()[-1]

    return call


def test_on_a_disk_that_is_full_already_a_run_does_not_start(small_disk, run):
    (small_disk / "filler").write_bytes(b"x" * (16 << 20))
    code, message = run()
    assert code == 1
    assert message.startswith(f"fraud-pipeline: {small_disk}: the disk is full")


@pytest.mark.parametrize("path", [None, "/root/runs/1/summary.json"])
def test_whatever_finds_no_space_says_so(run, monkeypatch, path):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", path)

    monkeypatch.setattr(local, "run", full)
    place = f"{path}: " if path else ""
    expected = f"fraud-pipeline: {place}No space left on device; free some space and try again"
    assert run() == (1, expected)

"""What ML Metadata's SQLite file contains after its disk was full in the middle of a write."""

from __future__ import annotations

import shutil
import sqlite3

from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.pipeline import lineage
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root

CONTEXTS = 3


def put(store, number: int) -> None:
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


def records(store) -> list[tuple[int, int, list[str]]]:
    """Of each execution: its number, how many contexts it has, and the outputs by its events."""
    found = []
    for execution in store.get_executions():
        events = store.get_events_by_execution_ids([execution.id])
        (artifacts,) = [store.get_artifacts_by_id([e.artifact_id for e in events])]
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
    store = lineage.find_store(Metadata(), root) or lineage.open_store(
        lineage.connection_config(Metadata(), root)
    )
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

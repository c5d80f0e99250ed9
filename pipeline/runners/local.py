"""Runs the graph on this machine, one node after another, while holding the root's lock."""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from collections.abc import Callable
from datetime import date, datetime
from functools import partial

import pyarrow as pa

from fraud import progress, tracing
from fraud.pipeline import lineage, startup, summary, verification
from fraud.pipeline.artifacts import RunSummary
from fraud.pipeline.config import Config
from fraud.pipeline.console import Console
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.root import Root


def run(
    config: Config,
    root: Root,
    data: str,
    as_of: date | None,
    console: Console,
    detail: Callable[[NodeRecord], str],
) -> RunSummary:
    """Runs the graph once.

    Args:
      config: everything the run depends on.
      root: where everything is written.
      data: day folders or a file, already checked.
      as_of: the as-of day, already checked; None if the data has no timestamp.
      console: shows progress.
      detail: describes what a node did, for its line of progress.

    Returns:
      The summary, which is also in the run's folder.

    Raises:
      BadInput: another run holds this root, or the data is unusable.
      FraudPipelineError: the disk is full; or a node failed, and the message names it and the log.
    """
    with root.locked():
        root.require_space()
        run_id = _new_run_id(root)
        console.say(f"run {run_id}{f' as of {as_of}' if as_of else ''} in {root.path}")
        facts = {"fraud.run": run_id, "fraud.as_of": str(as_of or "")}
        with console.logging_to(root.log(run_id)), tracing.span("run", facts):
            seconds = _run_nodes(config, root, data, as_of, run_id, console, detail)
            store = lineage.open_store(lineage.connection_config(config.metadata, root))
            wanted = config.schema_location if config.curated_schema is None else None
            return summary.write(store, run_id, root, seconds, wanted)


def load_tfx() -> None:
    """Imports everything needed to run nodes, which takes seconds."""
    startup.import_tfx()
    from fraud.pipeline.runners import compiled, launch

    del compiled, launch


def _run_nodes(
    config: Config,
    root: Root,
    data: str,
    as_of: date | None,
    run_id: str,
    console: Console,
    detail: Callable[[NodeRecord], str],
) -> dict[str, float]:
    started = time.monotonic()
    with console.waiting("loading TFX"):
        load_tfx()
    from fraud.pipeline.runners import compiled, launch

    seconds = {"loading TFX": time.monotonic() - started}
    console.say(_line("✓", "loading TFX", seconds["loading TFX"]))

    ir = compiled.read(compiled.write(config, root, data, root.path / "graph"))
    graph = compiled.for_run(ir, run_id, as_of)
    store = lineage.open_store(lineage.connection_config(config.metadata, root))
    for done in verification.remove_leftovers(root, store):
        console.say(f"  {done}")
    for node in graph.nodes:
        node_id = node.pipeline_node.node_info.id
        started = time.monotonic()
        try:
            with console.waiting(node_id), progress.reported_to(partial(_say_progress, console)):
                record = launch.run_node(graph, node_id)
        except Exception as error:
            logging.exception("node %s failed", node_id)
            console.say(_line("✗", node_id, time.monotonic() - started))
            raise launch.failure(node_id, error, root.log(run_id)) from None
        seconds[node_id] = time.monotonic() - started
        _release_memory()
        mark = "=" if record.state == "CACHED" else "✓"
        console.say(_line(mark, node_id, seconds[node_id], detail(record)))
        if summary.stopped_by(record):
            break
    return seconds


def _say_progress(console: Console, line: str) -> None:
    console.say(f"    {line}")
    print(line, flush=True)  # for the log


def _release_memory() -> None:
    """Frees what a node left in memory, so that it does not add to the next node's peak."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps freed memory
    if trim is not None:
        trim(0)


def _new_run_id(root: Root) -> str:
    run_id = datetime.now().strftime("%Y%m%d-%H%M%S")
    number, unique = 1, run_id
    while root.run(unique).exists():
        number += 1
        unique = f"{run_id}-{number}"
    return unique


def _line(mark: str, name: str, seconds: float, detail: str = "") -> str:
    shown = "cached" if mark == "=" else f"{seconds:.1f} s"
    return f"  {mark} {name:<22} {shown:>8}  {detail}".rstrip()

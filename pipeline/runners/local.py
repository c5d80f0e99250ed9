"""A run on this machine: node after node, with progress, under the root's lock."""

from __future__ import annotations

import ctypes
import gc
import logging
import time
from collections.abc import Callable
from datetime import date, datetime

import pyarrow as pa

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import lineage, startup, summary
from fraud.pipeline.artifacts import RunSummary
from fraud.pipeline.config import Config
from fraud.pipeline.console import Console
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.root import Root

LOG = "run.log"


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
      root: where it leaves everything.
      data: checked day folders or file.
      as_of: the checked as-of day; None where the data has no timestamp.
      console: shows progress.
      detail: describes what a node did, for its line of progress.

    Returns:
      The summary, which is also in the run's folder.

    Raises:
      BadInput: another run is at work in this root, or the data is unusable.
      FraudPipelineError: a node failed; the message names it and the log.
    """
    with root.locked():
        run_id = _new_run_id(root)
        log = root.run(run_id) / LOG
        console.say(f"run {run_id}{f' as of {as_of}' if as_of else ''} in {root.path}")
        with console.logging_to(log):
            seconds = _run_nodes(config, root, data, as_of, run_id, console, detail)
            store = lineage.open_store(lineage.connection_config(config.metadata, root))
            return summary.write(store, run_id, root, seconds)


def load_tfx() -> None:
    """Imports what running nodes takes, which is a matter of seconds."""
    startup.import_tfx()
    from fraud.pipeline.runners import compiled
    from fraud.pipeline.runners import launch as node

    del compiled, node


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
    from fraud.pipeline.runners import compiled
    from fraud.pipeline.runners import launch as node

    seconds = {"loading TFX": time.monotonic() - started}
    console.say(_line("✓", "loading TFX", seconds["loading TFX"]))

    ir = compiled.read(compiled.write(config, root, data, root.path / "graph"))
    graph = compiled.for_run(ir, run_id, as_of)
    store = lineage.open_store(lineage.connection_config(config.metadata, root))
    lineage.cancel_dead_executions(store)
    for node_id in compiled.node_ids(graph):
        started = time.monotonic()
        try:
            with console.waiting(node_id):
                record = node.run_node(graph, node_id)
        except Exception as error:
            logging.exception("node %s failed", node_id)
            console.say(_line("✗", node_id, time.monotonic() - started))
            if isinstance(error, BadInput):
                raise
            raise FraudPipelineError(
                f"{node_id} failed: {_reason(error)}\n"
                f"The whole story is in {root.run(run_id) / LOG}; "
                "run again when it is mended: what succeeded is not done twice."
            ) from error
        seconds[node_id] = time.monotonic() - started
        _give_memory_back()
        mark = "=" if record.state == "CACHED" else "✓"
        console.say(_line(mark, node_id, seconds[node_id], detail(record)))
        if summary.stopped_by(record):
            break
    return seconds


def _give_memory_back() -> None:
    """What a node leaves in memory should not be part of the next one's peak."""
    gc.collect()
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc keeps what is freed
    if trim is not None:
        trim(0)


def _reason(error: Exception) -> str:
    """One line of what happened; of a message that only ends with it (autograph's), the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return type(error).__name__
    return lines[-1] if lines[0].endswith(":") else lines[0]


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

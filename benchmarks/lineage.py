"""Times `fraud-pipeline lineage` and the first page of `ui` on the records of many runs.

    python -m benchmarks.lineage ROOT [--runs 1000] [--repeat 5]

The records of the newest run in ROOT that pushed a version are replayed into a new ML Metadata, a
day later for each run, with the links between runs (the champion that a model was compared with,
the statistics that drift was measured against). Then the whole command is timed as a new process.
Prints one JSON document per line, with the medians of wall and CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from fraud.pipeline import lineage
from fraud.pipeline.config import Metadata
from fraud.pipeline.root import Root

_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_DATED = ("as_of", "windows", "plan")  # properties with days in them
_KEPT = ("Type", "TypeProperty", "ParentType", "MLMDEnv", "sqlite_sequence")


def replay(source: Root, target: Root, runs: int) -> tuple[str, str]:
    """Writes the records of runs, replayed from the newest push.

    Returns:
      The last version, and a day in the middle of the train window of a run in the middle.
    """
    store = lineage.find_store(Metadata(), source)
    pushes = lineage.pushes(store) if store else iter(())
    champion = next((push for push in pushes if not push.restored), None)
    if champion is None:
        sys.exit(f"{source.path}: no run has pushed a version here")
    target.metadata.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(source.metadata) as old, sqlite3.connect(target.metadata) as new:
        old.backup(new)
        _replay(old, new, champion.run_id, int(champion.version), runs)
    last = str(int(champion.version) + runs - 1)
    (target.pushed / last).mkdir(parents=True)
    windows = lineage.artifacts_of_run(store, champion.run_id, "Examples")[0]
    first = json.loads(windows.custom_properties["windows"].string_value)["train"][0]
    return last, _later(first, runs // 2 + 5)


def _replay(
    old: sqlite3.Connection, new: sqlite3.Connection, run_id: str, version: int, runs: int
) -> None:
    tables = [name for (name,) in new.execute("SELECT name FROM sqlite_master WHERE type='table'")]
    for table in set(tables) - set(_KEPT):
        new.execute(f"DELETE FROM {table}")
    ((run,),) = old.execute("SELECT id FROM Context WHERE name = ?", [run_id])

    def rows(query: str) -> list[tuple[Any, ...]]:
        return list(old.execute(query))

    executions = [
        i for (i,) in rows(f"SELECT execution_id FROM Association WHERE context_id={run}")
    ]
    ids = ", ".join(map(str, executions))
    events = rows(f"SELECT * FROM Event WHERE execution_id IN ({ids})")
    artifacts = {e[1] for e in events}
    types = dict(rows("SELECT id, type_id FROM Artifact"))
    made = {e[1] for e in events if e[3] in lineage.OUTPUT_EVENTS}
    of_type = {types[i]: i for i in made}
    own = ", ".join(map(str, made))
    ids_of = rows("SELECT max(id) FROM Association UNION SELECT max(id) FROM Context")
    stride = 1 + max(*executions, *artifacts, *(e[0] for e in events), *(i for (i,) in ids_of))
    steps = {e[0]: rows(f"SELECT * FROM EventPath WHERE event_id = {e[0]}") for e in events}

    used = f"SELECT context_id FROM Association WHERE execution_id IN ({ids})"
    new.executemany(
        f"INSERT INTO Context VALUES ({_marks(old, 'Context')})",
        rows(f"SELECT * FROM Context WHERE id IN ({used})"),
    )
    of_table = {
        table: rows(f"SELECT * FROM {table} WHERE {column} IN ({of})")
        for table, column, of in (
            ("Execution", "id", ids),
            ("ExecutionProperty", "execution_id", ids),
            ("Artifact", "id", own),
            ("ArtifactProperty", "artifact_id", own),
            ("Association", "execution_id", ids),
        )
    }
    names = {
        table: [column[1] for column in old.execute(f"PRAGMA table_info({table})")]
        for table in (*of_table, "Event", "EventPath", "Context")
    }
    for number in range(runs):
        move = number * stride

        def insert(table: str, row: dict[str, Any]) -> None:
            marks = ", ".join("?" * len(row))
            new.execute(f"INSERT INTO {table} VALUES ({marks})", list(row.values()))

        if number:
            ((_, *rest),) = old.execute("SELECT * FROM Context WHERE id = ?", [run])
            context = dict(zip(names["Context"], [run + move, *rest], strict=True))
            insert("Context", context | {"name": f"replayed-{number}", "external_id": None})
        for table, copied in of_table.items():
            for values in copied:
                row = dict(zip(names[table], values, strict=True))
                for column in ("execution_id", "artifact_id"):
                    if column in row:
                        row[column] += move
                if table in ("Execution", "Artifact"):
                    row |= {"id": row["id"] + move, "name": None, "external_id": None}
                    row["create_time_since_epoch"] += number * 86_400_000
                if table == "Association":
                    of_run = row["context_id"] == run
                    row |= {
                        "id": row["id"] + move,
                        "context_id": run + move if of_run else row["context_id"],
                    }
                elif row.get("string_value"):
                    row["string_value"] = _moved(row["name"], row["string_value"], version, number)
                insert(table, row)
        linked = set()
        for values in events:
            event = dict(zip(names["Event"], values, strict=True))
            if event["artifact_id"] in made:
                event["artifact_id"] += move
            elif number and types[event["artifact_id"]] in of_type:  # of an earlier run
                event["artifact_id"] = of_type[types[event["artifact_id"]]] + move - stride
            else:
                continue
            link = (event["artifact_id"], event["execution_id"], event["type"])
            if link in linked:  # several of one type in earlier runs
                continue
            linked.add(link)
            event_id = event["id"]
            event |= {"id": event_id + move, "execution_id": event["execution_id"] + move}
            insert("Event", event)
            for path in steps[event_id]:
                step = dict(zip(names["EventPath"], path, strict=True))
                insert("EventPath", step | {"event_id": event_id + move})


def _marks(database: sqlite3.Connection, table: str) -> str:
    return ", ".join("?" for _ in database.execute(f"PRAGMA table_info({table})"))


def _moved(name: str, text: str, version: int, number: int) -> str:
    """A property of the run that is `number` days later."""
    if name == "pushed_version":
        return str(version + number)
    if name in _DATED:
        return _DAY.sub(lambda day: _later(day.group(), number), text)
    return text


def _later(day: str, days: int) -> str:
    return str(date.fromisoformat(day) + timedelta(days=days))


def timed(command: list[str], repeat: int) -> dict[str, float]:
    """The medians of wall and CPU seconds of a command."""
    wall, cpu = [], []
    for _ in range(repeat):
        started, before = time.monotonic(), os.times()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        wall.append(time.monotonic() - started)
        cpu.append(
            after.children_user
            - before.children_user
            + after.children_system
            - before.children_system
        )
    return {"wall": round(statistics.median(wall), 2), "cpu": round(statistics.median(cpu), 2)}


def timed_page(source: Root, target: Root, repeat: int) -> tuple[float, float]:
    """The seconds of the first request for the first page, and the median of later ones."""
    from starlette.testclient import TestClient

    from fraud.pipeline.records import find_records
    from fraud.report.web.app import create_app
    from fraud.report.web.content import Reader

    store, records = lineage.find_store(Metadata(), target), find_records(Metadata(), target)
    assert store and records
    finished = [
        path for path in source.path.glob("runs/*/summary.json") if '"pushed"' in path.read_text()
    ]
    summary = json.loads(finished[-1].read_bytes())
    for number, run_id in enumerate(lineage.runs(store)):
        path = target.run(run_id) / "summary.json"
        path.parent.mkdir(parents=True)
        as_of = _later(summary["as_of"], number)
        path.write_text(json.dumps({**summary, "run_id": run_id, "as_of": as_of}))
    app = create_app(
        Reader(store, records, target), records, target, ["testserver"], None, None, lambda *_: ""
    )
    seconds = []
    for _ in range(repeat + 1):
        started = time.monotonic()
        TestClient(app).get("/").raise_for_status()
        seconds.append(round(time.monotonic() - started, 2))
    return seconds[0], statistics.median(seconds[1:])


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("root", type=Path)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        target = Root(Path(folder))
        version, day = replay(Root(arguments.root), target, arguments.runs)
        size = target.metadata.stat().st_size
        print(json.dumps({"runs": arguments.runs, "metadata_mb": round(size / 1e6, 1)}))
        command = [sys.executable, "-m", "fraud.pipeline.cli", "lineage", "--root", folder]
        cases: dict[str, list[str]] = {
            "starting": [*command, "--help"],
            "version": [*command, version],
            "day": [*command, day],
            "version as a page": [*command, version, "--format", "html"],
        }
        for case, words in cases.items():
            print(json.dumps({"case": case, **timed(words, arguments.repeat)}), flush=True)
        first, later = timed_page(Root(arguments.root), target, arguments.repeat)
        page = {"case": "the first page of ui", "first": first, "later": later}
        print(json.dumps(page), flush=True)


if __name__ == "__main__":
    main()

"""What MLflow is told about a run or a backtest, read from ML Metadata and the root."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from fraud.codec import from_json
from fraud.pipeline import lineage
from fraud.pipeline.artifacts import SUMMARY_FILE, ExamplesFacts, RunSummary, Training
from fraud.pipeline.data_facts import value
from fraud.pipeline.lineage import NodeRecord
from fraud.pipeline.root import Root

FINISHED, FAILED, KILLED = "FINISHED", "FAILED", "KILLED"
"""How a run ended, in MLflow's words."""

LONGEST_NAME, LONGEST_VALUE = 200, 5000
"""Characters; MLflow accepts names of 250 and values of 6,000."""

_ODD = re.compile(r"[^\w.\- :]")


@dataclass(frozen=True)
class Data:
    """The data of one window.

    Attributes:
      window: train, eval or recent.
      digest: of the files that were read, as hexadecimal text.
      rows: number of transactions.
    """

    window: str
    digest: str
    rows: int


@dataclass(frozen=True)
class Tracked:
    """A run of MLflow.

    Attributes:
      key: identifies it in the root.
      name: what people see.
      status: how it ended.
      began, ended: Unix milliseconds.
      parameters, tags: texts by name.
      metrics: name → its values by step, usually one; None where a step has none.
      data: the windows of a run.
      files: path in MLflow → file.
      model: the folder of the SavedModel; None if none was trained or it is pruned.
      children: trials of a search, or folds of a backtest.
    """

    key: str
    name: str
    began: int
    ended: int
    status: str = FINISHED
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, list[float | None]] = field(default_factory=dict)
    data: tuple[Data, ...] = ()
    files: dict[str, Path] = field(default_factory=dict)
    model: Path | None = None
    children: tuple[Tracked, ...] = ()


@dataclass(frozen=True)
class PushedVersion:
    """A version that a run pushed.

    Attributes:
      version: the name of its folder.
      identity: equal for versions with the same weights; see `lineage.identity_of`.
      key: of the run, see `Tracked`.
    """

    version: str
    identity: str
    key: str


def ended(root: Root, store: Any) -> Iterator[tuple[str, str]]:
    """The keys of runs and of backtests that ended, with how, oldest first.

    What an orchestrator tries again may fail first, and finish then.
    """
    runs = lineage.runs(store) if store else []
    for run_id in runs:
        status = _status(root, store, run_id)
        if run_id == runs[-1] and status == KILLED:
            continue  # it may be running
        if status:
            yield _key(root, "run", run_id), status
    for result in sorted((root.path / "backtests").glob("*/result.json")):
        yield _key(root, "backtest", result.parent.name), FINISHED


def _status(root: Root, store: Any, run_id: str) -> str | None:
    """How a run ended; None while a node of it is running."""
    if (root.run(run_id) / SUMMARY_FILE).exists():
        return FINISHED
    states = {node.state for node in lineage.nodes(store, run_id).values()}
    if "FAILED" in states:
        return FAILED
    # What a killed run left as running, the next one marks as cancelled.
    return None if states & {"RUNNING", "NEW"} else KILLED


def belongs(other: str, key: str) -> bool:
    """Whether a key is that of a run or a backtest, or of one of its children."""
    return re.fullmatch(rf"{re.escape(key)}( (trial|fold) \d+)?", other) is not None


def read(root: Root, store: Any, key: str) -> Tracked:
    """Reads what is to be sent about a run or a backtest.

    Args:
      root, store: where it ran.
      key: one of `ended`.
    """
    kind, name = key.split(" ", 2)[:2]
    return _run(root, store, key, name) if kind == "run" else _backtest(root, key, name)


def pushed(root: Root, store: Any) -> list[PushedVersion]:
    """The versions that runs pushed, without those of rollbacks, oldest first."""
    return [
        PushedVersion(push.version, push.identity, _key(root, "run", push.run_id))
        for push in reversed(list(lineage.pushes(store) if store else ()))
        if not push.restored
    ]


def live(root: Root, store: Any) -> str | None:
    """The identity of the weights in production."""
    champion = next(lineage.champions(store, root.pushed), None) if store else None
    return champion.identity if champion else None


def named(parts: Iterable[str]) -> str:
    """A name for MLflow: the parts with slashes between, without characters that it refuses."""
    clean = [_ODD.sub("_", part).strip(". ") or "_" for part in parts]
    return "/".join(clean)[:LONGEST_NAME]


def _key(root: Root, kind: str, name: str) -> str:
    return f"{kind} {name} {root.path}"


def _run(root: Root, store: Any, key: str, run_id: str) -> Tracked:
    nodes = lineage.nodes(store, run_id)
    outputs = {
        f"{record.name}.{name}": artifacts[-1]
        for record in nodes.values()
        for name, artifacts in record.outputs.items()
        if artifacts
    }
    examples, model = outputs.get("TransactionExampleGen.examples"), outputs.get("Trainer.model")
    status = _status(root, store, run_id) or KILLED
    if status == FINISHED:
        file = root.run(run_id) / SUMMARY_FILE
        summary = from_json(RunSummary, file.read_text(encoding="utf-8"))
        ended = int(file.stat().st_mtime * 1000)
    else:
        summary = _of_unfinished(root, run_id, status, nodes.values(), examples)
        ended = lineage.last_update(store, run_id)
    training = Training.read(model) if model else Training({}, {}, {})
    began = int(lineage.began(store, [run_id]) * 1000)
    folder = lineage.model_folder(model) if model else None
    files = {"summary.json": root.run(run_id) / SUMMARY_FILE, "report.html": root.report(run_id)}
    if summary.model_card:
        files["model_card.html"] = Path(summary.model_card)
    if summary.tuned:
        files["tuned.yaml"] = Path(summary.tuned)
    digest = value(examples, "input_fingerprint") if examples else ""
    trials = outputs.get("Tuner.tuner_results")
    return Tracked(
        key=key,
        name=run_id,
        began=began,
        ended=max(began, ended),
        status=status,
        parameters={
            **{named(["network", name]): _text(n) for name, n in training.network.items()},
            **{named(["windows", w]): " to ".join(days) for w, days in summary.windows.items()},
        },
        tags=_tags(summary, store, model),
        metrics=dict(_metrics(summary, training)),
        data=tuple(Data(w, digest or "", n) for w, n in summary.rows.items()),
        files={name: path for name, path in files.items() if path.is_file()},
        model=folder if folder and folder.is_dir() else None,
        children=tuple(_trials(key, trials, began)) if trials else (),
    )


def _of_unfinished(
    root: Root, run_id: str, status: str, nodes: Iterable[NodeRecord], examples: Any
) -> RunSummary:
    """What is known of a run that wrote no summary."""
    nodes = list(nodes)
    data = ExamplesFacts.read(examples) if examples else None
    broken = [node for node in nodes if node.state in ("FAILED", "CANCELED")]
    return RunSummary(
        run_id=run_id,
        outcome=status.lower(),
        root=str(root.path),
        as_of=data.as_of if data else None,
        reasons=tuple(f"{n.name}: {n.error or n.state.lower()}" for n in broken),
        windows=data.windows if data else {},
        rows=data.rows if data else {},
        seconds={node.name: node.seconds for node in nodes if node.is_finished},
    )


def _tags(summary: RunSummary, store: Any, model: Any) -> dict[str, str]:
    tags = {
        "outcome": summary.outcome,
        "as_of": summary.as_of,
        "reasons": "\n".join(summary.reasons),
        "notes": "\n".join(summary.notes),
        "pushed_version": summary.pushed_version,
        "root": summary.root,
    }
    code = lineage.code_of(store, model.id) if model else None
    if code:
        tags |= {
            "fraud_version": code.version,
            "mlflow.source.git.commit": code.commit,
            "git_dirty": str(code.dirty).lower(),
            "packages": json.dumps(code.packages),
        }
    return {name: text[:LONGEST_VALUE] for name, text in tags.items() if text}


def _metrics(summary: RunSummary, training: Training) -> Iterator[tuple[str, list[float | None]]]:
    """Metrics overall, of slices, of the champion and of training, and the seconds of nodes."""
    measured = {"": summary.metrics, "champion": summary.champion_metrics}
    rows = {
        (*([model] if model else []), *place): row
        for model, metrics in measured.items()
        for place, row in [
            ((), metrics.get("overall", {})),
            *(
                (("slices", *name.split("=", 1)), row)
                for name, row in metrics.get("slices", {}).items()
            ),
        ]
    }
    rows["held_out",] = summary.validation
    rows["seconds",] = dict(summary.seconds)
    rows["drift",] = dict(summary.drift)
    taken: set[str] = set()
    for place, row in rows.items():
        for metric, number in row.items():
            if number is not None:
                yield _untaken(named([*place, metric]), taken), [number]
    for metric, by_epoch in training.history.items():
        yield _untaken(named(["training", metric]), taken), list(by_epoch)


def _untaken(name: str, taken: set[str]) -> str:
    """Names that differ only in characters that MLflow refuses are numbered."""
    number, free = 1, name
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


def _trials(key: str, artifact: Any, began: int) -> Iterator[Tracked]:
    (file,) = Path(artifact.uri).iterdir()
    for number, trial in enumerate(json.loads(file.read_bytes()), 1):
        settings = {n: s for n, s in trial.items() if n not in ("score", "trial_id")}
        yield Tracked(
            key=f"{key} trial {number}",
            name=f"trial {number}",
            began=began,
            ended=began,
            parameters={named([name]): _text(setting) for name, setting in settings.items()},
            metrics=_numbers({"average_precision": trial["score"]}),
        )


def _backtest(root: Root, key: str, name: str) -> Tracked:
    file = root.path / "backtests" / name / "result.json"
    result = json.loads(file.read_bytes())
    ended = int(file.stat().st_mtime * 1000)
    began = min(ended, int(datetime.strptime(name, "%Y-%m-%dT%H-%M-%S").timestamp() * 1000))
    folds = tuple(
        Tracked(
            key=f"{key} fold {number}",
            name=f"fold {number}: {' to '.join(fold['test'])}",
            began=began,
            ended=ended,
            metrics=_numbers(fold),
        )
        for number, fold in enumerate(result["folds"], 1)
    )
    return Tracked(
        key=key,
        name=f"backtest {name}",
        began=began,
        ended=ended,
        tags={"root": str(root.path)},
        metrics=_numbers(result["mean"]),
        files={"result.json": file},
        children=folds,
    )


def _numbers(row: Mapping[str, Any]) -> dict[str, list[float | None]]:
    """What of a row is a number."""
    return {
        named([name]): [float(number)]
        for name, number in row.items()
        if isinstance(number, int | float) and not isinstance(number, bool)
    }


def _text(setting: Any) -> str:
    text = setting if isinstance(setting, str) else json.dumps(setting)
    return text[:LONGEST_VALUE]

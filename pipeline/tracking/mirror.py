"""Sends to MLflow what it does not have yet, and moves the alias of the champion."""

from __future__ import annotations

import fcntl
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import lineage
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.pipeline.tracking import facts
from fraud.pipeline.tracking.facts import Tracked

T = TypeVar("T")

URI = "MLFLOW_TRACKING_URI"
"""The environment variable that MLflow's own tools read, too."""

KEY, COMPLETE = "fraud.key", "fraud.complete"
"""Tags: which run or backtest of which root it is, and that everything about it was sent."""

CHAMPION = "champion"
"""The alias of the version in production."""

MODEL = "model"
"""Where an MLflow run keeps its model."""

_LOADER = Path(__file__).with_name("fraud_mlflow_model.py")

_BATCH = 100
"""Parameters, metrics or tags sent at once; MLflow takes 100 tags."""

Charts = Callable[[str], Mapping[str, str]]
"""Run id → the charts of the run: name of the file → page."""


@dataclass(frozen=True)
class Sent:
    """What a call of `send` did.

    Attributes:
      uri: of the tracking server.
      runs: the runs and backtests that were sent, by name.
      champion: the version of the registered model that is in production; None without one.
    """

    uri: str
    runs: tuple[str, ...]
    champion: str | None


def uri(config: Config) -> str | None:
    """Where to send to: `tracking.uri`, or else the environment variable; None for nowhere."""
    return config.tracking.uri or os.environ.get(URI) or None


def send(config: Config, root: Root, charts: Charts) -> Sent:
    """Sends all runs and backtests that the server does not have yet.

    It may be interrupted at any time: what is incomplete is replaced by the next call.

    Args:
      config: names the server, the experiment and the registered model.
      root: whose runs.
      charts: draws a run.

    Raises:
      BadInput: no server is configured, MLflow is not installed, or nothing has run in the root.
      FraudPipelineError: the server cannot be reached or refuses something.
    """
    target = uri(config)
    if not target:
        raise BadInput(f"no tracking server: set tracking.uri, or the environment variable {URI}")
    _prepare()
    try:
        import mlflow
        from mlflow.exceptions import MlflowException
    except ImportError:
        raise BadInput("MLflow is not installed: pip install 'fraud-pipeline[mlflow]'") from None
    store = lineage.find_store(config.metadata, root)
    if store is None and not any(facts.ended(root, store)):
        raise BadInput(f"{root.path}: nothing has run here; check --root")
    with open(root.path / ".tracking.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            client = mlflow.MlflowClient(tracking_uri=target, registry_uri=target)
            return _Mirror(client, config, root, store).send(charts, target)
        except (MlflowException, OSError) as error:
            # Without the URI, which may have a password in it.
            reason = " ".join(str(error).split()).replace(target, "the server")
            raise FraudPipelineError(
                f"MLflow: {reason[:500]}; what is missing there is sent by the next run, or by "
                "`fraud-pipeline track`"
            ) from None


class _Mirror:
    """The experiment of a root on a server."""

    def __init__(self, client: Any, config: Config, root: Root, store: Any) -> None:
        self._client, self._root, self._store = client, root, store
        self._model_name = config.tracking.model
        name = config.tracking.experiment
        experiment = client.get_experiment_by_name(name)
        self._experiment = (
            experiment.experiment_id if experiment else client.create_experiment(name)
        )

    def send(self, charts: Charts, target: str) -> Sent:
        there = list(self._search(f"tags.`{KEY}` LIKE '%'"))
        complete = {
            (run.data.tags[KEY], run.info.status) for run in there if COMPLETE in run.data.tags
        }
        sent = []
        for key, status in facts.ended(self._root, self._store):
            if (key, status) in complete:
                continue
            for run in there:  # what a killed process sent of it and its children, or its failure
                if facts.belongs(run.data.tags[KEY], key):
                    self._client.delete_run(run.info.run_id)
            tracked = facts.read(self._root, self._store, key)
            self._run(tracked, charts)
            sent.append(tracked.name)
        return Sent(target, tuple(sent), self._register())

    def _search(self, condition: str) -> Iterator[Any]:
        token = None
        while True:
            page = self._client.search_runs(
                [self._experiment], condition, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _run(self, tracked: Tracked, charts: Charts, parent: str | None = None) -> None:
        from mlflow.entities import Metric, Param, RunTag

        tags = {**tracked.tags, KEY: tracked.key, "mlflow.runName": tracked.name}
        if parent:
            tags["mlflow.parentRunId"] = parent
        run = self._client.create_run(
            self._experiment, tracked.began, {KEY: tracked.key}, tracked.name
        )
        run_id = run.info.run_id
        parameters = [Param(name, text) for name, text in tracked.parameters.items()]
        metrics = [
            Metric(name, number, tracked.ended, step)
            for name, numbers in tracked.metrics.items()
            for step, number in enumerate(numbers)
            if number is not None
        ]
        for some_tags in _batches([RunTag(name, text) for name, text in tags.items()]):
            self._client.log_batch(run_id, tags=some_tags)
        for some_parameters in _batches(parameters):
            self._client.log_batch(run_id, params=some_parameters)
        for some_metrics in _batches(metrics):
            self._client.log_batch(run_id, metrics=some_metrics)
        self._log_data(run_id, tracked)
        for path, file in tracked.files.items():
            self._client.log_text(run_id, file.read_text(encoding="utf-8"), path)
        if not parent and tracked.key.startswith("run "):
            for name, svg in charts(tracked.name).items():
                self._client.log_text(run_id, svg, f"figures/{name}")
        if tracked.model:
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary, MODEL)
                _save_model(folder, tracked.model)
                self._client.log_artifacts(run_id, str(folder), MODEL)
        for child in tracked.children:
            self._run(child, charts, run_id)
        self._client.set_tag(run_id, COMPLETE, "true")
        self._client.set_terminated(run_id, tracked.status, tracked.ended)

    def _log_data(self, run_id: str, tracked: Tracked) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        inputs = [
            DatasetInput(
                Dataset(
                    name=f"{data.window} transactions",
                    # MLflow keeps 36 characters of a digest.
                    digest=data.digest[:36],
                    source_type="local",
                    source=json.dumps({"uri": str(self._root.path)}),
                    profile=json.dumps({"num_rows": data.rows}),
                ),
                [InputTag("mlflow.data.context", data.window)],
            )
            for data in tracked.data
        ]
        if inputs:
            self._client.log_inputs(run_id, datasets=inputs)

    def _register(self) -> str | None:
        """Registers what was pushed and marks what is live; returns the latter's version."""
        from mlflow.exceptions import MlflowException

        pushes = facts.pushed(self._root, self._store)
        if not pushes:
            return None
        try:
            self._client.get_registered_model(self._model_name)
        except MlflowException:
            self._client.create_registered_model(self._model_name)
        registered = {
            version.tags.get("pushed_version"): version.version
            for version in self._client.search_model_versions(f"name='{self._model_name}'")
            if version.tags.get("root") == str(self._root.path)
        }
        runs = {run.data.tags[KEY]: run for run in self._search(f"tags.`{COMPLETE}` = 'true'")}
        for push in pushes:
            if push.version in registered or push.key not in runs:
                continue
            run = runs[push.key].info
            version = self._client.create_model_version(
                self._model_name,
                f"{run.artifact_uri}/{MODEL}",
                run.run_id,
                tags={"pushed_version": push.version, "root": str(self._root.path)},
            )
            registered[push.version] = version.version
        identity = facts.live(self._root, self._store)
        # Of equal weights, the version that was pushed first: a rollback restores them.
        same = [registered.get(push.version) for push in pushes if push.identity == identity]
        champion = next((version for version in same if version), None)
        if champion:
            self._client.set_registered_model_alias(self._model_name, CHAMPION, champion)
        return champion


def _save_model(folder: Path, model: Path) -> None:
    """Writes the SavedModel in MLflow's format, with signature and example."""
    import mlflow.pyfunc
    import pandas as pd
    import tensorflow as tf
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    from fraud.models.warmup import example_row

    row = example_row(model)
    inputs = [
        ColSpec(DataType.string if isinstance(cell, str) else DataType.double, name, required=False)
        for name, cell in row.items()
    ]
    outputs = [ColSpec(DataType.float, name) for name in ("score", "alert")]
    mlflow.pyfunc.save_model(
        path=str(folder),
        loader_module=_LOADER.stem,
        data_path=str(model),
        code_paths=[str(_LOADER)],
        signature=ModelSignature(Schema(inputs), Schema(outputs)),
        input_example=pd.DataFrame([row]),
        pip_requirements=[f"tensorflow=={tf.__version__}", "pandas"],
    )


def _prepare() -> None:
    """A server that does not answer must not hold up a run, and nothing is reported to others."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("DO_NOT_TRACK", "true")


def _batches(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, _BATCH)):
        yield batch

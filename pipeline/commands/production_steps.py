"""What the loop does with the world: the steps of `fraud.monitoring.loop` with real ones.

Trainings are processes of their own: one that runs out of memory does not end the loop, and one
that outlives a killed loop is waited for.
"""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fraud.codec import from_values
from fraud.errors import BadInput, FraudPipelineError, NotYet
from fraud.files import write_atomically
from fraud.monitoring import shadow
from fraud.monitoring.checks import Check, Observation, Verdict
from fraud.monitoring.journal import FAILED, ON_PROBATION, Training
from fraud.pipeline import lineage, production, releases
from fraud.pipeline.artifacts import SUMMARY_FILE
from fraud.pipeline.commands import track
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root
from fraud.time import parse_day

if TYPE_CHECKING:
    from fraud.models.evaluation.bootstrap import Outputs
    from fraud.serving.prediction_log import Predictions

GATE_STOPPED = 3
"""The exit code of a run that the data gate stopped."""
SERVER_TOKEN = "FRAUD_SERVER_TOKEN"
"""The environment variable with a token, of any role, of the server that `loop.server` names."""
_SIMULATED = "simulated.parquet"


class ProductionSteps:
    """See `fraud.monitoring.loop.Steps`.

    Args:
      config: of the loop, the windows and the dataset, which has a timestamp.
      root: where everything is.
      data: the day folders.
      options: `--config FILE` of the trainings, as they were given.
      is_simulated: whether days are replayed: no server scores them, so this does.
    """

    def __init__(
        self, config: Config, root: Root, data: str, options: Sequence[str], is_simulated: bool
    ) -> None:
        self._config, self._root, self._data = config, root, data
        self._options, self._is_simulated = list(options), is_simulated
        self._errors: dict[str, tuple[float, float]] = {}

    def next_day(self, after: date | None) -> date | None:
        """The first complete day after another."""
        if after is None and (live := self._live()) and live.as_of:
            after = parse_day(live.as_of)
        days = [day for day in self.days() if after is None or day > after]
        if self._is_simulated:
            return next(iter(days), None)
        # Whoever takes a misnamed folder for the last day never sees another one. A clock may be
        # wrong, too, so the day that follows the last one counts whatever it says.
        tomorrow = datetime.now(timezone.utc).date() + timedelta(days=1)  # in the east it has begun
        past = [day for day in days if day <= tomorrow]
        if after is None:
            days = (past or days)[-1:]
        else:
            days = [day for day in days if day in past or day == after + timedelta(days=1)]
        from fraud.pipeline.ingestion import arrival

        for day in days:
            try:
                return arrival.check(self._data, day, self._config.loop.min_rows)
            except NotYet:
                continue
            except OSError as error:
                raise FraudPipelineError(f"{self._data}: cannot be read: {error}") from None
        return None

    def files(self, day: date) -> dict[date, str]:
        """What tells whether the files that a look at a day reads are the same; none in a replay.

        Raises:
          FraudPipelineError: the data cannot be read.
        """
        if self._is_simulated:
            return {}
        from fraud.monitoring import reading
        from fraud.pipeline.ingestion import arrival

        try:
            return arrival.fingerprints(self._data, reading.days_read(day, self._config))
        except OSError as error:
            raise FraudPipelineError(f"{self._data}: cannot be read: {error}") from None

    def changed(self, day: date, files: dict[date, str]) -> tuple[date, ...]:
        """The days whose files have changed since, once all of them are complete.

        That a folder is gone is a change at once.

        Raises:
          FraudPipelineError: the data cannot be read.
        """
        from fraud.pipeline.ingestion import arrival

        if not files:  # of an earlier version of this package, or in a replay
            return ()
        now = self.files(day)
        changed = sorted(d for d in {*files, *now} if files.get(d) != now.get(d))
        try:
            for other in now.keys() & set(changed):
                arrival.check(self._data, other, self._config.loop.min_rows)
        except NotYet:
            return ()
        except OSError as error:
            raise FraudPipelineError(f"{self._data}: cannot be read: {error}") from None
        return tuple(changed)

    def days(self) -> list[date]:
        """The days that have folders, sorted.

        Raises:
          BadInput: the data is no folder.
        """
        from pyarrow import fs as arrow_fs

        from fraud.pipeline.ingestion import arrival, reader

        try:
            system, path = reader.filesystem(self._data)
            if system.get_file_info(path).type != arrow_fs.FileType.Directory:
                raise BadInput(
                    f"{self._data}: no folder; only days in folders date=YYYY-MM-DD can be awaited"
                )
            entries = system.get_file_info(arrow_fs.FileSelector(path))
        except OSError as error:
            raise FraudPipelineError(f"{self._data}: cannot be read: {error}") from None
        names = [entry.base_name for entry in entries if entry.base_name.startswith("date=")]
        return sorted(parse_day(name[len(arrival.DAY_FOLDER) :]) for name in names)

    def score(self, day: date) -> None:
        """Replaces what the log has of a day by what the live version says of it; in a replay."""
        live = self._live()
        if not self._is_simulated or live is None:
            return
        from fraud.features.batch import feature_names
        from fraud.pipeline.ingestion import to_score
        from fraud.serving.batch import score_table
        from fraud.serving.log_writer import LogWriter, Scored
        from fraud.serving.models import LoadedModel

        inputs = live.specification()
        table, _ = to_score.read_with_history(
            f"{self._data.rstrip('/')}/date={day}", self._data, inputs
        )
        model = LoadedModel(live.folder)
        try:
            said = score_table(model, table)
        finally:
            model.close()
        features = feature_names(inputs.features, inputs.dataset)
        columns = [name for name in inputs.dataset.columns if name in table.column_names]
        import numpy as np
        import pyarrow as pa

        place = self._root.path / "loop" / ".scored"
        shutil.rmtree(place, ignore_errors=True)
        log = replace(
            self._config.serving.prediction_log, retention_days=None, pending_rows=len(table) + 1
        )
        writer = LogWriter(place, log, inputs.dataset)
        writer.append(
            Scored(
                columns={name: _for_log(table[name], name, inputs.dataset) for name in columns},
                feature_names=features,
                features=np.column_stack(
                    [table[name].cast(pa.float32()).to_numpy() for name in features]
                    or [np.empty((len(table), 0), np.float32)]
                ),
                version=live.version,
                scores=said["prediction_score"].to_numpy(),
                alerts=said["prediction_alert"].to_numpy(),
                outcomes=np.full(len(table), "new"),
                latency_ms=0.0,
                time=datetime.combine(day, datetime.max.time(), timezone.utc),
            )
        )
        writer.close()
        for written in place.glob("date=*/*.parquet"):
            target = self._root.predictions / written.parent.name / f"{day}-{_SIMULATED}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(written, target)
        shutil.rmtree(place, ignore_errors=True)

    def observe(self, day: date) -> Observation:
        """Looks at production, and compares the live version with the one before it."""
        if self._is_simulated:
            from fraud.pipeline import startup
            from fraud.pipeline.console import Console

            console = Console()
            with console.quiet():
                startup.import_tfx()
                from fraud.pipeline.runners import monitor
            seen = monitor.look(self._config, self._root, self._data, day, console)
        else:
            done = self._call("monitor", "--data", self._data, "--as-of", str(day), "--json")
            if done.returncode:
                raise _failure(done)
            document = json.loads(done.stdout)
            names = [field.name for field in fields(Observation)]
            seen = from_values(Observation, {name: document[name] for name in names})
        return replace(seen, checks=(*seen.checks, *self._harm(day)))

    def train(
        self, day: date, broken: Sequence[date], probation: bool, began: float, is_urgent: bool
    ) -> Training:
        """Runs the graph, unless a run as of that day has ended since `began`."""
        if adopted := self._finished(day, probation, began):
            return adopted
        self._wait_until_idle()
        if adopted := self._finished(day, probation, began):
            return adopted
        settings = self.write_settings(broken, probation, is_urgent)
        done = self._call(
            *("run", "--data", self._data, "--as-of", str(day), "--json"), settings=settings
        )
        if done.returncode not in (0, GATE_STOPPED):
            raise _failure(done)
        return self._training(json.loads(done.stdout))

    def write_settings(self, broken: Sequence[date], probation: bool, is_urgent: bool) -> Path:
        """Writes what a training adds to the configuration; returns the file."""
        path = self._root.path / "loop" / "run.yaml"
        usual, urgent = self._config.windows.eval_days, self._config.loop.change_eval_days
        eval_days = urgent if is_urgent and urgent and urgent < usual else None
        write_atomically(path, run_settings(broken, probation, eval_days))
        return path

    def training_of(self, run_id: str) -> Training:
        """What became of a run that an orchestrator executed."""
        try:
            text = (self._root.run(run_id) / SUMMARY_FILE).read_text("utf-8")
        except OSError:
            return Training(FAILED, run_id, ("it did not end",), log=str(self._root.log(run_id)))
        return self._training(json.loads(text))

    def live(self) -> str:
        """The live version."""
        live = self._live()
        return live.version if live else ""

    def roll_back(self, bad: str, reason: str) -> str:
        """Takes a version back, if it is still live."""
        if self.live() == bad:
            production.roll_back(self._config.metadata, self._root, reason)
            track.send_finished(self._config, self._root)
        return self.live()

    def problems(
        self, version: str, since: date, until: date, is_as_evaluated: bool
    ) -> tuple[str, ...] | None:
        """By what the server says of a version, and by what it scored."""
        if of_server := self._problems_of_server(version):
            return of_server
        scored = self._logged(since, until)
        rows = (scored.version == version).nonzero()[0]
        if len(rows) < self._config.loop.verify_rows:
            return None
        from fraud.models.evaluation.bootstrap import Outputs

        new = Outputs(scored.score[rows], scored.alert[rows])
        before = self._before()
        old = self._said(before.folder, scored, rows) if before else None
        if old is None:  # nothing to compare with
            old = new
        return shadow.differences(new, old, self._config.loop, is_as_evaluated)

    def judge(self, model: str, first: date, last: date) -> tuple[str, ...]:
        """Compares a model with what answered on the days of its probation."""
        import numpy as np

        from fraud.models.evaluation.bootstrap import Outputs

        scored = self._logged(first, last)
        if not len(scored):
            return ()
        theirs = self._said(Path(model), scored, np.arange(len(scored)))
        if theirs is None:
            return ("it reads what the prediction log does not have, so it cannot be tried",)
        answered = Outputs(scored.score, scored.alert)
        found = list(shadow.differences(theirs, answered, self._config.loop))
        if (labelled := self._labelled(first, last)) is not None:
            joined, _ = labelled
            check = shadow.harm(
                joined.labels,
                joined.cards,
                Outputs(theirs.scores[joined.logged], theirs.alerts[joined.logged]),
                Outputs(joined.scores, joined.alerts),
                "live",
                self._config.evaluation.max_average_precision_drop,
            )
            if check.verdict is Verdict.ACT:
                found.append(f"average precision {check.value:+.3f} {check.detail}")
        return tuple(found)

    def _harm(self, day: date) -> tuple[Check, ...]:
        """Whether the live version is worse than the one before it, since it is live."""
        from fraud.models.evaluation.bootstrap import Outputs

        live, before = self._live(), self._before()
        if live is None or before is None or live.restored:
            return ()
        first = day - timedelta(days=self._config.loop.roll_back_days)
        rows = self._labelled(first, day)
        if rows is None:
            return ()
        joined, scored = rows
        joined = joined.at(joined.is_live)
        theirs = self._said(before.folder, scored, joined.logged)
        if theirs is None or not len(joined):
            return ()
        ours = Outputs(joined.scores, joined.alerts)
        than, allowed = (
            f"version {before.version}",
            self._config.evaluation.max_average_precision_drop,
        )
        return (shadow.harm(joined.labels, joined.cards, ours, theirs, than, allowed),)

    def _labelled(self, first: date, last: date) -> tuple[Any, Predictions] | None:
        """What was scored on some days, joined with the labels that are known on the last one."""
        from fraud.monitoring import reading
        from fraud.monitoring.production import join

        dataset = self._config.dataset
        live = self._live()
        if dataset.id is None or live is None:
            return None
        before = first - timedelta(days=1)
        seen = reading.read(
            self._data, self._root.predictions, self._config, last, labels_until=before
        )
        log = self._logged(first, last)
        seen = replace(seen, predictions=log)
        if dataset.id not in log.transactions.column_names or not len(log):
            return None
        return join(seen, dataset, {live.version}).between(first, last), log

    def _logged(self, first: date, last: date) -> Predictions:
        """What was scored on some days."""
        from fraud.serving.prediction_log import PredictionLog

        try:
            return PredictionLog(self._root.predictions).read(first, last)
        except BadInput as error:  # a damaged file of the log says nothing about the data
            raise FraudPipelineError(str(error)) from None

    def _said(self, folder: Path, scored: Predictions, rows: Any) -> Outputs | None:
        """What a model says of logged transactions; None if the log lacks what it reads."""
        import pyarrow as pa

        from fraud.models.evaluation.bootstrap import Outputs
        from fraud.serving.batch import score_table
        from fraud.serving.models import LoadedModel

        names = {*self._config.serving.prediction_log.hash}
        columns = {
            name: table[name].take(pa.array(rows))
            for table in (scored.transactions, scored.features)
            for name in table.column_names
            if name not in names
        }
        model = LoadedModel(folder)
        try:
            if not {*model.columns.numeric, *model.columns.categorical} <= columns.keys():
                return None
            said = score_table(model, pa.table(columns))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            return None  # what this model reads as a number is a category of others, or vice versa
        finally:
            model.close()
        return Outputs(said["prediction_score"].to_numpy(), said["prediction_alert"].to_numpy())

    def _problems_of_server(self, version: str) -> tuple[str, ...]:
        """What the server of `loop.server` says of a version that it should have taken."""
        address = self._config.loop.server
        if address is None:
            return ()
        try:
            said = json.loads(_read(f"{address.rstrip('/')}/v1/models/fraud"))
            states = said.get("model_version_status", [])
            errors = _errors(_read(f"{address.rstrip('/')}/metrics").decode())
        except (OSError, ValueError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code == 401:
                raise FraudPipelineError(
                    f"loop.server: {address} asks for a token; set {SERVER_TOKEN} to one of its own"
                ) from None
            raise FraudPipelineError(f"loop.server: {address} does not answer: {error}") from None
        for state in states:
            reason = state.get("status", {}).get("error_message")
            if str(state.get("version")) == version and state.get("state") == "END" and reason:
                return (f"the server refused it: {reason}",)
        failed, requests = (
            now - then
            for now, then in zip(errors, self._errors.setdefault(version, errors), strict=True)
        )
        if failed > self._config.loop.max_errors * max(requests, 1.0):
            return (f"{failed:.0f} of {requests:.0f} requests failed since it is live",)
        return ()

    def _live(self) -> production.Live | None:
        return production.live(self._config.metadata, self._root)

    def _before(self) -> production.Live | None:
        """The version that a rollback would restore."""
        store = lineage.find_store(self._config.metadata, self._root)
        if store is None:
            return None
        live = next(lineage.champions(store, self._root.pushed), None)
        before = live and releases.before(list(lineage.pushes(store)), live)
        return production.described(store, self._root, before) if before else None

    def _finished(self, day: date, probation: bool, began: float) -> Training | None:
        """What a run did that a killed loop had started, or that somebody started meanwhile."""
        found = None
        for path in (self._root.path / "runs").glob(f"*/{SUMMARY_FILE}"):
            with suppress(OSError, ValueError):
                if path.stat().st_mtime >= began:
                    summary = json.loads(path.read_text("utf-8"))
                    is_tried = summary["outcome"] == ON_PROBATION
                    if summary["as_of"] == str(day) and (probation or not is_tried):
                        found = summary
        return self._training(found) if found else None

    def _training(self, summary: dict[str, Any]) -> Training:
        run_id = summary["run_id"]
        pushed = summary.get("pushed_version") or ""
        model = ""
        if not pushed and (store := lineage.find_store(self._config.metadata, self._root)):
            made = lineage.artifacts_of_run(store, run_id, "Model")
            model = str(lineage.model_folder(made[-1])) if made else ""
        reasons = [f"{r}" for r in summary["reasons"]]
        log = str(self._root.log(run_id))
        return Training(summary["outcome"], run_id, tuple(reasons), pushed, model, log)

    def _wait_until_idle(self) -> None:
        """Waits for a run that a killed loop left behind."""
        while True:
            with self._root.idle() as is_idle:
                if is_idle:
                    return
            time.sleep(1)

    def _call(
        self, command: str, *arguments: str, settings: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command of ours; it goes on if this process is killed.

        So it writes to files: a pipe would end it with its next line.
        """
        words = [sys.executable, "-m", "fraud.pipeline.cli", command, *arguments, *self._options]
        words += ["--config", str(settings)] if settings else []
        words += ["--root", str(self._root.path)]
        place = self._root.path / "loop" / f".{command}-{os.getpid()}"
        out, err = place.with_suffix(".out"), place.with_suffix(".err")
        try:
            with open(out, "w") as stdout, open(err, "w") as stderr:
                done = subprocess.run(words, stdout=stdout, stderr=stderr, check=False)
            return subprocess.CompletedProcess(
                words, done.returncode, out.read_text("utf-8"), err.read_text("utf-8")
            )
        finally:
            out.unlink(missing_ok=True)
            err.unlink(missing_ok=True)


def run_settings(broken: Sequence[date], probation: bool, eval_days: int | None = None) -> str:
    """What the loop's trainings add to the configuration, as YAML.

    That inputs drift was decided already, and training on them is the answer; limits of single
    columns, `data_gate.drift_thresholds`, still stop a run.
    """
    import yaml

    document: dict[str, Any] = {"data_gate": {"max_drift": 1.0}}
    windows: dict[str, Any] = {}
    if broken:
        windows["excluded_days"] = [str(day) for day in broken]
    if eval_days is not None:
        windows["eval_days"] = eval_days
    if windows:
        document["windows"] = windows
    if probation:
        document["release"] = {"probation": True}
    return "# Written by the loop for its trainings.\n" + yaml.safe_dump(document)


def _failure(done: subprocess.CompletedProcess[str]) -> FraudPipelineError:
    lines = done.stderr.strip().splitlines()
    message = lines[-1].removeprefix("fraud-pipeline: ") if lines else ""
    if done.returncode < 0:
        message = f"{done.args[3]}: ended by signal {-done.returncode}"
    kind = BadInput if done.returncode == BadInput.exit_code else FraudPipelineError
    return kind(message or f"{done.args[3]}: exit code {done.returncode}")


def _for_log(column: Any, name: str, dataset: Any) -> Any:
    """A column as the server logs it: identifiers are text."""
    import pyarrow as pa

    array = column.combine_chunks()
    if name in (dataset.id, *dataset.entities):
        return array.cast(pa.string())
    return array


def _read(url: str) -> bytes:
    """What the server answers; the token goes to this server only, wherever it sends us."""
    request = urllib.request.Request(url)
    if token := os.environ.get(SERVER_TOKEN):
        request.add_unredirected_header("Authorization", f"Bearer {token}")
    # A context of its own: from Python 3.12 on, the default one keeps the authorities of the first
    # call, and `watch` outlives them.
    trusted = ssl.create_default_context()
    with urllib.request.urlopen(request, timeout=10, context=trusted) as answer:
        body: bytes = answer.read()
    return body


def _errors(metrics: str) -> tuple[float, float]:
    """Requests that failed, and all of them, in Prometheus's text format."""
    from prometheus_client.parser import text_string_to_metric_families

    failed = requests = 0.0
    for family in text_string_to_metric_families(metrics):
        if family.name == "fraud_requests":
            for sample in family.samples:
                if sample.name == "fraud_requests_total":
                    requests += sample.value
                    code = sample.labels.get("code", "")
                    failed += sample.value if code.startswith("5") or code == "INTERNAL" else 0.0
    return failed, requests


def check_purpose(root: Root, is_simulated: bool) -> None:
    """Keeps replays out of production and production out of a replay.

    Raises:
      BadInput: the root is used for the other purpose.
    """
    marker = root.path / "loop" / "simulated"
    if is_simulated and not marker.exists():
        logged = any(root.predictions.glob("date=*/*.parquet"))
        if logged or any((root.path / "loop" / "days").glob("*.json")):
            raise BadInput(
                f"{root.path}: is used in production; a replay would push its models there: give "
                "it another --root"
            )
        write_atomically(marker, "")
    if not is_simulated and marker.exists():
        raise BadInput(f"{root.path}: holds a replay of the past; choose another --root")

"""What the artifacts of a run contain, as typed records.

Every `read` takes an artifact of ML Metadata or the TFX artifact that a component receives. Nothing
here judges. Heavy packages are imported by the readers that need them, so `status` answers at once.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from typing_extensions import TypedDict

from fraud.codec import from_json, from_values
from fraud.errors import BadInput
from fraud.models.evaluation.registry import CHAMPION, CURVES, GAPS, METRICS, MIN_FRAUD_CARDS
from fraud.models.evaluation.registry import HEADLINE as HEADLINE  # for reports
from fraud.monitoring.checks import Observation
from fraud.pipeline.data_facts import CURVES_FILE, Anomaly, value
from fraud.pipeline.data_facts import VERDICT_FILE as VERDICT_FILE
from fraud.pipeline.data_facts import ExamplesFacts as ExamplesFacts
from fraud.pipeline.data_facts import Verdict as Verdict

SUMMARY_FILE = "summary.json"
CARD_PAGE, CARD_TEXT = "model_card.html", "model_card.md"
OBSERVATION_FILE = "observation.json"

Row = dict[str, float | None]
"""Metric name → value; None where there are too few examples to judge."""


class Metrics(TypedDict, total=False):
    """The Evaluator's metrics of one model; empty where nothing was evaluated.

    Attributes:
      overall: over all examples.
      slices: by slice, "column=value".
    """

    overall: Row
    slices: dict[str, Row]


Intervals = dict[str, tuple[float, float]]
"""Metric name → the limits of its 95 % interval; without the metrics that have none."""


class SlicedIntervals(TypedDict, total=False):
    """The intervals of one model's metrics, in the form of `Metrics`."""

    overall: Intervals
    slices: dict[str, Intervals]


@dataclass(frozen=True)
class Change:
    """How a metric of the challenger differs from the champion's on the same examples.

    Attributes:
      change: the challenger's value − the champion's; None where one of them is undefined.
      low, high: the limits of its 95 % interval; None where the examples cannot tell.
      drop_probability: that the drop is larger than allowed; None for a metric whose drop has no
        limit, where the change is None, and where it was not judged.
      unjudged: whether the drop has a limit and was not judged, for `TOO_FEW_FRAUDS`.
    """

    change: float | None
    low: float | None
    high: float | None
    drop_probability: float | None = None
    unjudged: bool = False


TOO_FEW_FRAUDS = f"there are fewer than {MIN_FRAUD_CARDS} independent frauds"
"""Why drops from the champion are not judged; the frauds of one card are not independent."""


def statistics_files(artifact: Any) -> dict[str, Path]:
    """Split → file of TFDV's statistics, train first: an ExampleStatistics artifact."""
    folders = sorted(Path(artifact.uri).iterdir(), key=lambda path: path.name != "Split-train")
    return {f.name.removeprefix("Split-"): f / "FeatureStats.pb" for f in folders}


def created(artifact: Any) -> str:
    """When an artifact was made, in local time."""
    proto = getattr(artifact, "mlmd_artifact", artifact)
    return f"{datetime.fromtimestamp(proto.create_time_since_epoch / 1000):%Y-%m-%d %H:%M}"


@dataclass(frozen=True)
class ModelFacts:
    """A trained model: a Model artifact.

    Attributes:
      threshold: the lowest score that alerts.
      validation: metrics on the held-out cards; None where the labels leave one undefined.
      network: the settings of the network, as in `fraud.models.spec.Network`.
      run_id: the run that trained it; empty on Vertex AI.
    """

    threshold: float | None
    validation: dict[str, float | None]
    network: dict[str, Any]
    run_id: str = ""

    @property
    def alerts_on_everything(self) -> bool:
        """Whether the alert budget covers every card of every day."""
        return self.threshold is not None and self.threshold <= 0

    @classmethod
    def read(cls, artifact: Any) -> ModelFacts:
        """Reads the files that the Trainer writes next to the SavedModel's graph."""
        from tfx.utils import path_utils

        from fraud.models.entry_point import NETWORK_FILE, THRESHOLD_FILE
        from fraud.models.specification import EXTRA

        folder = Path(path_utils.serving_model_path(artifact.uri)) / EXTRA
        network = json.loads((folder / NETWORK_FILE).read_bytes())
        trained = json.loads((folder / THRESHOLD_FILE).read_bytes())
        run_id = value(artifact, "run_id") or ""
        return from_values(cls, {**trained, "network": network, "run_id": run_id})


@dataclass(frozen=True)
class Evaluation:
    """The challenger and the champion on the eval window: a ModelEvaluation artifact.

    Attributes:
      metrics: the challenger's.
      champion: the champion's; empty without one.
      failures: why the challenger was refused, a sentence each.
      missing_slices: slices with a threshold but without examples.
      intervals: of the challenger's metrics.
      changes: metric → its change from the champion over all examples; empty without one.
    """

    metrics: Metrics
    champion: Metrics
    failures: tuple[str, ...] = ()
    missing_slices: tuple[str, ...] = ()
    intervals: SlicedIntervals = field(default_factory=lambda: SlicedIntervals())
    changes: dict[str, Change] = field(default_factory=dict)

    @classmethod
    def read(cls, artifact: Any) -> Evaluation:
        """Reads the files that the Evaluator writes."""
        import tensorflow_model_analysis as tfma

        metrics: Metrics = {"overall": {}, "slices": {}}
        champion: Metrics = {"overall": {}, "slices": {}}
        estimates: dict[str, dict[str, dict[str, Any]]] = {}  # slice → metric → what → number
        for of_slice in tfma.load_metrics(artifact.uri):
            name = _slice_name(of_slice.slice_key)
            for pair in of_slice.metric_keys_and_values:
                key = pair.key
                if key.is_diff or key.name.startswith("__") or (not name and key.name in GAPS):
                    continue
                if key.name == CURVES:
                    continue
                number = pair.value.double_value.value
                metric, _, estimate = key.name.partition(":")
                if estimate:  # see fraud.models.evaluation.tfma_metrics.Bootstrap
                    of_metric = estimates.setdefault(name, {}).setdefault(metric, {})
                    of_metric[estimate] = number if math.isfinite(number) else None
                    if number == float("-inf"):
                        of_metric["unjudged"] = True
                    continue
                model = champion if key.model_name == CHAMPION else metrics
                row = model["slices"].setdefault(name, {}) if name else model["overall"]
                # A slice with too few examples has no gap: see fraud.models.evaluation.tfma_metrics
                row[key.name] = None if number == float("-inf") else number
        intervals = {
            name: {m: (e["low"], e["high"]) for m, e in of.items() if e["low"] is not None}
            for name, of in estimates.items()
        }
        changes = {
            metric: Change(
                e["change"],
                e["change_low"],
                e["change_high"],
                e.get("drop_probability"),
                "unjudged" in e,
            )
            for metric, e in estimates.get("", {}).items()
            if "change" in e
        }
        result = tfma.load_validation_result(artifact.uri)
        return cls(
            metrics,
            champion if champion["overall"] else {},
            tuple(
                _refusal(_slice_name(of_slice.slice_key) or "overall", failure, changes)
                for of_slice in result.metric_validations_per_slice
                for failure in of_slice.failures
            ),
            tuple(map(str, result.missing_slices)),
            {"overall": intervals.pop("", {}), "slices": intervals},
            changes,
        )


def curves(artifact: Any) -> dict[str, Any]:
    """Model → what `fraud.models.evaluation.curves` describes: a ModelEvaluation artifact.

    It is empty where that was not recorded.
    """
    path = Path(artifact.uri) / CURVES_FILE
    return json.loads(path.read_bytes()) if path.exists() else {}


@dataclass(frozen=True)
class Training:
    """How a model was trained, without TensorFlow to read it: a Model artifact.

    Attributes:
      history: metric → its value in each epoch.
      importance: column → how much it moves the score; see `Explainer.importance`.
      network: the settings of the network.
    """

    history: dict[str, list[float]]
    importance: dict[str, float]
    network: dict[str, Any]

    @classmethod
    def read(cls, artifact: Any) -> Training:
        """Reads the files next to the SavedModel's graph; what is missing is empty."""
        folder = Path(artifact.uri) / "Format-Serving" / "assets.extra"
        files = [folder / f"{name}.json" for name in ("history", "importance", "network")]
        return cls(*(json.loads(f.read_bytes()) if f.exists() else {} for f in files))


@dataclass(frozen=True)
class ServingCheckResult:
    """Whether a fresh process could serve the model: an InfraBlessing artifact.

    Attributes:
      blessed: whether it answered.
      reason: why not; empty if it did.
      examples: how many examples it scored; None if it did not answer.
    """

    blessed: bool
    reason: str
    examples: int | None

    @classmethod
    def read(cls, artifact: Any) -> ServingCheckResult:
        """Reads the properties that ServingCheck sets."""
        answer = json.loads(value(artifact, "answer") or "{}")
        blessed = value(artifact, "blessed") == 1
        return cls(blessed, value(artifact, "reason") or "", answer.get("examples"))


@dataclass(frozen=True)
class Push:
    """A push of a model: a PushedModel artifact.

    Attributes:
      pushed: whether the model was pushed; if not, the next three are None or meaningless.
      version: unix seconds, as text.
      path: the folder of that version.
      since: when it was pushed, in local time.
      outcome: "pushed", "not_blessed", "replay", "not_pushed" or "on_probation".
      reason: why not, or what was accepted; of a rollback, the reason given for it.
      restored, replaced, user: of a rollback, the version whose weights it restored, the one that
        was live before, and who did it; empty after a push by a run.
    """

    pushed: bool
    version: str | None
    path: str | None
    since: datetime
    outcome: str
    reason: str = ""
    restored: str = ""
    replaced: str = ""
    user: str = ""

    @classmethod
    def read(cls, artifact: Any) -> Push:
        """Reads the properties that the Pusher or a rollback sets."""
        proto = getattr(artifact, "mlmd_artifact", artifact)
        pushed = value(artifact, "pushed") == 1
        texts = ("reason", "restored_version", "replaced_version", "user")
        return cls(
            pushed,
            value(artifact, "pushed_version"),
            value(artifact, "pushed_destination"),
            datetime.fromtimestamp(proto.create_time_since_epoch / 1000),
            value(artifact, "outcome") or ("pushed" if pushed else "not_blessed"),
            *(value(artifact, name) or "" for name in texts),
        )


@dataclass(frozen=True)
class CardFiles:
    """The model card of a push: a ModelCard artifact.

    Attributes:
      written: whether there is one: it is written for pushed models only.
      page: HTML.
      text: the same as Markdown.
    """

    written: bool
    page: Path
    text: Path

    @classmethod
    def read(cls, artifact: Any) -> CardFiles:
        """Names the files that ModelCardGen writes."""
        folder = Path(artifact.uri)
        return cls(value(artifact, "written") == 1, folder / CARD_PAGE, folder / CARD_TEXT)


def observation(artifact: Any) -> Observation:
    """What one look at production found: a fraud.Observation artifact.

    Raises:
      BadInput: the file is not an observation.
      OSError: it cannot be read.
    """
    path = Path(artifact.uri) / OBSERVATION_FILE
    try:
        return Observation.from_json(path.read_bytes())
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None


def tuned_network(artifact: Any) -> dict[str, Any]:
    """The best settings of the network in a search: a HyperParameters artifact."""
    from fraud.models.spec import settings

    return dict(settings(_only_file(artifact)["values"]))


def trial_scores(artifact: Any) -> tuple[float, ...]:
    """The average precision of each trial of a search: a TunerResults artifact."""
    return tuple(trial["score"] for trial in _only_file(artifact))


@dataclass(frozen=True)
class RunSummary:
    """A finished run. The fields are the keys of `run --json` and of the run's summary.json.

    Attributes:
      run_id: the run.
      outcome: "pushed"; "not_blessed"; "replay", if its as-of day is not later than that of the
        live model, or its model is one that was replaced; "on_probation", if it may be pushed and
        is tried first; "not_pushed" for another reason; or "gate_stopped".
      root: the root it ran in.
      as_of: the as-of day; None if the data has no timestamp.
      reasons: why nothing was pushed.
      notes: what the data gate could not judge, and what was accepted to push.
      pushed_version, pushed_path: of the model that this run pushed, if any.
      model_card: the page about that model.
      live_version: the version in production after the run, if any.
      disagreements: between the push folder and ML Metadata.
      windows: split → first and last day.
      rows: split → number of transactions.
      positives: split → number of frauds, where labels are known.
      tuned: the file of settings that the Tuner chose, if it ran.
      validation: threshold and metrics on the held-out cards.
      metrics, champion_metrics: the Evaluator's, of the challenger and of the champion.
      intervals, changes: of the challenger's metrics, and their changes from the champion's.
      unjudged: slices, each with a metric, that have too few examples.
      anomalies: why the data gate stopped the run.
      tensorboard: the folder of TensorBoard's logs, if a model was ever trained in the root.
      inferred_schema: the file that the inferred schema was written to, if it was missing.
      drift: column → its largest divergence from the champion's or the reference's days, relative
        to the threshold; above 1 is drift.
      seconds: node → wall seconds, in the order in which the nodes ran.
    """

    run_id: str
    outcome: str
    root: str
    as_of: str | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    pushed_version: str | None = None
    pushed_path: str | None = None
    model_card: str | None = None
    live_version: str | None = None
    disagreements: tuple[str, ...] = ()
    windows: dict[str, tuple[str, str]] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    positives: dict[str, int] = field(default_factory=dict)
    tuned: str | None = None
    validation: Row = field(default_factory=dict)
    metrics: Metrics = field(default_factory=lambda: Metrics())
    champion_metrics: Metrics = field(default_factory=lambda: Metrics())
    intervals: SlicedIntervals = field(default_factory=lambda: SlicedIntervals())
    changes: dict[str, Change] = field(default_factory=dict)
    unjudged: tuple[str, ...] = ()
    anomalies: tuple[Anomaly, ...] = ()
    tensorboard: str | None = None
    inferred_schema: str | None = None
    drift: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> RunSummary | None:
        """Reads the summary in a run's folder; None if the run has not finished.

        Raises:
          BadInput: the file is not a summary.
        """
        path = folder / SUMMARY_FILE
        try:
            return from_json(cls, path.read_bytes()) if path.exists() else None
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
        except BadInput as error:
            raise BadInput(f"{path}: not the summary of a run: {error}") from None


def one_per_feature(anomalies: Sequence[Anomaly]) -> tuple[str, ...]:
    """The anomalies as sentences, one for each kind of each feature, whatever its windows.

    An anomaly that occurs in several windows is described as it is in the first one.
    """
    windows: dict[tuple[str, str, str], list[Anomaly]] = {}
    for anomaly in anomalies:
        windows.setdefault((anomaly.source, anomaly.feature, anomaly.anomaly), []).append(anomaly)
    return tuple(
        str(first) + (f" (also {', '.join(other.window for other in others)})" if others else "")
        for first, *others in windows.values()
    )


def _only_file(artifact: Any) -> Any:
    """The JSON document that is the only file of an artifact."""
    (file,) = Path(artifact.uri).iterdir()
    return json.loads(file.read_bytes())


def _refusal(of_slice: str, failure: Any, changes: dict[str, Change]) -> str:
    """Why the model was refused, as a sentence, from TFMA's record of a failure."""
    name, number = failure.metric_key.name, failure.metric_value.double_value.value
    bounds = failure.metric_threshold.value_threshold
    metric, _, estimate = name.partition(":")
    if failure.message:  # the metric could not be judged
        problem = f"{name}: {' '.join(failure.message.split())}"
    elif estimate:
        problem = f"{metric} {_drop(metric, number, changes[metric], bounds.upper_bound.value)}"
    elif bounds.HasField("upper_bound"):
        most, key = bounds.upper_bound.value, _setting(name, "max_gap")
        problem = f"{name} is {number:.4f}; at most {most} is allowed{key}"
    else:
        least, key = bounds.lower_bound.value, _setting(name, "minimum")
        problem = f"{name} is {number:.4f}; at least {least} is required{key}"
    return f"{of_slice}: {problem}"


def _setting(metric: str, limit: str) -> str:
    """The key of a limit, in parentheses; empty if the registry does not know it."""
    settings = [getattr(m, limit) for m in METRICS if m.name == metric]
    return f" (evaluation.{settings[0]})" if settings and settings[0] else ""


def _drop(metric: str, probability: float, change: Change, accepted: float) -> str:
    """How a metric dropped too far, as the end of a sentence."""
    if change.change is None:
        return "cannot be compared with the champion's: it is undefined"
    interval = (
        "" if change.low is None else f" (95 % interval {change.low:+.4f} … {change.high:+.4f})"
    )
    (setting,) = [m.max_drop for m in METRICS if m.name == metric]
    return (
        f"changes by {change.change:+.4f}{interval} from the champion's; the probability of a drop "
        f"larger than evaluation.{setting} is {probability:.3f}; at most {accepted} is accepted"
    )


def _slice_name(slice_key: Any) -> str:
    from tensorflow_model_analysis.slicer import slicer_lib

    parts = slicer_lib.deserialize_slice_key(slice_key)
    return ",".join(f"{column}={content}" for column, content in parts)

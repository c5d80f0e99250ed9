"""DataGate: the component that stops a run whose data is unusable.

TFX's validators record anomalies and continue. DataGate reads these records and writes a verdict,
an artifact. All later nodes run only if the verdict passed, so no orchestrator trains on refused
data. It fails closed: the verdict's notes name the comparisons that were not possible, and an
unreadable record fails the run.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, Examples, ExampleStatistics

from fraud.codec import to_json
from fraud.pipeline.components.drift_validator import BASELINE, NOT_JUDGED, UNJUDGED
from fraud.pipeline.components.types import DataVerdict
from fraud.pipeline.data_facts import VERDICT_FILE, Anomaly, ExamplesFacts, Verdict
from fraud.pipeline.windows import LABELLED_SPLITS

_SEVERITIES = {
    "error": anomalies_pb2.AnomalyInfo.ERROR,
    "warning": anomalies_pb2.AnomalyInfo.WARNING,
}
_RARER = anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_FRACTION_PRESENT
_NEVER = anomalies_pb2.AnomalyInfo.FEATURE_TYPE_NOT_PRESENT
_SMALL_WINDOW = 1000  # rows
UNLABELLED = "recent"
ANOMALIES_FILE = "SchemaDiff.pb"


def anomalies_in(
    anomalies: anomalies_pb2.Anomalies, window: str, source: str, severity: str
) -> list[Anomaly]:
    """The anomalies at or above a severity.

    Args:
      anomalies: what a validator recorded for one split.
      window: the name of that split for the reader.
      source: "schema" or "drift".
      severity: the lowest severity that counts, "error" or "warning".

    Returns:
      One entry for each reason of each feature.
    """
    relevant = []
    named = dict(anomalies.anomaly_info)
    if anomalies.HasField("dataset_anomaly_info"):
        named["(whole window)"] = anomalies.dataset_anomaly_info
    if anomalies.data_missing:
        missing = anomalies_pb2.AnomalyInfo(severity=anomalies_pb2.AnomalyInfo.ERROR)
        missing.reason.add(short_description="No data", description="The window has no examples.")
        named["(whole window)"] = missing
    for name, info in sorted(named.items()):
        level = anomalies_pb2.AnomalyInfo.ERROR if info.severity == 0 else info.severity
        if level < _SEVERITIES[severity]:
            continue
        feature = ".".join(info.path.step) or name
        relevant += [
            Anomaly(
                feature=feature,
                anomaly=reason.short_description,
                description=reason.description,
                severity=anomalies_pb2.AnomalyInfo.Severity.Name(level).lower(),
                window=window,
                source=source,
            )
            for reason in info.reason or [info]
        ]
    return relevant


def read_anomalies(uri: str, folder: str) -> anomalies_pb2.Anomalies:
    """Reads the record of a validator: `folder` belongs to one split or one pair of splits."""
    return anomalies_pb2.Anomalies.FromString((Path(uri) / folder / ANOMALIES_FILE).read_bytes())


def without_undefined(
    anomalies: anomalies_pb2.Anomalies, features: set[str], rows: int
) -> list[str]:
    """Drops, in place, the anomalies of derived features that are missing more often than in train.

    A feature is missing where it is undefined (a first transaction has no history), and how often
    that happens varies. A curated schema limits it; a schema inferred from train alone would treat
    "never missing so far" as a rule. Only in a small window may a feature be missing in all of the
    `rows` by chance; in others, something such as the history of the entities is missing.

    Returns:
      The features that are missing in every row.
    """
    never = []
    by_chance = {_RARER, _NEVER} if rows < _SMALL_WINDOW else {_RARER}
    for name in sorted(features & set(anomalies.anomaly_info)):
        info = anomalies.anomaly_info[name]
        kept = [r for r in info.reason if r.type not in by_chance]
        never += [name for r in info.reason if r.type == _NEVER and r not in kept]
        del info.reason[:]
        info.reason.extend(kept)
        if not kept:
            del anomalies.anomaly_info[name]
    return never


def one_class_only(data: ExamplesFacts) -> list[Anomaly]:
    """An anomaly for each labelled window that has no frauds, or only frauds."""
    return [
        Anomaly(
            feature="(label)",
            anomaly="One class only",
            description=f"{data.positives[split]} of {data.rows[split]} examples are frauds; "
            "nothing can be learned or judged from one class.",
            severity="error",
            window=split,
            source="labels",
        )
        for split in LABELLED_SPLITS
        if not 0 < data.positives[split] < data.rows[split]
    ]


def empty_in(statistics: ExampleStatistics, columns: Sequence[str]) -> tuple[str, ...]:
    """The columns and features that have no value at all in train."""
    train = stats_artifact_utils.load_statistics(statistics, "train").proto().datasets[0]
    present = {
        described.path.step[0]
        for described in train.features
        if (kind := described.WhichOneof("stats"))
        and getattr(described, kind).common_stats.num_non_missing
    }
    return tuple(column for column in columns if column not in present)


def refused_as_empty(empty: Sequence[str]) -> list[Anomaly]:
    """An anomaly for each column without any value in train."""
    return [
        Anomaly(
            feature=column,
            anomaly="No value",
            description="it is empty in all of train, so nothing can be learned from it.",
            severity="error",
            window="train",
            source="empty",
        )
        for column in empty
    ]


def notes_on(data: ExamplesFacts) -> list[str]:
    """What the data lacks without being wrong."""
    notes = []
    days = data.history
    if days and days["available"] < days["needed"]:
        notes.append(
            f"history: only {days['available']} of the {days['needed']} days before train that "
            "features look back on"
        )
    missing = {
        split: count / (count + data.rows[split])
        for split, count in data.unlabelled.items()
        if count
    }
    if missing:
        shares = " and ".join(f"{share:.1%} of {split}" for split, share in missing.items())
        notes.append(
            f"labels not known yet, left out: {shares}; what remains is biased towards quickly "
            "detected fraud"
        )
    return notes


def unjudged_drift(unjudged: str, baseline: str) -> list[str]:
    """A note for each reason why drift could not be judged.

    Args:
      unjudged: what the validator recorded; empty if it recorded nothing.
      baseline: what it compared with, "champion" or "reference".
    """
    columns: dict[tuple[str, str], list[str]] = {}
    for pair, whys in json.loads(unjudged or "{}").items():
        current, of_baseline = pair.split("_", 1)
        for column, why in whys.items():
            window = f"{current} against the {baseline}'s {of_baseline}"
            columns.setdefault((window, why), []).append(column)
    return [
        f"drift not judged: {', '.join(of_why)} of {window}: {why}"
        for (window, why), of_why in columns.items()
    ]


def verdict_of(
    examples: Examples,
    example_anomalies: ExampleAnomalies,
    drift_anomalies: ExampleAnomalies,
    reference_anomalies: ExampleAnomalies,
    label: str,
    derived: set[str],
    severity: str,
    curated: bool,
    empty: Sequence[str] = (),
    refuse_empty: bool = False,
) -> Verdict:
    """Judges the data of a run. The other arguments are those of `DataGate`.

    Args:
      empty: the columns and features without any value in train.
      refuse_empty: whether they stop the run.
    """
    data = ExamplesFacts.read(examples)
    anomalies, notes = one_class_only(data), notes_on(data)
    if refuse_empty:
        anomalies += refused_as_empty(empty)
    elif empty:
        notes.append(f"ignored, without any value in train: {', '.join(empty)}")
    for split in artifact_utils.decode_split_names(example_anomalies.split_names):
        of_split = read_anomalies(example_anomalies.uri, f"Split-{split}")
        if split == UNLABELLED:
            of_split.anomaly_info.pop(label, None)
        rows = data.rows.get(split, 0)
        if not curated and (undefined := without_undefined(of_split, derived, rows)):
            notes.append(f"undefined in all of {split}: {', '.join(undefined)}")
        anomalies += anomalies_in(of_split, split, "schema", severity)
    if not curated:
        notes.append("validated against the schema inferred from train: none is curated yet")
    compared = {"champion": drift_anomalies, "reference": reference_anomalies}
    if _property(drift_anomalies, BASELINE) == _property(reference_anomalies, BASELINE):
        del compared["reference"]  # the first champion is still in production
    for name, drift_of in compared.items():
        if why := _property(drift_of, NOT_JUDGED):
            notes.append(f"drift not judged: no {name} {why}")
            continue
        for pair in artifact_utils.decode_split_names(drift_of.split_names):
            current, baseline = pair.split("_", 1)
            window = f"{current} against the {name}'s {baseline}"
            of_pair = read_anomalies(drift_of.uri, f"SplitPair-{pair}")
            anomalies += anomalies_in(of_pair, window, "drift", severity)
        notes += unjudged_drift(_property(drift_of, UNJUDGED), name)
    return Verdict(not anomalies, tuple(anomalies), tuple(notes), tuple(empty))


def _property(anomalies: ExampleAnomalies, name: str) -> str:
    return anomalies.get_string_custom_property(name) or ""


@component
def DataGate(  # noqa: N802 (TFX names components like classes)
    examples: InputArtifact[Examples],
    statistics: InputArtifact[ExampleStatistics],
    example_anomalies: InputArtifact[ExampleAnomalies],
    drift_anomalies: InputArtifact[ExampleAnomalies],
    reference_anomalies: InputArtifact[ExampleAnomalies],
    verdict: OutputArtifact[DataVerdict],
    label: Parameter[str],
    derived: Parameter[str],
    columns: Parameter[str],
    empty_columns: Parameter[str],
    severity: Parameter[str],
    curated: Parameter[int],
) -> None:
    """Judges the data of a run.

    Args:
      examples: from TransactionExampleGen.
      statistics: from StatisticsGen.
      example_anomalies: from ExampleValidator.
      drift_anomalies: from DistributionValidator, against the champion's data.
      reference_anomalies: the same against the fixed reference.
      verdict: the decision with every anomaly behind it.
      label: the label column; it may be missing in `recent`.
      derived: JSON list of the features that ingestion computes.
      columns: JSON list of the columns and features that the model reads.
      empty_columns: "ignore" or "refuse", those of them that have no value in train.
      severity: the lowest severity that stops a run, "error" or "warning".
      curated: 1 if the schema was reviewed, 0 if it was inferred from this run's train window.
    """
    decision = verdict_of(
        examples,
        example_anomalies,
        drift_anomalies,
        reference_anomalies,
        label,
        set(json.loads(derived)),
        severity,
        bool(curated),
        empty_in(statistics, json.loads(columns)),
        empty_columns == "refuse",
    )
    (Path(verdict.uri) / VERDICT_FILE).write_text(to_json(decision, indent=1), encoding="utf-8")
    verdict.set_int_custom_property("passed", int(decision.passed))

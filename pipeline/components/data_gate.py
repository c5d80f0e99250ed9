"""DataGate: the component that lets a run go on only with sound data.

TFX's validators record anomalies and go on. This one reads what they recorded and gives a verdict,
an artifact of its own. Everything after it stands under the condition that the verdict passed, so
that no orchestrator trains on data that was refused. It fails closed: what was not compared is said
in the verdict's notes, and what cannot be read fails the run.
"""

import json
import os

from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx.components.distribution_validator.executor import NO_BASELINE_STATS
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies, Examples

from fraud.pipeline.components.types import VERDICT_FILE, DataVerdict

_SEVERITIES = {
    "error": anomalies_pb2.AnomalyInfo.ERROR,
    "warning": anomalies_pb2.AnomalyInfo.WARNING,
}
_RARER = anomalies_pb2.AnomalyInfo.FEATURE_TYPE_LOW_FRACTION_PRESENT
UNLABELLED = "recent"
ANOMALIES_FILE = "SchemaDiff.pb"


def anomalies_in(
    anomalies: anomalies_pb2.Anomalies, window: str, source: str, severity: str
) -> list[dict[str, str]]:
    """The anomalies at or above a severity.

    Args:
      anomalies: what a validator found in one split.
      window: the name of that split, as a reader should see it.
      source: "schema" or "drift".
      severity: "error" or "warning"; the least that counts.

    Returns:
      One entry for each reason: feature, anomaly (short), description, severity, window, source.
    """
    found = []
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
        reasons = info.reason or [info]
        for reason in reasons:
            found.append(
                {
                    "feature": feature,
                    "anomaly": reason.short_description,
                    "description": reason.description,
                    "severity": anomalies_pb2.AnomalyInfo.Severity.Name(level).lower(),
                    "window": window,
                    "source": source,
                }
            )
    return found


def read_anomalies(uri: str, folder: str) -> anomalies_pb2.Anomalies:
    """Reads what a validator wrote for one split, or one pair of splits, into its folder."""
    path = os.path.join(uri, folder, ANOMALIES_FILE)
    anomalies = anomalies_pb2.Anomalies()
    with open(path, "rb") as file:
        anomalies.ParseFromString(file.read())
    return anomalies


def without_undefined(anomalies: anomalies_pb2.Anomalies, features: set[str]) -> None:
    """Drops, in place, that a derived feature is missing more often than in train.

    It is missing where it is undefined (a first transaction has no past), and that varies. A
    curated schema says how far; one inferred from train alone takes "never yet" for a rule.
    """
    for name in features & set(anomalies.anomaly_info):
        info = anomalies.anomaly_info[name]
        kept = [r for r in info.reason if r.type != _RARER]
        del info.reason[:]
        info.reason.extend(kept)
        if not kept:
            del anomalies.anomaly_info[name]


def without_labels(examples: Examples) -> list[dict[str, str]]:
    """An anomaly for each labelled window without frauds, or with nothing else."""
    positives = json.loads(examples.get_string_custom_property("positives"))
    rows = json.loads(examples.get_string_custom_property("rows"))
    found = []
    for split in ("train", "eval"):
        if not 0 < positives[split] < rows[split]:
            found.append(
                {
                    "feature": "(label)",
                    "anomaly": "One class only",
                    "description": f"{positives[split]} of {rows[split]} examples are frauds; "
                    "nothing can be learned or judged from one class.",
                    "severity": "error",
                    "window": split,
                    "source": "labels",
                }
            )
    return found


def verdict_of(
    examples: Examples,
    example_anomalies: ExampleAnomalies,
    drift_anomalies: ExampleAnomalies,
    label: str,
    derived: set[str],
    severity: str,
    curated: bool,
) -> dict:
    """The verdict as it is written; see `DataVerdict`. Arguments are those of `DataGate`."""
    anomalies, notes = without_labels(examples), []
    for split in artifact_utils.decode_split_names(example_anomalies.split_names):
        found = read_anomalies(example_anomalies.uri, f"Split-{split}")
        if split == UNLABELLED:
            found.anomaly_info.pop(label, None)
        if not curated:
            without_undefined(found, derived)
        anomalies += anomalies_in(found, split, "schema", severity)
    if not curated:
        notes.append("validated against the schema inferred from train: none is curated yet")
    compared = drift_anomalies.get_json_value_custom_property("blessed") or {}
    if any(value == NO_BASELINE_STATS for value in compared.values()):
        notes.append("drift not judged: no champion from other data yet")
    else:
        for pair in artifact_utils.decode_split_names(drift_anomalies.split_names):
            current, baseline = pair.split("_", 1)
            window = f"{current} against the champion's {baseline}"
            found = read_anomalies(drift_anomalies.uri, f"SplitPair-{pair}")
            anomalies += anomalies_in(found, window, "drift", severity)
    return {"passed": not anomalies, "anomalies": anomalies, "notes": notes}


@component
def DataGate(  # noqa: N802 (TFX names components like classes)
    examples: InputArtifact[Examples],
    example_anomalies: InputArtifact[ExampleAnomalies],
    drift_anomalies: InputArtifact[ExampleAnomalies],
    verdict: OutputArtifact[DataVerdict],
    label: Parameter[str],
    derived: Parameter[str],
    severity: Parameter[str],
    curated: Parameter[int],
) -> None:
    """Judges the data of a run.

    Args:
      examples: of TransactionExampleGen.
      example_anomalies: of ExampleValidator.
      drift_anomalies: of DistributionValidator.
      verdict: the decision, with every anomaly that made it.
      label: the label column; that it is missing in `recent` is no anomaly.
      derived: JSON list of the features made by ingestion.
      severity: the least severity that stops a run, "error" or "warning".
      curated: 1 if the schema was reviewed, 0 if it was inferred from this run's train window.
    """
    decided = verdict_of(
        examples,
        example_anomalies,
        drift_anomalies,
        label,
        set(json.loads(derived)),
        severity,
        bool(curated),
    )
    with open(os.path.join(verdict.uri, VERDICT_FILE), "w", encoding="utf-8") as file:
        json.dump(decided, file, indent=1)
    verdict.set_int_custom_property("passed", int(decided["passed"]))

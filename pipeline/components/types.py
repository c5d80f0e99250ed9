"""Artifact types of our own components."""

from tfx.types.artifact import Artifact


class DataVerdict(Artifact):
    """What the data gate decided.

    Holds `verdict.json`: `{"passed": bool, "anomalies": [{"feature", "anomaly", "description",
    "severity", "window", "source"}], "notes": [str]}`. Custom property `passed` is 1 or 0.
    """

    TYPE_NAME = "pipeline.DataVerdict"  # where Vertex AI imports it from


VERDICT_FILE = "verdict.json"

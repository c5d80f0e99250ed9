"""What the artifacts of the data stage contain, as typed records; the rest is in `artifacts`.

The data gate reads and writes these, and every node after it waits for its verdict: if this module,
or one that it imports, changes, training runs again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud.codec import from_json, from_values

VERDICT_FILE = "verdict.json"


def value(holder: Any, name: str) -> Any:
    """A property or custom property of an artifact or execution; None if it has none."""
    holder = getattr(holder, "mlmd_artifact", holder)
    for properties in (holder.properties, holder.custom_properties):
        if name in properties:
            kind = properties[name].WhichOneof("value")
            content = getattr(properties[name], kind) if kind else None
            if kind == "struct_value":  # TFX's wrapping of JSON values
                from google.protobuf import json_format

                content = json_format.MessageToDict(content).get("__value__", content)
            return content
    return None


@dataclass(frozen=True)
class ExamplesFacts:
    """The data of a run: an Examples artifact.

    Attributes:
      as_of: the as-of day; None if the data has no timestamp.
      windows: split → first and last day (YYYY-MM-DD); empty if the data has no timestamp.
      rows, positives: split → number of transactions, of frauds.
    """

    as_of: str | None
    windows: dict[str, tuple[str, str]]
    rows: dict[str, int]
    positives: dict[str, int]

    @classmethod
    def read(cls, artifact: Any) -> ExamplesFacts:
        """Reads the properties that TransactionExampleGen sets."""
        names = ("windows", "rows", "positives")
        counts = {name: json.loads(value(artifact, name) or "{}") for name in names}
        return from_values(cls, {"as_of": value(artifact, "as_of") or None, **counts})


@dataclass(frozen=True)
class Anomaly:
    """One reason why the data gate stopped a run.

    Attributes:
      feature: the column, or "(label)" or "(whole window)".
      anomaly: what is wrong, in a few words.
      description: the same in a sentence; may be empty.
      severity: "error" or "warning".
      window: the split, for example "eval".
      source: the check that failed: "schema", "drift" or "labels".
    """

    feature: str
    anomaly: str
    description: str
    severity: str
    window: str
    source: str

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.window, self.feature, self.anomaly, self.description)))


@dataclass(frozen=True)
class Verdict:
    """The data gate's decision: a DataVerdict artifact.

    Attributes:
      passed: whether the run may continue.
      anomalies: the reasons why not.
      notes: what could not be judged.
    """

    passed: bool
    anomalies: tuple[Anomaly, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def read(cls, artifact: Any) -> Verdict:
        """Reads the file that DataGate writes."""
        return from_json(cls, (Path(artifact.uri) / VERDICT_FILE).read_bytes())

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

CURVES_FILE = "curves.json"
VERDICT_FILE = "verdict.json"

CHAMPION_PROPERTIES = ("champion_column", "champion_problem")
HELD_OUT = "held_out"
"""Properties of an Examples artifact; see `ExamplesFacts`."""


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
class HeldOut:
    """Which rows are evaluated if the data has no timestamp: a share of all, chosen by a hash.

    Attributes:
      columns: those whose values are hashed.
      percent: the share.
    """

    columns: tuple[str, ...]
    percent: int

    def contains(self, other: HeldOut) -> bool:
        """Whether all rows of another choice are among those of this one."""
        return self.columns == other.columns and self.percent >= other.percent


@dataclass(frozen=True)
class ExamplesFacts:
    """The data of a run: an Examples artifact.

    Attributes:
      as_of: the as-of day; None if the data has no timestamp.
      windows: split → first and last day (YYYY-MM-DD); empty if the data has no timestamp.
      rows, positives: split → number of transactions, of frauds.
      unlabelled: split → number of transactions left out because their label is not known yet;
        empty without label times.
      history: how many days before train are `needed` by features and `available`; may be empty.
      champion_column: the feature of the eval examples that holds the champion's examples; empty if
        the champion reads the same inputs as the challenger, or less.
      champion_problem: why the champion could not be judged; empty if it could.
      held_out: which rows are evaluated; None if the data has timestamps, or an earlier release
        made the examples.
    """

    as_of: str | None
    windows: dict[str, tuple[str, str]]
    rows: dict[str, int]
    positives: dict[str, int]
    history: dict[str, int]
    unlabelled: dict[str, int]
    champion_column: str = ""
    champion_problem: str = ""
    held_out: HeldOut | None = None

    @classmethod
    def read(cls, artifact: Any) -> ExamplesFacts:
        """Reads the properties that TransactionExampleGen sets."""
        names = ("windows", "rows", "positives", "history", "unlabelled")
        facts = {name: json.loads(value(artifact, name) or "{}") for name in names}
        facts |= {name: value(artifact, name) or "" for name in CHAMPION_PROPERTIES}
        facts["held_out"] = json.loads(value(artifact, HELD_OUT) or "null")
        return from_values(cls, {"as_of": value(artifact, "as_of") or None, **facts})


@dataclass(frozen=True)
class Anomaly:
    """One reason why the data gate stopped a run.

    Attributes:
      feature: the column, or "(label)" or "(whole window)".
      anomaly: what is wrong, in a few words.
      description: the same in a sentence; may be empty.
      severity: "error" or "warning".
      window: the split, for example "eval".
      source: the check that failed: "schema", "drift", "labels" or "empty".
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
      empty: the columns and features without any value in train, so that nothing was learned from
        them.
    """

    passed: bool
    anomalies: tuple[Anomaly, ...] = ()
    notes: tuple[str, ...] = ()
    empty: tuple[str, ...] = ()

    @classmethod
    def read(cls, artifact: Any) -> Verdict:
        """Reads the file that DataGate writes."""
        return from_json(cls, (Path(artifact.uri) / VERDICT_FILE).read_bytes())

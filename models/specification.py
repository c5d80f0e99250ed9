"""What a model's inputs are computed from, as recorded in the exported model.

A champion must be judged on the inputs it was trained on, and equal names need not mean equal
values.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from fraud.codec import from_json, to_json
from fraud.errors import BadInput
from fraud.features.batch import add_features, check_features, definitions, history_days
from fraud.features.spec import Dataset, Features
from fraud.models.columns import ModelColumns

EXTRA = "assets.extra"
"""TensorFlow's conventional folder of a SavedModel for files that it does not read itself."""
SPECIFICATION_FILE = "specification.json"
EXAMPLE_VALUES_FILE = "feature_values.json"
INPUTS_FILE = "inputs.json"
"""Column → name of the input of the signature `predict`."""

INPUTS_COLUMN = "(inputs "
"""How every `InputSpecification.column` begins."""

_EXAMPLES = 60


@dataclass(frozen=True)
class InputSpecification:
    """Everything besides the transactions that determines the values of a model's inputs.

    Attributes:
      dataset: the columns of the data and their roles.
      features: the derived columns.
      label_delay_days: days until a label is known.
    """

    dataset: Dataset
    features: Features
    label_delay_days: int

    @classmethod
    def read(cls, model: Path) -> InputSpecification:
        """Reads the specification of a SavedModel.

        Raises:
          BadInput: the model has none, or one that this version cannot read.
        """
        path = model / EXTRA / SPECIFICATION_FILE
        try:
            inputs = from_json(cls, path.read_bytes())
            check_features(inputs.features, inputs.dataset)
        except OSError as error:
            raise BadInput(f"{path}: cannot be read: {error.strerror}") from None
        except BadInput as error:
            raise BadInput(f"{path}: {error}") from None
        return inputs

    @property
    def column(self) -> str:
        """The bytes feature that holds the serialized example of these inputs, where it is embedded
        in an example of other inputs.
        """
        return f"{INPUTS_COLUMN}{hashlib.sha256(to_json(self).encode()).hexdigest()[:16]})"

    def provides(self, other: InputSpecification) -> bool:
        """Whether examples of these inputs contain all inputs of another model, value for value."""
        ours, theirs = self._definitions(), other._definitions()
        return all(name in ours and ours[name] == theirs[name] for name in theirs)

    def _definitions(self) -> dict[str, Any]:
        """Input → everything that its values depend on."""
        columns = ModelColumns.of(self.dataset, self.features)
        derived = definitions(self.features, self.dataset, self.label_delay_days)
        numbers = dict.fromkeys(columns.numeric, "number")
        return numbers | dict.fromkeys(columns.categorical, "text") | derived


def example_values(inputs: InputSpecification) -> dict[str, list[float | None]]:
    """The features of 60 made-up transactions, by name: what they are computed to *today*.

    A specification names features and their parameters; what these mean is code, which changes.
    Values tell a change of meaning from a change of wording. The transactions are always the same
    for a specification, and so long apart that every window sees some and misses others.
    """
    import pyarrow as pa

    dataset, draw = inputs.dataset, random.Random(0)
    days = 2 * max(1, history_days(inputs.features, dataset, inputs.label_delay_days))
    times = sorted(
        datetime(2024, 2, 1) + timedelta(days=days * draw.random()) for _ in range(_EXAMPLES)
    )
    late = 2 * inputs.label_delay_days
    columns: dict[str | None, pa.Array] = {
        dataset.timestamp: pa.array(times, pa.timestamp("us")),
        dataset.amount: pa.array([round(math.exp(6 * draw.random()), 2) for _ in times]),
        dataset.label: pa.array([float(draw.random() < 0.3) for _ in times]),
        dataset.label_time: pa.array(
            [time + timedelta(days=late * draw.random()) for time in times], pa.timestamp("us")
        ),
    }
    for entity in dataset.entities:
        columns[entity] = pa.array([draw.choice("ab") for _ in times])
    table = pa.table({name: column for name, column in columns.items() if name is not None})
    table = add_features(table, dataset, inputs.features, inputs.label_delay_days)
    return {
        name: [None if math.isnan(v) else float(f"{v:.6g}") for v in table[name].to_pylist()]
        for name in definitions(inputs.features, dataset, inputs.label_delay_days)
    }


def changed_features(model: Path, inputs: InputSpecification) -> list[str]:
    """The features of a SavedModel that today's code computes to other values than when it was
    exported; none if it does not say, as those of earlier releases.

    Args:
      model: the folder of the SavedModel.
      inputs: its specification.

    Raises:
      BadInput: the file of the values cannot be read.
    """
    path = model / EXTRA / EXAMPLE_VALUES_FILE
    if not path.is_file():
        return []
    try:
        before = from_json(dict[str, list[float | None]], path.read_bytes())
    except (OSError, BadInput) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from None
    return [name for name, now in example_values(inputs).items() if not _close(before, name, now)]


def check_code(model: Path, inputs: InputSpecification) -> None:
    """Checks that today's code computes the features of a SavedModel as it did when exported.

    The arguments are those of `changed_features`.

    Raises:
      BadInput: it does not; or the file of the values cannot be read.
    """
    if changed := changed_features(model, inputs):
        others = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        raise BadInput(
            f"the code of its features has changed, which are now other values: "
            f"{', '.join(changed[:3])}{others}"
        )


def _close(before: Mapping[str, list[float | None]], name: str, now: list[float | None]) -> bool:
    """Whether values are equal but for what another machine or library may make of them."""
    then = before.get(name, [])
    return len(then) == len(now) and all(
        a is b if a is None or b is None else math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6)
        for a, b in zip(then, now, strict=True)
    )

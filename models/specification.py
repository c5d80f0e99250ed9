"""What a model's inputs are computed from, as recorded in the exported model.

A champion must be judged on the inputs it was trained on, and equal names need not mean equal
values.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fraud.codec import from_json, to_json
from fraud.errors import BadInput
from fraud.features.batch import check_features, definitions
from fraud.features.spec import Dataset, Features
from fraud.models.columns import ModelColumns

EXTRA = "assets.extra"
"""TensorFlow's conventional folder of a SavedModel for files that it does not read itself."""
SPECIFICATION_FILE = "specification.json"

INPUTS_COLUMN = "(inputs "
"""How every `InputSpecification.column` begins."""


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

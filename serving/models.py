"""A version of the model, loaded."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from fraud.errors import BadInput
from fraud.models.columns import ModelColumns
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification
from fraud.serving.protos import Example, prediction_log_pb2
from fraud.serving.records import read_records
from fraud.serving.session import Function, InvalidInput, ModelError, Session
from fraud.serving.tensors import from_tensor_proto

WARMUP_FILE = "tf_serving_warmup_requests"
"""In a SavedModel's folder assets.extra: requests to send before real ones, as TensorFlow Serving
does. PredictionLog messages in a TFRecord file."""

INPUTS_FILE = "inputs.json"
"""In the same folder: the names of the inputs of `predict`, by column."""
_MOST_WARMUP_REQUESTS = 1000  # TensorFlow Serving's limit


@dataclass(frozen=True)
class Scores:
    """What a model says about transactions.

    Attributes:
      score: fraud probabilities, float32 [n].
      alert: whether the score reaches the threshold of the alert budget, bool [n].
    """

    score: np.ndarray
    alert: np.ndarray


@dataclass(frozen=True)
class Explanations:
    """Scores, and the columns that raised them most.

    Attributes:
      scores: as of `LoadedModel.score`.
      columns: names, the strongest first, [n][k].
      contributions: of those columns, in units of the logit, float32 [n, k].
    """

    scores: Scores
    columns: list[list[str]]
    contributions: np.ndarray


class LoadedModel:
    """A version of the model that is loaded. Its methods may be called from several threads.

    Args:
      folder: the SavedModel; its name is the version.

    Attributes:
      version: the name of the folder.
      folder: where it was loaded from.
      signatures: the functions of the SavedModel, by name.
      input_names: the names of the inputs of `predict`, by column.
      specification: what the inputs are computed from; None if the model does not record it, in
        which case raw transactions cannot be scored.

    Raises:
      BadInput: the folder is no SavedModel of ours; says why.
      ModelError: TensorFlow cannot load it.
    """

    def __init__(self, folder: Path) -> None:
        if not (folder / "saved_model.pb").is_file():
            raise BadInput(f"{folder}: no SavedModel: there is no saved_model.pb")
        self.version, self.folder = folder.name, folder
        self.specification = _specification(folder)
        self._session = Session(folder)
        try:
            self.signatures = {
                name: self._session.function(name) for name in self._session.signatures
            }
            self._predict = self._signature("predict")
            self.input_names = _input_names(folder, self._predict)
            self._check_columns()
        except BaseException:
            self._session.close()
            raise

    def _check_columns(self) -> None:
        """Checks that what the inputs are computed from yields the inputs.

        Raises:
          BadInput: it does not.
        """
        if self.specification is None:
            return
        columns = {*self.columns.numeric, *self.columns.categorical}
        if different := sorted(columns ^ self.input_names.keys()):
            raise BadInput(
                f"{self.folder / EXTRA / SPECIFICATION_FILE}: is of another model: "
                f"{', '.join(different[:5])}"
            )

    @property
    def columns(self) -> ModelColumns:
        """The columns that the model reads.

        Raises:
          BadInput: the model does not record them.
        """
        if self.specification is None:
            raise BadInput(f"{self.folder}: has no {EXTRA}/{SPECIFICATION_FILE}; train it again")
        return ModelColumns.of(self.specification.dataset, self.specification.features)

    def score(self, columns: Mapping[str, np.ndarray]) -> Scores:
        """Scores transactions whose features are known.

        Args:
          columns: every column of `input_names`: float32 [n], NaN where missing, or arrays of
            `bytes`, [n], b"" where missing.
        """
        result = self._predict(**{name: columns[c] for c, name in self.input_names.items()})
        return Scores(result["score"], result["alert"] > 0)

    def explain(self, columns: Mapping[str, np.ndarray]) -> Explanations:
        """Scores transactions and explains the scores; some forty times as expensive as `score`.

        Args:
          columns: as of `score`.
        """
        result = self._signature("explain")(examples=self._examples(columns))
        return Explanations(
            Scores(result["score"], result["alert"] > 0),
            [[column.decode() for column in row] for row in result["reason"]],
            result["contribution"],
        )

    def call(self, signature: str, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Calls a signature.

        Args:
          signature: one of `signatures`.
          inputs: every input of the signature, of its type and with one value per transaction.

        Raises:
          BadInput: TensorFlow refuses the inputs.
          ModelError: anything else goes wrong in the graph.
        """
        try:
            return self.signatures[signature](**inputs)
        except InvalidInput as error:
            raise BadInput(str(error).partition("\n")[0]) from None

    def warm_up(self) -> int:
        """Sends the model's own warm-up requests, or one in which every value is missing.

        Returns:
          How many requests were sent.

        Raises:
          ModelError: a request fails, or a score is not a probability.
        """
        path = self.folder / EXTRA / WARMUP_FILE
        requests = list(_warmup_requests(path)) if path.is_file() else [self._all_missing()]
        for signature, inputs in requests:
            if signature not in self.signatures:
                raise ModelError(f"warm-up: the model has no signature {signature!r}")
            try:
                score = self.signatures[signature](**inputs).get("score", np.zeros(0))
            except (InvalidInput, KeyError) as error:
                raise ModelError(f"warm-up of {signature!r}: {error}") from None
            if not ((score >= 0) & (score <= 1)).all():  # also if it is not a number
                raise ModelError(f"warm-up of {signature!r}: scores outside [0, 1]")
        return len(requests)

    def close(self) -> None:
        """Frees the model."""
        self._session.close()

    def _signature(self, name: str) -> Function:
        if name not in self.signatures:
            raise BadInput(f"{self.folder}: the model has no signature {name!r}")
        return self.signatures[name]

    def _all_missing(self) -> tuple[str, dict[str, np.ndarray]]:
        missing = {
            name: np.array([b""], object) if info.is_text else np.array([np.nan], info.numpy_type)
            for name, info in self._predict.inputs.items()
        }
        return "predict", missing

    def _examples(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Serialized tf.train.Examples of transactions, [n]."""
        rows = len(next(iter(columns.values())))
        examples = np.empty(rows, object)
        for row in range(rows):
            example = Example()
            feature = example.features.feature
            for column in self.input_names:
                value = columns[column][row]
                if isinstance(value, bytes):
                    if value:
                        feature[column].bytes_list.value.append(value)
                elif value == value:  # not NaN
                    feature[column].float_list.value.append(value)
            examples[row] = example.SerializeToString()
        return examples


def _specification(folder: Path) -> InputSpecification | None:
    if not (folder / EXTRA / SPECIFICATION_FILE).is_file():
        return None
    return InputSpecification.read(folder)


def _input_names(folder: Path, predict: Function) -> dict[str, str]:
    """The names of the inputs of `predict` by column.

    Raises:
      BadInput: the file that says so is not of this model.
    """
    path = folder / EXTRA / INPUTS_FILE
    if not path.is_file():
        return {name: name for name in predict.inputs}
    try:
        names = json.loads(path.read_bytes())
        matches = sorted(names.values()) == sorted(predict.inputs)
    except (ValueError, AttributeError, TypeError):
        raise BadInput(f"{path}: no JSON object of input names") from None
    if not matches:
        raise BadInput(f"{path}: these are not the inputs of the model's signature 'predict'")
    return names


def _warmup_requests(path: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    for record in read_records(path, _MOST_WARMUP_REQUESTS):
        try:
            request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        except DecodeError:
            raise BadInput(f"{path}: not a file of PredictionLog messages") from None
        arrays = {name: from_tensor_proto(name, t) for name, t in request.inputs.items()}
        yield request.model_spec.signature_name or "serving_default", arrays

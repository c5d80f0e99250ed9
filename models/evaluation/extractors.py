"""How examples reach TFMA: scored a batch at a time and counted, not a dictionary for each.

TFMA's metrics over scores put every prediction into one of 10,000 buckets before anything else is
computed (its calibration histogram), example after example. Here a whole batch is scored at once
and its examples are counted by (slice, label, bucket). Each slice then reaches TFMA as one extract
of arrays: an element for every label and bucket that occurs, with the bucket's mean score as
prediction and the number of its examples as example weight. Counts, areas under curves, confusion
matrices and calibration come out as if TFMA had seen every example, because it only ever adds up
weights by bucket; metrics, thresholds, validation and blessing are TFMA's own.

A metric that is more than sums by bucket asks for columns the way TFMA has it, by the
`include_filter` of its preprocessor: `{tfma.FEATURES_KEY: {"TX_DATETIME": {}, SCORES: {}}}`. It
gets them in `element.features` as arrays of one value an example of the slice, all in the same
order; `SCORES` among them is what the models gave: model name → output → [examples] (the model
name is "" where there is only one). `OVERALL` are the `Counts` of all examples, whatever the slice:
model name → output → counts. A number that an example lacks is NaN.

What does not work so: TFMA's `min_slice_size` (it would count extracts), slices by SQL and
confidence intervals (both need single examples).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf
import tensorflow_model_analysis as tfma
from numpy.typing import NDArray
from tensorflow_model_analysis.extractors.slice_key_extractor import (
    SLICE_KEY_EXTRACTOR_STAGE_NAME,
)
from tensorflow_model_analysis.metrics import calibration_histogram, metric_specs
from tensorflow_model_analysis.slicer import slicer_lib as slicer

SCORES, OVERALL = "(scores)", "(overall)"
BUCKETS = calibration_histogram.DEFAULT_NUM_BUCKETS
_CELLS = BUCKETS + 2  # of one label: the buckets, and one more on either side

SliceKey = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class Counts:
    """Examples counted by label and score bucket.

    Attributes:
      cell: int64 [k], ascending: label × 10,002 + bucket, the bucket as TFMA numbers it.
      examples: int64 [k], how many there are in each cell.
      scores: float64 [k], the sum of their scores.
    """

    cell: NDArray[np.int64]
    examples: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, label: NDArray, score: NDArray) -> Counts:
        """Counts single examples.

        Args:
          label: [n], 0 or 1.
          score: float32 [n], in [0, 1].
        """
        exact = score.astype(np.float64)
        # The arithmetic of TFMA's histogram, so that no example falls into another bucket there.
        bucket = np.clip(exact * BUCKETS + 1, 0, BUCKETS + 1).astype(np.int64)
        return cls._summed(label.astype(np.int64) * _CELLS + bucket, np.ones_like(bucket), exact)

    @classmethod
    def sum(cls, parts: Iterable[Counts]) -> Counts:
        """The counts of all parts together."""
        listed = list(parts)
        return cls._summed(
            np.concatenate([part.cell for part in listed]),
            np.concatenate([part.examples for part in listed]),
            np.concatenate([part.scores for part in listed]),
        )

    @classmethod
    def _summed(cls, cell: NDArray, examples: NDArray, scores: NDArray) -> Counts:
        cells, index = np.unique(cell, return_inverse=True)
        summed = np.bincount(index, examples, cells.size).astype(np.int64)
        total = np.bincount(index, scores, cells.size).astype(np.float64)
        return cls(cells, summed, total)

    def share_at(self, score: float, label: int) -> float:
        """Of the examples with a label, the share with a score; NaN if there are none."""
        those = self.label == label
        if not those.any():
            return float("nan")
        at = those & (self.mean_score == score)
        return float(self.examples[at].sum() / self.examples[those].sum())

    @property
    def label(self) -> NDArray[np.float64]:
        """[k]: the label of each cell."""
        return (self.cell // _CELLS).astype(np.float64)

    @property
    def mean_score(self) -> NDArray[np.float64]:
        """[k]: lies in the cell's bucket, like every score it is the mean of."""
        return self.scores / self.examples


@dataclass(frozen=True)
class Tally:
    """What is known of one slice.

    Attributes:
      counts: (model, output) → counts.
      columns: what metrics asked for besides: column, or (model, output) for scores → [examples].
    """

    counts: dict[tuple[str, str], Counts]
    columns: dict[Any, NDArray]

    @classmethod
    def sum(cls, parts: Iterable[Tally]) -> Tally:
        """The tally of all parts together."""
        listed = list(parts)
        return cls(
            {k: Counts.sum(part.counts[k] for part in listed) for k in listed[0].counts},
            {k: np.concatenate([p.columns[k] for p in listed]) for k in listed[0].columns},
        )


def custom_extractors(
    eval_shared_model: Any, eval_config: tfma.EvalConfig, tensor_adapter_config: Any
) -> list[tfma.extractors.Extractor]:
    """The extractors that TFX's Evaluator uses instead of TFMA's default ones (`module_path`).

    Args:
      eval_shared_model: one TFMA EvalSharedModel or a list of them.
      eval_config: with its defaults filled in, as the Evaluator gives it.
      tensor_adapter_config: unused; columns are read as they are.
    """
    del tensor_adapter_config
    shared = eval_shared_model if isinstance(eval_shared_model, list) else [eval_shared_model]
    paths = {model.model_name: model.model_path for model in shared}
    return [
        tfma.extractors.Extractor(
            # TFMA evaluates after the stage of this name.
            stage_name=SLICE_KEY_EXTRACTOR_STAGE_NAME,
            ptransform=_CountExamples(
                [_Scorer.of(spec, paths) for spec in eval_config.model_specs],
                [slicer.SingleSliceSpec(spec=spec) for spec in eval_config.slicing_specs],
                _asked_for(eval_config),
            ),
        )
    ]


def _asked_for(eval_config: tfma.EvalConfig) -> list[str]:
    """The features that metrics name in the `include_filter` of their preprocessors."""
    asked: set[str] = set()
    computations = metric_specs.to_computations(eval_config.metrics_specs, eval_config)
    for computation in computations:
        for preprocessor in getattr(computation, "preprocessors", None) or ():
            asked.update(preprocessor.include_filter.get(tfma.FEATURES_KEY, {}))
    return sorted(asked)


@dataclass
class _Scorer:
    """One model: its name in results, where it is, and the label of each of its outputs."""

    name: str
    path: str
    signature: str
    labels: dict[str, str]

    @classmethod
    def of(cls, spec: tfma.ModelSpec, paths: Mapping[str, str]) -> _Scorer:
        # TFMA names a single model "" whatever its specification says.
        path = paths[spec.name] if spec.name in paths else paths[""]
        return cls(spec.name, path, spec.signature_name, dict(spec.label_keys))

    def load(self) -> Any:
        """The signature, as a function from serialized examples to outputs by name."""
        model = tf.saved_model.load(self.path)
        function = model.signatures[self.signature]

        def score(examples: tf.Tensor, model: Any = model) -> dict[str, NDArray]:
            del model  # its variables live as long as this function
            found = function(examples)
            return {name: found[name].numpy().reshape(-1) for name in self.labels}

        return score


class _CountExamples(beam.PTransform):
    """Extracts of Arrow batches → one extract for each slice."""

    def __init__(
        self, models: list[_Scorer], slices: list[slicer.SingleSliceSpec], asked: list[str]
    ) -> None:
        super().__init__()
        self._models, self._slices, self._asked = models, slices, asked

    def expand(self, extracts: beam.PCollection) -> beam.PCollection:
        tallies = (
            extracts
            | "CountBatches" >> beam.ParDo(_CountBatch(self._models, self._slices, self._asked))
            | "SumSlices" >> beam.CombinePerKey(Tally.sum)
        )
        overall = (
            tallies
            | "IsOverall" >> beam.Filter(lambda tally: tally[0] == ())
            | "ItsCounts" >> beam.MapTuple(lambda _, tally: tally.counts)
        )
        return tallies | "OneExtractASlice" >> beam.Map(
            partial(_extract, len(self._models) > 1),
            overall=beam.pvalue.AsSingleton(overall, default_value={}),
        )


class _CountBatch(beam.DoFn):
    """Scores a batch with every model and tallies it by slice."""

    def __init__(
        self, models: list[_Scorer], slices: list[slicer.SingleSliceSpec], asked: list[str]
    ) -> None:
        self._models, self._asked = models, asked
        self._slices = slices or [slicer.SingleSliceSpec()]
        self._scorers: dict[str, Any] = {}

    def setup(self) -> None:
        self._scorers = {model.name: model.load() for model in self._models}

    def process(self, extracts: Mapping[str, Any]) -> Iterator[tuple[SliceKey, Tally]]:
        batch = extracts[tfma.ARROW_RECORD_BATCH_KEY]
        examples = tf.constant(_flat(batch, tfma.ARROW_INPUT_COLUMN).to_numpy(False))
        scores: dict[tuple[str, str], NDArray] = {}
        labels: dict[tuple[str, str], NDArray] = {}
        for model in self._models:
            for output, score in self._scorers[model.name](examples).items():
                scores[model.name, output] = score
                labels[model.name, output] = _values(batch, model.labels[output])
        named = [c for c in self._asked if c not in (SCORES, OVERALL)]
        columns: dict[Any, NDArray] = {c: _values(batch, c, missing=True) for c in named}
        if SCORES in self._asked:
            columns.update(scores)
        for key, rows in _slices_of(batch, self._slices):
            counts = {k: Counts.of(labels[k][rows], score[rows]) for k, score in scores.items()}
            yield key, Tally(counts, {k: column[rows] for k, column in columns.items()})


def _flat(batch: pa.RecordBatch, name: str) -> pa.Array:
    """All values of a column of lists."""
    return batch.column(batch.schema.get_field_index(name)).flatten()


def _values(batch: pa.RecordBatch, name: str, missing: bool = False) -> NDArray:
    """[examples]: a column that must have one value in each example.

    Args:
      batch: of examples.
      name: the column.
      missing: whether numbers with a fraction may be missing; they are NaN then.

    Raises:
      ValueError: an example has no value, or several.
    """
    values = _flat(batch, name) if name in batch.schema.names else pa.array([], pa.float32())
    if missing and pa.types.is_floating(values.type) and len(values) < batch.num_rows:
        found = np.full(batch.num_rows, np.nan, np.float32)
        if len(values):
            column = batch.column(batch.schema.get_field_index(name))
            found[pc.list_parent_indices(column).to_numpy(False)] = values.to_numpy(False)
        return found
    if len(values) != batch.num_rows:
        raise ValueError(
            f"{name}: {len(values)} values in {batch.num_rows} examples; "
            "what is evaluated must have one in each"
        )
    return values.to_numpy(False)


def _slices_of(
    batch: pa.RecordBatch, specs: list[slicer.SingleSliceSpec]
) -> Iterator[tuple[SliceKey, NDArray[np.bool_]]]:
    """The slices that occur in a batch, as TFMA names them, and which examples are in each."""
    names = sorted({name for spec in specs for name in _sliced_columns(spec)})
    codes = np.full((batch.num_rows, len(names)), -1)  # -1: no value
    found: list[NDArray] = []
    for i, name in enumerate(names):
        if name in batch.schema.names and not pa.types.is_null(batch.schema.field(name).type):
            column = batch.column(batch.schema.get_field_index(name))
            encoded = column.flatten().dictionary_encode()
            codes[pc.list_parent_indices(column).to_numpy(False), i] = encoded.indices
            found.append(encoded.dictionary.to_numpy(False))
        else:
            found.append(np.array([]))
    combinations, of_row = np.unique(codes, axis=0, return_inverse=True)
    members: dict[SliceKey, list[int]] = {}
    for number, combination in enumerate(combinations):
        features = {
            name: found[i][code : code + 1]
            for i, (name, code) in enumerate(zip(names, combination, strict=True))
            if code >= 0
        }
        for key in slicer.get_slices_for_features_dicts([], features, specs):
            members.setdefault(key, []).append(number)
    for key, numbers in members.items():
        yield key, np.isin(of_row.reshape(-1), numbers)


def _sliced_columns(spec: slicer.SingleSliceSpec) -> list[str]:
    proto = spec.to_proto()
    return [*proto.feature_keys, *proto.feature_values]


def _extract(
    several: bool, named: tuple[SliceKey, Tally], overall: dict[tuple[str, str], Counts]
) -> dict[str, Any]:
    """The extract of a slice.

    Args:
      several: models are several, so that TFMA looks for their names first.
      named: the slice's key and its examples.
      overall: the counts of all examples; empty if they are not a slice that is evaluated.
    """
    key, tally = named

    def by_model(values: Mapping[tuple[str, str], Any], several: bool) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for (model, output), value in values.items():
            (nested.setdefault(model, {}) if several else nested)[output] = value
        return nested

    columns = {k: v for k, v in tally.columns.items() if isinstance(k, str)}
    scores = {k: v for k, v in tally.columns.items() if isinstance(k, tuple)}
    counts = tally.counts
    return {
        tfma.SLICE_KEY_TYPES_KEY: slicer.slice_keys_to_numpy_array([key]),
        tfma.LABELS_KEY: by_model({k: c.label for k, c in counts.items()}, several),
        tfma.PREDICTIONS_KEY: by_model({k: c.mean_score for k, c in counts.items()}, several),
        tfma.EXAMPLE_WEIGHTS_KEY: by_model(
            {k: c.examples.astype(np.float64) for k, c in counts.items()}, several
        ),
        tfma.FEATURES_KEY: {
            **columns,
            SCORES: by_model(scores, several=True),
            OVERALL: by_model(overall, several=True),
        },
    }

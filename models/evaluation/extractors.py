"""How examples reach TFMA: scored in batches and counted, not as one dictionary per example.

TFMA's metrics over scores first put every prediction into one of 10,000 buckets (its calibration
histogram), one example at a time. Here a whole batch is scored at once and its examples are counted
by (slice, label, bucket). Each slice then reaches TFMA as one extract of arrays, with one element
for every label and bucket that occurs: the bucket's mean score is the prediction and its number of
examples the example weight. Counts, areas under curves, confusion matrices and calibration come
out as if TFMA had seen every example, because TFMA only ever adds up weights by bucket. Metrics,
thresholds, validation and blessing remain TFMA's own.

A metric that is more than sums by bucket requests columns in TFMA's usual way, by the
`include_filter` of its preprocessor: `{tfma.FEATURES_KEY: {"TX_DATETIME": {}, SCORES: {}}}`. It
receives them in `element.features` as arrays with one value per example of the slice, all in the
same order. `SCORES` are the outputs of the models: model name → output → [examples] (the model name
is "" if there is only one). `OVERALL` are the histograms of all examples, whatever the slice: model
name → output → `ScoreHistogram`. A number that an example lacks is NaN.

Not supported: TFMA's `min_slice_size` (it would count extracts), slices by SQL and confidence
intervals (both need single examples).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
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

from fraud.errors import BadInput
from fraud.models.specification import InputSpecification

SCORES, OVERALL = "(scores)", "(overall)"
BUCKETS = calibration_histogram.DEFAULT_NUM_BUCKETS
_CELLS = BUCKETS + 2  # per label: the buckets, plus one on either side

SliceKey = tuple[tuple[str, Any], ...]


@dataclass(frozen=True)
class ScoreHistogram:
    """Examples of one slice counted by label and score bucket.

    Attributes:
      cell: int64 [k], ascending: label × 10,002 + bucket, with TFMA's numbering of buckets.
      examples: int64 [k], the number of examples in each cell.
      scores: float64 [k], the sum of their scores.
    """

    cell: NDArray[np.int64]
    examples: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def of(cls, label: NDArray, score: NDArray) -> ScoreHistogram:
        """Counts single examples: labels [n], 0 or 1, and scores, float32 [n] in [0, 1]."""
        exact = score.astype(np.float64)
        # Same arithmetic as TFMA's histogram, so that every example falls into the same bucket.
        bucket = np.clip(exact * BUCKETS + 1, 0, BUCKETS + 1).astype(np.int64)
        return cls._summed(label.astype(np.int64) * _CELLS + bucket, np.ones_like(bucket), exact)

    @classmethod
    def sum(cls, parts: Iterable[ScoreHistogram]) -> ScoreHistogram:
        """The histogram of all parts together."""
        listed = list(parts)
        return cls._summed(
            np.concatenate([part.cell for part in listed]),
            np.concatenate([part.examples for part in listed]),
            np.concatenate([part.scores for part in listed]),
        )

    @classmethod
    def _summed(cls, cell: NDArray, examples: NDArray, scores: NDArray) -> ScoreHistogram:
        cells, index = np.unique(cell, return_inverse=True)
        summed = np.bincount(index, examples, cells.size).astype(np.int64)
        total = np.bincount(index, scores, cells.size).astype(np.float64)
        return cls(cells, summed, total)

    def share_at(self, score: float, label: int) -> float:
        """The share of the examples with this label that have this score; NaN without examples."""
        labelled = self.label == label
        if not labelled.any():
            return float("nan")
        scored = labelled & (self.mean_score == score)
        return float(self.examples[scored].sum() / self.examples[labelled].sum())

    @property
    def label(self) -> NDArray[np.float64]:
        """[k]: the label of each cell."""
        return (self.cell // _CELLS).astype(np.float64)

    @property
    def mean_score(self) -> NDArray[np.float64]:
        """[k]: the mean score of each cell, itself within the cell's bucket."""
        return self.scores / self.examples


@dataclass(frozen=True)
class SliceData:
    """The examples of one slice, as far as metrics need them.

    Attributes:
      histograms: (model, output) → its scores.
      columns: other columns that metrics require: column, or (model, output) for scores →
        [examples].
    """

    histograms: dict[tuple[str, str], ScoreHistogram]
    columns: dict[Any, NDArray]

    @classmethod
    def sum(cls, parts: Iterable[SliceData]) -> SliceData:
        """The data of all parts together, whatever their order."""
        listed = sorted(parts, key=lambda part: part._content)
        first = listed[0]
        return cls(
            {k: ScoreHistogram.sum(p.histograms[k] for p in listed) for k in first.histograms},
            {k: np.concatenate([p.columns[k] for p in listed]) for k in first.columns},
        )

    @property
    def _content(self) -> tuple[bytes, bytes]:
        """Digests of the data, by which parts have an order that no runner changes.

        Sums of floating-point numbers and the bootstrap depend a little on the order. Scores only
        decide between parts that are otherwise equal, so that the metrics of a model do not depend
        on which other model is evaluated beside it.
        """
        scores = {k: v for k, v in self.columns.items() if isinstance(k, tuple)}
        others = [v for k, v in self.columns.items() if not isinstance(k, tuple)]
        counted = [(h.cell, h.examples, h.scores) for h in self.histograms.values()]
        return _digest(others), _digest([*(a for h in counted for a in h), *scores.values()])


def _digest(arrays: Iterable[NDArray]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        text = array.tobytes() if array.dtype != object else repr(array.tolist()).encode()
        digest.update(text)
    return digest.digest()


class SumSlice(beam.CombineFn):
    """Parts of a slice → `SliceData.sum`, which copies each part once.

    Beam would combine a plain function ten parts at a time, and copy what it has so far each time.
    """

    def create_accumulator(self) -> list[SliceData]:
        """See beam.CombineFn."""
        return []

    def add_input(self, parts: list[SliceData], part: SliceData) -> list[SliceData]:
        """See beam.CombineFn."""
        parts.append(part)
        return parts

    def merge_accumulators(self, accumulators: Iterable[list[SliceData]]) -> list[SliceData]:
        """See beam.CombineFn."""
        return [part for parts in accumulators for part in parts]

    def extract_output(self, parts: list[SliceData]) -> SliceData:
        """See beam.CombineFn."""
        return SliceData.sum(parts)


def custom_extractors(
    eval_shared_model: Any, eval_config: tfma.EvalConfig, tensor_adapter_config: Any
) -> list[tfma.extractors.Extractor]:
    """The extractors that TFX's Evaluator uses instead of TFMA's defaults (`module_path`).

    Args:
      eval_shared_model: one TFMA EvalSharedModel or a list of them.
      eval_config: with its defaults filled in, as the Evaluator passes it.
      tensor_adapter_config: unused; columns are read as they are.
    """
    del tensor_adapter_config
    shared = eval_shared_model if isinstance(eval_shared_model, list) else [eval_shared_model]
    # TFMA names a single model "", whatever its specification says.
    paths = {model.model_name: model.model_path for model in shared}
    models = [_Scorer(spec, paths.get(spec.name) or paths[""]) for spec in eval_config.model_specs]
    return [
        tfma.extractors.Extractor(
            # TFMA starts evaluating after the stage with this name.
            stage_name=SLICE_KEY_EXTRACTOR_STAGE_NAME,
            ptransform=_summarize_slices(
                models,
                [slicer.SingleSliceSpec(spec=spec) for spec in eval_config.slicing_specs],
                _required_columns(eval_config),
            ),
        )
    ]


def _required_columns(eval_config: tfma.EvalConfig) -> list[str]:
    """The features that metrics name in the `include_filter` of their preprocessors."""
    columns: set[str] = set()
    for computation in metric_specs.to_computations(eval_config.metrics_specs, eval_config):
        for preprocessor in getattr(computation, "preprocessors", None) or ():
            columns.update(preprocessor.include_filter.get(tfma.FEATURES_KEY, {}))
    return sorted(columns)


@dataclass
class _Scorer:
    """One model: its specification and its folder."""

    spec: tfma.ModelSpec
    path: str

    def load(self) -> Any:
        """The signature, as a function from a batch of examples to outputs by name.

        Where examples contain one of the model's own inputs, that one is scored.
        """
        model = tf.saved_model.load(self.path)
        try:
            own = InputSpecification.read(Path(self.path)).column
        except BadInput:
            own = ""
        function = model.signatures[self.spec.signature_name]

        def score(batch: pa.RecordBatch, model: Any = model) -> dict[str, NDArray]:
            del model  # the default argument keeps its variables alive as long as this function
            column = own if own in batch.schema.names else tfma.ARROW_INPUT_COLUMN
            examples = tf.constant(batch.column(column).flatten().to_numpy(False))
            outputs = function(examples)
            return {name: outputs[name].numpy().reshape(-1) for name in self.spec.label_keys}

        return score


@beam.ptransform_fn
def _summarize_slices(
    extracts: beam.PCollection,
    models: list[_Scorer],
    slices: list[slicer.SingleSliceSpec],
    columns: list[str],
) -> beam.PCollection:
    """Extracts of Arrow batches → one extract for each slice."""
    summaries = (
        extracts
        | "SummarizeBatches" >> beam.ParDo(_SummarizeBatch(models, slices, columns))
        | "SumSlices" >> beam.CombinePerKey(SumSlice())
    )
    overall = (
        summaries
        | "IsOverall" >> beam.Filter(lambda keyed: keyed[0] == ())
        | "ItsHistograms" >> beam.MapTuple(lambda _, data: data.histograms)
    )
    return summaries | "OneExtractPerSlice" >> beam.Map(
        partial(_extract, len(models) > 1),
        overall=beam.pvalue.AsSingleton(overall, default_value={}),
    )


class _SummarizeBatch(beam.DoFn):
    """Scores a batch with every model and splits the result by slice."""

    def __init__(
        self, models: list[_Scorer], slices: list[slicer.SingleSliceSpec], columns: list[str]
    ) -> None:
        self._models, self._columns = models, columns
        self._slices = slices or [slicer.SingleSliceSpec()]
        self._scorers: dict[str, Any] = {}

    def setup(self) -> None:
        self._scorers = {model.spec.name: model.load() for model in self._models}

    def process(self, extracts: Mapping[str, Any]) -> Iterator[tuple[SliceKey, SliceData]]:
        batch = extracts[tfma.ARROW_RECORD_BATCH_KEY]
        scores: dict[tuple[str, str], NDArray] = {}
        labels: dict[tuple[str, str], NDArray] = {}
        for model in self._models:
            name = model.spec.name
            for output, score in self._scorers[name](batch).items():
                scores[name, output] = score
                labels[name, output] = _values(batch, model.spec.label_keys[output])
        columns: dict[Any, NDArray] = {
            name: _values(batch, name, missing=True)
            for name in self._columns
            if name not in (SCORES, OVERALL)
        }
        if SCORES in self._columns:
            columns.update(scores)
        for key, rows in _slices_of(batch, self._slices):
            histograms = {
                k: ScoreHistogram.of(labels[k][rows], score[rows]) for k, score in scores.items()
            }
            yield key, SliceData(histograms, {k: v[rows] for k, v in columns.items()})


def _values(batch: pa.RecordBatch, name: str, missing: bool = False) -> NDArray:
    """A column that must have exactly one value in each example, [examples].

    With `missing`, floating-point values may be missing; NaN stands for them.

    Raises:
      ValueError: an example has no value or more than one.
    """
    has_column = name in batch.schema.names
    values = batch.column(name).flatten() if has_column else pa.array([], pa.float32())
    if missing and pa.types.is_floating(values.type) and len(values) < batch.num_rows:
        filled = np.full(batch.num_rows, np.nan, np.float32)
        if len(values):
            rows = pc.list_parent_indices(batch.column(name))
            filled[rows.to_numpy(False)] = values.to_numpy(False)
        return filled
    if len(values) != batch.num_rows:
        raise ValueError(
            f"{name}: {len(values)} values in {batch.num_rows} examples; "
            "evaluation needs exactly one in each"
        )
    return values.to_numpy(False)


def _slices_of(
    batch: pa.RecordBatch, specs: list[slicer.SingleSliceSpec]
) -> Iterator[tuple[SliceKey, NDArray[np.bool_]]]:
    """The slices in a batch, with TFMA's keys, and which examples are in each, [examples]."""
    protos = [spec.to_proto() for spec in specs]
    names = sorted({c for proto in protos for c in (*proto.feature_keys, *proto.feature_values)})
    codes = np.full((batch.num_rows, len(names)), -1)  # -1: no value
    values: list[NDArray] = []  # of each column, by code
    for i, name in enumerate(names):
        if name in batch.schema.names and not pa.types.is_null(batch.schema.field(name).type):
            column = batch.column(name)
            encoded = column.flatten().dictionary_encode()
            codes[pc.list_parent_indices(column).to_numpy(False), i] = encoded.indices
            values.append(encoded.dictionary.to_numpy(False))
        else:
            values.append(np.array([]))
    combinations, of_row = np.unique(codes, axis=0, return_inverse=True)
    members: dict[SliceKey, list[int]] = {}
    for number, combination in enumerate(combinations):
        features = {
            name: values[i][code : code + 1]
            for i, (name, code) in enumerate(zip(names, combination, strict=True))
            if code >= 0
        }
        for key in slicer.get_slices_for_features_dicts([], features, specs):
            members.setdefault(key, []).append(number)
    for key, numbers in members.items():
        yield key, np.isin(of_row.reshape(-1), numbers)


def _extract(
    multiple_models: bool,
    keyed: tuple[SliceKey, SliceData],
    overall: dict[tuple[str, str], ScoreHistogram],
) -> dict[str, Any]:
    """The extract of a slice; with several models, TFMA expects values nested by model name.

    `overall` is empty if the overall slice is not evaluated.
    """
    key, data = keyed

    def by_model(values: Mapping[tuple[str, str], Any], nest: bool) -> dict[str, Any]:
        nested: dict[str, Any] = {}
        for (model, output), value in values.items():
            (nested.setdefault(model, {}) if nest else nested)[output] = value
        return nested

    columns = {k: v for k, v in data.columns.items() if isinstance(k, str)}
    scores = {k: v for k, v in data.columns.items() if isinstance(k, tuple)}
    histograms = data.histograms.items()
    weights = {k: h.examples.astype(np.float64) for k, h in histograms}
    return {
        tfma.SLICE_KEY_TYPES_KEY: slicer.slice_keys_to_numpy_array([key]),
        tfma.LABELS_KEY: by_model({k: h.label for k, h in histograms}, multiple_models),
        tfma.PREDICTIONS_KEY: by_model({k: h.mean_score for k, h in histograms}, multiple_models),
        tfma.EXAMPLE_WEIGHTS_KEY: by_model(weights, multiple_models),
        tfma.FEATURES_KEY: {
            **columns,
            SCORES: by_model(scores, nest=True),
            OVERALL: by_model(overall, nest=True),
        },
    }

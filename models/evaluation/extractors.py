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
same order; `SAMPLE` says whether these are all examples of a large slice
(`fraud.models.evaluation.slice_data`). `SCORES` are the outputs of the models: model name → output
→ [examples] (the model name is "" if there is only one). `HISTOGRAMS` are those of all examples of
the slice and `OVERALL` those of all examples, whatever the slice: model name → output →
`ScoreHistogram`. A number that an example lacks is NaN.

Not supported: TFMA's `min_slice_size` (it would count extracts), slices by SQL and confidence
intervals (both need single examples).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
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
from tensorflow_model_analysis.metrics import metric_specs
from tensorflow_model_analysis.slicer import slicer_lib as slicer

from fraud.errors import BadInput
from fraud.models.evaluation.slice_data import ScoreHistogram, SliceData, SumSlice
from fraud.models.specification import InputSpecification

SCORES, HISTOGRAMS, OVERALL, SAMPLE = "(scores)", "(histograms)", "(overall)", "(sample)"

SliceKey = tuple[tuple[str, Any], ...]


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
                _card(eval_config),
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


def _card(eval_config: tfma.EvalConfig) -> str | None:
    """The column of the cards that the bootstrap draws; None if it draws examples."""
    configs = [metric.config for spec in eval_config.metrics_specs for metric in spec.metrics]
    cards = {json.loads(config).get("card") for config in configs if config}
    return next(iter(cards - {None}), None)


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
    card: str | None,
) -> beam.PCollection:
    """Extracts of Arrow batches → one extract for each slice."""
    summaries = (
        extracts
        | "SummarizeBatches" >> beam.ParDo(_SummarizeBatch(models, slices, columns))
        | "SumSlices" >> beam.CombinePerKey(SumSlice(card))
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
            if name not in (SCORES, HISTOGRAMS, OVERALL, SAMPLE)
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
            HISTOGRAMS: by_model(data.histograms, nest=True),
            OVERALL: by_model(overall, nest=True),
            SAMPLE: data.sample,
        },
    }

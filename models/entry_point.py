"""Trainer's entry point: examples and Transform's graph → a SavedModel."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tensorflow_transform as tft

from fraud import codec
from fraud.models import examples
from fraud.models import export as serving
from fraud.models.columns import ModelColumns
from fraud.models.network import explain, training
from fraud.models.network.training import Examples, Fitted
from fraud.models.preprocessing import transform_fn as preprocessing
from fraud.models.spec import Network

EXTRA = "assets.extra"
"""The folder of a SavedModel for what TensorFlow does not read, by its own convention."""
THRESHOLD_FILE = "threshold.json"
NETWORK_FILE = "network.json"


def run_fn(fn_args: Any) -> None:
    """Trains and exports. Called by TFX's Trainer.

    Args:
      fn_args: TFX's FnArgs; `custom_config` holds `columns` (JSON of ModelColumns), `network` (JSON
        of Network) and `alert_budget` (cards a day). `hyperparameters`, if there was a Tuner, has
        its best `values`, which go before `network`.
    """
    columns = ModelColumns.from_json(fn_args.custom_config["columns"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    train(fn_args, examples.load_split(fn_args.train_files, transform, columns), transform)


def train(fn_args: Any, read: Examples, transform: tft.TFTransformOutput) -> None:
    """Trains on examples that have been read, and exports.

    Args:
      fn_args: see `run_fn`.
      read: the train split.
      transform: Transform's output.
    """
    config = fn_args.custom_config
    columns = ModelColumns.from_json(config["columns"])
    spec = codec.from_json(Network, config["network"])
    if fn_args.hyperparameters:
        spec = spec.tuned(fn_args.hyperparameters["values"])
    fitted = training.fit(
        spec,
        read,
        preprocessing.vocabulary_sizes(transform, columns, spec),
        config["alert_budget"],
        fn_args.model_run_dir,
    )
    typical = explain.typical_genuine(read.inputs, read.labels)
    explainer = explain.Explainer(fitted.model, typical, columns.numeric, columns.categorical)
    served = serving.ServedModel(fitted, explainer, transform, columns)
    served.save(fn_args.serving_model_dir)
    _write_extra(Path(fn_args.serving_model_dir) / EXTRA, fitted, spec)


def _write_extra(folder: Path, fitted: Fitted, spec: Network) -> None:
    """Puts beside the graph what the model is worth and how it was made; undefined is null."""
    worth = {k: v if math.isfinite(v) else None for k, v in fitted.validation.items()}
    found = {"threshold": fitted.threshold, "validation": worth}
    folder.mkdir()
    (folder / THRESHOLD_FILE).write_text(json.dumps(found, indent=1), encoding="utf-8")
    (folder / NETWORK_FILE).write_text(json.dumps(asdict(spec), indent=1), encoding="utf-8")

"""The Trainer's entry point: from examples and Transform's graph to a SavedModel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow_transform as tft

from fraud.codec import from_json, to_json
from fraud.models import workers
from fraud.models.columns import ModelColumns
from fraud.models.examples import Examples, load_split, model_feature_spec
from fraud.models.export import ServedModel
from fraud.models.network import training
from fraud.models.network.explain import Explainer, typical_genuine
from fraud.models.network.team import Team
from fraud.models.network.training import Fitted
from fraud.models.preprocessing.transform_fn import vocabulary_sizes
from fraud.models.spec import AlertBudget, Network
from fraud.models.specification import (
    EXAMPLE_VALUES_FILE,
    EXTRA,
    SPECIFICATION_FILE,
    InputSpecification,
    example_values,
)
from fraud.models.warmup import first_examples, write_warmup_requests

THRESHOLD_FILE = "threshold.json"
NETWORK_FILE = "network.json"
HISTORY_FILE = "history.json"
"""Loss and validation metric of each epoch."""
IMPORTANCE_FILE = "importance.json"
"""Column → its importance; see `Explainer.importance`."""

TASK = (
    "train_files",
    "transform_output",
    "serving_model_dir",
    "model_run_dir",
    "hyperparameters",
    "custom_config",
)
"""What training needs of TFX's FnArgs."""


def run_fn(fn_args: Any) -> None:
    """Trains and exports. Called by TFX's Trainer.

    Args:
      fn_args: TFX's FnArgs; `custom_config` holds `columns` (JSON of ModelColumns), `network` (JSON
        of Network), `alert_budget` (JSON of AlertBudget) and `inputs` (JSON of InputSpecification).
        If there was a Tuner, `hyperparameters` has its best `values`, which override `network`.
        With several `network.workers`, `workers_folder` is one that all of them share.
    """
    network = from_json(Network, fn_args.custom_config["network"])
    if network.workers == 1:
        train_from_files(fn_args)
        return
    workers.lead(
        {name: getattr(fn_args, name) for name in TASK},
        Path(fn_args.custom_config["workers_folder"]),
        network.workers,
        60 * network.workers_wait_minutes,
    )


def train_from_files(fn_args: Any, team: Team | None = None) -> None:
    """Reads the train split, trains and exports; for `fn_args` and `team` see `train`."""
    columns = from_json(ModelColumns, fn_args.custom_config["columns"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    network = from_json(Network, fn_args.custom_config["network"])
    examples = load_split(fn_args.train_files, transform, columns, network.rows_in_memory)
    train(fn_args, examples, transform, team)


def train(
    fn_args: Any,
    examples: Examples,
    transform: tft.TFTransformOutput,
    team: Team | None = None,
) -> None:
    """Trains on the train split and exports.

    Args:
      fn_args: see `run_fn`; only what `TASK` names is used.
      examples: the train split.
      transform: Transform's output.
      team: the workers that train together; only the first one logs and exports.
    """
    leads = team is None or team.index == 0
    config = fn_args.custom_config
    columns = from_json(ModelColumns, config["columns"])
    spec = from_json(Network, config["network"])
    if fn_args.hyperparameters:
        spec = spec.tuned(fn_args.hyperparameters["values"])
    fitted = training.fit(
        spec,
        examples,
        vocabulary_sizes(transform, columns, spec),
        from_json(AlertBudget, config["alert_budget"]),
        fn_args.model_run_dir if leads else None,
        team=team,
    )
    if not leads:
        return
    typical = typical_genuine(examples.inputs, examples.labels)
    explainer = Explainer(fitted.model, typical, columns.numeric, columns.categorical)
    ServedModel(fitted, explainer, transform, columns).save(fn_args.serving_model_dir)
    inputs = from_json(InputSpecification, config["inputs"])
    directory = Path(fn_args.serving_model_dir)
    _write_extra(directory / EXTRA, fitted, inputs)
    sample = {name: array[fitted.sample] for name, array in examples.inputs.items()}
    importance = to_json(explainer.importance(sample), indent=1)
    (directory / EXTRA / IMPORTANCE_FILE).write_text(importance, encoding="utf-8")
    types = {name: of.dtype for name, of in model_feature_spec(transform, columns).items()}
    write_warmup_requests(directory, first_examples(fn_args.train_files), types)


def _write_extra(folder: Path, fitted: Fitted, inputs: InputSpecification) -> None:
    """Writes threshold, validation metrics (null if undefined) and settings next to the graph."""
    quality = {"threshold": fitted.threshold, "validation": fitted.validation}
    (folder / THRESHOLD_FILE).write_text(to_json(quality, indent=1), encoding="utf-8")
    (folder / HISTORY_FILE).write_text(to_json(fitted.history, indent=1), encoding="utf-8")
    (folder / NETWORK_FILE).write_text(to_json(fitted.spec, indent=1), encoding="utf-8")
    (folder / SPECIFICATION_FILE).write_text(to_json(inputs, indent=1), encoding="utf-8")
    (folder / EXAMPLE_VALUES_FILE).write_text(to_json(example_values(inputs)), encoding="utf-8")

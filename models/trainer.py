"""Trainer's entry point: examples and Transform's graph → a SavedModel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
import tensorflow_transform as tft

from models import examples, network, preprocessing, serving, threshold
from models.columns import ModelColumns
from models.spec import Network

VALIDATION_SHARE = 0.1
DAY = 86400


@dataclass(frozen=True)
class Fitted:
    """A trained network.

    Attributes:
      model: the network.
      cut: the row at which the validation part of the train window begins.
      scores: float [rows − cut], of the validation part.
    """

    model: keras.Model
    cut: int
    scores: np.ndarray


def validation_cut(timestamps: np.ndarray) -> int:
    """Where the last tenth of the days begins (of the rows, if all is one day).

    Args:
      timestamps: int [n], epoch seconds in ascending order.
    """
    days = np.unique(timestamps // DAY)
    if days.size == 1:
        return timestamps.size - max(1, int(timestamps.size * VALIDATION_SHARE))
    first = days[-max(1, round(days.size * VALIDATION_SHARE))]
    return int(np.searchsorted(timestamps // DAY, first))


def run_fn(fn_args: Any) -> None:
    """Trains and exports. Called by TFX's Trainer.

    Args:
      fn_args: TFX's FnArgs; `custom_config` holds `columns` (JSON of ModelColumns), `network` (JSON
        of Network) and `alert_budget` (cards a day).
    """
    config = fn_args.custom_config
    columns = ModelColumns.from_json(config["columns"])
    spec = Network.from_json(config["network"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    keras.utils.set_random_seed(spec.seed)
    tf.config.experimental.enable_op_determinism()

    files = [f for pattern in fn_args.train_files for f in tf.io.gfile.glob(pattern)]
    inputs, side = examples.load(examples.parsed(files, transform, columns))
    fitted = train(spec, inputs, side, transform, columns, fn_args.model_run_dir)
    held_out = {k: v[fitted.cut :] for k, v in side.items()}
    alert = threshold.for_budget(
        fitted.scores, held_out["timestamp"] // DAY, held_out["card"], config["alert_budget"]
    )
    served = serving.ServedModel(fitted.model, transform, columns, alert)
    served.save(fn_args.serving_model_dir)


def train(
    spec: Network,
    inputs: dict[str, np.ndarray],
    side: dict[str, np.ndarray],
    transform: tft.TFTransformOutput,
    columns: ModelColumns,
    log_dir: str,
) -> Fitted:
    """Fits the network on the earlier part of the train window and validates on its last part.

    Args:
      spec: the network.
      inputs, side: what `examples.load` gives, in order of time.
      transform: Transform's output.
      columns: what the model reads.
      log_dir: where TensorBoard's logs go.

    """
    cut = validation_cut(side["timestamp"])
    sizes = {
        c: int(transform.vocabulary_size_by_name(preprocessing.vocabulary_name(c)))
        + spec.out_of_vocabulary
        + 1
        for c in columns.categorical
    }
    model = network.build(spec, len(columns.numeric), sizes)
    steps = max(1, cut // spec.batch)
    rate = keras.optimizers.schedules.CosineDecay(spec.learning_rate, steps * spec.epochs)
    model.compile(
        optimizer=keras.optimizers.AdamW(
            rate, weight_decay=spec.weight_decay, use_ema=True, ema_momentum=0.99
        ),
        loss="binary_crossentropy",
        metrics=[keras.metrics.AUC(curve="PR", name="average_precision", num_thresholds=1000)],
    )
    weights = np.where(side["label"] == 1, spec.positive_weight, 1.0).astype(np.float32)
    head = {k: v[:cut] for k, v in inputs.items()}
    tail = {k: v[cut:] for k, v in inputs.items()}
    model.fit(
        head,
        side["label"][:cut],
        sample_weight=weights[:cut],
        validation_data=(tail, side["label"][cut:]),
        batch_size=spec.batch,
        epochs=spec.epochs,
        verbose=2,
        callbacks=[keras.callbacks.TensorBoard(log_dir=log_dir, write_graph=True)],
    )
    scores = model.predict(tail, batch_size=8192, verbose=0).reshape(-1)
    return Fitted(model, cut, scores)

"""What a user of stock TFX writes: preprocessing_fn and run_fn, around our network."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_transform as tft
from tfx_bsl.public.tfxio import TensorFlowDatasetOptions

from models import preprocessing, trainer
from models.columns import ModelColumns
from models.training import Examples

_READ_BATCH = 4096


def preprocessing_fn(inputs: dict[str, Any], custom_config: dict[str, str]) -> dict[str, tf.Tensor]:
    """Ours, and the columns besides that training reads: Transform writes them to files."""
    columns = ModelColumns.from_json(custom_config["columns"])
    outputs = preprocessing.preprocessing_fn(inputs, custom_config)
    for name in (columns.label, columns.timestamp, columns.card):
        assert name is not None
        outputs[f"side_{name}"] = tf.reshape(inputs[name], [-1, 1])
    return outputs


def run_fn(fn_args: Any) -> None:
    """Reads the transformed examples once, then trains and exports as our Trainer does."""
    columns = ModelColumns.from_json(fn_args.custom_config["columns"])
    transform = tft.TFTransformOutput(fn_args.transform_output)
    batches = fn_args.data_accessor.tf_dataset_factory(
        fn_args.train_files,
        TensorFlowDatasetOptions(batch_size=_READ_BATCH, shuffle=False, num_epochs=1),
        transform.transformed_metadata.schema,
    )
    parts = list(batches.as_numpy_iterator())
    read = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    label, timestamp, card = (
        read.pop(f"side_{name}").reshape(-1)
        for name in (columns.label, columns.timestamp, columns.card)
    )
    trainer.train(fn_args, Examples(read, label, timestamp, card), transform)

"""Loads a SavedModel as a server would and scores real examples.

A script that runs in a separate process and, like a server, imports TensorFlow alone:

    python -I serving_probe.py MODEL_DIR TFRECORD_GZ COUNT

Prints one JSON document, {"examples": n, "seconds": s} or {"error": "…"}, and exits with 0 or 1.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def probe(model_dir: str, tfrecord: str, count: int) -> dict:
    """Scores `count` examples through `serving_default` and `predict` and compares the scores.

    Raises:
      ValueError: a signature or the examples are missing, a score is not a probability, or the
        signatures disagree.
    """
    # Keras imports these if they are installed; a server has none of them.
    sys.modules.update(dict.fromkeys(("IPython", "matplotlib", "sklearn")))  # type: ignore[arg-type]
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(model_dir)
    for name in ("serving_default", "predict"):
        if name not in model.signatures:
            raise ValueError(f"the model has no signature {name!r}")
    records = [r.numpy() for r in tf.data.TFRecordDataset(tfrecord, "GZIP").take(count)]
    if not records:
        raise ValueError(f"{tfrecord} has no examples")
    started = time.perf_counter()
    by_example = model.signatures["serving_default"](tf.constant(records))
    seconds = time.perf_counter() - started

    predict = model.signatures["predict"]
    rows = [_values(tf.train.Example.FromString(record)) for record in records]
    specs = predict.structured_input_signature[1]
    names = Path(model_dir, "assets.extra", "inputs.json").read_text(encoding="utf-8")
    inputs = {}
    for column, name in json.loads(names).items():
        missing = b"" if specs[name].dtype == tf.string else float("nan")
        values = [row.get(column, missing) for row in rows]
        inputs[name] = tf.constant(values, dtype=specs[name].dtype)
    by_name = predict(**inputs)

    score = by_example["score"].numpy()
    if not (np.isfinite(score).all() and (score >= 0).all() and (score <= 1).all()):
        raise ValueError("serving_default returned scores outside [0, 1]")
    difference = float(np.abs(score - by_name["score"].numpy()).max())
    if not difference <= 1e-5:  # also if it is not a number
        raise ValueError(f"the scores of the two signatures differ by up to {difference:.2g}")
    return {"examples": len(records), "seconds": round(seconds, 4)}


def _values(example):  # type: ignore[no-untyped-def]
    """The values of an example by column; missing ones are left out."""
    values = {}
    for column, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind and getattr(feature, kind).value:
            values[column] = getattr(feature, kind).value[0]
    return values


if __name__ == "__main__":
    try:
        print(json.dumps(probe(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        sys.exit(1)

"""Loads a SavedModel as a server would and scores real examples. Run as a script, in a process of
its own that imports TensorFlow and nothing of ours: what a server has.

    python serving_probe.py MODEL_DIR TFRECORD_GZ COUNT

Prints one JSON document: {"examples": n, "seconds": s} or {"error": "…"}; exit 0 or 1.
"""

from __future__ import annotations

import json
import re
import sys
import time


def probe(model_dir: str, tfrecord: str, count: int) -> dict:
    """Scores `count` examples through both signatures and compares.

    Raises:
      ValueError: a signature is missing, or a score is no probability, or the two disagree.
    """
    # Keras would import these where they are installed. A server has none of them.
    sys.modules.update(dict.fromkeys(("IPython", "matplotlib", "sklearn")))  # type: ignore[arg-type]
    import numpy as np
    import tensorflow as tf

    model = tf.saved_model.load(model_dir)
    for name in ("serving_default", "predict"):
        if name not in model.signatures:
            raise ValueError(f"the model has no signature {name!r}")
    records = [r.numpy() for r in tf.data.TFRecordDataset(tfrecord, "GZIP").take(count)]
    if not records:
        raise ValueError(f"{tfrecord}: no examples to send")
    started = time.perf_counter()
    by_example = model.signatures["serving_default"](tf.constant(records))
    seconds = time.perf_counter() - started

    predict = model.signatures["predict"]
    rows = [_by_input_name(tf.train.Example.FromString(record)) for record in records]
    inputs = {}
    for name, spec in predict.structured_input_signature[1].items():
        missing = b"" if spec.dtype == tf.string else float("nan")
        inputs[name] = tf.constant([row.get(name, missing) for row in rows], dtype=spec.dtype)
    by_name = predict(**inputs)

    score = by_example["score"].numpy()
    if not (np.isfinite(score).all() and (score >= 0).all() and (score <= 1).all()):
        raise ValueError("serving_default gave scores that are not in [0, 1]")
    apart = float(np.abs(score - by_name["score"].numpy()).max())
    if apart > 1e-5:
        raise ValueError(f"the two signatures differ by {apart:.2g} on the same transaction")
    return {"examples": len(records), "seconds": round(seconds, 4)}


def _by_input_name(example):  # type: ignore[no-untyped-def]
    """The values of an example under the names that `predict` has for them (fraud.models.export)."""
    values = {}
    for column, feature in example.features.feature.items():
        name = re.sub(r"[^A-Za-z0-9_]", "_", column)
        kind = feature.WhichOneof("kind")
        held = getattr(feature, kind).value if kind else ()
        if held:
            values[name if name[0].isalpha() else f"column_{name}"] = held[0]
    return values


if __name__ == "__main__":
    try:
        print(json.dumps(probe(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
    except Exception as error:
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        sys.exit(1)

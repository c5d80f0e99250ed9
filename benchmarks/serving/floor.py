"""The floor: the model's signature called in the process that loaded it, without any server.

    python -m benchmarks.serving.floor MODEL ROWS.json COUNT

Prints one JSON document: the seconds of each call of `predict` with `one` row and with `all`, the
mean `cpu` seconds of a call with one, and the `scores` of all. The tensors are made before, which
is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main(model: str, rows: str, count: int) -> dict[str, list[float]]:
    """Calls the signature."""
    import tensorflow as tf

    loaded = tf.saved_model.load(model)
    predict = loaded.signatures["predict"]
    columns = json.loads(Path(rows).read_text(encoding="utf-8"))
    types = predict.structured_input_signature[1]

    def tensors(of: slice) -> dict[str, tf.Tensor]:
        return {
            name: tf.constant(
                [
                    ("" if v is None else v)
                    if types[name].dtype == tf.string
                    else (float("nan") if v is None else v)
                    for v in values[of]
                ],
                types[name].dtype,
            )
            for name, values in columns.items()
        }

    seconds: dict[str, list[float]] = {}
    for name, of, calls in (("one", slice(0, 1), count), ("all", slice(None), count // 5)):
        inputs = tensors(of)
        for _ in range(20):
            predict(**inputs)
        seconds[name] = []
        cpu = time.process_time()
        for _ in range(calls):
            started = time.perf_counter()
            predict(**inputs)["score"].numpy()
            seconds[name].append(time.perf_counter() - started)
        if name == "one":
            seconds["cpu"] = [(time.process_time() - cpu) / calls]
        else:
            seconds["scores"] = predict(**inputs)["score"].numpy().tolist()
    return seconds


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], int(sys.argv[3]))))

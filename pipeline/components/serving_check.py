"""ServingCheck: can the model be served?

TFX's InfraValidator requires Docker or Kubernetes. ServingCheck starts a new process that imports
only TensorFlow, and outputs the same standard artifact.
"""

import json
import os
import subprocess
import sys

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model
from tfx.utils import path_utils

from fraud.codec import to_json
from fraud.pipeline.components import serving_probe

TIMEOUT_SECONDS = 300


def check_serving(model_dir: str, tfrecord: str, count: int) -> dict:
    """Runs the probe in a separate process.

    Args:
      model_dir: the folder of the SavedModel.
      tfrecord: a gzipped TFRecord file of examples.
      count: how many examples to score.

    Returns:
      The probe's answer: `examples` and `seconds`, or `error`.
    """
    # -I: as on a server, neither this folder nor PYTHONPATH can be imported from.
    command = [sys.executable, "-I", serving_probe.__file__, model_dir, tfrecord, str(count)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        process = subprocess.run(
            command,
            capture_output=True,
            text=True,
            env=environment,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return {"error": f"no answer within {TIMEOUT_SECONDS} s"}
    try:
        return json.loads(process.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        tail = " ".join(process.stderr.split()[-40:])
        return {"error": f"the process exited with code {process.returncode}: {tail}"}


@component
def ServingCheck(  # noqa: N802 (TFX names components like classes)
    model: InputArtifact[Model],
    examples: InputArtifact[Examples],
    blessing: OutputArtifact[InfraBlessing],
    count: Parameter[int],
) -> None:
    """Blesses a model that can be served.

    Args:
      model: the challenger.
      examples: from TransactionExampleGen; its eval split is scored.
      blessing: InfraBlessing with `blessed` 1 or 0, and `reason` if 0.
      count: how many examples to score.
    """
    uri = artifact_utils.get_split_uri([examples], "eval")
    shard = os.path.join(uri, sorted(os.listdir(uri))[0])
    answer = check_serving(path_utils.serving_model_path(model.uri), shard, count)
    blessing.set_int_custom_property("blessed", int("error" not in answer))
    blessing.set_string_custom_property("reason", answer.get("error", ""))
    blessing.set_string_custom_property("answer", to_json(answer))
    marker = "INFRA_BLESSED" if "error" not in answer else "INFRA_NOT_BLESSED"
    with open(os.path.join(blessing.uri, marker), "w", encoding="utf-8"):
        pass

"""ServingCheck: does the model really serve? TFX's InfraValidator asks Docker or Kubernetes; this
one asks a fresh process that has only TensorFlow, and gives the same standard artifact.
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

from fraud.pipeline.components import serving_probe

TIMEOUT_SECONDS = 300


def check_serving(model_dir: str, tfrecord: str, count: int) -> dict:
    """Runs the probe in a process of its own.

    Returns:
      What the probe printed: `examples` and `seconds`, or `error`.
    """
    # -I: neither this folder nor PYTHONPATH is importable there, as on a server.
    command = [sys.executable, "-I", serving_probe.__file__, model_dir, tfrecord, str(count)]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
    try:
        done = subprocess.run(
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
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, json.JSONDecodeError):
        tail = " ".join(done.stderr.split()[-40:])
        return {"error": f"the process ended with {done.returncode}: {tail}"}


@component
def ServingCheck(  # noqa: N802 (TFX names components like classes)
    model: InputArtifact[Model],
    examples: InputArtifact[Examples],
    blessing: OutputArtifact[InfraBlessing],
    count: Parameter[int],
) -> None:
    """Blesses a model that answers.

    Args:
      model: the challenger.
      examples: of TransactionExampleGen; its eval split is sent.
      blessing: InfraBlessing with `blessed` 1 or 0, and `reason` if 0.
      count: how many examples to send.
    """
    uri = artifact_utils.get_split_uri([examples], "eval")
    shard = os.path.join(uri, sorted(os.listdir(uri))[0])
    answer = check_serving(path_utils.serving_model_path(model.uri), shard, count)
    blessing.set_int_custom_property("blessed", int("error" not in answer))
    blessing.set_string_custom_property("reason", answer.get("error", ""))
    blessing.set_string_custom_property("answer", json.dumps(answer))
    marker = "INFRA_BLESSED" if "error" not in answer else "INFRA_NOT_BLESSED"
    with open(os.path.join(blessing.uri, marker), "w", encoding="utf-8"):
        pass

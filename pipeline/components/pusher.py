"""A Pusher that publishes each version atomically."""

import os
import shutil
import time
import uuid
from typing import Any

from tfx.components.pusher import executor
from tfx.proto import pusher_pb2
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import io_utils, proto_utils

from fraud.files import sync_tree

STAGING = ".staging"


class AtomicPusherExecutor(executor.Executor):
    """TFX's Pusher, except that a version is copied to a staging folder and then renamed.

    The stock executor copies file by file into the version's folder; if it is killed, it leaves an
    incomplete folder that a server may treat as a model. Versions are unix seconds, as in stock TFX
    and as TF Serving expects; a second push within the same second takes the next free number.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See BaseExecutor."""
        self._log_startup(input_dict, output_dict, exec_properties)
        pushed = artifact_utils.get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        destination = pusher_pb2.PushDestination()
        proto_utils.json_to_proto(exec_properties["push_destination"], destination)
        base = destination.filesystem.base_directory
        model = self.GetModelPath(input_dict)

        staging = os.path.join(os.path.dirname(base), STAGING)
        shutil.rmtree(staging, ignore_errors=True)  # left by a killed push
        staged = os.path.join(staging, uuid.uuid4().hex)
        shutil.copytree(model, staged)
        sync_tree(staged)
        os.makedirs(base, exist_ok=True)
        version = int(time.time())
        while os.path.exists(os.path.join(base, str(version))):
            version += 1
        target = os.path.join(base, str(version))
        os.rename(staged, target)
        sync_tree(base, recurse=False)

        io_utils.copy_dir(model, pushed.uri)
        self._MarkPushed(pushed, pushed_destination=target, pushed_version=str(version))

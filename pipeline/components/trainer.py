"""A Trainer that records the quality of its models in ML Metadata."""

import json
import os
from typing import Any

from tfx.components.trainer import executor
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.utils import path_utils

from fraud.models.entry_point import THRESHOLD_FILE
from fraud.models.specification import EXTRA


class TrainerExecutor(executor.GenericExecutor):
    """TFX's Trainer, except that the Model artifact gets custom properties.

    They are `run_id` (the run that trained it), `as_of` (of its data, if that has timestamps),
    `threshold` (the lowest score that raises an alert,
    at the alert budget) and each metric on the held-out cards, by name. Undefined metrics have no
    property.
    """

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See BaseExecutor."""
        super().Do(input_dict, output_dict, exec_properties)
        model = artifact_utils.get_single_instance(output_dict["model"])
        saved = path_utils.serving_model_dir(model.uri)
        with open(os.path.join(saved, EXTRA, THRESHOLD_FILE), encoding="utf-8") as file:
            document = json.load(file)
        for name, number in {"threshold": document["threshold"], **document["validation"]}.items():
            if number is not None:
                model.set_float_custom_property(name, number)
        for examples in input_dict.get("examples", []):
            as_of = examples.get_string_custom_property("as_of")
            if as_of:
                model.set_string_custom_property("as_of", as_of)
        run_id = self._context.pipeline_run_id
        if run_id:  # Vertex AI does not provide it
            model.set_string_custom_property("run_id", run_id)

"""SchemaGen's executor, whose schema tolerates what the train window happens not to contain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tfx.components.schema_gen import executor
from tfx.components.statistics_gen import stats_artifact_utils
from tfx.types import artifact_utils, standard_component_specs
from tfx.types.artifact import Artifact
from tfx.utils import io_utils

from fraud.pipeline import schemas

COLUMNS = "columns"
"""Execution property: JSON of the `fraud.models.columns.ModelColumns`, whose types are known."""


class SchemaGenExecutor(executor.Executor):
    """Infers the schema as TFX does, then relaxes it, before anything is validated against it."""

    def Do(  # noqa: N802 - the name is TFX's
        self,
        input_dict: dict[str, list[Artifact]],
        output_dict: dict[str, list[Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the schema; see the base class, `schemas.typed` and `schemas.tolerate`."""
        super().Do(input_dict, output_dict, exec_properties)
        uri = artifact_utils.get_single_uri(output_dict["schema"])
        path = str(Path(uri) / executor.DEFAULT_FILE_NAME)
        schema = io_utils.SchemaReader().read(path)
        columns = json.loads(exec_properties[COLUMNS])  # features' code is no part of this node's
        schema = schemas.typed(schema, columns["numeric"], columns["categorical"])
        (statistics,) = input_dict[standard_component_specs.STATISTICS_KEY]
        described = stats_artifact_utils.load_statistics(statistics, "train").proto()
        schemas.list_categories(schema, described, columns["categorical"])
        schemas.tolerate(schema)
        io_utils.write_pbtxt_file(path, schema)

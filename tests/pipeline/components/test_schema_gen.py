"""The inferred schema tolerates what a train window happens not to contain."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2
from tfx.types import standard_artifacts
from tfx.utils import io_utils

from fraud.codec import to_json
from fraud.models.columns import ModelColumns
from fraud.pipeline.components.schema_gen import COLUMNS, SchemaGenExecutor

ROWS = 13_631


def statistics(
    unseen: int, missing: int, ages: int | None = None
) -> statistics_pb2.DatasetFeatureStatisticsList:
    channels = ["chip", "online"] * ROWS
    amounts = [1.5] * ROWS
    return tfdv.generate_statistics_from_dataframe(
        pd.DataFrame({
            "CHANNEL": ["wallet"] * unseen + channels[: ROWS - unseen],
            "AMOUNT": [None] * missing + amounts[: ROWS - missing],
            "TERMINAL": ["C17"] * unseen + ["00123"] * (ROWS - unseen),
            "MCC": ["9999"] * unseen + ["5411", "6011"] * ((ROWS - unseen) // 2)
            + ["5411"] * ((ROWS - unseen) % 2),
            "EMPTY": [None if ages is None else float(ages)] * ROWS,
        }),
        n_jobs=1,
    )  # fmt: skip


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> schema_pb2.Schema:
    """What the executor makes of a train window without anything unusual."""
    folder = tmp_path_factory.mktemp("schema_gen")
    described, inferred = standard_artifacts.ExampleStatistics(), standard_artifacts.Schema()
    described.uri, inferred.uri = str(folder / "statistics"), str(folder / "schema")
    described.split_names = json.dumps(["train", "eval"])
    path = folder / "statistics" / "Split-train" / "FeatureStats.pb"
    path.parent.mkdir(parents=True)
    path.write_bytes(statistics(0, 0).SerializeToString())
    SchemaGenExecutor().Do(
        {"statistics": [described]},
        {"schema": [inferred]},
        {
            "infer_feature_shape": 0,
            "exclude_splits": json.dumps(["eval"]),
            COLUMNS: to_json(
                ModelColumns(("AMOUNT", "EMPTY"), ("CHANNEL", "MCC"), "FRAUD", None, None)
            ),
        },
    )
    return io_utils.SchemaReader().read(f"{inferred.uri}/schema.pbtxt")


def anomalies(schema: schema_pb2.Schema, unseen: int, missing: int) -> list[str]:
    return sorted(tfdv.validate_statistics(statistics(unseen, missing), schema).anomaly_info)


def test_one_unseen_category_or_missing_value_stops_no_run(schema: schema_pb2.Schema) -> None:
    assert anomalies(schema, unseen=1, missing=1) == []
    assert anomalies(schema, unseen=ROWS // 101, missing=ROWS // 101) == []


def test_many_do(schema: schema_pb2.Schema) -> None:
    assert anomalies(schema, unseen=ROWS // 99, missing=ROWS // 99) == ["AMOUNT", "CHANNEL", "MCC"]
    assert anomalies(schema, unseen=ROWS // 99, missing=0) == ["CHANNEL", "MCC"]


def test_a_column_without_any_value_has_the_type_of_the_configuration(
    schema: schema_pb2.Schema,
) -> None:
    (empty,) = [feature for feature in schema.feature if feature.name == "EMPTY"]
    assert empty.type == schema_pb2.FLOAT
    with_values = statistics(0, 0, ages=17)
    assert not tfdv.validate_statistics(with_values, schema).anomaly_info


def test_categories_that_look_like_numbers_have_a_domain_but_identifiers_do_not(
    schema: schema_pb2.Schema,
) -> None:
    assert {d.name: list(d.value) for d in schema.string_domain} == {
        "CHANNEL": ["chip", "online"],
        "MCC": ["5411", "6011"],
    }

from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from fraud.features.spec import Dataset
from fraud.pipeline.cli import main
from fraud.pipeline.commands import schema
from fraud.pipeline.config import PACKAGED_SCHEMA, Config


def test_an_update_keeps_the_comment_at_the_top_of_the_schema(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_last_statistics", lambda *arguments: {})
    before = '# Reviewed like code.\nfeature {\n  name: "a"\n}\n'
    assert schema.updated(before, Config(), None, tmp_path / "schema.pbtxt") == before


def test_labels_that_are_not_known_yet_change_nothing(tmp_path, monkeypatch):
    statistics = """datasets { num_examples: 2 features { path { step: "L" } type: FLOAT
        num_stats { common_stats {
            num_non_missing: 1 num_missing: 1 min_num_values: 1 max_num_values: 1 } } } }"""
    file = tmp_path / "FeatureStats.pb"
    listed = text_format.Parse(statistics, statistics_pb2.DatasetFeatureStatisticsList())
    file.write_bytes(listed.SerializeToString())
    before = """feature { name: "L" type: INT presence { min_fraction: 1 min_count: 1 } }
        feature { name: "a" type: INT }"""
    config = replace(Config(), dataset=Dataset(label="L"))

    def updated(split):
        monkeypatch.setattr(schema, "_last_statistics", lambda *arguments: {split: file})
        text = schema.updated(before, config, None, tmp_path / "schema.pbtxt")
        return text_format.Parse(text, schema_pb2.Schema())

    unchanged = text_format.Parse(before, schema_pb2.Schema())
    assert updated("recent").feature[0] == unchanged.feature[0]
    assert [f.name for f in updated("recent").feature] == ["L", "a"]
    assert updated("eval").feature[0] != unchanged.feature[0]


def test_a_new_column_gets_the_tolerance_of_an_inferred_schema(tmp_path, monkeypatch):
    statistics = """datasets { num_examples: 500 features { path { step: "N" } type: STRING
        string_stats { common_stats {
            num_non_missing: 500 min_num_values: 1 max_num_values: 1 }
            unique: 2 rank_histogram {
                buckets { label: "a" sample_count: 250 } buckets { label: "b" sample_count: 250 } }
            } } }"""
    file = tmp_path / "FeatureStats.pb"
    listed = text_format.Parse(statistics, statistics_pb2.DatasetFeatureStatisticsList())
    file.write_bytes(listed.SerializeToString())
    monkeypatch.setattr(schema, "_last_statistics", lambda *arguments: {"train": file})

    def of_new_column(before):
        text = schema.updated(before, Config(), None, tmp_path / "schema.pbtxt")
        assert text.startswith(before)
        features = text_format.Parse(text, schema_pb2.Schema()).feature
        return next(feature for feature in features if feature.name == "N")

    old = 'feature { name: "a" type: INT lifecycle_stage: PLANNED }  # by hand\n'
    for before in ("", old):
        assert of_new_column(before).distribution_constraints.min_domain_mass == 0.99
        assert of_new_column(before).presence.min_fraction == 0.99
    strict = 'feature { name: "N" type: BYTES presence { min_fraction: 1 } }  # by hand\n'
    assert of_new_column(strict).presence.min_fraction == 1


def test_an_edit_during_an_update_is_not_overwritten(tmp_path, monkeypatch, capsys):
    path = tmp_path / "schema.pbtxt"
    path.write_text("# before\n")

    def slow(before, *arguments):
        path.write_text("# edited\n")
        return "# updated\n"

    monkeypatch.setattr(schema, "updated", slow)
    monkeypatch.setattr(schema, "_check_same_columns", lambda *arguments: None)
    (tmp_path / "fraud.yaml").write_text("paths: {schema: schema.pbtxt}")
    assert main(["schema", "--update", "--config", str(tmp_path / "fraud.yaml")]) == 2
    assert "edited meanwhile" in capsys.readouterr().err
    assert path.read_text() == "# edited\n"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_an_update_keeps_the_ends_of_lines(tmp_path, monkeypatch, capsys, end):
    path = tmp_path / "schema.pbtxt"
    path.write_bytes(f"# ours{end}# two{end}".encode())
    monkeypatch.setattr(schema, "updated", lambda before, *_: before.replace("two", "three"))
    monkeypatch.setattr(schema, "_check_same_columns", lambda *arguments: None)
    (tmp_path / "fraud.yaml").write_text("paths: {schema: schema.pbtxt}")
    assert main(["schema", "--update", "--config", str(tmp_path / "fraud.yaml")]) == 0
    assert path.read_bytes() == f"# ours{end}# three{end}".encode()
    assert "-# two\n+# three" in capsys.readouterr().out


def test_the_schema_of_the_program_is_never_updated(tmp_path, capsys):
    before = Path(PACKAGED_SCHEMA).read_bytes()
    assert main(["schema", "--update", "--root", str(tmp_path)]) == 2
    assert "set paths.schema" in capsys.readouterr().err
    assert Path(PACKAGED_SCHEMA).read_bytes() == before


def statistics_of(folder, *columns):
    listed = statistics_pb2.DatasetFeatureStatisticsList()
    described = listed.datasets.add(num_examples=1)
    for column in columns:
        feature = described.features.add(type=statistics_pb2.FeatureNameStatistics.FLOAT)
        feature.path.step.append(column)
        common = feature.num_stats.common_stats
        common.num_non_missing = common.min_num_values = common.max_num_values = 1
    file = folder / "FeatureStats.pb"
    file.write_bytes(listed.SerializeToString())
    return file


def test_the_columns_of_another_bank_are_refused(tmp_path, monkeypatch, capsys):
    file = statistics_of(tmp_path, "premium", "fraud")
    monkeypatch.setattr(schema, "_last_statistics", lambda *arguments: {"train": file})
    path = tmp_path / "schema.pbtxt"
    path.write_text("# ours\n")
    config = tmp_path / "fraud.yaml"
    config.write_text(
        "dataset: {timestamp: null, amount: price, label: fraud, id: null, entities: []}\n"
        "paths: {schema: schema.pbtxt}"
    )
    assert main(["schema", "--update", "--config", str(config)]) == 2
    message = capsys.readouterr().err
    assert "only there: premium; only here: price" in message and "--config" in message
    assert path.read_text() == "# ours\n"


def test_an_update_prints_nothing_of_the_libraries(tmp_path, monkeypatch, capfd):
    file = statistics_of(tmp_path, "price", "fraud")
    monkeypatch.setattr(schema, "_last_statistics", lambda *arguments: {"train": file})
    config = tmp_path / "a fraud.yaml"
    config.write_text(
        "dataset: {timestamp: null, amount: price, label: fraud, id: null, entities: []}\n"
        "paths: {schema: schema.pbtxt}"
    )
    assert main(["schema", "--update", "--config", str(config)]) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert f"fraud-pipeline run --config '{config}' --data PATH" in printed.out
    assert 'name: "price"' in (tmp_path / "schema.pbtxt").read_text()

from dataclasses import replace

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from fraud.features.spec import Dataset
from fraud.pipeline.cli import main
from fraud.pipeline.commands import schema
from fraud.pipeline.config import Config


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
    (tmp_path / "fraud.yaml").write_text("paths: {schema: schema.pbtxt}")
    assert main(["schema", "--update", "--config", str(tmp_path / "fraud.yaml")]) == 2
    assert "edited meanwhile" in capsys.readouterr().err
    assert path.read_text() == "# edited\n"

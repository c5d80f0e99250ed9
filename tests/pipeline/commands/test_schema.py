from dataclasses import replace

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from fraud.features.spec import Dataset
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

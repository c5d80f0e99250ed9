from fraud.pipeline.commands import schema
from fraud.pipeline.config import Config


def test_an_update_keeps_the_comment_at_the_top_of_the_schema(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "_last_statistics", lambda *arguments: {})
    before = '# Reviewed like code.\nfeature {\n  name: "a"\n}\n'
    assert schema.updated(before, Config(), None, tmp_path / "schema.pbtxt") == before

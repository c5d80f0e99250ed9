import json
from dataclasses import replace

import pytest
import yaml

from fraud.pipeline import cli, config


@pytest.fixture
def effective(tmp_path, monkeypatch):
    """The effective configuration of a file with unusual values, and the options that name it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(
        "dataset: {categorical: ['yes', Größe, '1e5'], slices: ['yes']}\n"
        "network: {weight_decay: 0.00001}\n"
        "data_gate: {drift_thresholds: {'yes': 0.1}}\n"
        "paths: {data: 's3://bank/days', schema: s.pbtxt}\n"
    )
    loaded = config.load("own.yaml")
    paths = replace(loaded.paths, root=str(tmp_path / "here"))
    return replace(loaded, paths=paths), ["--config", "own.yaml", "--root", "here"]


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_printed_and_read_back_it_is_the_same(effective, options, capsys, tmp_path):
    expected, arguments = effective
    assert cli.main(["config", *arguments, *options]) == 0
    printed = capsys.readouterr().out
    assert (json.loads if options else yaml.safe_load)(printed)["network"]["bins"] == 16
    (tmp_path / "effective.yaml").write_text(printed)
    assert config.load("effective.yaml") == expected


def test_the_json_schema_describes_every_section(capsys):
    assert cli.main(["config", "--schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert [*schema["properties"]] == [*vars(config.Config())]
    assert schema["additionalProperties"] is False


def test_a_schema_at_a_uri_cannot_be_printed(tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("paths: {schema: 's3://bank/s.pbtxt'}")
    assert cli.main(["schema", "--config", str(tmp_path / "own.yaml")]) == 2
    assert "s3://bank/s.pbtxt is a URI" in capsys.readouterr().err

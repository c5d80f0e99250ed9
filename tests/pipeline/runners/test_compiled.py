"""The files of the compiled graph: self-contained, movable and without secrets."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path

import pytest

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import cli, lineage
from fraud.pipeline.config import Beam, Config, Metadata, Paths
from fraud.pipeline.root import Root
from fraud.pipeline.runners import compiled


def parameters(bound, node_id: str) -> dict[str, str]:
    (node,) = (n.pipeline_node for n in bound.nodes if n.pipeline_node.node_info.id == node_id)
    return {
        name: value.field_value.string_value for name, value in node.parameters.parameters.items()
    }


@pytest.fixture
def config(tmp_path: Path) -> Config:
    schema = tmp_path / "curated.pbtxt"
    schema.write_text('feature { name: "TX_AMOUNT" type: FLOAT }')
    return Config(paths=Paths(schema=str(schema)))


def test_for_run_fills_in_run_id_day_and_data(config: Config, tmp_path: Path) -> None:
    ir = compiled.read(compiled.write(config, Root(tmp_path / "root"), "/data", tmp_path / "g"))
    bound = compiled.for_run(ir, "monday", date(2018, 7, 31))
    assert compiled.run_id_of(bound) == "monday"
    with pytest.raises(BadInput, match=r"run id '\.\./monday'"):
        compiled.for_run(ir, "../monday")
    assert compiled.root_of(bound) == Root(tmp_path / "root")
    monday = parameters(bound, "TransactionExampleGen")
    assert (monday["as_of"], monday["data"]) == ("2018-07-31", "/data")
    tuesday = parameters(compiled.for_run(ir, "tuesday", data="/other"), "TransactionExampleGen")
    assert (tuesday["as_of"], tuesday["data"]) == ("", "/other")


def test_the_folder_can_be_moved_with_its_schema(config: Config, tmp_path: Path) -> None:
    compiled.write(config, Root(tmp_path / "root"), "/data", tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    bound = compiled.for_run(compiled.read(tmp_path / "there" / "ir.json"), "monday")
    schema = Path(parameters(bound, "CuratedSchema")["schema_file"])
    assert schema.parent == tmp_path / "there"
    assert schema.read_text() == (tmp_path / "curated.pbtxt").read_text()


def test_an_edited_schema_gets_another_name(config: Config, tmp_path: Path) -> None:
    out = tmp_path / "g"
    compiled.write(config, Root(tmp_path / "root"), "/data", out)
    (tmp_path / "curated.pbtxt").write_text('feature { name: "TX_AMOUNT" type: INT }')
    compiled.write(config, Root(tmp_path / "root"), "/data", out)
    assert len(list(out.glob("schema-*.pbtxt"))) == 2


def test_the_outline_lists_every_node_after_its_upstream_nodes(
    config: Config, tmp_path: Path
) -> None:
    config = replace(config, dataset=replace(config.dataset, timezone="Asia/Tokyo"))
    compiled.write(config, Root(tmp_path / "root"), "/data", tmp_path / "g")
    outline = json.loads((tmp_path / "g" / "graph.json").read_text())
    assert (outline["name"], outline["ir"], outline["side_by_side"]) == ("fraud", "ir.json", False)
    assert (outline["root"], outline["data"]) == (str(tmp_path / "root"), "/data")
    assert outline["timezone"] == "Asia/Tokyo"
    seen: set[str] = set()
    for node in outline["nodes"]:
        assert set(node["upstream"]) <= seen
        seen.add(node["id"])
    upstream = {node["id"]: node["upstream"] for node in outline["nodes"]}
    assert upstream["TransactionExampleGen"] == []
    assert {"DataGate", "Evaluator", "ServingCheck"} <= set(upstream["Pusher"])


def test_the_graph_names_the_metadata_server_but_not_its_password(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lineage.PASSWORD, "s3cr3t")
    on_server = Config(paths=config.paths, metadata=Metadata(store="mysql", host="db.bank"))
    file = compiled.write(on_server, Root(tmp_path / "root"), "/data", tmp_path / "g")
    assert json.loads((tmp_path / "g" / "graph.json").read_text())["side_by_side"]
    assert "s3cr3t" not in file.read_text()
    connection = compiled.connection_of(compiled.read(file))
    assert (connection.mysql.host, connection.mysql.port, connection.mysql.password) == (
        "db.bank",
        3306,
        "",
    )
    assert lineage.with_password(connection).mysql.password == "s3cr3t"


def test_a_server_that_does_not_answer_gives_one_message(tmp_path: Path) -> None:
    nobody = Metadata(store="mysql", host="127.0.0.1", port=1)
    with pytest.raises(FraudPipelineError, match=r"no connection to 127\.0\.0\.1:1 as fraud"):
        lineage.find_store(nobody, Root(tmp_path))


def test_beam_has_no_arguments_unless_a_runner_is_named() -> None:
    assert Config().beam.arguments == []
    flink = Config(beam=Beam(runner="FlinkRunner", options=("--parallelism=4",)))
    assert flink.beam.arguments == ["--runner=FlinkRunner", "--parallelism=4"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "argo"], "none of airflow, kubeflow, vertex"),
        (["--data", "d", "--target", "vertex"], "give --image IMAGE"),
        ([], "give --data PATH"),
    ],
)
def test_misuse_of_compile_exits_with_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = cli.main(["compile", "--out", str(tmp_path), *arguments])
    except SystemExit as exit_:
        code = exit_.code
    assert code == 2
    assert message in capsys.readouterr().err


def test_several_workers_are_refused_on_vertex(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "c.yaml").write_text("network: {workers: 2}")
    options = ["--target", "vertex", "--image", "i", "--data", "d", "--out", str(tmp_path / "g")]
    assert cli.main(["compile", "--config", str(tmp_path / "c.yaml"), *options]) == 2
    assert "network.workers is 2, but a Trainer on Vertex AI" in capsys.readouterr().err
    assert not (tmp_path / "g").exists()


def test_an_impossible_output_folder_is_named(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="file/g: cannot write there"):
        compiled.write(config, Root(tmp_path / "root"), "/data", tmp_path / "file" / "g")

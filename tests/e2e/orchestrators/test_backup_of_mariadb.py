"""ML Metadata in MariaDB is in a backup, and becomes a database again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.pipeline import config, lineage
from fraud.pipeline.cli import main
from fraud.pipeline.root import Root
from tests import debian

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_a_dump_has_what_the_server_had(mariadb, tmp_path, capsys):
    file = tmp_path / "fraud.yaml"
    file.write_text(mariadb, encoding="utf-8")
    root = Root(tmp_path / "root")
    root.artifacts.mkdir(parents=True)
    debian.server("mariadb-dump", "mariadb-client")
    settings = config.load(file).metadata
    store = lineage.open_store(lineage.connection_config(settings, root))
    kind = store.put_artifact_type(mlmd.ArtifactType(name="Model"))
    store.put_artifacts([mlmd.Artifact(type_id=kind, uri="over/there")])

    arguments = ["--config", str(file), "--root", str(root.path), "--json"]
    assert main(["backup", str(tmp_path / "copy"), *arguments]) == 0
    assert json.loads(capsys.readouterr().out)["metadata"] == "metadata.sql"
    dump = tmp_path / "copy" / "metadata.sql"
    assert "secret" not in dump.read_text(encoding="utf-8")

    server = yaml.safe_load(mariadb)["metadata"]
    client = shutil.which("mariadb")
    assert client is not None
    command = [client, "--protocol=tcp", f"--host={server['host']}", f"--port={server['port']}"]
    environment = {**os.environ, "MYSQL_PWD": "secret"}
    command.append("--user=fraud")
    for sql, database in (("CREATE DATABASE restored", ""), (dump.read_text("utf-8"), "restored")):
        subprocess.run([*command, database], input=sql, text=True, env=environment, check=True)
    file.write_text(f"metadata: {json.dumps({**server, 'database': 'restored'})}\n", "utf-8")
    restored = lineage.find_store(config.load(file).metadata, root)
    assert restored is not None
    assert [artifact.uri for artifact in restored.get_artifacts()] == ["over/there"]


def test_a_restore_brings_back_what_the_database_had_and_keeps_what_it_has(
    mariadb, tmp_path, capsys, monkeypatch
):
    server = yaml.safe_load(mariadb)["metadata"]
    client = shutil.which(debian.server("mariadb", "mariadb-client"))
    command = [client, "--protocol=tcp", f"--host={server['host']}", f"--port={server['port']}"]
    command += ["--user=fraud", "--silent", "--skip-column-names"]

    def sql(text, *database):
        done = subprocess.run(
            [*command, f"--execute={text}", *database],
            env={**os.environ, "MYSQL_PWD": "secret"},
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    sql("CREATE DATABASE restoring")
    file = tmp_path / "fraud.yaml"
    file.write_text(f"metadata: {json.dumps({**server, 'database': 'restoring'})}\n", "utf-8")
    root = Root(tmp_path / "root")
    (root.path / "pushed" / "1").mkdir(parents=True)
    settings = config.load(file).metadata

    def uris():
        store = lineage.find_store(settings, root)
        return [artifact.uri for artifact in store.get_artifacts()]

    def put(uri):
        store = lineage.open_store(lineage.connection_config(settings, root))
        kind = store.put_artifact_type(mlmd.ArtifactType(name="Model"))
        store.put_artifacts([mlmd.Artifact(type_id=kind, uri=uri)])

    put("then")
    arguments = ["--config", str(file), "--root", str(root.path)]
    assert main(["backup", str(tmp_path / "copy"), *arguments]) == 0
    put("now")
    # What the backup lacks must not stay beside what it has, as what a newer release adds would.
    sql(
        "CREATE TABLE `new``er` (id INT PRIMARY KEY); CREATE VIEW seen AS SELECT * FROM `new``er`; "
        "CREATE TABLE a (id INT, FOREIGN KEY (id) REFERENCES `new``er` (id))",
        "restoring",
    )
    (root.path / "pushed" / "2").mkdir()
    assert uris() == ["then", "now"]
    capsys.readouterr()
    check = ["sha256sum", "--check", "--quiet", "SHA256SUMS"]
    subprocess.run(check, cwd=tmp_path / "copy", check=True)
    assert "metadata.sql\n" in (tmp_path / "copy" / "SHA256SUMS").read_text("utf-8")
    assert main(["restore", str(tmp_path / "copy"), *arguments, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["metadata"] == "metadata.sql" and uris() == ["then"]
    assert document["checked"] and not {"new`er", "seen", "a"} & {*sql("SHOW TABLES", "restoring")}
    assert [path.name for path in root.pushed.iterdir()] == ["1"]
    kept = Path(document["kept"])
    assert "CREATE TABLE `new``er`" in (kept / "metadata.sql").read_text("utf-8")
    assert "'now'" in (kept / "metadata.sql").read_text("utf-8") and (kept / "pushed/2").is_dir()
    assert not (root.path / "metadata.sql").exists()

    # A database that refuses leaves everything as it is.
    (root.path / "pushed" / "3").mkdir()
    monkeypatch.setenv(lineage.PASSWORD, "wrong")
    assert main(["restore", str(tmp_path / "copy"), *arguments]) == 1
    assert "cannot be dumped" in capsys.readouterr().err
    assert (root.path / "pushed" / "3").is_dir()
    assert list(root.path.glob(".*restor*")) == [kept]


def test_a_server_that_refuses_the_login_makes_no_backup(mariadb, tmp_path, capsys, monkeypatch):
    (tmp_path / "fraud.yaml").write_text(mariadb, encoding="utf-8")
    (tmp_path / "root" / "artifacts").mkdir(parents=True)
    monkeypatch.setenv(lineage.PASSWORD, "wrong")
    arguments = ["--config", str(tmp_path / "fraud.yaml"), "--root", str(tmp_path / "root")]
    assert main(["backup", str(tmp_path / "copy"), *arguments]) == 1
    assert "ML Metadata cannot be dumped" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fraud.yaml", "root"]

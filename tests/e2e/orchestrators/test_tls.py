"""ML Metadata on a real MariaDB server that demands TLS and a client certificate."""

from __future__ import annotations

from pathlib import Path

import pytest

from fraud.errors import FraudPipelineError
from fraud.pipeline import config, lineage
from fraud.pipeline.root import Root
from tests.certificates import authority, signed

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def connect(mariadb, tmp_path):
    """Opens ML Metadata as the user x509, with more keys of `metadata`."""

    def open_store(**files: Path):
        keys = ["user: x509", "database: tls", *(f"{key}: {path}" for key, path in files.items())]
        section = mariadb.strip().removesuffix("}") + ", ".join(["", *keys]) + "}\n"
        (tmp_path / "fraud.yaml").write_text(section)
        loaded = config.load(tmp_path / "fraud.yaml")
        return lineage.open_store(lineage.connection_config(loaded.metadata, Root(tmp_path)))

    return open_store


def test_both_sides_prove_who_they_are(connect, mariadb_authority, tmp_path):
    client = signed(mariadb_authority, "client", "DNS:client")
    own = {"tls_certificate": client.path, "tls_key": client.key}
    assert lineage.runs(connect(tls_ca=mariadb_authority.path, **own)) == []

    other = authority(tmp_path, "other")
    with pytest.raises(FraudPipelineError, match="no trusted connection"):
        connect(tls_ca=other.path, **own)

    stranger = signed(other, "stranger", "DNS:client")
    for files in (
        {},
        {"tls_ca": mariadb_authority.path},
        {
            "tls_ca": mariadb_authority.path,
            "tls_certificate": stranger.path,
            "tls_key": stranger.key,
        },
    ):
        with pytest.raises(FraudPipelineError, match="as x509"):
            connect(**files)

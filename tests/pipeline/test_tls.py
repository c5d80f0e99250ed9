"""A metadata server must prove its identity before ML Metadata connects to it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput, FraudPipelineError
from fraud.pipeline import cli, lineage
from fraud.pipeline.config import Metadata, load
from fraud.pipeline.root import Root
from fraud.pipeline.tls import check_server
from tests.certificates import Certificate, authority, signed, with_passphrase

Serve = Callable[[bytes, Certificate], int]


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return authority(tmp_path_factory.mktemp("certificates"), "ca")


@pytest.fixture(scope="module")
def other_ca(ca: Certificate) -> Certificate:
    return authority(ca.path.parent, "other-ca")


@pytest.fixture(scope="module")
def certificate(ca: Certificate) -> Certificate:
    return signed(ca, "server", "IP:127.0.0.1")


def greeting(flags: int) -> bytes:
    """The first packet of a MariaDB server that has these flags."""
    content = b"\x0a5.5.5-10.11\0" + bytes(4) + b"12345678" + b"\0" + flags.to_bytes(2, "little")
    return len(content).to_bytes(3, "little") + b"\0" + content


WITH_TLS, WITHOUT_TLS = greeting(0xF7FE | 0x0800), greeting(0xF7FE & ~0x0800)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves one connection: sends a greeting, and goes on with TLS if that is asked for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def start(first: bytes, certificate: Certificate) -> int:
            def answer() -> None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate.path, certificate.key)
                connection, _ = listening.accept()
                with connection:
                    connection.sendall(first)
                    request = connection.recv(36)
                    if len(request) == 36 and request[:4] == b"\x20\0\0\1" and request[5] & 0x08:
                        with contextlib.suppress(OSError):  # the client does not trust it
                            context.wrap_socket(connection, server_side=True).close()

            threading.Thread(target=answer, daemon=True).start()
            return int(listening.getsockname()[1])

        yield start


def server(
    port: int, ca: Path, cert: Path | str = "", key: Path | str = ""
) -> mlmd.MySQLDatabaseConfig:
    connection = mlmd.MySQLDatabaseConfig(host="127.0.0.1", port=port)
    connection.ssl_options.ca = str(ca)
    connection.ssl_options.cert, connection.ssl_options.key = str(cert), str(key)
    return connection


def test_a_server_with_a_certificate_of_the_authority_is_trusted(
    serve: Serve, ca: Certificate, certificate: Certificate
) -> None:
    check_server(server(serve(WITH_TLS, certificate), ca.path))


def test_a_server_of_another_authority_is_refused(
    serve: Serve, other_ca: Certificate, certificate: Certificate
) -> None:
    with pytest.raises(
        FraudPipelineError, match=r"no trusted connection.*unable to get local issuer"
    ):
        check_server(server(serve(WITH_TLS, certificate), other_ca.path))


def test_a_server_with_the_certificate_of_another_host_is_refused(
    serve: Serve, ca: Certificate
) -> None:
    elsewhere = signed(ca, "elsewhere", "DNS:elsewhere.example")
    with pytest.raises(FraudPipelineError, match=r"no trusted connection.*IP address mismatch"):
        check_server(server(serve(WITH_TLS, elsewhere), ca.path))


@pytest.mark.parametrize(
    ("first", "problem"),
    [
        (WITHOUT_TLS, "offers no TLS"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(99), "no MySQL or MariaDB server"),
        (b"\x16\0\0\0\xff\x6a\x04Host is not allowed", ": Host is not allowed;"),
    ],
)
def test_a_server_without_tls_is_refused(
    serve: Serve, ca: Certificate, certificate: Certificate, first: bytes, problem: str
) -> None:
    with pytest.raises(FraudPipelineError, match=problem):
        check_server(server(serve(first, certificate), ca.path))


def test_files_that_cannot_be_used_are_bad_input(ca: Certificate, other_ca: Certificate) -> None:
    client = signed(ca, "client", "DNS:client")
    absent = ca.path.with_name("absent.pem")
    for files, message in [
        ((absent,), "tls_ca: .*absent.pem: no such file"),
        ((ca.path, absent, client.key), "tls_certificate: .*absent.pem: no such file"),
        ((ca.path, client.path, absent), "tls_key: .*absent.pem: no such file"),
        ((ca.path.with_suffix(".srl"),), "tls_ca: .*no certificates in PEM"),
        ((ca.path, client.path, other_ca.key), "tls_certificate: .*belongs to"),
        ((ca.path, client.path, with_passphrase(client.key)), "tls_key: .*passphrase"),
    ]:
        with pytest.raises(BadInput, match=message):
            check_server(server(1, *files))


def test_the_files_are_found_from_the_configuration_file(tmp_path: Path) -> None:
    (tmp_path / "fraud.yaml").write_text(
        "metadata: {store: mysql, host: db, tls_ca: ca.pem, tls_certificate: c.pem, tls_key: k.pem}"
    )
    loaded = load(tmp_path / "fraud.yaml").metadata
    options = lineage.connection_config(loaded, Root(tmp_path)).mysql.ssl_options
    assert [options.ca, options.cert, options.key] == [
        str(tmp_path / name) for name in ("ca.pem", "c.pem", "k.pem")
    ]
    plain = lineage.connection_config(Metadata(store="mysql"), Root(tmp_path))
    assert not plain.mysql.HasField("ssl_options")


def test_a_missing_file_is_bad_input_of_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "fraud.yaml").write_text("metadata: {store: mysql, host: db, tls_ca: ca.pem}")
    assert cli.main(["status", "--config", str(tmp_path / "fraud.yaml")]) == 2
    assert capsys.readouterr().err == (
        f"fraud-pipeline: metadata.tls_ca: {tmp_path / 'ca.pem'}: no such file\n"
    )

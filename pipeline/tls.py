"""Checks of a metadata server's identity, which ML Metadata's own client cannot make.

That client encrypts, but its verification of certificates always fails (it hands BoringSSL an empty
host name), and if a server offers no TLS it goes on in plain text. So the server must prove itself
on a connection of ours first.
"""

from __future__ import annotations

import socket
import ssl
from pathlib import Path

from ml_metadata.proto import metadata_store_pb2 as mlmd

from fraud.errors import BadInput, FraudPipelineError

SECONDS = 20
"""How long a server may take to answer."""

_SSL = 0x0800  # flags of MySQL's protocol
_PROTOCOL_41, _SECURE_CONNECTION, _PLUGIN_AUTH = 0x0200, 0x8000, 0x80000
_UTF8 = 33
_LONGEST_GREETING = 1024


def check_server(server: mlmd.MySQLDatabaseConfig) -> None:
    """Checks that a server has a certificate, for its host name, that the configured CA signed.

    Raises:
      BadInput: a file of the configuration is missing or unusable.
      FraudPipelineError: the server does not answer, offers no TLS, or has no such certificate.
    """
    context = _context(server.ssl_options)
    try:
        with socket.create_connection((server.host, server.port), SECONDS) as plain:
            _ask_for_tls(plain)
            with context.wrap_socket(plain, server_hostname=server.host):
                pass
    except OSError as error:
        reason = getattr(error, "verify_message", "") or error
        raise FraudPipelineError(
            f"metadata: no trusted connection to {server.host}:{server.port}: {reason}; see "
            "metadata.tls_ca in the configuration"
        ) from None


def _context(files: mlmd.MySQLDatabaseConfig.SSLOptions) -> ssl.SSLContext:
    """The context for a connection with the certificates in these files."""
    named = {"tls_ca": files.ca, "tls_certificate": files.cert, "tls_key": files.key}
    for key, path in named.items():
        if path and not Path(path).is_file():
            raise BadInput(f"metadata.{key}: {path}: no such file")

    def refuse() -> str:
        raise BadInput(
            f"metadata.tls_key: {files.key} has a passphrase, which ML Metadata's client cannot "
            "ask for; use a key without one, in a file that only this user can read"
        )

    try:
        context = ssl.create_default_context(cafile=files.ca)
    except OSError as error:
        raise BadInput(f"metadata.tls_ca: {files.ca}: no certificates in PEM: {error}") from None
    # From Python 3.13 on this is the default, which refuses the authorities that databases make.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if files.cert:
        try:
            context.load_cert_chain(files.cert, files.key, password=refuse)
        except OSError as error:
            raise BadInput(
                f"metadata.tls_certificate: {files.cert}: no certificate in PEM that belongs to "
                f"{files.key}: {error}"
            ) from None
    return context


def _ask_for_tls(plain: socket.socket) -> None:
    """Reads the greeting of a MySQL server and asks it to go on with TLS.

    Raises:
      OSError: the server refuses the connection, offers no TLS or speaks another protocol.
    """
    with plain.makefile("rb") as stream:
        size = int.from_bytes(stream.read(4)[:3], "little")
        greeting = stream.read(size) if size < _LONGEST_GREETING else b""
    if greeting[:1] == b"\xff":  # an error, after whose number (2 bytes) is its message
        raise OSError(greeting[3:].decode(errors="replace"))
    _, _, rest = greeting.partition(b"\0")
    if greeting[:1] != b"\x0a" or len(rest) < 15:
        raise OSError("this is no MySQL or MariaDB server")
    # Before the flags are the connection's number (4 bytes), a part of the challenge (8) and a 0.
    if not int.from_bytes(rest[13:15], "little") & _SSL:
        raise OSError("the server offers no TLS")
    flags = _PROTOCOL_41 | _SSL | _SECURE_CONNECTION | _PLUGIN_AUTH
    request = flags.to_bytes(4, "little") + (1 << 24).to_bytes(4, "little") + bytes([_UTF8])
    request = request.ljust(32, b"\0")
    plain.sendall(len(request).to_bytes(3, "little") + b"\x01" + request)

"""Certificates made for a test, with the openssl command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Certificate:
    """The files of a certificate and of its key, both PEM."""

    path: Path
    key: Path


def authority(folder: Path, name: str) -> Certificate:
    """A certificate that signs others."""
    made = Certificate(folder / f"{name}.pem", folder / f"{name}-key.pem")
    # Python 3.13 refuses an authority that does not say that it signs.
    usage = ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    _openssl("req", "-x509", *_new_key(made, name), *usage, "-days", "2", "-out", made.path)
    return made


def signed(by: Certificate, name: str, valid_for: str) -> Certificate:
    """A certificate signed by an authority, for names such as "IP:127.0.0.1"."""
    folder = by.path.parent
    made = Certificate(folder / f"{name}.pem", folder / f"{name}-key.pem")
    request, names = folder / f"{name}.csr", folder / f"{name}.ext"
    names.write_text(
        f"subjectAltName={valid_for}\nsubjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n"
    )
    _openssl("req", *_new_key(made, name), "-out", request)
    of_authority = ["-CA", by.path, "-CAkey", by.key, "-CAcreateserial"]
    _openssl("x509", "-req", "-in", request, *of_authority, "-days", "2", "-extfile", names,
             "-out", made.path)  # fmt: skip
    return made


def with_passphrase(key: Path) -> Path:
    """An encrypted copy of a key."""
    encrypted = key.with_name(f"encrypted-{key.name}")
    _openssl("rsa", "-in", key, "-aes128", "-passout", "pass:secret", "-out", encrypted)
    return encrypted


def _new_key(made: Certificate, name: str) -> list[object]:
    return ["-newkey", "rsa:2048", "-nodes", "-keyout", made.key, "-subj", f"/CN={name}"]


def _openssl(*arguments: object) -> None:
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

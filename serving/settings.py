"""How the server is reached, by whom, and what it takes at most."""

from __future__ import annotations

import hmac
import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fraud.errors import BadInput
from fraud.serving.errors import Forbidden, Unauthenticated
from fraud.serving.spec import Limits

MODEL = "fraud"
"""The name of the model in all protocols."""

Role = Literal["read", "score", "label", "admin"]
ROLES: tuple[Role, ...] = ("read", "score", "label", "admin")
SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Tokens:
    """The bearer tokens of each role; `admin` may do everything. Without any, all may.

    They come from the environment: `FRAUD_READ_TOKENS`, `FRAUD_SCORE_TOKENS`, `FRAUD_LABEL_TOKENS`
    and `FRAUD_ADMIN_TOKENS`, each a list separated by commas, so that a token can be replaced
    without a moment in which neither is valid. All of them may read, `read` nothing else.
    """

    roles: Mapping[bytes, Role] = field(default_factory=dict)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Tokens:
        """Reads the variables.

        Raises:
          BadInput: a token is too short, or of two roles.
        """
        roles: dict[bytes, Role] = {}
        for role in ROLES:
            variable = f"FRAUD_{role.upper()}_TOKENS"
            for token in filter(None, map(str.strip, environment.get(variable, "").split(","))):
                if len(token) < SHORTEST_TOKEN:
                    raise BadInput(
                        f"{variable}: a token is shorter than {SHORTEST_TOKEN} characters; make "
                        "one with: openssl rand -hex 24"
                    )
                if roles.setdefault(token.encode(), role) != role:
                    raise BadInput(f"{variable}: a token is of another role, too; make another")
        return cls(roles)

    def check(self, authorization: str | None, role: Role | None) -> None:
        """Checks the header `authorization` of a request.

        Args:
          authorization: its value, such as `Bearer 7b1f…`.
          role: who may send the request; None for any role.

        Raises:
          Unauthenticated: there is no valid token.
          Forbidden: the token is of another role.
        """
        if not self.roles:
            return
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not token.strip():
            raise Unauthenticated("send a token: Authorization: Bearer TOKEN")
        given = token.strip().encode()
        owned = [r for known, r in self.roles.items() if hmac.compare_digest(known, given)]
        if not owned:
            raise Unauthenticated("this token is not known")
        if role is not None and owned[0] not in (role, "admin"):
            raise Forbidden(f"this token is of the role {owned[0]}; this request needs {role}")


@dataclass(frozen=True)
class Settings:
    """How a server runs.

    Attributes:
      folder: the push folder.
      host: the address it listens on.
      port, grpc_port: of HTTP and of gRPC; 0 for any free one.
      workers: how many processes answer.
      tls: files with the certificates and with their key, both PEM; None for plain text.
      limits: what it takes.
      tokens: who may send what.
      gauges: a file in Prometheus's text format, such as the monitor's, of which `/metrics` has the
        latest content, too; it need not exist.
    """

    folder: Path
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int = 8500
    workers: int = 1
    tls: tuple[Path, Path] | None = None
    limits: Limits = Limits()
    tokens: Tokens = Tokens()
    gauges: Path | None = None

    def __post_init__(self) -> None:
        if not is_loopback(self.host) and not self.tokens.roles:
            raise BadInput(
                f"--host {self.host}: other machines could send requests; set FRAUD_SCORE_TOKENS "
                "and FRAUD_ADMIN_TOKENS in the environment, so that they need a token"
            )
        if self.workers > 1 and not (self.port and self.grpc_port):
            raise BadInput("--workers: several workers share their ports; name both")


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

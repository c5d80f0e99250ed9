"""The server's log: one JSON document per line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from typing import Any

import orjson

LOG = logging.getLogger("fraud.serving")

_FIELDS = "fields"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname,
            "message": record.getMessage(),
            **getattr(record, _FIELDS, {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        try:
            line = orjson.dumps(document, default=str).decode()
        except orjson.JSONEncodeError:  # a lone surrogate, or a number beyond 64 bits
            line = ""
        if not (line and line.isascii()):  # terminals act on some characters
            line = json.dumps(document, default=str)
        return line.replace("\x7f", "\\u007f")


def log(level: int, message: str, *, exc_info: Any = None, **fields: Any) -> None:
    """Writes a line.

    Args:
      level: of `logging`.
      message: what happened, the same for all events of a kind.
      exc_info: an exception whose traceback is added.
      **fields: what is particular to this event.
    """
    if LOG.isEnabledFor(level):
        LOG.log(level, message, exc_info=exc_info, extra={_FIELDS: fields})


def set_up() -> None:
    """Lets this module, and whatever else logs warnings, write JSON to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(logging.INFO)

"""The runs that were refused before they began, so that `status` can show them.

A run that begins is recorded in ML Metadata, whatever becomes of it. Bad input is reported before
that; whoever looks the next morning at a root that a scheduler uses should still find the reason.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from fraud.codec import from_json, to_json
from fraud.errors import BadInput
from fraud.files import write_atomically
from fraud.pipeline.root import Root

FILE = ".refused.json"  # no run id begins like that
KEPT = 20
"""The file holds only as many refusals, the latest."""


@dataclass(frozen=True)
class Refusal:
    """A run that was refused.

    Attributes:
      at: when, in local time.
      reason: the message.
    """

    at: datetime
    reason: str


def record(root: Root, reason: str) -> None:
    """Records a refusal in a root that exists; a root that does not is not created for it."""
    if not root.path.is_dir():
        return
    now = Refusal(datetime.now().replace(microsecond=0), reason)
    with suppress(OSError):  # the message reaches the user in any case
        write_atomically(root.path / "runs" / FILE, to_json([*read(root), now][-KEPT:], indent=1))


def read(root: Root) -> tuple[Refusal, ...]:
    """The refusals, oldest first; none if the file is missing or damaged."""
    try:
        content = (root.path / "runs" / FILE).read_bytes()
        return from_json(tuple[Refusal, ...], content)
    except (OSError, BadInput):
        return ()

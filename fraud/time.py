"""Days, and the units of time in a day."""

from __future__ import annotations

import re
from datetime import date

from fraud.errors import BadInput

SECONDS_PER_DAY = 86_400
MICROSECONDS_PER_DAY = 86_400_000_000
EPOCH = date(1970, 1, 1)


def parse_day(text: str) -> date:
    """Parses YYYY-MM-DD and no other form.

    Raises:
      BadInput: the text has another form, or there is no such day.
    """
    try:
        # On newer Pythons, fromisoformat alone would also accept 20180731 and 2018-W31-2.
        if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise BadInput(f"{text!r} is not a day; write it as 2018-07-31")


def day_number(day: date) -> int:
    """Days since 1970-01-01."""
    return (day - EPOCH).days

"""Days, and the units of time in a day."""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING

from fraud.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SECONDS_PER_DAY = 86_400
MICROSECONDS_PER_DAY = 86_400_000_000
TIME_UNITS = {"minutes": 60_000_000, "hours": 3_600_000_000, "days": MICROSECONDS_PER_DAY}
"""Units of time in which data may count from its beginning, in microseconds."""
EPOCH = date(1970, 1, 1)
UTC = "UTC"


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


def check_timezone(name: str) -> None:
    """Checks the name of a timezone in the IANA database.

    Raises:
      BadInput: there is no such timezone.
    """
    if name == UTC:
        return
    import difflib
    import zoneinfo

    try:
        zoneinfo.ZoneInfo(name)
    except (ValueError, KeyError, OSError):
        close = difflib.get_close_matches(name, zoneinfo.available_timezones(), n=1)
        example = close[0] if close else "Europe/Berlin"
        raise BadInput(f"{name!r} is no timezone; use an IANA name such as {example}") from None


def local_times(instants: NDArray[np.datetime64], timezone: str) -> NDArray[np.datetime64]:
    """What clocks in a timezone show, to the microsecond.

    Args:
      instants: datetime64[us] in UTC, [n]; NaT stays NaT.
      timezone: IANA name.

    Raises:
      BadInput: this system's timezone database lacks the timezone.
    """
    if timezone == UTC:
        return instants
    import pyarrow as pa
    import pyarrow.compute as pc

    in_utc = pa.array(instants, pa.timestamp("us", UTC))
    in_zone = in_utc.cast(pa.timestamp("us", timezone))

    # pyarrow 10 has no local_timestamp, but the parts of a time are local.
    def part(of: str, times: pa.Array) -> NDArray[np.int64]:
        return getattr(pc, of)(times).fill_null(0).to_numpy()

    try:
        shifts = {of: part(of, in_zone) - part(of, in_utc) for of in ("day_of_week", "hour")}
        minutes = part("minute", in_zone) - part("minute", in_utc)
    except pa.ArrowInvalid as error:
        raise BadInput(f"dataset.timezone: {error}; install the system's tzdata") from None
    days = (shifts["day_of_week"] + 1) % 7 - 1  # -1, 0 or 1
    return instants + ((days * 24 + shifts["hour"]) * 60 + minutes).astype("timedelta64[m]")


def local_days(seconds: NDArray[np.int64], timezone: str) -> NDArray[np.int64]:
    """The days of moments in a timezone, as days since 1970-01-01, [n].

    Args:
      seconds: since 1970-01-01 UTC, [n].
      timezone: IANA name.
    """
    if timezone == UTC:
        return seconds // SECONDS_PER_DAY
    instants = seconds.astype("datetime64[s]").astype("datetime64[us]")
    return local_times(instants, timezone).astype("datetime64[D]").astype("int64")

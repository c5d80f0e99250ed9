"""Local times and days of a timezone, against Python's own."""

import re
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fraud.errors import BadInput
from fraud.time import UTC, check_timezone, local_days, local_times

ZONES = (UTC, "Asia/Tokyo", "Europe/Berlin", "Pacific/Kiritimati", "Pacific/Pago_Pago")
ZONES += ("Asia/Kathmandu", "Australia/Lord_Howe", "America/St_Johns")

seconds = st.integers(0, int(datetime(2037, 1, 1, tzinfo=timezone.utc).timestamp()))
around_a_change = st.integers(-7200, 7200).map(
    lambda s: int(datetime(2026, 10, 25, 1, tzinfo=timezone.utc).timestamp()) + s
)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(ZONES), st.lists(seconds | around_a_change, min_size=1, max_size=20))
def test_local_times_and_days_are_pythons(zone, drawn):
    instants = np.array(drawn, "datetime64[s]").astype("datetime64[us]") + 123_456
    local = [datetime.fromtimestamp(s, ZoneInfo(zone)).replace(tzinfo=None) for s in drawn]
    expected = np.array(local, "datetime64[us]") + 123_456
    np.testing.assert_array_equal(local_times(instants, zone), expected)
    days = local_days(np.array(drawn), zone)
    assert days.dtype == np.int64
    np.testing.assert_array_equal(days, expected.astype("datetime64[D]").astype(int))


def test_a_missing_time_stays_missing():
    instants = np.array(["NaT", "2026-01-01"], "datetime64[us]")
    assert np.isnat(local_times(instants, "Asia/Tokyo")).tolist() == [True, False]


@pytest.mark.parametrize("name", ["Europe/Berlim", "Europe", "", "../etc/passwd", "+02:00"])
def test_a_name_that_is_no_timezone_is_refused(name):
    with pytest.raises(BadInput, match=re.escape(f"'{name}' is no timezone")):
        check_timezone(name)


def test_a_close_name_is_proposed():
    with pytest.raises(BadInput, match="Europe/Berlin"):
        check_timezone("Europe/Berlim")
    for zone in ZONES:
        check_timezone(zone)

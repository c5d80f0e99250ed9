"""The pictures of a model count every transaction."""

from __future__ import annotations

import pytest

from fraud.report import figures


def one_bin(low: float, frauds: int, genuine: int, mean: float | None) -> dict:
    return {"low": low, "high": 1.0, "frauds": frauds, "genuine": genuine, "mean_score": mean}


def test_calibration_counts_the_transactions_of_bins_without_frauds():
    """Left out, they would make a model that is too suspicious look calibrated."""
    bins = [
        one_bin(0.0, 0, 900, 0.001),
        one_bin(0.01, 1, 99, 0.02),
        one_bin(0.1, 0, 0, None),
        one_bin(0.2, 0, 10, 0.3),
        one_bin(0.4, 5, 5, 0.5),
        one_bin(0.8, 0, 10, 0.9),
    ]
    assert figures.calibration(bins) == [
        (pytest.approx((900 * 0.001 + 100 * 0.02) / 1000), 1 / 1000),
        (pytest.approx((10 * 0.3 + 10 * 0.5 + 10 * 0.9) / 30), 5 / 30),
    ]


def test_without_frauds_there_is_no_calibration():
    assert figures.calibration([one_bin(0.0, 0, 900, 0.001)]) == []


def test_what_is_below_the_chart_is_left_out():
    bins = [one_bin(0.0, 1, 99_999, 0.00001), one_bin(0.5, 6, 4, 0.6)]
    assert figures.calibration(bins) == [(0.6, 0.6)]

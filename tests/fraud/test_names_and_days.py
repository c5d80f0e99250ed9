import argparse
from datetime import date
from pathlib import Path

import pytest

from fraud.errors import BadInput
from fraud.files import is_uri, resolve
from fraud.names import check_run_id, input_name, plural, spoken
from fraud.pipeline.commands import common
from fraud.time import day_number, parse_day


def test_an_input_name_has_letters_digits_and_underscores_and_a_letter_first():
    names = [input_name(column) for column in ("TX_AMOUNT", "age of account", "3ds", "_x")]
    assert names == ["TX_AMOUNT", "age_of_account", "column_3ds", "column__x"]


@pytest.mark.parametrize(
    ("column", "one", "many"),
    [
        ("CUSTOMER_ID", "customer", "customers"),
        ("policy_holder", "policy holder", "policy holders"),
        ("PolicyNumber", "policy", "policies"),
        ("nameOrig", "name orig", "name origs"),
        ("address", "address", "addresses"),
        ("survey key", "survey", "surveys"),
        ("clients", "clients", "clients"),
        ("ID", "id", "ids"),
        ("_", "_", "_s"),
    ],
)
def test_columns_in_sentences(column, one, many):
    assert (spoken(column), plural(spoken(column))) == (one, many)


@pytest.mark.parametrize(
    "run_id",
    ["20180731-120000-2", "scheduled__2018-06-15T00:00:00+00:00", "asset~1", "a.b", "x" * 200],
)
def test_run_ids_of_all_orchestrators_are_accepted(run_id):
    check_run_id(run_id)


def test_a_day_has_one_form():
    assert parse_day("2018-07-31") == date(2018, 7, 31)
    for text in ("20180731", "2018-W31-2", "2018-7-31", "2018-02-30", ""):
        with pytest.raises(BadInput, match="is not a day"):
            parse_day(text)
        with pytest.raises(argparse.ArgumentTypeError, match="is not a day"):
            common.day(text)
    assert day_number(date(1970, 1, 2)) == 1


def test_paths_are_made_absolute_and_uris_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert resolve("~/days") == resolve("days") == str(tmp_path / "days")
    assert resolve("../days", Path("a/b")) == str(tmp_path / "a" / "days")
    assert resolve("~no-such-user/x") == str(tmp_path / "~no-such-user" / "x")
    assert resolve("s3://bank/days", tmp_path) == "s3://bank/days"
    assert is_uri("s3://bank/days") and not is_uri("/bank/days")

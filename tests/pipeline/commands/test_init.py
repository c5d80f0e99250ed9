"""`init` on tables that strangers bring, and on hostile ones."""

from __future__ import annotations

import builtins
import gzip
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fraud.pipeline import config
from fraud.pipeline.cli import main
from fraud.pipeline.ingestion.source import plan_ingestion
from fraud.pipeline.inspection.proposal import demands

ROWS = 3000


def table(**columns) -> pd.DataFrame:
    random = np.random.default_rng(3)
    chance = random.random(ROWS)
    return pd.DataFrame({
        "branch": random.choice(["north", "south", "west"], ROWS),
        "score_a": random.normal(size=ROWS).round(3),
        **columns,
        "fraud": (chance < 0.05).astype(int),
    })  # fmt: skip


def days(count: int) -> pd.DatetimeIndex:
    seconds = np.sort(np.random.default_rng(4).integers(0, count * 86_400, ROWS))
    return pd.to_datetime("2026-01-01") + pd.to_timedelta(seconds, unit="s")


@pytest.fixture
def init(tmp_path, capsys):
    def call(data, *options, expect=0, **writing):
        """Writes the table, inspects it, and returns the settings, or the message."""
        if isinstance(data, pd.DataFrame):
            path = tmp_path / "data.csv"
            data.to_csv(path, index=False, **writing)
            data = path
        out = tmp_path / "ours.yaml"
        code = main(["init", "--data", str(data), "--out", str(out), *(options or ["--yes"])])
        printed = capsys.readouterr()
        assert code == expect, printed.err
        assert "Traceback" not in printed.err
        if code:
            assert not out.exists()
            return printed.err
        loaded = config.load(out)
        plan_ingestion(loaded.paths.data, loaded, None)  # a run could begin
        return loaded

    return call


def test_claims_without_time(init, tmp_path):
    claims = table(
        PolicyNumber=np.arange(1, ROWS + 1),
        deductible=np.random.default_rng(1).choice([300, 400, 700], ROWS),
        mcc=np.random.default_rng(1).choice([5411, 6011, 7995], ROWS),
        zip=np.random.default_rng(1).choice(["01067", "10115"], ROWS),
        note=[f"text {i}" for i in range(ROWS)],
        empty=None,
        always="x",
    )
    loaded = init(claims)
    dataset = loaded.dataset
    assert (dataset.timestamp, dataset.amount, dataset.entities) == (None, None, ())
    assert (dataset.label, dataset.id) == ("fraud", "PolicyNumber")
    assert dataset.numeric == ("score_a", "deductible")
    assert dataset.categorical == ("branch", "mcc", "zip")
    text = (tmp_path / "ours.yaml").read_text()
    assert "#   always: always 'x'" in text and "#   empty: always empty" in text
    assert "#   note: 3,000 different values" in text
    least = loaded.evaluation.min_average_precision
    assert 1.2 * 0.05 < least < 2 * 0.06  # clearly above chance, which is the share of frauds


def test_steps_of_an_hour_and_a_second_label(init):
    random = np.random.default_rng(5)
    frame = table(
        step=np.sort(random.integers(1, 744, ROWS)),
        nameOrig=[f"C{i}" for i in range(ROWS)],
        nameDest=[f"M{i}" for i in random.integers(0, 200, ROWS)],
    )
    frame["isFraud"] = frame.pop("fraud")
    frame["isFlaggedFraud"] = frame.isFraud * (random.random(ROWS) < 0.5)
    loaded = init(frame)
    assert (loaded.dataset.label, loaded.dataset.timestamp) == ("isFraud", "step")
    assert (loaded.dataset.time_format, loaded.dataset.entities) == ("hours", ("nameDest",))
    lengths = loaded.windows
    assert lengths.train_days + lengths.eval_days + 2 * lengths.label_delay_days <= 31
    used = {*loaded.dataset.columns}
    assert not used & {"isFlaggedFraud"}


def test_a_german_file(init, tmp_path):
    random = np.random.default_rng(6)
    frame = pd.DataFrame({
        "Vorgangsnummer": [f"{i:08d}" for i in range(ROWS)],
        "Buchung": days(90).strftime("%d.%m.%Y %H:%M"),
        "Händler": [f"Müller {i}; Söhne" for i in random.integers(0, 200, ROWS)],
        "Betrag": [f"{x:.2f}".replace(".", ",") for x in random.lognormal(4, 1, ROWS)],
        "Betrug": np.where(random.random(ROWS) < 0.04, "ja", "nein"),
    })  # fmt: skip
    dataset = init(frame, sep=";", encoding="cp1252").dataset
    assert (dataset.csv_delimiter, dataset.csv_decimal, dataset.csv_encoding) == (
        ";",
        ",",
        "cp1252",
    )
    assert (dataset.timestamp, dataset.time_format) == ("Buchung", "%d.%m.%Y %H:%M")
    assert (dataset.label, dataset.label_values) == ("Betrug", ("nein", "ja"))
    assert (dataset.id, dataset.amount) == ("Vorgangsnummer", "Betrag")
    assert dataset.entities == ("Händler",)


@pytest.mark.parametrize(
    ("written", "time_format"),
    [
        ("%Y-%m-%d %H:%M:%S", None),
        ("%Y-%m-%dT%H:%M:%SZ", None),
        ("%d/%m/%Y %H:%M", "%d/%m/%Y %H:%M"),
        ("%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M %p"),
        ("%Y%m%d", "%Y%m%d"),
        ("%d.%m.%y", "%d.%m.%y"),
        ("%s", None),
    ],
)
def test_dates_in_many_formats(init, written, time_format):
    times = days(60)
    column = times.astype(np.int64) // 10**9 if written == "%s" else times.strftime(written)
    dataset = init(table(booked_at=column)).dataset
    assert (dataset.timestamp, dataset.time_format) == ("booked_at", time_format)


def test_of_two_readings_of_a_date_the_contiguous_one_is_taken(init):
    frame = table(date=days(12).strftime("%m/%d/%Y"))  # 01/01 to 01/12: either reading parses
    assert init(frame).dataset.time_format == "%m/%d/%Y"


def test_too_few_days_are_no_time(init, tmp_path):
    assert init(table(time=days(3).strftime("%Y-%m-%d %H:%M:%S"))).dataset.timestamp is None
    assert "times of 3 days only" in (tmp_path / "ours.yaml").read_text()


def test_days_without_transactions_are_tolerated(init):
    frame = table(time=days(90).strftime("%Y-%m-%d %H:%M:%S"))
    frame = frame[~frame.time.str.startswith(("2026-03-05", "2026-02-10"))]
    assert init(frame).windows.max_empty_days == 2


def test_a_column_that_tells_the_label_is_left_out(init, tmp_path):
    frame = table()
    frame["refund"] = frame.fraud * 3.5 + np.random.default_rng(1).normal(0, 0.1, ROWS)
    frame["case_state"] = np.where(frame.fraud == 1, "confirmed", "none")
    loaded = init(frame)
    assert not {"refund", "case_state"} & {*loaded.dataset.columns}
    assert "refund: tells the label almost alone" in (tmp_path / "ours.yaml").read_text()


def test_two_hundred_columns_in_parquet(init, tmp_path):
    random = np.random.default_rng(8)
    wide = table(
        **{f"x{i}": random.normal(size=ROWS) for i in range(200)}, flag=[True, False] * 1500
    )
    wide["big"] = [[1]] * ROWS
    wide.to_parquet(tmp_path / "wide.parquet")
    dataset = init(tmp_path / "wide.parquet").dataset
    assert len(dataset.numeric) == 201
    assert dataset.categorical == ("branch", "flag")


def test_names_that_are_no_plain_words(init, tmp_path):
    odd = {"yes": 1.5, "#: {x}": 2.5, "ä'\"b": 3.5, "a b": 4.5, "a-b": 5.5, "1": 6.5, "null": 7.5}
    random = np.random.default_rng(9)
    dataset = init(table(**{name: random.normal(size=ROWS) for name in odd})).dataset
    assert {*odd} - {*dataset.numeric} == {"a-b"}  # the model's inputs would both be a_b
    assert "a-b: its name differs from 'a b' only" in (tmp_path / "ours.yaml").read_text()


def test_the_sample_in_day_folders(init, repository):
    loaded = init(repository / "data" / "sample" / "transactions")
    dataset = loaded.dataset
    assert (dataset.timestamp, dataset.amount, dataset.label) == (
        "TX_DATETIME",
        "TX_AMOUNT",
        "TX_FRAUD",
    )
    assert (dataset.id, dataset.entities) == ("TRANSACTION_ID", ("CUSTOMER_ID", "TERMINAL_ID"))
    assert {"MERCHANT_CATEGORY", "CHANNEL", "COUNTRY", "CUSTOMER_AGE_BAND"} <= {
        *dataset.categorical
    }


def test_a_gzipped_file_and_json(tmp_path, capsys):
    path = tmp_path / "data.csv.gz"
    path.write_bytes(gzip.compress(table().to_csv(index=False).encode()))
    out = tmp_path / "a b.yaml"
    assert main(["init", "--data", str(path), "--out", str(out), "--yes", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["next"] == f"fraud-pipeline run --config '{out}'"
    assert {"column": "fraud", "role": "label", "reason": "by its name, with two values"} in (
        document["roles"]
    )


def without(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    return frame.drop(columns=column)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (without(table(), "fraud"), "no column looks like the label; no column has just two"),
        (table().rename(columns={"fraud": "y"}), "name it with --label; it may be y"),
        (table(isFraud=[0, 1, 1] * 1000), "isFraud and fraud could each be the label"),
        (table().assign(fraud=0), "fraud: it looks like the label, but is '0' in all rows"),
        (table().assign(fraud=[0, 1, 2] * 1000), "but has 3 values, 0, 1 and 2"),
        (table().assign(fraud=None), "fraud: it looks like the label, but is empty"),
        (table()[["fraud"]], "the header is a single column, 'fraud'"),
        (table()[["fraud", "branch"]].iloc[:0], "there are no transactions"),
        (table()[["fraud"]].assign(always=1), "nothing to learn from"),
    ],
)
def test_a_table_that_cannot_be_used_is_one_clear_message(init, frame, message):
    assert message in init(frame, expect=2)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"a,fraud,a\n1,0,2\n", "2 columns are called 'a'"),
        ("a;fraud\n1;0\n".encode("utf-16"), "UTF-16"),
        (b"a,fraud\n1,0\n1,0,0\n2,1\n", "line 3"),
    ],
)
def test_a_damaged_file_is_one_clear_message(init, tmp_path, content, message):
    path = tmp_path / "bad.csv"
    path.write_bytes(content)
    assert message in init(path, expect=2)


def test_the_label_may_be_named(init):
    frame = table(isFraud=[0, 1, 1] * 1000)
    loaded = init(frame, "--yes", "--label", "fraud")
    assert loaded.dataset.label == "fraud" and "isFraud" not in loaded.dataset.columns
    assert "no column 'none'" in init_again(frame, loaded, "none")


def init_again(frame, loaded, label):
    out = Path(loaded.paths.data).parent / "again.yaml"
    from fraud.errors import BadInput
    from fraud.pipeline.cli import _parser
    from fraud.pipeline.commands import init as command

    arguments = ["init", "--data", loaded.paths.data, "--out", str(out), "--yes", "--label", label]
    with pytest.raises(BadInput) as error:
        command.run(_parser("init").parse_args(arguments))
    return str(error.value)


def test_a_file_is_never_overwritten_and_nobody_is_asked_without_a_terminal(tmp_path, capsys):
    data, out = tmp_path / "data.csv", tmp_path / "ours.yaml"
    table().to_csv(data, index=False)
    assert main(["init", "--data", str(data), "--out", str(out)]) == 2
    assert "give --yes" in capsys.readouterr().err
    out.write_text("mine")
    assert main(["init", "--data", str(data), "--out", str(out), "--yes"]) == 2
    assert "exists already" in capsys.readouterr().err
    assert out.read_text() == "mine"


def test_on_a_terminal_it_asks(init, monkeypatch):
    answers = iter(["fraud", "", "nothing", "score_a", "-"])  # label, timestamp, amount twice, id
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", lambda prompt: next(answers))
    dataset = init(table(tx_id=np.arange(ROWS)), "--label", "fraud").dataset
    assert (dataset.amount, dataset.id) == ("score_a", None)
    assert next(answers, None) is None


def test_the_reasons_are_comments_and_the_file_has_no_defaults(init, tmp_path):
    init(table())
    text = (tmp_path / "ours.yaml").read_text()
    assert "- branch # 3 values" in text
    keys = yaml.safe_load(text)
    assert {*keys} == {"dataset", "evaluation", "paths"}
    assert keys["paths"]["data"] == "data.csv"


RANDOM = np.random.default_rng(11)
YEARS = pd.to_datetime("1990-01-01") + pd.to_timedelta(RANDOM.integers(0, 9000, ROWS), unit="D")
DAYS = days(60).strftime("%Y-%m-%d")


@pytest.mark.parametrize("event", ["incident_date", "transaction_date", "tx_time", "TransDate"])
@pytest.mark.parametrize(
    "other", ["policy_bind_date", "date_of_birth", "card_expiry_date", "account_open_date", "date"]
)
def test_the_time_of_the_transaction_is_the_timestamp(init, event, other):
    frame = table(**{other: YEARS.strftime("%Y-%m-%d"), event: DAYS})  # fewer days than years
    assert init(frame).dataset.timestamp == event


@pytest.mark.parametrize("name", ["birth_date", "dob", "customer_since", "cardValidUntil"])
def test_a_time_of_something_else_is_no_timestamp(init, tmp_path, name):
    assert init(table(**{name: YEARS.strftime("%Y-%m-%d")})).dataset.timestamp is None
    assert f"#   {name}: a time, but by its name (" in (tmp_path / "ours.yaml").read_text()


def test_a_time_that_some_rows_lack_says_so(init, tmp_path):
    assert init(table(time=[None, *DAYS[1:]])).dataset.timestamp is None
    assert "time: a time, but 1 row has none" in (tmp_path / "ours.yaml").read_text()


@pytest.mark.parametrize("name", ["ts", "timestamp", "unix_time", "trans_time", "eventtime"])
@pytest.mark.parametrize("unit", [10**9, 10**6])
def test_times_since_1970(init, name, unit):
    times = days(60).astype("datetime64[ns]").astype(np.int64) // unit
    assert init(table(**{name: times})).dataset.timestamp == name


def test_times_since_1970_that_a_run_cannot_read_are_no_number(init, tmp_path):
    seconds = days(60).astype("datetime64[ns]").astype(np.int64) / 10**9
    dataset = init(table(unix_time=seconds + 0.5)).dataset
    assert (dataset.timestamp, dataset.numeric) == (None, ("score_a",))
    text = (tmp_path / "ours.yaml").read_text()
    assert "unix_time: times since 1970 with a decimal point; as the timestamp, write" in text


def test_ten_digit_numbers_are_no_times(init):
    frame = table(transaction_id=1_500_000_000 + RANDOM.integers(0, 9_000, ROWS))
    assert init(frame).dataset.timestamp is None


def test_one_value_is_no_plural(init, tmp_path):
    init(table(mail=np.where(np.arange(ROWS) % 2, "gmail", "")))
    assert re.search(r"- mail # 1 value$", (tmp_path / "ours.yaml").read_text(), re.MULTILINE)


MEASURES = ["account_age_days", "card_limit", "num_user_logins", "merchant_risk_score"]
MEASURES += ["device_count", "months_as_customer"]


def test_quantities_are_numbers_and_no_entities(init):
    numbers = {name: RANDOM.integers(0, 200, ROWS) for name in [*MEASURES, "cc_num", "card_no"]}
    dataset = init(table(**numbers)).dataset
    assert dataset.entities == ("cc_num", "card_no")
    assert dataset.numeric == ("score_a", *MEASURES)


def test_the_amount_of_the_transaction(init):
    frame = table(transaction_amount=RANDOM.integers(0, 200, ROWS))
    assert init(frame).dataset.amount == "transaction_amount"


@pytest.mark.parametrize(
    ("genuine", "fraud", "reason"),
    [
        ("1", "2", "; '2' is taken for fraud, because it is rarer"),
        ("1", "-1", "; '-1' is taken for fraud, because it is rarer"),
        ("legit", "x", ""),
        ("good", "bad", ""),
    ],
)
def test_which_label_means_fraud(init, tmp_path, genuine, fraud, reason):
    frame = table()
    frame["class"] = np.where(frame.pop("fraud") == 1, fraud, genuine)
    assert init(frame).dataset.label_values == (genuine, fraud)
    text = (tmp_path / "ours.yaml").read_text()
    assert f"label: class # by its name, with two values{reason}\n" in text


def test_of_two_labels_that_are_as_frequent_one_must_check(init, tmp_path):
    assert init(table().assign(fraud=["a", "b"] * 1500)).dataset.label_values == ("a", "b")
    told = "'b' is taken for fraud, though both are as frequent: check it"
    assert told in (tmp_path / "ours.yaml").read_text()


def test_frauds_that_outnumber_the_genuine_are_a_warning(tmp_path, capsys):
    data, out = tmp_path / "data.csv", tmp_path / "ours.yaml"
    frame = table()
    frame.assign(fraud=1 - frame.fraud).to_csv(data, index=False)
    assert main(["init", "--data", str(data), "--out", str(out), "--yes"]) == 0
    told = "of the rows are frauds; if '1' means genuine, set dataset.label_values to ['1', '0']"
    assert told in capsys.readouterr().out
    assert f"{told} (genuine, fraud)." in out.read_text()
    out.unlink()
    main(["init", "--data", str(data), "--out", str(out), "--yes", "--json"])
    (warning,) = json.loads(capsys.readouterr().out)["warnings"]
    assert told in warning


def test_a_handful_of_frauds_is_a_warning(init, tmp_path):
    init(table().assign(fraud=[1, 1] + [0] * (ROWS - 2)))
    told = "# Warning: 2 frauds in 3,000 rows: no model can be judged by so few"
    assert told in (tmp_path / "ours.yaml").read_text()


def test_a_column_that_only_frauds_have_is_left_out(init, tmp_path):
    frame = table(harmless=np.where(RANDOM.random(ROWS) < 0.3, 1.5, np.nan))
    noise = RANDOM.random(ROWS)
    frame["claim_value"] = np.where(frame.fraud == 1, noise, np.nan)
    frame["case_no"] = np.where((frame.fraud == 1) & (noise < 0.6), "open", None)
    frame["approval"] = np.where(frame.fraud == 0, noise, np.nan)
    frame["fraud_type"] = RANDOM.choice(["a", "b", "c"], ROWS)
    dataset = init(frame).dataset
    assert (dataset.numeric, dataset.categorical) == (("score_a", "harmless"), ("branch",))
    assert dataset.amount is None
    text = (tmp_path / "ours.yaml").read_text()
    for name in ("claim_value", "case_no", "approval"):
        assert f"#   {name}: filled in " in text
    assert "#   fraud_type: named after fraud, so it may tell fraud" in text


def test_a_column_with_hardly_a_value_is_left_out(init, tmp_path):
    dataset = init(table(rare=["x"] + [None] * (ROWS - 1), few=[1.5] * 300 + [2.5] * 2700)).dataset
    assert dataset.numeric == ("score_a", "few") and dataset.categorical == ("branch",)
    text = (tmp_path / "ours.yaml").read_text()
    assert "#   rare: filled in 1 row only: train or eval may have none" in text


def test_infinite_numbers_are_left_out(init, tmp_path):
    assert init(table(ratio=[np.inf, -np.inf] + [1.5] * (ROWS - 2))).dataset.numeric == ("score_a",)
    told = (
        "#   ratio: infinite in 2 rows, which a run refuses; empty these, then list it as numeric"
    )
    assert told in (tmp_path / "ours.yaml").read_text()


def test_the_reason_says_what_keeps_numbers_from_being_numbers(init, tmp_path):
    prices = RANDOM.lognormal(7, 1, ROWS).round(2)
    frame = table(
        price=["unknown", "n.a.", *map(str, prices[2:])],
        paid=[f"${price:,.2f}" for price in prices],
        fee=[f"{price:,.2f}" for price in prices],
        units=[f"{price:,.0f}" for price in prices],
        age=["?", *map(str, RANDOM.integers(18, 90, ROWS - 1))],
        euros=[f"{price:.2f} EUR" for price in prices],
        reference=[f"ABC{i}" for i in range(ROWS)],
        address=[f"10.0.{i // 250}.{i % 250}" for i in range(ROWS)],
    )
    init(frame)
    text = (tmp_path / "ours.yaml").read_text()
    assert "#   price: 2,998 of 3,000 values are numbers; 2 are not, such as 'unknown'" in text
    assert f"#   paid: numbers such as '{frame.paid[0]}': write them as 1234.5" in text
    assert "#   fee: numbers such as '" in text and "#   units: numbers such as '" in text
    assert "#   euros: numbers such as '" in text
    assert "#   reference: 3,000 different values: text, or identifiers" in text
    assert "values; 2,999 of 3,000 values are numbers; 1 is not, such as '?'" in text
    assert "#   address: 3,000 different values: text, or identifiers" in text


@pytest.mark.parametrize("rate", [0.0005, 0.01, 0.1, 0.25, 0.5, 0.9, 0.97])
def test_demands_are_above_chance_and_can_be_met(rate):
    least = demands(rate)
    assert rate < least["min_average_precision"] < 1
    assert 0.05 < least["min_recall_at_budget"] < min(1, 0.05 / rate)

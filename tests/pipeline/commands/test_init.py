"""`init` on tables that strangers bring, and on hostile ones."""

from __future__ import annotations

import builtins
import gzip
import json
import re
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from fraud.pipeline import config
from fraud.pipeline.cli import main
from fraud.pipeline.ingestion import reader, values
from fraud.pipeline.ingestion.source import plan_ingestion
from fraud.pipeline.inspection import sample
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


def ingest(loaded: config.Config) -> None:
    """Reads every row as a run would."""
    plan = plan_ingestion(loaded.paths.data, loaded, None)
    layout = plan.layout(loaded.dataset)
    for file in plan.files:
        for first, batch in reader.read(file, layout.to_read(file)):
            origins = values.RowOrigins(file, np.arange(first, first + batch.num_rows))
            values.clean(batch, origins, layout)


@pytest.fixture
def init(tmp_path, capsys):
    def call(data, *options, expect=0, as_parquet=False, **writing):
        """Writes the table, inspects it, and returns the settings, or the message."""
        if isinstance(data, pd.DataFrame):
            path = tmp_path / ("data.parquet" if as_parquet else "data.csv")
            if as_parquet:
                data.to_parquet(path)
            else:
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
        ingest(loaded)
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
        (
            table().assign(fraud=0),
            "two values, for fraud and genuine, but it is '0' in all rows",
        ),
        (table().assign(fraud=[0, 1, 2] * 1000), "but has 3 values, 0, 1 and 2"),
        (
            table().assign(fraud=None),
            "as the label, it must have two values, but it is empty",
        ),
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
    assert "unix_time: times since 1970, but no integers; as the timestamp, write them" in text


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


def test_of_two_labels_that_are_equally_frequent_one_must_check(init, tmp_path):
    assert init(table().assign(fraud=["a", "b"] * 1500)).dataset.label_values == ("a", "b")
    told = "'b' is taken for fraud, though both are equally frequent: check it"
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
    told = "#   ratio: infinite or beyond 3.4e38 in 2 rows, which a run refuses; empty these, then"
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


def decimals(values, scale=2) -> list[Decimal | None]:
    """Numbers as databases hand them out."""
    return [None if value is None else Decimal(f"{value:.{scale}f}") for value in values]


def test_decimals_in_parquet(init):
    amounts = [None, *RANDOM.lognormal(3, 1, ROWS - 1)]
    frame = table(
        customer_id=decimals(RANDOM.integers(0, 300, ROWS), scale=0),
        amount=decimals(amounts),
        step=decimals(np.arange(ROWS) // 4, scale=0),
    )
    frame["fraud"] = decimals(frame.fraud)
    dataset = init(frame, as_parquet=True).dataset
    assert (dataset.amount, dataset.entities) == ("amount", ("customer_id",))
    assert (dataset.timestamp, dataset.time_format) == ("step", "hours")
    assert dataset.label_values is None


def test_files_whose_types_differ(init, tmp_path):
    """As pandas writes them: whole numbers as floats where one is missing, and nothing as null."""
    frame = table(
        day=days(60).strftime("%Y-%m-%d"), amount=RANDOM.integers(1, 900, ROWS), note=None
    )
    for name, rows in frame.groupby("day"):
        folder = tmp_path / "days" / f"date={name}"
        folder.mkdir(parents=True)
        if name > "2026-02":
            rows = rows.assign(amount=rows.amount + 0.5, note="n")
        rows.to_parquet(folder / "a.parquet")
    dataset = init(tmp_path / "days").dataset
    assert (dataset.amount, dataset.numeric) == ("amount", ("score_a",))
    assert dataset.categorical == ("branch", "note")


def test_a_file_without_a_column_of_the_others_is_named(init, tmp_path):
    for day, frame in (("2026-01-01", table()), ("2026-01-02", without(table(), "branch"))):
        (tmp_path / f"date={day}").mkdir()
        frame.to_csv(tmp_path / f"date={day}" / "a.csv", index=False)
    told = init(tmp_path, expect=2)
    assert "date=2026-01-02/a.csv: no column 'branch', which date=2026-01-01/a.csv has" in told


EVENTS = ["date_of_loss", "accident_date", "Bestelldatum", "Zahlung_am", "Kaufdatum", "Umsatzdatum"]
EVENTS += ["Schadendatum", "Unfalltag", "eventTime", "purchase_date", "TransactionStartTime"]
EVENTS += ["order_timestamp", "ordered_at"]
OTHERS = ["customer_created_date", "card_date", "user_time", "policy_inception_date", "close_date"]
OTHERS += ["settlement_date", "delivery_date", "payment_due_date", "date_paid", "end_date"]
OTHERS += ["report_ts", "Versicherungsbeginn", "Lieferdatum", "Meldedatum", "fällig_am"]
OTHERS += ["Kunde_seit", "Vertragsende", "claim_settled_at", "order_delivered_date", "start_time"]
OTHERS += ["processing_date", "Kontodatum", "customer_order_date"]


@pytest.mark.parametrize(
    ("event", "other"),
    [
        *((event, "date") for event in EVENTS),
        *(("Time", other) for other in OTHERS),
    ],
)
def test_the_time_of_the_event_is_the_timestamp(init, event, other):
    times = {other: YEARS.strftime("%Y-%m-%d %H:%M:%S"), event: DAYS}
    assert init(table(**times)).dataset.timestamp == event


@pytest.mark.parametrize("name", ["settlement_date", "Lieferdatum", "payment_due_date", "seit"])
def test_a_later_time_is_no_timestamp(init, tmp_path, name):
    assert init(table(**{name: DAYS})).dataset.timestamp is None
    assert f"#   {name}: a time, but by its name (" in (tmp_path / "ours.yaml").read_text()


@pytest.mark.parametrize("name", ["start_time", "customer_date", "card_time", "trend_date"])
def test_a_time_alone_is_the_timestamp(init, name):
    assert init(table(**{name: DAYS})).dataset.timestamp == name


def german(number: float) -> str:
    return f"{number:,.2f}".translate(str.maketrans(",.", ".,"))


@pytest.mark.parametrize("decimal", [".", ","])
def test_german_numbers_are_numbers_in_another_format(init, tmp_path, decimal):
    prices = RANDOM.lognormal(7, 1, ROWS)
    frame = table(
        rate=prices,
        price=["unbekannt", "n.a.", *map(german, prices[2:])],
        loss=["-", *(f"{price:.0f}" for price in prices[1:1500]), *map(german, prices[1500:])],
        insured=[german(price + 10_000) for price in prices],  # looks like 10.552,11, a date
        swiss=[f"{price:,.2f}".replace(",", "'") for price in prices],
        odd=["unbekannt", "n.a.", "1.234,50", *(f"{price:.0f}" for price in prices[3:])],
    )
    init(frame, sep=";", decimal=decimal)
    text = (tmp_path / "ours.yaml").read_text()
    for name in ("price", "loss", "insured", "swiss"):
        shown = r"[\d.,']+"
        advice = f"write them as 1234{decimal}5 to use it as numbers"
        assert re.search(rf"#   {name}: numbers such as [\"']{shown}[\"']: {advice}", text)
    assert "#   odd: 2,997 of 3,000 values are numbers; 3 are not, such as 'unbekannt'" in text


def test_groups_of_thousands_in_a_file_with_decimal_commas(init, tmp_path):
    """A point there is no decimal point, neither to us nor to a run."""
    prices = RANDOM.integers(1000, 900_000, ROWS)
    frame = table(
        rate=[f"{price / 100:.2f}".replace(".", ",") for price in prices],
        price=[f"{price:,}".replace(",", ".") for price in prices],
    )
    frame["score_a"] = [f"{score:.3f}".replace(".", ",") for score in frame.score_a]
    assert init(frame, sep=";").dataset.numeric == ("score_a", "rate")
    assert "#   price: numbers such as '" in (tmp_path / "ours.yaml").read_text()


@pytest.mark.parametrize("genuine", ["not fraud", "No Fraud", "non-fraud", "not_fraudulent"])
@pytest.mark.parametrize(("fraud", "share"), [("fraud", 0.6), ("suspected", 0.05), ("x", 0.6)])
def test_not_fraud_means_genuine(init, genuine, fraud, share):
    frame = table().assign(fraud=np.where(RANDOM.random(ROWS) < share, fraud, genuine))
    assert init(frame).dataset.label_values == (genuine, fraud)


@pytest.mark.parametrize(
    ("genuine", "fraud", "as_parquet"),
    [("N", "Y", False), ("0.0", "1.0", False), (False, True, True), ("no", "yes", True)],
)
def test_the_warning_spells_labels_as_the_data_does(init, tmp_path, genuine, fraud, as_parquet):
    frame = table()
    frame["fraud"] = [fraud if value == 0 else genuine for value in frame.fraud]
    loaded = init(frame, as_parquet=as_parquet)
    spelled = [str(value).lower() if as_parquet else value for value in (fraud, genuine)]
    text = (tmp_path / "ours.yaml").read_text()
    told = f"if '{spelled[0]}' means genuine, set dataset.label_values to "
    assert told in text
    swapped = yaml.safe_load(re.search(r"label_values to (\[.*?\])", text)[1])
    assert swapped == spelled
    ingest(replace(loaded, dataset=replace(loaded.dataset, label_values=tuple(swapped))))


ENTITIES = ["card_no", "Nr_Konto", "cc_num", "customer_id", "userid", "MerchantName", "device_hash"]
ENTITIES += ["IPAddress", "Kundennummer", "KontoNr", "terminal", "nameDest", "card1", "to_account"]
ENTITIES += ["Versicherungsscheinnummer"]


def test_entities_by_the_last_word_of_their_names(init):
    columns = {name: RANDOM.integers(1000, 1200, ROWS) for name in ENTITIES}
    assert {*init(table(**columns)).dataset.entities} == {*ENTITIES}


def test_what_is_only_named_like_the_label_is_none(init):
    frame = table()
    frame["chargeback"] = frame.pop("fraud")
    frame["chargeback_reason"] = np.where(frame.chargeback, RANDOM.choice(["a", "b"], ROWS), None)
    assert init(frame).dataset.label == "chargeback"


def test_german_birthdays_before_1970_are_times(init, tmp_path):
    births = YEARS - pd.Timedelta(days=9000)
    assert init(table(Geburtstag=births.strftime("%d.%m.%Y"))).dataset.timestamp is None
    assert "#   Geburtstag: a time, but by its name" in (tmp_path / "ours.yaml").read_text()


def test_holders_of_cards_come_first(init):
    names = ["terminal", "merchant_account", "device", "sender_account", "Kundennr"]
    columns = {name: RANDOM.integers(1000, 1200, ROWS) for name in names}
    assert init(table(**columns)).dataset.entities[:2] == ("sender_account", "Kundennr")


def test_what_describes_an_entity_is_none(init):
    names = ["user_agent", "card_bin", "merchant_city", "customer_segment", "device_os"]
    names += ["account_type", "merchant_category", "customer_zip"]
    columns = {n: np.char.add("v", RANDOM.integers(100, 300, ROWS).astype(str)) for n in names}
    dataset = init(table(**columns)).dataset
    assert (dataset.entities, dataset.categorical) == ((), ("branch", *names))


def test_how_many_there_are_is_a_number(init):
    names = ["num_cards", "number_of_accounts", "num_card", "no_of_account", "n_users"]
    names += ["AnzahlKonten"]
    dataset = init(table(**{name: RANDOM.integers(0, 200, ROWS) for name in names})).dataset
    assert (dataset.entities, dataset.numeric) == ((), ("score_a", *names))


AMOUNTS = ["schadenhöhe", "Schadenhoehe", "Rechnungsbetrag", "Schadensumme", "Kaufpreis", "amt"]
AMOUNTS += ["Tagesumsatz", "TransactionAmt", "total_claim_amount", "purchase_value"]
NO_AMOUNTS = ["amount_count", "claim_age", "avg_amount", "amount_last_30_days", "claim_number"]
NO_AMOUNTS += ["value_score", "num_claim", "AnzahlUmsatz", "sum_id", "credit_limit_amount"]


@pytest.mark.parametrize("name", AMOUNTS)
def test_the_amount_by_its_name(init, name):
    numbers = RANDOM.lognormal(3, 1, ROWS).round(2)
    others = {"customer_total": numbers * 2, "credit_limit_amount": numbers}
    assert init(table(**others, **{name: numbers})).dataset.amount == name


def test_a_measure_of_something_else_is_no_amount(init):
    columns = {name: RANDOM.integers(0, 200, ROWS) for name in NO_AMOUNTS}
    assert init(table(**columns)).dataset.amount is None


@pytest.mark.parametrize("unit", [10**9, 10**6])
def test_times_since_1970_stored_as_floats(init, tmp_path, unit):
    frame = table(unix_time=days(60).astype("datetime64[ns]").astype(np.int64) // unit / 1)
    dataset = init(frame, as_parquet=True).dataset
    assert (dataset.timestamp, dataset.id, dataset.numeric) == (None, None, ("score_a",))
    told = "#   unix_time: times since 1970, but no integers; as the timestamp, write them as such"
    assert told in (tmp_path / "ours.yaml").read_text()


def test_times_since_1970_stored_as_text(init):
    seconds = 1_700_000_000 + np.arange(ROWS) * 1800
    frame = pd.DataFrame({"unix_time": seconds.astype(str), **table()})
    dataset = init(frame, as_parquet=True).dataset
    assert (dataset.timestamp, dataset.id) == ("unix_time", None)


def test_times_since_1970_are_no_identifiers(init):
    seconds = 1_700_000_000 + np.arange(ROWS) * 600
    frame = table(
        transaction_time=seconds, event_time=seconds + 1, reference=RANDOM.permutation(ROWS)
    )
    frame = frame[["event_time", "transaction_time", "branch", "fraud"]]
    dataset = init(frame).dataset
    assert (dataset.timestamp, dataset.id) == ("event_time", None)


@pytest.mark.parametrize("value", [1e39, -3.5e38, np.inf])
@pytest.mark.parametrize("as_parquet", [True, False])
def test_numbers_that_a_run_refuses_are_left_out(init, tmp_path, value, as_parquet):
    frame = table(ratio=[value, value] + [1.5] * (ROWS - 2))
    assert init(frame, as_parquet=as_parquet).dataset.numeric == ("score_a",)
    told = "#   ratio: infinite or beyond 3.4e38 in 2 rows, which a run refuses; empty these"
    assert told in (tmp_path / "ours.yaml").read_text()


def test_an_amount_that_a_run_refuses_is_a_number(init):
    frame = table(amount=[2e9, *RANDOM.lognormal(3, 1, ROWS - 1)])
    dataset = init(frame).dataset
    assert (dataset.amount, dataset.numeric) == (None, ("score_a", "amount"))


def test_identifiers_of_many_digits_are_no_numbers_beyond_a_limit(init):
    frame = table(transaction_id=[f"{i + 1}{'0' * 40}" for i in range(ROWS)])
    assert init(frame).dataset.id == "transaction_id"


def test_only_labelled_rows_tell_of_a_leak(init, tmp_path):
    """New rows have no labels yet, nor what was found out later; or they alone have a column."""
    frame = table()
    labelled = np.arange(ROWS) < ROWS // 2
    frame["late"] = np.where(labelled, np.where(frame.fraud == 1, 5.0, np.nan), 5.0)
    frame["case"] = np.where(
        labelled, np.where(frame.fraud == 1, "a", "b"), RANDOM.choice(["a", "b"], ROWS)
    )
    frame["fresh"] = np.where(labelled, np.nan, RANDOM.random(ROWS))
    frame["day"] = DAYS
    frame["fraud"] = frame.fraud.where(labelled)
    from fraud.pipeline.inspection import columns, roles, sample

    frame.to_csv(tmp_path / "data.csv", index=False)
    guessed = roles.guess(
        columns.describe(sample.read(str(tmp_path / "data.csv")).table, from_csv=True)
    )
    reasons = {role.column: role.reason for role in guessed.roles if role.role == roles.LEFT_OUT}
    assert "filled in 100.0% of frauds and 0.0% of other rows" in reasons["late"]
    assert "tells the label almost alone" in reasons["case"]
    assert "fresh" not in reasons


@pytest.mark.parametrize(("span", "delay"), [(12, "1 day"), (60, "7 days")])
def test_one_day_is_no_plural(tmp_path, capsys, span, delay):
    data, out = tmp_path / "data.csv", tmp_path / "ours.yaml"
    table(time=days(span).strftime("%Y-%m-%d %H:%M:%S")).to_csv(data, index=False)
    assert main(["init", "--data", str(data), "--out", str(out), "--yes"]) == 0
    assert f"label delay {delay}\n" in capsys.readouterr().out


def test_times_of_one_day_are_none(init, tmp_path):
    init(table(time=days(1).strftime("%Y-%m-%d %H:%M:%S")))
    assert "times of 1 day only: too few for windows" in (tmp_path / "ours.yaml").read_text()


@pytest.mark.parametrize("name", ["postleitzahl", "KundenPLZ", "ZipCode"])
@pytest.mark.parametrize("count", [300, 2500])
def test_a_postal_code_is_no_number(init, name, count):
    codes = RANDOM.integers(10_000, 10_000 + count, 40_000)
    frame = pd.concat([table()] * 14, ignore_index=True)[:40_000].assign(**{name: codes})
    dataset = init(frame).dataset
    assert dataset.numeric == ("score_a",)
    assert (name in dataset.categorical) == (count == 300)


@pytest.mark.parametrize(
    ("name", "first"),
    [("Time", 0), ("TransactionDT", 86_400), ("time_elapsed", 0), ("seconds", 0)],
)
@pytest.mark.parametrize("as_parquet", [True, False])
def test_seconds_since_the_first_transaction_are_no_date(init, tmp_path, name, first, as_parquet):
    seconds = first + np.sort(RANDOM.integers(1, 15_000_000, ROWS))
    seconds[0] = first
    frame = pd.DataFrame({name: seconds.astype(float), **table()})
    dataset = init(frame, as_parquet=as_parquet).dataset
    assert (dataset.timestamp, dataset.id, dataset.numeric) == (None, None, ("score_a",))
    told = f"#   {name}: no dates, but seconds since some start, by its name and values; to have a"
    assert told in (tmp_path / "ours.yaml").read_text()


def test_a_column_named_after_fraud_may_be_kept(init, tmp_path):
    kinds = RANDOM.choice(["a", "b", "c"], ROWS)
    init(table(fraud_rate=RANDOM.random(ROWS), fraud_type=kinds, fraud_date=DAYS))
    text = (tmp_path / "ours.yaml").read_text()
    named = "named after fraud, so it may tell fraud"
    known = "if it is known at the time of the transaction, list it as"
    assert f"#   fraud_rate: {named}; {known} numeric\n" in text
    assert f"#   fraud_type: {named}; {known} categorical\n" in text
    assert f"#   fraud_date: {named}\n" in text


@pytest.mark.parametrize("stray", ["1900-01-01", "9999-12-31"])
def test_a_placeholder_among_the_times_is_told_before_it_makes_windows(init, stray):
    times = days(60).strftime("%Y-%m-%d %H:%M:%S").to_numpy().copy()
    times[5] = f"{stray} 00:00:00"
    message = init(table(ts=times), expect=2)
    assert f"ts has transactions on {stray}, years away from all others" in message


def test_gaps_among_the_days_are_no_placeholders(init):
    times = days(60) + pd.to_timedelta(np.where(np.arange(ROWS) < 1500, 0, 500), unit="D")
    assert init(table(ts=times)).dataset.timestamp == "ts"


def test_rows_without_a_label_are_warned_of(tmp_path, capsys):
    frame = table()
    frame["fraud"] = frame.fraud.astype("Int64").mask(np.arange(ROWS) % 4 == 0)
    frame.to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / "ours.yaml"
    assert main(["init", "--data", str(tmp_path / "data.csv"), "--out", str(out), "--yes"]) == 0
    warning = "fraud is empty in 25.0% of the rows; a run refuses rows without a label once"
    assert warning in capsys.readouterr().out and warning in out.read_text()


def test_a_sample_is_no_promise_for_the_rest(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sample, "MOST_ROWS", 1000)
    monkeypatch.setattr(reader, "BATCH_ROWS", 500)
    table().to_parquet(tmp_path / "data.parquet")
    out = tmp_path / "ours.yaml"
    data = str(tmp_path / "data.parquet")
    assert main(["init", "--data", data, "--out", str(out), "--yes"]) == 0
    printed = capsys.readouterr().out
    assert "about 3,000 rows" in printed
    assert "only 1,000 rows were looked at; a run checks all" in printed


@pytest.mark.parametrize(
    "format_", ["%Y%m%d%H%M%S", "%Y-%m-%d %H:%M:%S UTC", "%a, %d %b %Y %H:%M:%S GMT"]
)
def test_a_time_that_is_not_read_is_neither_the_id_nor_silent(init, tmp_path, format_):
    times = (pd.to_datetime("2026-01-01") + pd.to_timedelta(np.arange(ROWS), unit="h")).strftime(
        format_
    )
    loaded = init(table(id=np.arange(ROWS) + 9, transaction_time=times))
    assert loaded.dataset.id == "id"
    assert "transaction_time" not in loaded.dataset.columns
    assert "transaction_time: a time by its name, but" in (tmp_path / "ours.yaml").read_text()


def test_a_column_named_as_a_generated_feature_is_left_out(init, tmp_path):
    loaded = init(table(ts=days(60), night=np.random.default_rng(1).integers(0, 2, ROWS)))
    assert "night" not in loaded.dataset.columns
    assert "night: has the name of a generated feature" in (tmp_path / "ours.yaml").read_text()


def test_a_file_that_cannot_be_written_is_told(tmp_path, capsys):
    table().to_csv(tmp_path / "data.csv", index=False)
    out = tmp_path / ("x" * 250 + ".yaml")
    assert main(["init", "--data", str(tmp_path / "data.csv"), "--out", str(out), "--yes"]) == 2
    assert "cannot be written" in capsys.readouterr().err


def test_a_time_without_any_value_warns_of_nothing(init, recwarn):
    init(table(event_time=None))
    assert not [one for one in recwarn if "All-NaN" in str(one.message)]


@pytest.mark.parametrize(
    ("label", "words"),
    [
        (pd.Series(["1"]).reindex(range(ROWS)), "it is '1' or empty (in 2,999 rows)"),
        (pd.Series([b"1", b"0"] * (ROWS // 2)), "these are neither text, numbers nor true"),
    ],
)
def test_a_label_that_is_none_says_why(init, label, words):
    assert words in init(table().assign(fraud=label), expect=2, as_parquet=True)

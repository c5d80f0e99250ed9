"""Raw transactions and labels: checked, and converted as ingestion does."""

import json
import math
import re
from dataclasses import replace
from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fraud.errors import BadInput
from fraud.features import values
from fraud.features.spec import Dataset
from fraud.serving.transactions import parse_labels, parse_transactions

DATASET = Dataset(
    timestamp="time",
    amount="amount",
    label="fraud",
    id="id",
    entities=("card", "shop"),
    numeric=("age",),
    categorical=("channel",),
    slices=("channel", "country"),
    timezone="Europe/Berlin",
)
GOOD = {
    "id": 17,
    "time": "2026-03-01T12:00:00Z",
    "card": "0042",
    "shop": 7,
    "amount": 12.5,
    "age": None,
    "channel": "web",
}


def parsed(*changes, dataset=DATASET):
    return parse_transactions([{**GOOD, **change} for change in changes], dataset)


def test_a_transaction_has_its_canonical_form():
    raw = parsed({})
    assert raw.ids == [17]
    assert {name: column.to_pylist() for name, column in raw.columns.items()} == {
        "id": ["17"],
        "time": [datetime(2026, 3, 1, 12)],
        "card": ["0042"],
        "shop": ["7"],
        "amount": [12.5],
        "age": [None],
        "channel": ["web"],
        "country": [None],
    }
    inputs = raw.inputs()
    assert {name: values.tolist() for name, values in inputs.items() if name != "age"} == {
        "amount": [12.5],
        "channel": [b"web"],
    }
    assert math.isnan(inputs["age"][0])
    assert inputs["age"].dtype == np.float32


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        ("2026-03-01T12:00:00Z", datetime(2026, 3, 1, 12)),
        ("2026-03-01T12:00:00.25+01:00", datetime(2026, 3, 1, 11, 0, 0, 250_000)),
        ("2026-03-01 12:00:00", datetime(2026, 3, 1, 11)),
        ("2026-10-25T02:30:00", datetime(2026, 10, 25, 0, 30)),  # the earlier of the two
        (1772366400, datetime(2026, 3, 1, 12)),
        (1772366400000, datetime(2026, 3, 1, 12)),
    ],
)
def test_times_are_those_of_ingestion(value, moment):
    assert parsed({"time": value}).columns["time"].to_pylist() == [moment]


@pytest.mark.parametrize(
    ("time_format", "value", "moment"),
    [
        ("hours", 1104, datetime(1970, 2, 15, 23)),  # in Berlin's time, as in files
        ("hours", 1104.5, datetime(1970, 2, 15, 23, 30)),
        ("hours", "1104.0", datetime(1970, 2, 15, 23)),
        ("hours", "1970-02-16T00:00:00Z", datetime(1970, 2, 16)),
        ("%y%m%d%H%M", "1804011345", datetime(2018, 4, 1, 11, 45)),
        ("%y%m%d%H%M", 1804011345, datetime(2018, 4, 1, 11, 45)),
        ("%d.%m.%Y %H:%M", "01.04.2018 13:45", datetime(2018, 4, 1, 11, 45)),
        ("%d.%m.%Y %H:%M", "2018-04-01T11:45:00Z", datetime(2018, 4, 1, 11, 45)),
    ],
)
def test_times_are_written_as_in_files_or_in_iso_8601(time_format, value, moment):
    dataset = replace(DATASET, time_format=time_format)
    assert parsed({"time": value}, dataset=dataset).columns["time"].to_pylist() == [moment]
    labels = parse_labels([{"id": 1, "label": 1, "known_at": value}], dataset)
    assert labels.known_at.tolist() == [moment]


PARTS = st.tuples(
    st.integers(0, 9999), st.integers(0, 13), st.integers(0, 32), st.sampled_from("T t"),
    st.integers(0, 24), st.integers(0, 60), st.integers(0, 61),
    st.sampled_from(["", ".", ".5", ".123456", ".1234567"]),
    st.sampled_from(["", "Z", "z", "+01:00", " "]),
)  # fmt: skip


@given(st.lists(PARTS, min_size=1, max_size=3), st.sampled_from(["UTC", "Europe/Berlin"]))
@example([(0, 1, 1, "T", 0, 0, 0, "", "Z")], "UTC")
@example([(1, 1, 1, "T", 0, 0, 0, ".1234567", "Z")], "UTC")
@settings(max_examples=300, deadline=None)
def test_iso_times_are_parsed_as_those_of_files(parts, timezone):
    texts = [
        f"{y:04}-{m:02}-{d:02}{sep}{h:02}:{mi:02}:{s:02}{fraction}{zone}"
        for y, m, d, sep, h, mi, s, fraction, zone in parts
    ]
    dataset = replace(DATASET, timezone=timezone)

    def of_files(text):
        column = pa.array([text])
        return values.times(column, "time", timezone, values_origin).to_pylist()[0]

    try:
        expected = [of_files(text) for text in texts]
    except BadInput:
        expected = None
    try:
        seen = parsed(*({"time": text} for text in texts), dataset=dataset).times.tolist()
    except BadInput:
        seen = None
    assert seen == expected


class values_origin:  # noqa: N801
    @staticmethod
    def refuse(row, problem):
        raise BadInput(problem)


def test_a_time_of_another_format_is_refused():
    dataset = replace(DATASET, time_format="%d.%m.%Y")
    message = re.escape("transactions[0].time: is '1772366400', not written as dataset.time_format")
    with pytest.raises(BadInput, match=message):
        parsed({"time": 1772366400}, dataset=dataset)


def test_times_of_a_request_may_have_different_forms():
    raw = parsed({"time": "2026-03-01T12:00:00Z"}, {"time": "2026-03-01T13:00:00"}, {"time": 0})
    noon = datetime(2026, 3, 1, 12)
    assert raw.columns["time"].to_pylist() == [noon, noon, datetime(1970, 1, 1)]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(("007", "007"), (7, "7"), (7.0, "7"), (-3, "-3"), (2**80, str(2**80))),
        *(("7.0", "7"), (" 7", "7"), ("-7.0 ", "-7"), ("7.00", "7.00"), ("a ", "a "), ("-0", "-0")),
    ],
)
def test_identifiers_are_text_as_in_ingestion(value, text):
    raw = parsed({"card": value, "id": value})
    assert raw.columns["card"].to_pylist() == raw.columns["id"].to_pylist() == [text]
    assert raw.ids == [value]


NUMERALS = st.text("0123456789.-+ \t\n\v\u00a0e", min_size=1, max_size=8)


@given(texts=st.lists(NUMERALS | st.text(min_size=1, max_size=3), min_size=1))
def test_an_identifier_is_the_same_one_in_a_file_and_in_a_request(texts):
    in_file = values.names(pa.array(texts), pa.string(), True, "card", None)
    assert [values.identifier(text) for text in texts] == in_file.to_pylist()


@pytest.mark.parametrize(
    ("value", "text"),
    [("", None), (None, None), (5411, "5411"), (5411.0, "5411"), (0.5, "0.5"), (True, "true")],
)
def test_categories_are_text_as_in_ingestion(value, text):
    assert parsed({"channel": value}).columns["channel"].to_pylist() == [text]


BAD_TRANSACTIONS = [
    ({"time": "yesterday"}, "transactions[1].time: is 'yesterday', not a time; write times as"),
    ({"time": None}, "transactions[1].time: is null; write a time as 2018-04-01T13:45:00Z"),
    ({"time": ""}, "transactions[1].time: is empty; every transaction needs a time"),
    ({"time": 1.5e9}, "transactions[1].time: is 1500000000.0; write a time as"),
    ({"time": True}, "transactions[1].time: is True; write a time as"),
    ({"time": 20180401134500}, "transactions[1].time: is '20180401134500', not a time"),
    ({"time": "2026-03-29T02:30:00"}, "which clocks in Europe/Berlin skip"),
    ({"time": "12026-03-29T02:30:00Z"}, "not a time"),
    ({"amount": "12.5"}, "transactions[1].amount: is '12.5', not a number; send null if it is"),
    ({"amount": True}, "transactions[1].amount: is True, not a number"),
    ({"amount": math.nan}, "transactions[1].amount: is nan, beyond ±1e+09; send null if it is"),
    ({"amount": math.inf}, "transactions[1].amount: is inf, beyond ±1e+09"),
    ({"amount": -1.1e9}, "transactions[1].amount: is -1.1e+09, beyond ±1e+09"),
    ({"amount": 10**400}, "transactions[1].amount: is a number of too many digits, beyond"),
    ({"age": 1e39}, "transactions[1].age: is 1e+39, beyond ±3.40282e+38"),
    ({"age": [1]}, "transactions[1].age: is [1], not a number"),
    ({"card": None}, "transactions[1].card: is empty; send a whole number or text"),
    ({"card": ""}, "transactions[1].card: is empty; send a whole number or text"),
    ({"card": 1.5}, "transactions[1].card: is 1.5; send a whole number or text"),
    ({"card": 2.0**53}, "transactions[1].card: is 9007199254740992.0; send a whole number"),
    ({"card": False}, "transactions[1].card: is False; send a whole number or text"),
    ({"card": "x" * 1001}, "transactions[1].card: has 1,001 characters; the most are 1,000"),
    ({"card": "a\ud800"}, "transactions[1].card: '\\ud800' is not a character; remove it"),
    ({"id": None}, "transactions[1].id: is empty; send a whole number or text"),
    ({"channel": {}}, "transactions[1].channel: is {}; send text, a number, true, false or null"),
    ({"channel": math.nan}, "transactions[1].channel: is nan; send text"),
    ({"channel": 2.0**60}, "transactions[1].channel: is 1152921504606846976, a float of more"),
]


@pytest.mark.parametrize(("change", "message"), BAD_TRANSACTIONS)
def test_a_bad_value_is_refused_by_index_and_field(change, message):
    with pytest.raises(BadInput) as refused:
        parsed({}, change, {})
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["id", "time", "card", "amount", "age", "channel"])
def test_a_field_that_is_not_given_is_refused(name):
    rows = [GOOD, {key: value for key, value in GOOD.items() if key != name}]
    fix = "send it, or null if it is unknown"
    if name in ("id", "time", "card"):
        fix = "send it; every transaction needs one"  # of these, null would be refused next
    with pytest.raises(BadInput) as refused:
        parse_transactions(rows, DATASET)
    assert str(refused.value) == f"transactions[1].{name}: missing; {fix}"


def test_true_and_false_are_numbers_of_a_numeric_column():
    """As a boolean column of a Parquet file is one; an amount is not."""
    raw = parsed({"age": True}, {"age": False}, {"age": None})
    assert raw.columns["age"].to_pylist() == [1.0, 0.0, None]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "transactions: expected a list of objects"),
        ({}, "transactions: expected a list of objects"),
        ([GOOD, 7], r"transactions\[1\]: expected an object, got 7"),
    ],
)
def test_what_is_no_list_of_objects_is_refused(rows, message):
    with pytest.raises(BadInput, match=message):
        parse_transactions(rows, DATASET)


def test_no_transactions_are_no_mistake():
    assert len(parse_transactions([], DATASET)) == 0


def test_labels_have_times_of_the_dataset_and_dates_end_their_day():
    labels = parse_labels(
        [
            {"id": 7, "label": 1},
            {"id": "007", "label": 0, "known_at": "2026-03-02T00:00:00Z"},
            {"id": 8, "label": 0, "known_at": "2026-03-02"},
        ],
        DATASET,
    )
    assert labels.ids == ["7", "007", "8"]
    assert labels.labels == [1, 0, 0]
    assert np.isnat(labels.known_at[0])
    assert labels.known_at[1:].tolist() == [
        datetime(2026, 3, 2),
        datetime(2026, 3, 2, 22, 59, 59, 999_999),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": None}, "labels[1].id: is empty; send a whole number or text"),
        ({"label": 2}, "labels[1].label: is 2; it must be 1 (fraud) or 0 (genuine)"),
        ({"label": True}, "labels[1].label: is True; it must be"),
        ({"label": None}, "labels[1].label: is None; it must be"),
        ({"known_at": "soon"}, "labels[1].known_at: is 'soon', not a time"),
        ({"known_at": []}, "labels[1].known_at: is [], not a time; write ISO 8601"),
        (
            {"known_at": " "},
            "labels[1].known_at: is empty; write ISO 8601, or leave it out if the label became "
            "known just now",
        ),
    ],
)
def test_a_bad_label_is_refused_by_index_and_field(change, message):
    good = {"id": 1, "label": 0}
    with pytest.raises(BadInput) as refused:
        parse_labels([good, {**good, **change}], DATASET)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ({"id": 1}, "labels[0].label: missing; send 1 (fraud) or 0 (genuine)"),
        ({"label": 1}, "labels[0].id: missing; send the id of the transaction"),
    ],
)
def test_a_label_is_asked_for_what_it_needs(label, message):
    with pytest.raises(BadInput) as refused:
        parse_labels([label], DATASET)
    assert str(refused.value) == message


def test_a_file_and_a_request_of_the_same_transactions_are_the_same(tmp_path):
    """What ingestion reads from Parquet, and what the server reads from JSON."""
    from tests.pipeline.ingestion import transactions

    table = transactions.make(300)
    ingested = transactions.read(transactions.write_days(table, tmp_path))
    dataset = transactions.CONFIG.dataset
    rows = json.loads(json.dumps(table.drop(["NOTE"]).to_pylist(), default=datetime.isoformat))
    served = pa.table(parse_transactions(rows, dataset).columns)
    order = ingested["TRANSACTION_ID"].to_pylist()
    served = served.take(
        pa.array([served["TRANSACTION_ID"].to_pylist().index(str(i)) for i in order])
    )
    assert ingested.num_rows > 100
    for name in served.column_names:
        expected = ingested[name]
        if name in ("TRANSACTION_ID", "CUSTOMER_ID", "TERMINAL_ID"):
            expected = expected.cast(pa.string())
        assert served[name].to_pylist() == expected.to_pylist(), name


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text()
    | st.sampled_from(["2026-03-01", "2026-03-01T12:00:00Z", "9999-12-31T23:59:59", "0", "\x00"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.fixed_dictionaries({name: VALUES | st.just(v) for name, v in GOOD.items()})))
def test_any_transactions_are_parsed_or_refused(rows):
    try:
        raw = parse_transactions(rows, DATASET)
    except BadInput as error:
        assert re.match(
            r"transactions\[\d+\]\.(id|time|card|shop|amount|age|channel): ", str(error)
        )
    else:
        assert len(raw) == len(rows)
        assert all(len(column) == len(rows) for column in raw.columns.values())
        assert not any(np.isinf(raw.inputs()[name]).any() for name in ("amount", "age"))


@settings(deadline=None, max_examples=60)
@given(st.lists(st.dictionaries(st.sampled_from(["id", "label", "known_at"]), VALUES | st.just(1))))
def test_any_labels_are_parsed_or_refused(rows):
    try:
        labels = parse_labels(rows, DATASET)
    except BadInput as error:
        assert re.match(r"labels\[\d+\]\.(id|label|known_at): ", str(error))
    else:
        assert len(labels.ids) == len(rows)

"""What becomes of transactions and labels, in every store."""

from __future__ import annotations

import dataclasses
import threading

import numpy as np
import pytest

from fraud.errors import BadInput
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.serving.state import (
    LabelOutcome,
    Labels,
    Outcome,
    StateDefinition,
    Transactions,
    create_state,
    open_state,
    rebuild_state,
)
from fraud.serving.state.build import columns_to_load, fill

COUNTS = Features(
    calendar=(), groups=(FeatureGroup(("count", "sum", "known_count", "fraud_count"), (3,)),)
)
MODEL = InputSpecification(Dataset(entities=("CARD",)), COUNTS, 1)
DEFINITION = StateDefinition.of(MODEL)
NOON = np.datetime64("2024-06-01T12:00", "us")
HOUR, DAY = np.timedelta64(1, "h"), np.timedelta64(1, "D")


@pytest.fixture
def state(location):
    opened = create_state(location, DEFINITION)
    opened._clock = lambda: NOON + 30 * DAY
    yield opened
    opened.close()


def some(times, ids, cards=None, amounts=None) -> Transactions:
    times = np.atleast_1d(np.asarray(times, "datetime64[us]"))
    count = len(times)
    cards = ["a"] * count if cards is None else cards
    amounts = np.ones(count) if amounts is None else np.asarray(amounts, float)
    return Transactions(times, amounts, {"CARD": cards}, ids)


def outcomes(seen) -> list[str]:
    return [outcome.value for outcome in seen.outcomes]


def feature(seen, name="count") -> list[float]:
    return seen.features(MODEL)[f"CARD_{name}_3d"].tolist()


def test_a_card_sees_its_earlier_transactions_and_no_others(state):
    state.record(some([NOON, NOON + HOUR], [1, 2], ["a", "b"]))
    seen = state.record(some([NOON + 2 * HOUR] * 3, [3, 4, 5], ["a", "a", None]))
    assert feature(seen)[:2] == [2, 2], "those of the same time do not see each other"
    assert np.isnan(feature(seen)[2]), "without a card there is no history"
    assert feature(state.record(some(NOON + 3 * HOUR, [6]))) == [4]


def test_transactions_without_entities_have_the_features_of_the_calendar(location):
    model = InputSpecification(Dataset(entities=()), Features(), 1)
    state = create_state(location, StateDefinition.of(model))
    state._clock = lambda: NOON + 30 * DAY
    given = Transactions(np.array([NOON, NOON + HOUR]), np.ones(2), {}, [1, 2])
    for seen, expected in ((state.record(given), "new"), (state.record(given), "repeated")):
        assert outcomes(seen) == [expected] * 2
        features = seen.features(model)
        assert all(len(values) == 2 for values in features.values()) and len(features) > 0
    assert len(state.read(given).outcomes) == 2
    state.close()


def test_within_a_call_the_later_sees_the_earlier_wherever_it_is(state):
    assert feature(state.record(some([NOON + HOUR, NOON], [1, 2]))) == [2, 1]


def test_a_repeated_transaction_is_recorded_once_and_has_the_features_of_the_first_time(state):
    first = state.record(some([NOON, NOON + HOUR], [1, 2]))
    again = state.record(some([NOON, NOON + HOUR], [1, 2]))
    assert outcomes(again) == ["repeated", "repeated"]
    assert feature(again) == feature(first) == [1, 2]
    twice = state.record(some([NOON + 2 * HOUR] * 2, [3, 3]))
    assert outcomes(twice) == ["new", "repeated"]
    assert feature(state.read(some(NOON + 3 * HOUR, [4]))) == [4]


def test_identifiers_are_the_same_as_numbers_and_as_text(state):
    state.record(some(NOON, [1], [7]))
    seen = state.record(some([NOON, NOON + HOUR], np.array(["1", "2"]), ["7", "7"]))
    assert outcomes(seen) == ["repeated", "new"]
    assert feature(seen) == [1, 2]


@pytest.mark.parametrize(
    "other",
    [some(NOON + HOUR, [1]), some(NOON, [1], ["b"]), some(NOON, [1], amounts=[2])],
    ids=["time", "entity", "amount"],
)
def test_an_id_with_other_values_is_a_conflict_and_not_recorded(state, other):
    state.record(some(NOON, [1]))
    assert outcomes(state.record(other)) == ["conflict"]
    assert feature(state.read(some(NOON + 2 * HOUR, [2]))) == [2]
    assert feature(state.read(some(NOON + 2 * HOUR, [2])), "sum") == [2]


def test_a_conflict_does_not_move_the_clock(state):
    state.record(some(NOON, [1]))
    assert outcomes(state.record(some(NOON + 29 * DAY, [1]))) == ["conflict"]
    assert outcomes(state.record(some(NOON + HOUR, [2]))) == ["new"]


def test_the_newest_transaction_is_known(state):
    assert state.newest() is None
    state.record(some([NOON + HOUR, NOON], [1, 2]))
    assert state.newest() == NOON + HOUR


def test_a_repeated_missing_amount_is_no_conflict(state):
    state.record(some(NOON, [1], amounts=[np.nan]))
    assert outcomes(state.record(some(NOON, [1], amounts=[np.nan]))) == ["repeated"]


def test_a_transaction_out_of_order_takes_its_place_in_time(state):
    state.record(some([NOON, NOON + 2 * HOUR], [1, 3]))
    seen = state.record(some(NOON + HOUR, [2]))
    assert outcomes(seen) == ["new"] and feature(seen) == [2]
    assert feature(state.read(some(NOON + 3 * HOUR, [4]))) == [4]


def test_late_expired_and_future_transactions(state):
    """History is 3 days of features and 1 of label delay; one more day is kept for late ones."""
    assert DEFINITION.history_days == 4 and DEFINITION.kept_days == 5
    state.record(some(NOON, [1]))
    times = [NOON - DAY, NOON - DAY - 1, NOON - 5 * DAY, NOON - 5 * DAY - 1]
    seen = state.record(some(times, [2, 3, 4, 5]))
    assert outcomes(seen) == ["new", "late", "late", "expired"]
    ahead = NOON + 30 * DAY + HOUR
    seen = state.record(some([ahead, ahead + 1], [6, 7]))
    assert outcomes(seen) == ["new", "future"]
    assert outcomes(state.record(some(ahead + 1, [7]))) == ["future"], "it was not recorded"


def test_a_call_may_span_more_days_than_are_kept(state):
    """As when days are replayed from files: nothing has expired yet."""
    days = [NOON + day * DAY for day in range(10)]
    seen = state.record(some(days, range(10)))
    assert set(outcomes(seen)) == {"new"}
    assert feature(seen) == [1, 2, 3, *[3] * 7]


def test_reading_records_nothing(state):
    assert outcomes(state.read(some(NOON, [1]))) == ["new"]
    assert outcomes(state.record(some(NOON, [1]))) == ["new"]


def test_labels_are_new_repeated_corrected_or_unknown(state):
    state.record(some([NOON, NOON + HOUR], [1, 2]))
    known = np.array([NOON + DAY] * 3)

    def label(ids, labels, at=known):
        return [each.value for each in state.label(Labels(ids, labels, at[: len(ids)]))]

    assert label([1, 2, 9], [0, 1, 1]) == ["new", "new", "unknown"]
    assert label([1, 2], [0, 1]) == ["repeated", "repeated"]
    assert label([1, 1], [1, 1], known + DAY) == ["corrected", "repeated"]
    assert label([1], [0]) == ["repeated"], "an older label does not undo a newer one"
    seen = state.read(some(NOON + 2 * DAY, [3]))
    assert feature(seen, "known_count") == [2] and feature(seen, "fraud_count") == [2]


def test_a_label_counts_once_its_delay_is_over_however_early_it_comes(state):
    state.record(some(NOON, [1]))
    assert state.label(Labels([1], [1], np.array([NOON]))) == [LabelOutcome.NEW]
    moments = [NOON + DAY - 1, NOON + DAY, NOON + 4 * DAY - 1, NOON + 4 * DAY]
    assert feature(state.read(some(moments, range(2, 6))), "fraud_count") == [0, 1, 1, 0]


def test_with_label_times_a_label_counts_from_then_on(location):
    dataset = dataclasses.replace(MODEL.dataset, label_time="KNOWN")
    model = dataclasses.replace(MODEL, dataset=dataset)
    state = create_state(location, StateDefinition.of(model))
    state.record(some(NOON, [1]))
    state.label(Labels([1], [1], np.array([NOON + 2 * HOUR])))
    seen = state.read(some([NOON + 2 * HOUR - 1, NOON + 2 * HOUR], [2, 3]))
    assert seen.features(model)["CARD_fraud_count_3d"].tolist() == [0, 1]
    state.close()


def test_a_label_without_a_time_became_known_now(location):
    dataset = dataclasses.replace(MODEL.dataset, label_time="KNOWN")
    model = dataclasses.replace(MODEL, dataset=dataset)
    state = create_state(location, StateDefinition.of(model))
    state._clock = lambda: NOON + HOUR
    state.record(some(NOON, [1]))
    state.label(Labels([1], [1]))
    seen = state.read(some([NOON + HOUR - 1, NOON + HOUR], [2, 3]))
    assert seen.features(model)["CARD_fraud_count_3d"].tolist() == [0, 1]
    state.close()


def test_a_label_of_a_transaction_that_is_ahead_of_the_clock_is_no_mistake(state):
    state._clock = lambda: NOON
    assert outcomes(state.record(some(NOON + HOUR / 2, [1]))) == ["new"]
    assert state.label(Labels([1], [1])) == [LabelOutcome.NEW]


def test_a_label_of_the_future_is_refused(state):
    state.record(some(NOON, [1]))
    times = np.array([NOON, NOON + 31 * DAY])
    with pytest.raises(BadInput, match=r"row 1: .*known at 2024-07-02T12:00:00.000000, in the fut"):
        state.label(Labels([1, 1], [0, 1], times))
    assert state.label(Labels([1], [1])) == [LabelOutcome.NEW]


def test_bad_calls_are_refused_and_record_nothing(state):
    state.record(some(NOON, [1]))
    with pytest.raises(BadInput, match="row 1 has no timestamp"):
        state.record(some([NOON, np.datetime64("NaT")], [2, 3]))
    with pytest.raises(BadInput, match=r"row 0 has the amount 1e\+12"):
        state.record(some(NOON, [2], amounts=[1e12]))
    with pytest.raises(BadInput, match=r"row 0: CARD is 1\.5"):
        state.record(some(NOON, [2], [1.5]))
    with pytest.raises(BadInput, match="no column CARD"):
        state.record(Transactions(np.array([NOON]), None, {}, [2]))
    with pytest.raises(BadInput, match="row 1: the label is 2"):
        state.label(Labels([1, 1], [1, 2]))
    with pytest.raises(BadInput, match=r"row 1: .*before its transaction"):
        state.record(some(NOON, [2]))
        state.label(Labels([1, 2], [1, 1], np.array([NOON, NOON - 1])))
    assert feature(state.read(some(NOON + DAY, [4])), "known_count") == [0]
    assert feature(state.read(some(NOON + DAY, [4]))) == [3]


def test_what_is_too_old_is_forgotten(state):
    state.record(some([NOON, NOON + HOUR], [1, 2], ["a", "b"]))
    state.record(some(NOON + 6 * DAY + HOUR, [3], ["b"]))
    assert state.expire() > 0
    # Whether a transaction or only its rows are forgotten depends on the store.
    wide = InputSpecification(
        MODEL.dataset, dataclasses.replace(COUNTS, groups=(FeatureGroup(("count",), (30,)),)), 1
    )
    seen = state.read(some([NOON + 6 * DAY + 2 * HOUR] * 2, [4, 5], ["a", "b"]))
    seen = dataclasses.replace(seen, _check=lambda model: None)  # to look back beyond all
    assert seen.features(wide)["CARD_count_30d"].tolist() == [1, 2]
    assert state.expire() == 0


def test_a_state_is_as_it_was_when_it_is_opened_again(location):
    state = create_state(location, DEFINITION)
    state.record(some(NOON, [1]))
    state.close()
    again = create_state(location, dataclasses.replace(DEFINITION, history_days=99))
    assert again.definition == DEFINITION
    assert outcomes(again.record(some(NOON, [1]))) == ["repeated"]
    again.close()


def test_without_a_state_the_message_says_how_to_build_it(location):
    with pytest.raises(BadInput, match="no state; build it: fraud-pipeline state build"):
        open_state(location)


def test_a_model_that_needs_more_is_refused(state):
    state.check(MODEL)
    longer = dataclasses.replace(
        MODEL, features=dataclasses.replace(COUNTS, groups=(FeatureGroup(("count",), (5,)),))
    )
    with pytest.raises(BadInput, match="look back 5 days, but the state is of 4"):
        state.check(longer)
    slower = dataclasses.replace(MODEL, label_delay_days=2)
    with pytest.raises(BadInput, match="look back 5 days"):
        state.check(slower)
    other = dataclasses.replace(MODEL, dataset=Dataset(entities=("CARD", "SHOP")))
    with pytest.raises(BadInput, match="no histories of SHOP"):
        state.check(other)
    renamed = dataclasses.replace(MODEL, dataset=Dataset(entities=("CARD",), amount="EUR"))
    with pytest.raises(BadInput, match=r"dataset\.amount TX_AMOUNT, but the model EUR"):
        state.check(renamed)


def test_one_state_serves_models_with_different_features(location):
    short = dataclasses.replace(
        MODEL, features=dataclasses.replace(COUNTS, groups=(FeatureGroup(("count",), (1,)),))
    )
    state = create_state(location, StateDefinition.of(short, MODEL))
    assert state.definition.history_days == 4
    state.record(some(NOON, [1]))
    seen = state.record(some(NOON + 2 * DAY, [2]))
    assert seen.features(MODEL)["CARD_count_3d"].tolist() == [2]
    assert seen.features(short)["CARD_count_1d"].tolist() == [1]
    state.close()


def test_threads_and_handles_share_a_state_and_each_transaction_sees_all_before(location):
    """Every transaction of a card has another time, so that it sees all that came before."""
    create_state(location, DEFINITION).close()
    states = [open_state(location) for _ in range(2)]
    counts: list[float] = []

    def record(number: int) -> None:
        for i in range(25):
            order = i * 4 + number
            seen = states[number % 2].record(some(NOON + order, [order]))
            counts.extend(feature(seen))

    threads = [threading.Thread(target=record, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == 100
    last = states[0].read(some(NOON + HOUR, ["last"]))
    assert feature(last) == [101]
    for state in states:
        state.close()


def build(location, times, ids, labels, until, definition=DEFINITION) -> int:
    with rebuild_state(location, definition) as rebuild:
        known = np.full(len(ids), np.datetime64("NaT"), "datetime64[us]")
        part = columns_to_load(definition, some(times, ids), np.array(labels, float), known)
        return fill(rebuild, [part], until)


def test_a_built_state_has_history_and_what_was_recorded_since(location):
    server = create_state(location, DEFINITION)
    server.record(some([NOON, NOON + HOUR, NOON + 2 * DAY, NOON + 2 * DAY + HOUR], [1, 2, 3, 4]))
    server.label(Labels([2, 3], [1, 1], np.array([NOON + 3 * DAY] * 2)))
    # Two transactions that the server never saw; one that it saw is not in the data: 1.
    times = [NOON - HOUR, NOON - 2 * HOUR, NOON + HOUR]
    assert build(location, times, [11, 12, 2], [1, 0, np.nan], NOON + 2 * DAY) == 2
    seen = server.read(some(NOON + 2 * DAY + 2 * HOUR, [5]))
    assert feature(seen) == [6], "11, 12, 2, 3, 4 and itself"
    assert feature(seen, "known_count") == [3], "11, 12 from the data and 2 from the server"
    assert feature(seen, "fraud_count") == [2]
    kinds = outcomes(server.record(some([NOON + 2 * DAY, NOON + 2 * DAY], [3, 6])))
    assert kinds == ["repeated", "new"]
    server.close()
    again = open_state(location)
    assert outcomes(again.record(some(NOON + 2 * DAY, [6]))) == ["repeated"]
    again.close()


def test_a_rebuilt_state_may_have_other_entities(location):
    server = create_state(location, DEFINITION)
    server.record(some(NOON, [1]))
    wider = StateDefinition.of(
        dataclasses.replace(MODEL, dataset=Dataset(entities=("SHOP", "CARD")))
    )
    with rebuild_state(location, wider) as rebuild:
        assert fill(rebuild, [], NOON - DAY) == 1
    both = Transactions(
        np.array([NOON + HOUR]), np.ones(1), {"CARD": ["a"], "SHOP": ["a"]}, ids=[2]
    )
    model = dataclasses.replace(MODEL, dataset=Dataset(entities=("SHOP", "CARD")))
    values = server.record(both).features(model)
    assert values["CARD_count_3d"].tolist() == [2] and values["SHOP_count_3d"].tolist() == [1]
    server.close()


def test_a_build_that_fails_leaves_the_state_as_it_was(location):
    server = create_state(location, DEFINITION)
    server.record(some(NOON, [1]))
    with pytest.raises(BadInput, match="1 transactions have the TRANSACTION_ID of another"):
        build(location, [NOON, NOON], [2, 2], [0, 0], NOON)
    assert outcomes(server.record(some(NOON, [1]))) == ["repeated"]
    assert build(location, [NOON], [1], [0], NOON + HOUR) == 0
    server.close()


def test_two_builds_at_once_are_refused(location):
    with (
        rebuild_state(location, DEFINITION),
        pytest.raises(BadInput, match="another process is building the state"),
        rebuild_state(location, DEFINITION),
    ):
        pass


def test_nothing_that_is_recorded_during_a_build_is_lost(location):
    """Transactions and labels come all the time while the state is replaced, again and again."""
    server = create_state(location, DEFINITION)
    server.record(some(NOON, ["first"]))
    stop, recorded = threading.Event(), []

    def work() -> None:
        while not stop.is_set():
            number = len(recorded)
            kinds = server.record(some(NOON + HOUR + number, [number])).outcomes
            assert kinds == (Outcome.NEW,)
            assert server.label(Labels([number], [1], np.array([NOON + DAY]))) == [LabelOutcome.NEW]
            recorded.append(number)

    worker = threading.Thread(target=work)
    worker.start()
    for _ in range(4):
        build(location, [NOON], ["first"], [0], NOON + HOUR)
    stop.set()
    worker.join()
    assert recorded
    seen = server.read(some(NOON + 2 * DAY, ["last"]))
    assert feature(seen) == [len(recorded) + 2]
    assert feature(seen, "fraud_count") == [len(recorded)]
    server.close()


def test_a_column_that_data_does_not_have_is_refused():
    with pytest.raises(BadInput, match=r"dataset\.timestamp is null"):
        StateDefinition.of(InputSpecification(Dataset(timestamp=None), COUNTS, 1))


def test_other_urls_are_no_place_for_a_state():
    with pytest.raises(BadInput, match="neither a folder nor the URL of a Redis server"):
        open_state("s3://bank/state")

"""Verdicts flip when something really is wrong, and only then."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud.features.spec import Dataset
from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.observe import ALL_VERSIONS, labelled_days, observe, observed_days
from fraud.monitoring.production import Live, Production
from fraud.monitoring.spec import Monitoring
from fraud.time import day_number
from tests.monitoring import world as bank
from tests.monitoring.world import AS_OF, CONFIG, World

OK, WARN, ACT, UNKNOWN = Verdict.OK, Verdict.WARN, Verdict.ACT, Verdict.CANNOT_JUDGE


@pytest.fixture(scope="module")
def everything() -> World:
    return bank.world()


@pytest.fixture(scope="module")
def live(everything) -> Live:
    return bank.live(everything)


@pytest.fixture(scope="module")
def seen(everything) -> World:
    """The days that are looked at."""
    window = observed_days(AS_OF, CONFIG)
    return everything.between(window.first, window.last)


def look(production: Production, live: Live | None, config=CONFIG, as_of=AS_OF) -> Observation:
    return observe(production, live, config, as_of)


def check(observation: Observation, name: str) -> Check:
    (found,) = [c for c in observation.checks if c.name == name]
    return found


def of_kind(observation: Observation, kind: Kind) -> dict[str, Verdict]:
    return {c.name: c.verdict for c in observation.checks if c.kind is kind}


def days(of: World, *back: int) -> np.ndarray:
    """Which rows are of days so many before the as-of day."""
    return np.isin(of.days, [day_number(AS_OF) - b for b in back])


def test_where_nothing_is_wrong_nothing_is_asked_for(seen, live):
    observation = look(bank.production(seen), live)
    wrong = [c for c in observation.checks if c.verdict in (ACT, WARN)]
    assert not wrong
    unknown = {c.name for c in observation.checks if c.verdict is UNKNOWN}
    assert not unknown
    assert observation.verdict is OK
    assert observation.version == 100
    assert {c.kind for c in observation.checks} == set(Kind)
    assert Observation.from_json(observation.to_json()) == observation


def test_names_are_unique(seen, live):
    names = [c.name for c in look(bank.production(seen), live).checks]
    assert len(names) == len(set(names))


def test_quiet_banks_raise_no_alarm():
    """Six banks in which nothing changes: at most one check acts among some 160."""
    alarms = []
    for seed in range(6):
        of = bank.world(seed=seed + 1)
        observation = look(bank.production(of), bank.live(of))
        alarms += [f"{seed}: {c.name}" for c in observation.checks if c.verdict is ACT]
    assert len(alarms) <= 1, alarms


@pytest.mark.parametrize("broken", ["missing", "unknown", "half of each"])
def test_a_column_that_breaks_today_asks_to_hold(seen, live, broken):
    channel = seen.column("CHANNEL").astype(object)
    today = days(seen, 0)
    lost = {"missing": None, "unknown": "??", "half of each": None}[broken]
    channel[today] = lost
    if broken == "half of each":
        channel[np.flatnonzero(today)[::2]] = "??"
    of = seen.changed("CHANNEL", pa.array(channel, pa.string()))
    observation = look(bank.production(of), live)
    assert check(observation, "data/CHANNEL").verdict is ACT
    assert check(observation, "data/CHANNEL").value > 0.9
    assert check(observation, "data/TX_AMOUNT").verdict is OK
    assert check(observation, "drift/CHANNEL").verdict is OK  # judged by the other days
    assert observation.days[-1].broken == ("CHANNEL",)
    assert [d.broken for d in observation.days[:-1]] == [()] * (len(observation.days) - 1)


def test_a_few_lost_values_only_warn(seen, live):
    channel = seen.column("CHANNEL").astype(object)
    channel[np.flatnonzero(days(seen, 0))[::8]] = None
    of = seen.changed("CHANNEL", pa.array(channel, pa.string()))
    assert check(look(bank.production(of), live), "data/CHANNEL").verdict is WARN


def test_broken_days_that_are_over_are_named_and_no_drift(seen, live):
    amounts = seen.column("TX_AMOUNT").copy()
    amounts[days(seen, 2, 3, 4, 5)] = 0.0
    observation = look(bank.production(seen.changed("TX_AMOUNT", amounts)), live)
    assert check(observation, "data/TX_AMOUNT").verdict is OK
    assert check(observation, "drift/TX_AMOUNT").verdict is OK
    assert [bool(d.broken) for d in observation.days[-7:]] == [0, 1, 1, 1, 1, 0, 0]


def test_what_a_model_says_of_broken_days_is_not_held_against_it(seen, live):
    """Four days that were broken, and on which it was as good as chance, have their labels now."""
    old = days(seen, 8, 9, 10, 11)
    random = np.random.default_rng(0)
    scores = np.where(old, random.permutation(seen.scores), seen.scores)
    wrong = dataclasses.replace(seen, scores=scores.astype(np.float32))
    observation = look(bank.production(wrong), live)
    assert check(observation, "average_precision").verdict is ACT
    amounts = np.where(old, 0.0, seen.column("TX_AMOUNT"))
    observation = look(bank.production(wrong.changed("TX_AMOUNT", amounts)), live)
    assert [bool(d.broken) for d in observation.days[2:6]] == [True] * 4
    assert sum(bool(d.broken) for d in observation.days) == 4
    assert check(observation, "average_precision").verdict is OK


def test_scores_of_a_broken_day_are_not_judged(seen, live):
    recent = days(seen, *range(1, 5))
    wrong = dataclasses.replace(seen, scores=np.where(recent, np.float32(0.9), seen.scores))
    assert check(look(bank.production(wrong), live), "score_distribution").verdict is ACT
    amounts = np.where(recent, 0.0, seen.column("TX_AMOUNT"))
    observation = look(bank.production(wrong.changed("TX_AMOUNT", amounts)), live)
    assert check(observation, "score_distribution").verdict is OK
    assert check(observation, "alert_rate").verdict is OK


def test_when_all_recent_days_are_broken_drift_cannot_be_judged(seen, live):
    amounts = np.where(days(seen, *range(7)), 0.0, seen.column("TX_AMOUNT"))
    observation = look(bank.production(seen.changed("TX_AMOUNT", amounts)), live)
    assert check(observation, "data/TX_AMOUNT").verdict is ACT
    assert set(of_kind(observation, Kind.DRIFT).values()) <= {UNKNOWN, OK}
    assert check(observation, "drift/CHANNEL").verdict is UNKNOWN


@pytest.mark.parametrize("column", ["TX_AMOUNT", "CHANNEL"])
def test_a_changed_distribution_is_drift_and_not_broken(seen, live, column):
    week = days(seen, *range(7))
    changed = {
        "TX_AMOUNT": np.where(week, 7.46 * seen.column("TX_AMOUNT"), seen.column("TX_AMOUNT")),
        "CHANNEL": pa.array(
            np.where(week & (np.arange(len(week)) % 2 == 0), "online", seen.column("CHANNEL"))
        ),
    }
    observation = look(bank.production(seen.changed(column, changed[column])), live)
    assert check(observation, f"drift/{column}").verdict is ACT
    assert set(of_kind(observation, Kind.DATA).values()) == {OK}


def test_drift_from_the_reference_alone_warns(seen, live, everything):
    other = everything.changed("TX_AMOUNT", everything.column("TX_AMOUNT") * 3)
    reference = dataclasses.replace(live, reference=bank.live(other).profile)
    observation = look(bank.production(seen), reference)
    assert check(observation, "drift_from_reference/TX_AMOUNT").verdict is WARN
    assert check(observation, "drift/TX_AMOUNT").verdict is OK


def test_a_configured_threshold_replaces_the_derived_one(seen, live):
    gate = dataclasses.replace(CONFIG.data_gate, max_drift=1.0)
    config = dataclasses.replace(CONFIG, data_gate=gate)
    shifted = seen.changed("TX_AMOUNT", seen.column("TX_AMOUNT") * 7.46)
    observation = look(bank.production(shifted), live, config)
    assert check(observation, "drift/TX_AMOUNT").verdict is OK


@pytest.mark.parametrize(("kept", "verdict"), [(0.3, ACT), (0.9, OK)])
def test_a_day_with_far_too_few_rows_is_broken(seen, live, kept, verdict):
    today = np.flatnonzero(days(seen, 0))
    mask = np.ones(len(seen.days), bool)
    mask[today[int(kept * len(today)) :]] = False
    observation = look(bank.production(seen.at(mask)), live)
    assert check(observation, "data/rows").verdict is verdict


def test_many_more_rows_than_usual_only_warn(seen, live):
    today = seen.at(days(seen, 0))
    n = len(today.days)
    table = pa.concat_tables([seen.table, *[today.table] * 3])
    table = table.set_column(0, "TRANSACTION_ID", pa.array(np.arange(len(table))))
    of = World(
        np.concatenate([seen.days, *[today.days] * 3]),
        table,
        np.concatenate([seen.scores, *[today.scores] * 3]),
    )
    assert len(of.days) == len(seen.days) + 3 * n
    assert check(look(bank.production(of), live), "data/rows").verdict is WARN


def test_days_without_transactions_are_stale_or_missing(seen, live):
    observation = look(bank.production(seen.at(~days(seen, 0, 1))), live)
    assert check(observation, "stale_days").verdict is ACT
    assert check(observation, "stale_days").value == 2
    assert check(observation, "missing_days").value == 2
    assert check(observation, "scored").verdict is UNKNOWN
    assert check(observation, "data/rows").verdict is UNKNOWN
    missing = look(bank.production(seen.at(~days(seen, 3))), live)
    assert check(missing, "stale_days").verdict is OK
    assert check(missing, "missing_days").verdict is WARN
    tolerant = dataclasses.replace(CONFIG, monitoring=Monitoring(max_stale_days=2))
    of = bank.production(seen.at(~days(seen, 0, 1)))
    assert check(look(of, live, tolerant), "stale_days").verdict is OK


def test_days_whose_labels_are_late(seen, live):
    """The label delay is over for ten days, and the labels of the last two are not there."""
    late = bank.production(seen)
    table = late.transactions
    labels = table["TX_FRAUD"].to_numpy().astype(float)
    labels[days(seen, 7, 8)] = np.nan
    at = table.schema.get_field_index("TX_FRAUD")
    table = table.set_column(at, "TX_FRAUD", pa.array(labels, pa.float64(), from_pandas=True))
    late = dataclasses.replace(late, transactions=table, label_problem="file.csv: TX_FRAUD is ''")
    found = check(look(late, live), "unlabelled_days")
    assert (found.value, found.verdict) == (2, ACT)
    assert found.detail == "no labels: 2026-03-13, 2026-03-14; file.csv: TX_FRAUD is ''"
    tolerant = dataclasses.replace(CONFIG, monitoring=Monitoring(max_stale_days=2))
    assert check(look(late, live, tolerant), "unlabelled_days").verdict is WARN
    assert check(look(bank.production(seen), live), "unlabelled_days").verdict is OK


@pytest.mark.parametrize(("share", "verdict"), [(0.3, ACT), (0.8, WARN), (0.97, OK)])
def test_transactions_that_were_not_scored_are_counted(seen, live, share, verdict):
    scored = seen.at(np.random.default_rng(0).random(len(seen.days)) < share)
    observation = look(bank.production(seen, scored), live)
    assert check(observation, "scored").verdict is verdict
    assert check(observation, "scored").value == pytest.approx(share, abs=0.05)


def test_features_that_differ_when_scoring_are_skew(seen, live):
    risk = seen.column("risk").copy()
    today = np.flatnonzero(days(seen, 0))
    risk[today[: len(today) // 10]] += 0.5
    observation = look(bank.production(seen, seen.changed("risk", risk)), live)
    found = check(observation, "skew/risk")
    assert found.verdict is ACT
    assert found.value == pytest.approx(0.1, abs=0.002)
    assert found.detail == "by up to 0.5"
    assert check(observation, "skew/TX_AMOUNT").verdict is OK


def test_rounding_is_no_skew_and_a_value_on_one_side_only_is(seen, live):
    nearly = seen.changed("risk", np.nextafter(seen.column("risk"), np.float32(np.inf)))
    assert check(look(bank.production(seen, nearly), live), "skew/risk").verdict is OK
    risk = seen.column("risk").copy()
    risk[days(seen, 0)] = np.nan
    observation = look(bank.production(seen, seen.changed("risk", risk)), live)
    assert check(observation, "skew/risk").value == 1
    assert "only on one side" in check(observation, "skew/risk").detail


def test_a_category_that_is_scored_as_another_is_skew(seen, live):
    channel = np.where(days(seen, 0), "chip", seen.column("CHANNEL"))
    observation = look(bank.production(seen, seen.changed("CHANNEL", pa.array(channel))), live)
    assert check(observation, "skew/CHANNEL").verdict is ACT
    assert "'chip' when scored, 'online' in the data" in check(observation, "skew/CHANNEL").detail
    assert check(observation, "skew/risk").verdict is OK


def test_what_is_hashed_in_the_log_is_no_skew(seen, live):
    of = dataclasses.replace(bank.production(seen), unlogged={"CHANNEL", "risk"})
    observation = look(of, live)
    assert check(observation, "skew/CHANNEL").verdict is UNKNOWN
    assert check(observation, "skew/risk").verdict is UNKNOWN


def test_scores_that_have_moved(seen, live):
    higher = dataclasses.replace(seen, scores=np.cbrt(seen.scores))
    observation = look(bank.production(seen, higher), live)
    assert check(observation, "score_distribution").verdict is ACT
    assert check(observation, "alert_rate").verdict is ACT
    assert check(observation, "calibration").verdict is ACT
    assert check(observation, "calibration").value > 2


def test_a_model_that_has_decayed(seen, live):
    """Frauds now happen where the model sees none."""
    random = np.random.default_rng(0)
    labels = random.permutation(seen.column("TX_FRAUD"))
    observation = look(bank.production(seen.changed("TX_FRAUD", labels)), live)
    for name in ("average_precision", "precision_at_budget", "recall_at_budget"):
        found = check(observation, name)
        assert found.verdict is ACT
        assert found.value < found.threshold
        assert found.interval[0] <= found.value <= found.interval[1]
        assert check(observation, f"estimate_error/{name}").verdict is WARN
        # Scores alone do not tell: so the estimate is not trusted any more.
        assert check(observation, f"estimated_{name}").verdict is UNKNOWN
    assert check(observation, "average_precision/CHANNEL=chip").verdict is WARN
    assert check(observation, "score_distribution").verdict is OK


def test_a_model_whose_alerts_cost_more_than_they_save(seen, live):
    labels = np.random.default_rng(0).permutation(seen.column("TX_FRAUD"))
    cheap = seen.changed("TX_FRAUD", labels).changed("TX_AMOUNT", np.ones(len(labels)))
    observation = look(bank.production(cheap), live)
    assert check(observation, "cost_saved_per_day").verdict is ACT
    assert check(observation, "cost_saved_per_day").interval[1] < 0


def test_performance_is_that_of_the_live_version(seen, live):
    """Another version scored badly before; the live one has no labels yet, so nobody knows."""
    old = seen.between(*_window(labelled_days(AS_OF, CONFIG)))
    bad = dataclasses.replace(old, scores=np.random.default_rng(0).permutation(old.scores))
    new = seen.at(seen.days > day_number(labelled_days(AS_OF, CONFIG).last))
    log = _both(bank.logged(bad, "99"), bank.logged(new))
    observation = look(Production(bank.arrived(seen), log), live)
    assert check(observation, "average_precision").verdict is UNKNOWN
    overall = check(observation, f"average_precision/{ALL_VERSIONS}")
    assert overall.verdict is WARN  # not to act on: that version is gone
    assert observation.days[0].versions == ("99",)
    assert observation.days[-1].versions == ("100",)
    restored = dataclasses.replace(live, aliases=frozenset({"99", "100"}))
    again = look(Production(bank.arrived(seen), log), restored)
    assert check(again, "average_precision").verdict is ACT


def test_only_labels_that_are_known_count(seen, live):
    observation = look(bank.production(seen), live)
    window = labelled_days(AS_OF, CONFIG)
    for day in observation.days:
        assert (day.labelled > 0) == (day.day in window)
        assert (day.average_precision is None) == (day.day not in window)
        assert day.estimated_average_precision is not None
    frauds = seen.between(*_window(window)).column("TX_FRAUD").astype(int).sum()
    assert sum(d.frauds for d in observation.days) == frauds
    assert check(observation, "new_frauds").value >= sum(d.frauds for d in observation.days)


def test_without_anything_live_a_model_is_asked_for(seen):
    observation = look(bank.production(seen), None)
    assert observation.version is None
    assert [(c.kind, c.verdict) for c in observation.checks] == [(Kind.AGE, ACT)]


@pytest.mark.parametrize("reason", ["no log", "no id", "hashed id"])
def test_without_matching_predictions_nothing_passes_silently(seen, live, reason):
    config, of = CONFIG, bank.production(seen)
    if reason == "no log":
        of = bank.production(seen, seen.at(np.zeros(len(seen.days), bool)))
    elif reason == "no id":
        dataset = dataclasses.replace(CONFIG.dataset, id=None)
        config = dataclasses.replace(CONFIG, dataset=dataset)
    else:
        of = dataclasses.replace(of, unlogged={"TRANSACTION_ID"})
    observation = look(of, live, config)
    for kind in (Kind.SKEW, Kind.SCORES, Kind.PERFORMANCE, Kind.ESTIMATE):
        verdicts = of_kind(observation, kind)
        assert verdicts
        assert set(verdicts.values()) == {UNKNOWN}
    assert check(observation, "data/CHANNEL").verdict is OK


def test_too_few_rows_or_frauds_are_not_judged(seen, live):
    few = seen.at(np.arange(len(seen.days)) % 40 == 0)
    observation = look(bank.production(seen, few), live)
    for name in ("score_distribution", "alert_rate", "average_precision", "skew/risk"):
        assert check(observation, name).verdict is UNKNOWN
        assert "needed" in check(observation, name).detail


def test_a_version_without_records_is_not_judged(seen):
    bare = Live("100", frozenset({"100"}))
    observation = look(bank.production(seen), bare)
    kinds = (Kind.DATA, Kind.DRIFT)
    assert {v for kind in kinds for v in of_kind(observation, kind).values()} == {UNKNOWN}
    assert check(observation, "average_precision").verdict is UNKNOWN
    assert check(observation, "average_precision").value is not None
    assert check(observation, "score_distribution").verdict is UNKNOWN
    assert check(observation, "model_age").verdict is UNKNOWN
    assert check(observation, "new_frauds").verdict is UNKNOWN


def test_age_and_new_labels_act_only_if_configured(seen, live):
    observation = look(bank.production(seen), live)
    assert check(observation, "model_age").value == 7
    assert {check(observation, n).verdict for n in ("model_age", "new_frauds")} == {OK}
    settings = Monitoring(max_age_days=7, new_frauds=10)
    config = dataclasses.replace(CONFIG, monitoring=settings)
    observation = look(bank.production(seen), live, config)
    assert {check(observation, n).verdict for n in ("model_age", "new_frauds")} == {ACT}
    config = dataclasses.replace(CONFIG, monitoring=Monitoring(max_age_days=8))
    assert check(look(bank.production(seen), live, config), "model_age").verdict is OK


def test_a_look_back_before_the_model_says_so(seen, live):
    later = dataclasses.replace(live, as_of=AS_OF + timedelta(days=1))
    found = check(look(bank.production(seen), later), "model_age")
    assert found.verdict is UNKNOWN
    assert "has learnt from days that are looked at" in found.detail


def test_data_without_cards_has_no_card_precision(seen, live):
    dataset = Dataset(categorical=("CHANNEL",), entities=())
    config = dataclasses.replace(CONFIG, dataset=dataset)
    observation = look(bank.production(seen), live, config)
    assert not [c for c in observation.checks if c.name.startswith("card_precision")]
    assert check(observation, "average_precision").verdict is OK


def test_a_transaction_that_was_scored_twice_counts_as_it_was_answered_first(seen, live):
    again = dataclasses.replace(seen, scores=np.zeros_like(seen.scores))
    log = _both(bank.logged(seen), bank.logged(again))
    twice = look(Production(bank.arrived(seen), log), live)
    once = look(Production(bank.arrived(seen), bank.logged(seen)), live)
    assert twice == once


def test_labels_that_arrive_as_moments_count_once_they_are_known(seen, live):
    """With dataset.label_time, rows of labelled days whose label is still open are left out."""
    table = bank.arrived(seen)
    open_ = np.arange(len(table)) % 2 == 0
    labels = table["TX_FRAUD"].fill_null(0).to_numpy()
    missing = open_ | table["TX_FRAUD"].is_null().to_numpy()
    at = table.schema.get_field_index("TX_FRAUD")
    table = table.set_column(at, "TX_FRAUD", pa.array(labels, pa.int8(), mask=missing))
    observation = look(Production(table, bank.logged(seen)), live)
    labelled = [d for d in observation.days if d.labelled]
    assert all(d.labelled == pytest.approx(d.arrived / 2, abs=1) for d in labelled)


def _window(window) -> tuple:
    return window.first, window.last


def _both(first, second):
    """Two logs, one after the other."""
    joined = {}
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        is_table = isinstance(a, pa.Table)
        joined[field.name] = pa.concat_tables([a, b]) if is_table else np.concatenate([a, b])
    return type(first)(**joined)


def test_the_windows_meet_and_end_on_the_as_of_day():
    labelled, observed = labelled_days(AS_OF, CONFIG), observed_days(AS_OF, CONFIG)
    assert labelled.last == AS_OF - timedelta(days=7)
    assert (labelled.first, AS_OF) == (observed.first, observed.last)

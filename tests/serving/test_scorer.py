"""The scorer: transactions in, decisions out, whatever comes twice, late or wrong."""

import os
import threading
import time
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud.errors import BadInput, FraudPipelineError
from fraud.features.batch import add_features, feature_names
from fraud.features.definitions import FAMILIES, Family
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.models.specification import InputSpecification
from fraud.serving import service
from fraud.serving.errors import NotReady
from fraud.serving.log_writer import LogWriter
from fraud.serving.prediction_log import PredictionLog
from fraud.serving.scorer import Challenger, Scorer
from fraud.serving.spec import PredictionLogSettings, Serving
from fraud.serving.state import StateDefinition, create_state, rebuild_state
from fraud.serving.state.build import fill
from fraud.serving.transactions import parse_transactions
from tests.serving.models import LinearModel, of_default_features

SPECIFICATION = of_default_features(categorical=("CHANNEL",))
START = datetime(2026, 3, 1, 12)


def transaction(number, minutes=0, card=1, terminal=1, amount=20.0):
    return {
        "TRANSACTION_ID": number,
        "TX_DATETIME": (START + timedelta(minutes=minutes)).isoformat(),
        "CUSTOMER_ID": card,
        "TERMINAL_ID": terminal,
        "TX_AMOUNT": amount,
        "CHANNEL": "web",
    }


@pytest.fixture
def state(tmp_path):
    state = create_state(str(tmp_path / "state"), StateDefinition.of(SPECIFICATION))
    yield state
    state.close()


@pytest.fixture
def model():
    return LinearModel(SPECIFICATION)


def test_transactions_are_answered_in_their_order(state, model):
    scorer = Scorer(state)
    scorer.check(model)
    rows = [transaction("0007", 5), transaction(8, 0), transaction(9, 10, amount=None)]
    results = scorer.score(model, rows)
    assert [result["id"] for result in results] == ["0007", 8, 9]
    assert all(set(result) == {"id", "score", "alert", "version", "outcome"} for result in results)
    assert {result["version"] for result in results} == {"1"}
    assert [r["alert"] for r in results] == [r["score"] >= 0.5 for r in results]
    assert [type(value) for value in results[0].values()] == [str, float, bool, str, str]
    # They see each other in the order of their times, not in that of the request.
    counts = model.received[0]["CUSTOMER_ID_count_1d"].tolist()
    assert counts == [2.0, 1.0, 3.0]
    assert scorer.score(model, []) == []


def test_reasons_are_given_on_request(state, model):
    (result,) = Scorer(state).score(model, [transaction(1)], explain=True)
    assert result["reasons"] == [
        {"column": "TX_AMOUNT", "value": 20.0, "contribution": 0.5},
        {"column": "CHANNEL", "value": "web", "contribution": 0.25},
    ]
    (result,) = Scorer(state).score(model, [transaction(2, amount=None)], explain=True)
    assert result["reasons"][0]["value"] is None


def test_a_repeated_transaction_gets_the_same_answer_and_counts_once(state, model):
    scorer = Scorer(state)
    first = scorer.score(model, [transaction(1), transaction(2, 3)])
    scorer.score(model, [transaction(3, 6)])
    again = scorer.score(model, [transaction(1), transaction(2, 3)])
    assert [{**result, "outcome": "new"} for result in again] == first
    assert [result["outcome"] for result in again] == ["repeated", "repeated"]
    scorer.score(model, [transaction(4, 9)])
    assert model.received[-1]["CUSTOMER_ID_count_1d"].tolist() == [4.0]


def test_what_is_refused_leaves_no_trace(state, model):
    scorer = Scorer(state)
    with pytest.raises(BadInput, match=r"transactions\[1\].TX_AMOUNT"):
        scorer.score(model, [transaction(1), transaction(2, amount="x")])
    (result,) = scorer.score(model, [transaction(1, 5)])
    assert result["outcome"] == "new"
    assert model.received[-1]["CUSTOMER_ID_count_1d"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("when", "outcome", "count"),
    [
        (timedelta(hours=-1), "new", 1),  # out of order: it sees what is earlier
        (timedelta(days=-3), "late", 1),
        (timedelta(days=-300), "expired", 1),
        (timedelta(days=30_000), "future", 3),
    ],
)
def test_transactions_out_of_order_have_defined_outcomes(state, model, when, outcome, count):
    scorer = Scorer(state)
    scorer.score(model, [transaction(1), transaction(2, 1)])
    (result,) = scorer.score(model, [transaction(3, when.total_seconds() / 60)])
    assert result["outcome"] == outcome
    assert 0 <= result["score"] <= 1
    if outcome != "future":
        assert model.received[-1]["CUSTOMER_ID_count_1d"].tolist() == [count]
    (result,) = scorer.score(model, [transaction(4, 2)])
    # What was recorded counts for later ones; the future and the expired do not.
    expected = {"new": 4.0, "late": 3.0, "expired": 3.0, "future": 3.0}[outcome]
    assert model.received[-1]["CUSTOMER_ID_count_1d"].tolist() == [expected]


def test_a_state_that_cannot_be_used_is_no_fault_of_the_request(state, model):
    class Gone:
        definition = StateDefinition.of(SPECIFICATION)

        def record(self, *_):
            raise FraudPipelineError("redis://here: connection refused")

        label = record

    scorer = Scorer(Gone())
    calls = (scorer.score, [transaction(1)]), (scorer.label, [{"id": 1, "label": 1}])
    for call, rows in calls:
        with pytest.raises(NotReady, match="redis://here: connection refused"):
            call(model, rows)


def test_a_transaction_is_logged_though_the_first_answer_was_lost(
    state, model, tmp_path, monkeypatch
):
    def log():
        return LogWriter(tmp_path / "log", PredictionLogSettings(), SPECIFICATION.dataset)

    Scorer(state).score(model, [transaction(1)])  # killed before it was logged
    scorer = Scorer(state, log())
    for _ in range(2):
        scorer.score(model, [transaction(1), transaction(2, 1), transaction(2, 1)])
    scorer.close()
    predictions = PredictionLog(tmp_path / "log").read()
    assert predictions.transactions["TRANSACTION_ID"].to_pylist() == ["1", "2"]
    assert predictions.outcome.tolist() == ["repeated", "new"]
    monkeypatch.setattr(os, "getpid", lambda: 1)
    scorer = Scorer(state, log())  # another process, which does not know what this one logged
    scorer.score(model, [transaction(2, 1), transaction(3, 1)])
    scorer.close()
    predictions = PredictionLog(tmp_path / "log").read()
    assert sorted(predictions.transactions["TRANSACTION_ID"].to_pylist()) == ["1", "2", "3"]


def test_an_id_of_another_transaction_is_a_conflict(state, model):
    scorer = Scorer(state)
    scorer.score(model, [transaction(1)])
    (result,) = scorer.score(model, [transaction(1, 5, amount=99.0)])
    assert result["outcome"] == "conflict"


def test_labels_are_counted_by_what_became_of_them(state, model):
    scorer = Scorer(state)
    scorer.score(model, [transaction(1), transaction("a", 1), transaction(3, 2)])
    labels = [{"id": 1, "label": 1}, {"id": "a", "label": 0}, {"id": 99, "label": 0}]
    counts = {"new": 2, "repeated": 0, "corrected": 0, "unknown": 1}
    assert scorer.label(model, labels) == counts
    again = [{"id": "1", "label": 1}, {"id": "a", "label": 1}]
    assert scorer.label(model, again) == {"new": 0, "repeated": 1, "corrected": 1, "unknown": 0}
    assert scorer.label(model, []) == dict.fromkeys(counts, 0)
    scorer.score(model, [transaction(4, 8 * 24 * 60)])
    received = model.received[-1]
    assert received["CUSTOMER_ID_known_count_30d"].tolist() == [2.0]
    assert received["CUSTOMER_ID_risk_30d"].tolist() == [1.0]


def test_a_label_before_its_transaction_is_refused(state, model):
    scorer = Scorer(state)
    scorer.score(model, [transaction(1), transaction(2)])
    early = [{"id": 1, "label": 1}, {"id": 2, "label": 1, "known_at": "2026-02-01T00:00:00Z"}]
    with pytest.raises(BadInput, match=r"labels\[1\].known_at: the label became known at"):
        scorer.label(model, early)
    assert scorer.label(model, early[:1])["new"] == 1


def test_a_model_that_the_state_cannot_serve_is_refused(state):
    needs_more = InputSpecification(
        SPECIFICATION.dataset, Features(groups=(FeatureGroup(("count",), (400,)),)), 7
    )
    with pytest.raises(BadInput, match="look back 400 days"):
        Scorer(state).check(LinearModel(needs_more))
    with pytest.raises(BadInput, match="need a state"):
        Scorer(None).check(LinearModel(SPECIFICATION))
    with pytest.raises(BadInput, match="does not record what its inputs are computed from"):
        Scorer(state).check(LinearModel(None))


def rebuilt(location, specification):
    with rebuild_state(location, StateDefinition.of(specification)) as rebuild:
        fill(rebuild, [], np.datetime64("2026-01-01", "us"))


@pytest.mark.parametrize("lacks", ["days", "an entity", "the amount"])
def test_a_state_rebuilt_for_another_model_is_refused_not_used(tmp_path, state, model, lacks):
    """Its features would be others, and nobody would know."""
    scorer = Scorer(state)
    scorer.score(model, [transaction(1)])
    features = replace(SPECIFICATION.features, groups=(FeatureGroup(("count",), (1,)),))
    dataset = SPECIFICATION.dataset
    if lacks == "an entity":
        dataset, features = replace(dataset, entities=("CUSTOMER_ID",)), SPECIFICATION.features
    elif lacks == "the amount":
        dataset, features = replace(dataset, amount="EUR"), SPECIFICATION.features
    rebuilt(str(tmp_path / "state"), InputSpecification(dataset, features, 7))
    message = {"days": "look back", "an entity": "no histories of TERM", "the amount": "EUR"}[lacks]
    for _ in range(2):
        with pytest.raises(NotReady, match=f"{message}.*rebuild it"):
            scorer.score(model, [transaction(2, 5)])
    rebuilt(str(tmp_path / "state"), SPECIFICATION)
    (result,) = scorer.score(model, [transaction(2, 5)])
    assert result["outcome"] == "new"  # so nothing was recorded before
    kept = lacks != "the amount"  # what is of other data is not carried over
    assert model.received[-1]["CUSTOMER_ID_count_1d"].tolist() == [1.0 + kept]


def test_a_version_that_was_refused_is_taken_once_the_state_is_rebuilt(tmp_path, state):
    """Also if no request came meanwhile, as when it is the first version."""
    scorer = Scorer(state)
    longer = InputSpecification(
        SPECIFICATION.dataset, Features(groups=(FeatureGroup(("count",), (60,)),)), 7
    )
    with pytest.raises(BadInput, match="look back 60 days"):
        scorer.check(LinearModel(longer))
    rebuilt(str(tmp_path / "state"), longer)
    scorer.check(LinearModel(longer))


def test_a_challenger_that_a_rebuilt_state_cannot_serve_scores_nothing(tmp_path, model):
    longer = InputSpecification(
        SPECIFICATION.dataset, Features(groups=(FeatureGroup(("count",), (60,)),)), 7
    )
    state = create_state(str(tmp_path / "state"), StateDefinition.of(SPECIFICATION, longer))
    challenger = LinearModel(longer, "challenger")
    scorer = Scorer(state, challenger=Challenger(challenger, canary_percent=100))
    (result,) = scorer.score(model, [transaction(1)])
    assert result["version"] == "challenger"
    rebuilt(str(tmp_path / "state"), SPECIFICATION)
    (result,) = scorer.score(model, [transaction(2, 5)])
    assert (result["version"], result["outcome"]) == ("1", "new")
    scorer.close()
    assert scorer.shadow_failures >= 1
    state.close()


def test_a_challenger_that_was_left_out_is_used_once_the_state_is_rebuilt(
    tmp_path, model, monkeypatch
):
    monkeypatch.setattr(service, "SECONDS_TO_RETRY", 0.05)
    location = str(tmp_path / "state")
    create_state(location, StateDefinition.of(SPECIFICATION)).close()
    longer = InputSpecification(
        SPECIFICATION.dataset, Features(groups=(FeatureGroup(("count",), (60,)),)), 7
    )
    challenger = Challenger(LinearModel(longer, "challenger"), canary_percent=100)
    scoring = scoring_with(tmp_path, challenger)
    scoring.check(model)
    (result,) = scoring.scorer.score(model, [transaction(1)])
    assert result["version"] == "1"
    rebuilt(location, longer)
    end = time.monotonic() + 20
    while result["version"] == "1" and time.monotonic() < end:
        time.sleep(0.02)
        (result,) = scoring.scorer.score(model, [transaction(2, 5)])
    assert result["version"] == "challenger"
    scoring.close()


def test_a_challenger_of_other_data_is_left_out_of_a_new_state(tmp_path, model):
    dataset = replace(SPECIFICATION.dataset, amount="EUR")
    other = InputSpecification(dataset, SPECIFICATION.features, 7)
    scoring = scoring_with(tmp_path, Challenger(LinearModel(other, "challenger"), 100))
    scoring.check(model)
    (result,) = scoring.scorer.score(model, [transaction(1)])
    assert result["version"] == "1"
    scoring.close()


def scoring_with(tmp_path, challenger):
    """What a server makes of a challenger that is configured."""
    located = service.ScoringService(str(tmp_path / "state"), tmp_path / "predictions", Serving())
    return service._Scoring(located, challenger)


def test_a_state_with_more_entities_serves_a_model_that_does_not_know_them(tmp_path, model):
    """As between the building of a state for the next version and its push, or after a rollback."""
    location = str(tmp_path / "state")
    wider = replace(
        SPECIFICATION, dataset=replace(SPECIFICATION.dataset, entities=("CUSTOMER_ID", "DEVICE"))
    )
    older = replace(
        SPECIFICATION, dataset=replace(SPECIFICATION.dataset, entities=("CUSTOMER_ID",))
    )
    state = create_state(location, StateDefinition.of(older))
    old, new = LinearModel(older), LinearModel(wider, "2")
    scorer = Scorer(state)
    scorer.score(old, [transaction(1)])
    rebuilt(location, wider)
    scorer.check(old)
    scorer.warm_up(old)
    # What the client sends already is remembered for the next version.
    rows = [transaction(2, 5) | {"DEVICE": 7.0}, transaction(3, 6), transaction(4, 7)]
    rows[2]["DEVICE"] = None
    assert [result["outcome"] for result in scorer.score(old, rows)] == ["new"] * 3
    scorer.score(new, [transaction(5, 9) | {"DEVICE": "7"}])
    received = new.received[-1]
    assert received["CUSTOMER_ID_count_1d"].tolist() == [5.0]
    (result,) = scorer.score(old, [transaction(6, 10) | {"DEVICE": [1]}])
    assert result["outcome"] == "new"  # fields that a model does not know are ignored
    state.close()


def test_data_without_times_needs_no_state():
    dataset = Dataset(timestamp=None, amount="a", id=None, entities=(), numeric=("b",))
    model = LinearModel(InputSpecification(dataset, Features(), 7))
    scorer = Scorer(None)
    scorer.check(model)
    (result,) = scorer.score(model, [{"a": 1.0, "b": 2}])
    assert result["id"] is None
    assert model.received[0] == {"a": np.float32([1]), "b": np.float32([2])}
    with pytest.raises(BadInput, match="labels: the data has no timestamp"):
        scorer.label(model, [])


def test_transactions_of_a_card_from_many_threads_each_count_once(state, model):
    """Whatever the order in which they come, all of them are recorded."""
    scorer = Scorer(state)

    def send(worker):
        for number in range(20):
            scorer.score(model, [transaction(100 * worker + number, number)])

    threads = [threading.Thread(target=send, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scorer.score(model, [transaction(999, 30)])
    assert model.received[-1]["CUSTOMER_ID_count_1d"].tolist() == [81.0]


@pytest.fixture
def logged(tmp_path):
    """Makes scorers that log, and reads what they logged."""
    settings = PredictionLogSettings(flush_seconds=0.01)

    class Logged:
        log = PredictionLog(tmp_path / "log")

        def scorer(self, state, **others):
            writer = LogWriter(self.log.folder, settings, SPECIFICATION.dataset)
            return Scorer(state, writer, **others)

    return Logged()


def test_every_scored_transaction_is_logged_once(state, model, logged):
    scorer = logged.scorer(state)
    results = scorer.score(model, [transaction("007"), transaction(8, 1, amount=None)])
    scorer.score(model, [transaction("007"), transaction(9, 2)])
    scorer.close()
    read = logged.log.read()
    assert read.transactions["TRANSACTION_ID"].to_pylist() == ["007", "8", "9"]
    assert read.transactions["TX_AMOUNT"].to_pylist() == [20.0, None, 20.0]
    assert read.score[:2].tolist() == [result["score"] for result in results]
    assert read.outcome.tolist() == ["new"] * 3
    names = feature_names(SPECIFICATION.features, SPECIFICATION.dataset)
    assert tuple(read.features.column_names) == names
    assert read.features["CUSTOMER_ID_count_1d"].to_pylist() == [1.0, 2.0, 3.0]
    assert (read.latency_ms > 0).all()


def test_what_may_wait_until_the_client_has_its_answer_is_left_to_the_caller(state, model, logged):
    scorer, waiting = logged.scorer(state), []
    (result,) = scorer.score(model, [transaction(1)], later=waiting.append)
    assert result["outcome"] == "new"
    (write,) = waiting
    scorer.score(model, [transaction(2, 1)])
    write()
    scorer.close()
    assert logged.log.read().transactions["TRANSACTION_ID"].to_pylist() == ["2", "1"]


def test_the_first_and_the_last_moment_are_answered_and_logged(state, model, logged):
    scorer = logged.scorer(state)
    scorer.score(model, [transaction(1)])
    moments = ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z")
    rows = [{**transaction(number), "TX_DATETIME": t} for number, t in enumerate(moments, 2)]
    outcomes = [result["outcome"] for result in scorer.score(model, rows)]
    assert outcomes == ["expired", "future"]
    scorer.close()
    # Those of no possible day are under the day of their scoring.
    assert logged.log.read().outcome.tolist() == ["new", "expired", "future"]


def test_a_shadow_scores_without_answering(state, model, logged):
    """It may need other features, and even columns that the live version does not know."""
    dataset = Dataset(numeric=("AGE",))
    features = Features(groups=(FeatureGroup(("count",), (3,)),))
    shadow = LinearModel(InputSpecification(dataset, features, 7), "shadow", seed=1)
    scorer = logged.scorer(state, challenger=Challenger(shadow))
    rows = [{**transaction(number, number), "AGE": number} for number in range(3)]
    results = scorer.score(model, rows)
    assert {result["version"] for result in results} == {"1"}
    scorer.close()
    (received,) = shadow.received
    assert received["AGE"].tolist() == [0.0, 1.0, 2.0]
    assert received["CUSTOMER_ID_count_3d"].tolist() == [1.0, 2.0, 3.0]
    read = logged.log.read()
    assert read.shadow_version.tolist() == ["shadow"] * 3
    assert read.shadow_score.tolist() == shadow.score(received).score.tolist()
    assert read.score.tolist() == [result["score"] for result in results]
    assert not read.canary.any()


def test_a_canary_answers_a_share_of_the_cards_and_always_the_same(state, model, logged):
    canary = LinearModel(SPECIFICATION, "canary", seed=1)
    scorer = logged.scorer(state, challenger=Challenger(canary, canary_percent=30))
    rows = [transaction(n, n % 7, card=n % 200, terminal=n) for n in range(1000)]
    results = scorer.score(model, rows)
    scorer.close()
    versions = {}
    for row, result in zip(rows, results, strict=True):
        assert row["TRANSACTION_ID"] == result["id"]
        versions.setdefault(row["CUSTOMER_ID"], set()).add(result["version"])
    assert all(len(of_card) == 1 for of_card in versions.values())
    share = sum(of_card == {"canary"} for of_card in versions.values()) / 200
    assert 0.2 < share < 0.4
    read = logged.log.read()
    assert len(read) == 1000
    assert set(read.version[read.canary]) == {"canary"}
    assert set(read.shadow_version[read.canary]) == {"1"}
    assert set(read.shadow_version[~read.canary]) == {"canary"}
    assert not np.isnan(read.shadow_score).any()
    more = Challenger(canary, canary_percent=60)
    rows = [transaction(n, card=n) for n in range(200)]
    cards = parse_transactions(rows, SPECIFICATION.dataset)
    before = Challenger(canary, canary_percent=30).answers(cards)
    assert (more.answers(cards) >= before).all()  # a higher share keeps those it has


def test_a_challenger_that_fails_changes_no_answer(state, model, logged):
    broken = LinearModel(SPECIFICATION, "broken", fails=True)
    scorer = logged.scorer(state, challenger=Challenger(broken, canary_percent=50))
    rows = [transaction(n, card=n) for n in range(50)]
    results = scorer.score(model, rows)
    assert {result["version"] for result in results} == {"1"}
    scorer.close()
    assert scorer.shadow_failures >= 50
    read = logged.log.read()
    assert len(read) == 50
    assert set(read.shadow_version) == {""}


def replay(table, specification, scorer, model, per_request):
    """Sends transactions in the order of time, and labels as they become known; the answers."""
    delay = timedelta(days=specification.label_delay_days)
    dataset = specification.dataset
    rows = table.drop([dataset.label]).to_pylist()
    labels = table[dataset.label].to_pylist()
    times = [row[dataset.timestamp] for row in rows]
    results, labelled = [], 0
    for start in range(0, len(rows), per_request):
        request = rows[start : start + per_request]
        due = labelled
        while due < len(rows) and times[due] + delay <= request[-1][dataset.timestamp]:
            due += 1
        scorer.label(
            model,
            [
                {"id": rows[i][dataset.id], "label": labels[i]}
                for i in range(labelled, due)
                if i < start + per_request
            ],
        )
        labelled = due
        sent = [{**row, dataset.timestamp: row[dataset.timestamp].isoformat()} for row in request]
        results += scorer.score(model, sent)
    return results


def check_parity(table, specification, tmp_path, per_request):
    """A replay has the features and the scores of batch; returns how many transactions."""
    dataset = specification.dataset
    table = table.sort_by(dataset.timestamp)
    batch = add_features(table, dataset, specification.features, specification.label_delay_days)
    model = LinearModel(specification)
    state = create_state(str(tmp_path / "state"), StateDefinition.of(specification))
    results = replay(table, specification, Scorer(state), model, per_request)
    state.close()
    assert {result["outcome"] for result in results} == {"new"}
    for name in feature_names(specification.features, dataset):
        online = np.concatenate([columns[name] for columns in model.received])
        np.testing.assert_array_equal(online, batch[name].to_numpy(), err_msg=name)
    columns = {name: batch[name].cast(pa.float32()).to_numpy() for name in model.columns.numeric}
    for name in model.columns.categorical:
        columns[name] = np.array([text.encode() for text in batch[name].to_pylist()], object)
    expected = model.score(columns).score
    np.testing.assert_allclose([r["score"] for r in results], expected, rtol=0, atol=1e-6)
    assert expected.std() > 0.01
    return len(results)


def days_of(folder, first, last, keep):
    """Transactions of some cards, read as they are stored."""
    from pyarrow import parquet

    days = np.arange(np.datetime64(first), np.datetime64(last) + 1)
    tables = [
        parquet.ParquetFile(path).read()
        for day in days
        for path in sorted(folder.glob(f"date={day}/*.parquet"))
    ]
    table = pa.concat_tables(tables)
    return table.filter(pa.array(np.isin(table["CUSTOMER_ID"].to_numpy() % 100, keep)))


def test_a_replay_of_the_sample_has_the_features_and_scores_of_batch(repository, tmp_path):
    folder = repository / "data" / "sample" / "transactions"
    table = days_of(folder, "2026-01-01", "2026-02-15", [7])
    names = ("MERCHANT_CATEGORY", "CHANNEL")
    specification = of_default_features(categorical=names)
    table = table.select(list(specification.dataset.columns))
    assert check_parity(table, specification, tmp_path, 7) > 500


def test_a_family_that_is_added_to_the_definitions_is_served(repository, tmp_path, monkeypatch):
    """Without code in serving: nothing there knows the families."""

    def seen_and_known(history, window):
        of = {name: FAMILIES[name].compute(history, window) for name in ("count", "known_count")}
        return of["count"] - of["known_count"] / 2

    monkeypatch.setitem(FAMILIES, "seen_and_known", Family("risk", seen_and_known, False, ()))
    features = Features(groups=(FeatureGroup(("seen_and_known",), (1, 14)),))
    specification = replace(of_default_features(), features=features)
    folder = repository / "data" / "sample" / "transactions"
    table = days_of(folder, "2026-01-01", "2026-01-31", [7])
    table = table.select(list(specification.dataset.columns))
    assert check_parity(table, specification, tmp_path, 7) > 200


def test_a_replay_of_the_handbook_has_the_features_and_scores_of_batch(handbook, tmp_path):
    table = days_of(handbook, "2018-04-01", "2018-06-15", [3, 71])
    specification = of_default_features()
    table = table.select(list(specification.dataset.columns))
    assert check_parity(table, specification, tmp_path, 50) > 5000

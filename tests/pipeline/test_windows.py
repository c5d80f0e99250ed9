from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from fraud.features.batch import add_features
from fraud.features.spec import Dataset, FeatureGroup, Features
from fraud.pipeline.backtest.folds import plan_folds
from fraud.pipeline.windows import Window, windows_for


def days_by_role(as_of, train, evaluated, delay):
    """The windows day by day, from their meaning alone."""
    known = [as_of - timedelta(days=i) for i in range(500) if i >= delay]
    eval_days = known[:evaluated]
    first = min(eval_days)
    # When the first eval day begins, the day before it has just ended.
    could_train = [first - timedelta(days=1 + i) for i in range(500) if i >= delay]
    recent = [as_of - timedelta(days=i) for i in range(delay)]
    return could_train[:train], eval_days, recent


@pytest.mark.parametrize("train", [1, 7, 30])
@pytest.mark.parametrize("evaluated", [1, 7])
@pytest.mark.parametrize("delay", [0, 1, 7, 30])
def test_windows_hold_exactly_the_days_that_their_meaning_gives(train, evaluated, delay):
    for offset in range(0, 400, 37):  # over months and a leap day
        as_of = date(2024, 1, 15) + timedelta(days=offset)
        windows = windows_for(as_of, train_days=train, eval_days=evaluated, label_delay_days=delay)
        trained, evaluation, recent = days_by_role(as_of, train, evaluated, delay)
        assert list(windows.train) == sorted(trained)
        assert list(windows.eval) == sorted(evaluation)
        assert (list(windows.recent) if windows.recent else []) == sorted(recent)
        assert windows.as_of == as_of


def test_the_example_of_the_module():
    windows = windows_for(date(2018, 7, 31), train_days=30, eval_days=7, label_delay_days=7)
    assert windows.train == Window(date(2018, 6, 11), date(2018, 7, 10))
    assert windows.eval == Window(date(2018, 7, 18), date(2018, 7, 24))
    assert windows.recent == Window(date(2018, 7, 25), date(2018, 7, 31))
    assert windows.all_days == Window(date(2018, 6, 11), date(2018, 7, 31))


@pytest.mark.parametrize("delay", [0, 1, 7])
def test_a_run_and_a_backtest_train_on_the_same_days(delay):
    """As many full days as labels are delayed lie between train and eval: the handbook's rule."""
    windows = windows_for(date(2018, 7, 31), train_days=30, eval_days=7, label_delay_days=delay)
    (fold,) = plan_folds(windows.eval.first, 1, test_days=7, train_days=30, delay_days=delay)
    assert (windows.train, windows.eval) == (fold.train, fold.test)
    assert (windows.eval.first - windows.train.last).days - 1 == delay


@pytest.mark.parametrize("delay", [1, 7])
def test_features_of_the_first_eval_moment_know_every_train_label(delay):
    """By the features' own definition, the last train label is known when eval begins."""
    windows = windows_for(date(2018, 7, 31), train_days=1, eval_days=1, label_delay_days=delay)
    midnight = np.datetime64(windows.eval.first, "us")
    train = np.datetime64(windows.train.last, "us") + np.arange(1, 25) * np.timedelta64(1, "h") - 1
    columns = pa.table(
        {
            "at": np.array([*train, midnight - 2, midnight]),
            "shop": np.ones(26, int),
            "fraud": np.ones(26),
        }
    )
    dataset = Dataset(timestamp="at", entities=("shop",), amount=None, label="fraud", id=None)
    known_count = Features(calendar=(), groups=(FeatureGroup(("known_count",), (2,)),))
    known = add_features(columns, dataset, known_count, delay)["shop_known_count_2d"]
    assert known[-2:].to_pylist() == [23, 24]


def test_history_lies_before_train():
    windows = windows_for(
        date(2018, 7, 31), train_days=30, eval_days=7, label_delay_days=7, history_days=37
    )
    assert windows.history is not None
    assert windows.history.last == windows.train.first - timedelta(days=1)
    assert windows.history.days == 37
    assert windows.all_days.first == windows.history.first


def test_splits_are_the_windows_that_become_examples():
    with_delay = windows_for(date(2018, 7, 31), train_days=7, eval_days=7, label_delay_days=7)
    assert list(with_delay.splits()) == ["train", "eval", "recent"]
    without = windows_for(date(2018, 7, 31), train_days=7, eval_days=7, label_delay_days=0)
    assert list(without.splits()) == ["train", "eval"]
    assert without.train.last < without.eval.first


def test_train_labels_are_known_before_eval_and_eval_labels_today():
    windows = windows_for(date(2018, 7, 31), train_days=30, eval_days=7, label_delay_days=7)
    assert windows.labels_known_by("train") == date(2018, 7, 17)
    assert windows.labels_known_by("eval") == date(2018, 7, 31)


@pytest.mark.parametrize(
    "wrong", [{"train_days": 0}, {"eval_days": 0}, {"label_delay_days": -1}, {"history_days": -1}]
)
def test_impossible_lengths_are_refused(wrong):
    lengths = {"train_days": 7, "eval_days": 7, "label_delay_days": 7, **wrong}
    with pytest.raises(ValueError, match="train_days"):
        windows_for(date(2018, 7, 31), **lengths)


def test_a_window_knows_its_days():
    window = Window(date(2018, 7, 1), date(2018, 7, 3))
    assert window.days == 3
    assert [date(2018, 7, 1) + timedelta(days=i) in window for i in range(-1, 4)] == [
        *(False, True, True, True, False)
    ]
    assert str(window) == "2018-07-01 … 2018-07-03"

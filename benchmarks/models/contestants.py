"""The other models: fits one of them to a fold saved in a folder, and scores its test rows.

    .venv-bench/bin/python benchmarks/models/contestants.py FOLDER NAME SETTING

Runs in an environment that has the models' libraries but neither TFX nor this project, so this
file imports nothing of ours. FOLDER contains `train.npy` and `test.npy`, float32 [rows, columns]
with NaN for missing values, and `labels.npy`; the script writes `scores.npy` there. SETTING counts
from 0. Prints the CPU seconds of fitting.

Each model has a few settings; one of them is chosen on earlier folds (see `compare`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any

SEED = 7


def logistic_regression(**setting: Any) -> Any:
    """On standardised values; missing values become the median, plus an indicator column."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(max_iter=500, **setting),
    )


def random_forest(**setting: Any) -> Any:
    """scikit-learn's random forest, which handles missing values itself."""
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(n_estimators=100, n_jobs=1, random_state=SEED, **setting)


def xgboost(**setting: Any) -> Any:
    """XGBoost with the defaults of the handbook's version, which have changed since."""
    from xgboost import XGBClassifier

    book = {"tree_method": "exact", "base_score": 0.5}
    return XGBClassifier(n_jobs=1, random_state=SEED, **{**book, **setting})


def lightgbm(**setting: Any) -> Any:
    """LightGBM on random samples of rows and columns."""
    from lightgbm import LGBMClassifier

    shares = {"subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.5, "reg_lambda": 5}
    return LGBMClassifier(n_jobs=1, random_state=SEED, verbose=-1, **shares, **setting)


def catboost(**setting: Any) -> Any:
    """CatBoost."""
    from catboost import CatBoostClassifier

    return CatBoostClassifier(
        thread_count=1, random_seed=SEED, verbose=False, allow_writing_files=False, **setting
    )


def _grid(**values: list[Any]) -> list[dict[str, Any]]:
    """Every combination of the values."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


CONTESTANTS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "logistic regression": (logistic_regression, _grid(C=[0.01, 1.0])),
    "random forest": (random_forest, _grid(max_depth=[10, 20], min_samples_leaf=[10])),
    "XGBoost, book's defaults": (
        xgboost,
        [{"max_depth": 6, "n_estimators": 100, "learning_rate": 0.3}],
    ),
    "XGBoost, tuned": (
        xgboost,
        [
            {"tree_method": "hist", "subsample": 0.8, "colsample_bytree": 0.5, **setting}
            for rate, trees in ((0.1, 100), (0.03, 200), (0.03, 400))
            for setting in _grid(max_depth=[4, 6], n_estimators=[trees], learning_rate=[rate])
        ],
    ),
    "LightGBM, tuned": (
        lightgbm,
        _grid(
            n_estimators=[200, 400],
            learning_rate=[0.03],
            num_leaves=[7, 15, 31],
            min_child_samples=[50],
        ),
    ),
    "CatBoost, tuned": (
        catboost,
        _grid(iterations=[300], learning_rate=[0.1], depth=[4, 6]),
    ),
}
"""By name: the function that makes the model, and the settings to choose from."""


def main(folder: Path, name: str, setting: int) -> None:
    """Fits the model, scores the test rows and prints the CPU seconds of fitting."""
    import numpy as np

    train, test, labels = (np.load(folder / f"{part}.npy") for part in ("train", "test", "labels"))
    make, settings = CONTESTANTS[name]
    started = process_time()
    model = make(**settings[setting]).fit(train, labels)
    print(process_time() - started)
    np.save(folder / "scores.npy", model.predict_proba(test)[:, 1])


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))

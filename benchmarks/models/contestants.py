"""The other models: fits one of them to a fold saved in a folder, and scores its test rows.

    .venv-bench/bin/python benchmarks/models/contestants.py FOLDER NAME SETTING

Runs in an environment that has the models' libraries but neither TFX nor this project, so this
file imports nothing of ours. FOLDER contains `train.npy` and `test.npy`, float32 [rows, columns]
with NaN for missing values, and `labels.npy`; if some of the columns are categories, represented by
numbers from 0, `categorical.npy` has their positions. The script writes `scores.npy` there. Prints
the CPU seconds of choosing and fitting.

Each model has a few settings, counted from 0; one of them is chosen on earlier folds (see
`compare`) or, if SETTING is "cv", by average precision in a cross-validation of the train rows (see
`tables`).
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
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    numbers = make_pipeline(SimpleImputer(strategy="median", add_indicator=True), StandardScaler())
    categories = OneHotEncoder(handle_unknown="ignore")
    return make_pipeline(
        make_column_transformer(
            (numbers, make_column_selector(dtype_include="number")),
            (categories, make_column_selector(dtype_include="category")),
        ),
        LogisticRegression(max_iter=500, **setting),
    )


def random_forest(**setting: Any) -> Any:
    """scikit-learn's random forest, which handles missing values itself."""
    from sklearn.compose import make_column_selector, make_column_transformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    categories = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    return make_pipeline(
        make_column_transformer(
            ("passthrough", make_column_selector(dtype_include="number")),
            (categories, make_column_selector(dtype_include="category")),
        ),
        RandomForestClassifier(n_estimators=100, n_jobs=1, random_state=SEED, **setting),
    )


def xgboost(**setting: Any) -> Any:
    """XGBoost."""
    from xgboost import XGBClassifier

    return XGBClassifier(n_jobs=1, random_state=SEED, enable_categorical=True, **setting)


def lightgbm(**setting: Any) -> Any:
    """LightGBM."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_jobs=1, random_state=SEED, verbose=-1, **setting)


class CatBoost:
    """CatBoost, which must be told the names of categorical columns."""

    def __init__(self, **setting: Any) -> None:
        from catboost import CatBoostClassifier

        common = {"thread_count": 1, "verbose": False, "allow_writing_files": False}
        self._model = CatBoostClassifier(random_seed=SEED, **common, **setting)

    def fit(self, rows: Any, labels: Any) -> CatBoost:
        """See scikit-learn."""
        categories = list(rows.select_dtypes("category"))
        self._model.fit(rows, labels, cat_features=categories)
        return self

    def predict_proba(self, rows: Any) -> Any:
        """See scikit-learn."""
        return self._model.predict_proba(rows)


def _grid(**values: list[Any]) -> list[dict[str, Any]]:
    """Every combination of the values."""
    return [dict(zip(values, chosen, strict=True)) for chosen in product(*values.values())]


CONTESTANTS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "logistic regression": (logistic_regression, _grid(C=[0.01, 1.0])),
    "random forest": (random_forest, _grid(max_depth=[10, 20], min_samples_leaf=[10])),
    "XGBoost, book's defaults": (
        xgboost,  # its defaults have changed since the handbook's version
        [
            {
                "tree_method": "exact",
                "base_score": 0.5,
                "max_depth": 6,
                "n_estimators": 100,
                "learning_rate": 0.3,
            }
        ],
    ),
    "XGBoost, tuned": (
        xgboost,
        [
            {"base_score": 0.5, "subsample": 0.8, "colsample_bytree": 0.5, **setting}
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
        CatBoost,
        _grid(iterations=[300], learning_rate=[0.1], depth=[4, 6]),
    ),
}
"""For `compare`, by name: the function that makes the model, and the settings to choose from."""

TABLE_CONTESTANTS: dict[str, tuple[Callable[..., Any], list[dict[str, Any]]]] = {
    "logistic regression": (logistic_regression, _grid(C=[0.01, 0.1, 1.0])),
    "random forest": (random_forest, _grid(max_depth=[10, 20], min_samples_leaf=[1, 5])),
    "XGBoost, defaults": (xgboost, [{}]),
    "XGBoost, tuned": (
        xgboost,
        [
            {"subsample": 0.8, "colsample_bytree": 0.5, **setting}
            for rate, trees in ((0.1, 100), (0.03, 400))
            for setting in _grid(max_depth=[3, 6], n_estimators=[trees], learning_rate=[rate])
        ],
    ),
    "LightGBM, defaults": (lightgbm, [{}]),
    "LightGBM, tuned": (
        lightgbm,
        [
            {"subsample": 0.8, "subsample_freq": 1, "colsample_bytree": 0.5, **setting}
            for rate, trees in ((0.1, 100), (0.03, 400))
            for setting in _grid(
                num_leaves=[7, 31],
                min_child_samples=[20, 50],
                n_estimators=[trees],
                learning_rate=[rate],
            )
        ],
    ),
    "CatBoost, defaults": (CatBoost, [{}]),
    "CatBoost, tuned": (CatBoost, _grid(iterations=[300], learning_rate=[0.03, 0.1], depth=[4, 6])),
}
"""For `tables`; the settings are chosen by cross-validation."""

CROSS_VALIDATION = 3  # folds
TUNING_ROWS = 100_000


def main(folder: Path, name: str, setting: str) -> None:
    """Fits the model, scores the test rows and prints the CPU seconds of fitting."""
    import numpy as np

    train, test = (read(folder, part) for part in ("train", "test"))
    labels = np.load(folder / "labels.npy")
    make, settings = (TABLE_CONTESTANTS if setting == "cv" else CONTESTANTS)[name]
    started = process_time()
    number = cross_validated(name, train, labels) if setting == "cv" else int(setting)
    model = make(**settings[number]).fit(train, labels)
    print(process_time() - started)
    np.save(folder / "scores.npy", model.predict_proba(test)[:, 1])


def read(folder: Path, part: str) -> Any:
    """The rows of `train` or `test` as a pandas table."""
    import numpy as np
    import pandas as pd

    values = np.load(folder / f"{part}.npy")
    table = pd.DataFrame(values, columns=[f"column_{i}" for i in range(values.shape[1])])
    categorical = folder / "categorical.npy"
    for position in np.load(categorical) if categorical.exists() else ():
        codes = values[:, position].astype(int)
        unseen = int(np.load(folder / "train.npy", mmap_mode="r")[:, position].max()) + 1
        table[f"column_{position}"] = pd.Categorical.from_codes(
            np.minimum(codes, unseen), categories=range(unseen + 1)
        )
    return table


def cross_validated(name: str, rows: Any, labels: Any) -> int:
    """The number of the setting with the best average precision over the folds of the rows.

    Where there are more than `TUNING_ROWS`, a random sample of that size is used; otherwise tuning
    the forest and CatBoost on the larger simulated bank would take hours.
    """
    import numpy as np
    from sklearn.metrics import average_precision_score
    from sklearn.model_selection import StratifiedKFold

    make, settings = TABLE_CONTESTANTS[name]
    if len(settings) == 1:
        return 0
    if labels.size > TUNING_ROWS:
        drawn = np.random.default_rng(SEED).choice(labels.size, TUNING_ROWS, replace=False)
        rows, labels = rows.iloc[drawn], labels[drawn]
    splitter = StratifiedKFold(CROSS_VALIDATION, shuffle=True, random_state=SEED)
    folds = list(splitter.split(rows, labels))
    scores = []
    for setting in settings:
        of_folds = []
        for train, held_out in folds:
            model = make(**setting).fit(rows.iloc[train], labels[train])
            score = model.predict_proba(rows.iloc[held_out])[:, 1]
            of_folds.append(average_precision_score(labels[held_out], score))
        scores.append(sum(of_folds))
    return scores.index(max(scores))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])

"""Measures the least work that gives a model: python -m benchmarks.speed.floor CASE ROOT COSTS.

pyarrow reads the same examples from Parquet, numpy computes statistics and encodes, the same
network is trained, scikit-learn evaluates it once. No checks, no lineage, no serving.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter
from benchmarks.speed.case import Case


def main(folder: str, root: str, costs: str) -> None:
    """Writes the model to `root` and the costs of the stages to `costs`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    case, meter = Case(Path(folder)), Meter()
    with meter.stage("imports"):
        import numpy as np
        from sklearn import metrics

        from fraud.models.columns import ModelColumns
        from fraud.models.examples import Examples
        from fraud.models.network import training
        from fraud.pipeline import config as configuration
    config = configuration.load(case.config)
    columns = ModelColumns.of(config.dataset, config.features)
    bins = config.network.bins
    with meter.stage("reading"):
        from pyarrow import parquet

        train, evaluation = (parquet.read_table(case.parquet(split)) for split in ("train", "eval"))
    with meter.stage("statistics"):
        numbers = {name: train.column(name).to_numpy() for name in columns.numeric}
        edges = {
            name: np.nanquantile(values.astype(float), np.linspace(0, 1, bins + 1))
            for name, values in numbers.items()
        }
        known = {name: train.column(name).unique().to_pylist() for name in columns.categorical}
        for values in numbers.values():
            np.nanmean(values), np.nanstd(values), np.isnan(values).mean()

    def encoded(table: Any) -> Examples:
        numeric = np.stack(
            [
                np.interp(table.column(name).to_numpy(), edges[name], np.arange(bins + 1.0))
                for name in columns.numeric
            ],
            axis=1,
        )
        indices = [
            table.column(name).to_pandas().map({v: i + 1 for i, v in enumerate(known[name])})
            for name in columns.categorical
        ]
        categorical = np.stack([index.fillna(0).to_numpy(np.int64) for index in indices], axis=1)
        return Examples(
            {
                "numeric": np.nan_to_num(numeric, nan=-1).astype(np.float32),
                "categorical": categorical,
            },
            *(table.column(c).to_numpy() for c in (columns.label, columns.timestamp, columns.card)),
        )

    with meter.stage("encoding"):
        examples, eval_examples = encoded(train), encoded(evaluation)
    with meter.stage("training"):
        sizes = {name: len(values) + 1 for name, values in known.items()}
        budget = config.evaluation.budget(config.dataset)
        fitted = training.fit(config.network, examples, sizes, budget)
        fitted.model.export(root, verbose=False)
    with meter.stage("evaluation"):
        scores = fitted.scores(eval_examples.inputs)
        average_precision = metrics.average_precision_score(eval_examples.labels, scores)
        print(average_precision, metrics.roc_auc_score(eval_examples.labels, scores))
    meter.write(costs)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Computes the highest Card Precision@k that can be expected on the handbook's simulated data.

    python -m benchmarks.models.ceiling DATA --first-test-day 2018-07-04

A compromised terminal sees frauds of any amount on any card: until the label of its first fraud is
known, nothing in the data distinguishes them from genuine transactions. The scenario that generated
each fraud (a column that no model reads) identifies these undetectable frauds. The ceiling is the
score of an oracle that knows every detectable fraud and ranks all of them first: a model above it
was lucky with the rest of its k cards.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import date

from benchmarks.models.compare import read_folds

COMPROMISED_TERMINAL = 2


def main() -> None:
    """Prints the ceiling of each fold and their mean."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", help="the handbook's transactions, TX_FRAUD_SCENARIO included")
    parser.add_argument("--first-test-day", type=date.fromisoformat, required=True)
    parser.add_argument("--folds", type=int, default=4)
    options = parser.parse_args()

    import numpy as np

    from fraud.pipeline import config
    from fraud.pipeline.backtest import result, rows

    defaults = config.load()
    dataset = replace(defaults.dataset, numeric=("TX_FRAUD_SCENARIO",))
    defaults = replace(defaults, dataset=dataset)
    planned, table = read_folds(options.data, options.first_test_day, options.folds, defaults)
    name = result.card_precision(defaults)
    ceilings = []
    for fold in planned:
        test = rows.split(table, fold, defaults)[1]
        hidden = (test.columns["TX_FRAUD_SCENARIO"] == COMPROMISED_TERMINAL) & ~(
            test.columns["TERMINAL_ID_fraud_streak_30d"] > 0
        )
        # Ties are ranked by time, which says nothing about fraud.
        score = np.where(hidden, 0, test.labels) - np.arange(test.labels.size) * 1e-9
        ceilings.append(result.evaluate(test, score, defaults)[name])
        print(f"{fold.test}  {name} {ceilings[-1]:.4f}  undetectable frauds {hidden.sum()}")
    print(f"mean {np.mean(ceilings):.4f}")


if __name__ == "__main__":
    main()

"""How much of Card Precision@k can be had at all on the handbook's simulated data.

    python -m benchmarks.models.ceiling DATA --first-test-day 2018-07-04

A terminal that is compromised takes fraud of any amount from any customer: until the first of its
frauds is a known label, nothing in the data tells them from genuine transactions. The scenario
that made each fraud (a column that no model reads) tells which frauds these are. A ranking that
knows the truth about every other fraud, and puts all of them first, is the ceiling: a model
above it was lucky in the rest of its k cards.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from datetime import date

COMPROMISED_TERMINAL = 2


def main() -> None:
    """Prints the ceiling of each fold and their mean."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("data", help="the handbook's transactions, TX_FRAUD_SCENARIO included")
    parser.add_argument("--first-test-day", type=date.fromisoformat, required=True)
    parser.add_argument("--folds", type=int, default=4)
    options = parser.parse_args()

    import numpy as np

    from fraud.pipeline import backtest, config
    from fraud.pipeline.ingestion.source import discover

    defaults = config.load()
    dataset = replace(defaults.dataset, numeric=("TX_FRAUD_SCENARIO",))
    defaults = replace(defaults, dataset=dataset)
    planned = backtest.folds(
        options.first_test_day,
        options.folds,
        test_days=7,
        train_days=defaults.windows.train_days,
        delay_days=defaults.windows.label_delay_days,
    )
    source = discover(options.data, dataset)
    table = backtest.read(source, backtest.check_covered(source, planned, defaults), defaults)
    found = []
    for fold in planned:
        test = backtest.split(table, fold, defaults)[1]
        hidden = (test.columns["TX_FRAUD_SCENARIO"] == COMPROMISED_TERMINAL) & ~(
            test.columns["TERMINAL_ID_fraud_streak_30d"] > 0
        )
        # Among equals the order of time, which knows nothing.
        score = np.where(hidden, 0, test.labels) - np.arange(test.labels.size) * 1e-9
        name = backtest.card_precision(defaults)
        found.append(backtest.judged(test, score, defaults)[name])
        print(f"{fold.test}  {name} {found[-1]:.4f}  frauds without a sign {hidden.sum()}")
    print(f"mean {np.mean(found):.4f}")


if __name__ == "__main__":
    main()

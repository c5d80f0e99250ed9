"""Prequential evaluation: train, wait out the label delay, test, move on, repeat.

The protocol is that of the Fraud Detection Handbook, chapters 3 and 5. One fold:

    ───── train ─────        test ────        (the next fold starts test_days later)
                     └ delay ┘

* The days between train and test are the full days by which labels are delayed.
* Cards with a fraud known by a test day are not tested on that day, because they are already
  blocked. Known frauds are those up to the test day − delay − 1, starting `known_days` before the
  delay. The default is the handbook's 7 train days, whatever our train window: which rows are
  tested does not depend on what is trained on, so results compare with the handbook's and with
  each other.
* Metrics are computed on the remaining rows; Card Precision@k is computed per day.

`folds` plans the folds, `rows` reads and splits the data, `processes` trains and tests each fold,
`result` computes metrics and summarizes them.
"""

"""The Evaluator's rule, for models in memory."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fraud.models.evaluation import bootstrap, registry
from fraud.models.evaluation.bootstrap import Outputs
from fraud.models.spec import Evaluation

_CHALLENGER, _CHAMPION = "challenger", "champion"


def refusals(
    labels: NDArray[np.int64],
    cards: NDArray,
    challenger: Outputs,
    champion: Outputs | None,
    evaluation: Evaluation,
) -> tuple[str, ...]:
    """Why a challenger is not pushed; nothing if it is.

    The minima and the comparison with the champion of `fraud.models.evaluation.eval_config`; the
    bank has no slices to compare.

    Args:
      labels, cards: of the eval window, [n].
      challenger, champion: what they say of it; there is no champion at first.
      evaluation: the limits.
    """
    outputs = {_CHALLENGER: challenger} | ({_CHAMPION: champion} if champion else {})
    measured = bootstrap.replicate(labels, outputs, cards)
    found = []
    for metric in registry.METRICS:
        if metric.minimum:
            value = float(measured.values[_CHALLENGER, metric.name][0])
            least = getattr(evaluation, metric.minimum)
            if not value >= least:  # nor if it is undefined
                found.append(f"{metric.title} {value:.3f} is below {least}")
        if metric.max_drop and champion:
            allowed = getattr(evaluation, metric.max_drop)
            probability = measured.drop_probability(metric.name, _CHALLENGER, _CHAMPION, allowed)
            probability = math.nan if probability is None else probability
            if not probability <= evaluation.max_drop_probability:
                found.append(
                    f"{metric.title} is lower by more than {allowed} with probability "
                    f"{probability:.2f}"
                )
    return tuple(found)

"""What the monitor looks at, and from when on it warns: the configuration."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeInt
from pydantic.dataclasses import dataclass

from fraud.codec import STRICT, Count, Share


@dataclass(frozen=True, config=STRICT)
class Monitoring:
    """What `fraud-pipeline monitor` looks at, and its thresholds; see docs/monitoring.md."""

    recent_days: Count = 7
    """Days up to the as-of day in which inputs, scores and alerts are judged."""
    performance_days: Count = 7
    """Days in which performance is judged: the last ones whose labels are known."""
    broken_share: Share = 0.25
    """Share of a day's rows that lack a column or have 0 or an unknown category in it, beyond what
    is normal, from which on the column counts as broken rather than changed."""
    promise_days: Count = 42
    """Days in which what was live counts for what production should achieve: a version that was
    trained during a change promises little itself."""
    max_drop: Share = 0.05
    """How far average precision, precision and recall may be below what the Evaluator measured."""
    warn_probability: Annotated[float, Field(gt=0.5, lt=1)] = 0.8
    """Probability of a larger drop, or of another excess, from which on a check warns."""
    act_probability: Annotated[float, Field(gt=0.5, lt=1)] = 0.95
    """The same, from which on it asks to act."""
    max_alert_factor: Annotated[float, Field(gt=1)] = 2.0
    """How many times as many, or as few, alerts there may be as in the Evaluator's window."""
    max_miscalibration: Annotated[float, Field(gt=1)] = 2.0
    """How many times as large, or as small, as the share of frauds the mean score may be."""
    max_divergence: Share = 0.05
    """Jensen-Shannon divergence of the scores from the Evaluator's that asks to act, or of a
    feature from training that warns; by convention, .018 is a moderate change and .045 a large one
    (a population stability index of .1 and .25)."""
    max_skew: Share = 0.01
    """Share of the transactions in which a feature may differ between scoring and training."""
    skew_rows: Count = 1000
    """Transactions of the as-of day whose features are computed again, to compare them."""
    max_estimate_error: Share = 0.1
    """How far the estimate of a metric may have been from what labels then said; beyond, and if it
    is not chance, estimates are not trusted."""
    min_rows: Count = 200
    """Transactions without which scores, alerts and skew are not judged."""
    min_scored: Share = 0.95
    """Share of the transactions of a day that must be in the prediction log; with less than half of
    them, a check asks to act."""
    max_stale_days: NonNegativeInt = 0
    """Days up to the as-of day that may lack transactions, and days that may lack labels although
    these are due."""
    max_age_days: Count | None = None
    """Days from the as-of day of the model's data from which on a new one should be trained; null
    means that age alone is no reason."""
    new_frauds: Count | None = None
    """Frauds whose labels the model has not seen, from which on a new one should be trained; null
    means that they alone are no reason."""

"""The settings of the network that follow the data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from fraud import codec
from fraud.models.spec import Network, ResolvedNetwork

FEWEST_EPOCHS, MOST_EPOCHS = 6, 20
MOST_MEMBERS = 10
PLENTY = 200_000  # rows from which the fewest epochs are enough
EXAMPLES = 2_000_000  # rows × epochs × members that a training may cost
STEPS = 1000  # of the optimizer, at least


def resolve(network: Network, rows: int) -> ResolvedNetwork:
    """Fills in the settings that are None from the number of rows in the train window.

    Args:
      network: the configured settings; those that are not None are kept.
      rows: number of examples in the train window.
    """
    given = {name: value for name, value in asdict(network).items() if value is not None}
    epochs = given.get("epochs", epochs_for(rows))
    members = given.get("members", members_for(rows, epochs))
    following: dict[str, Any] = {
        "epochs": epochs,
        "patience": max(1, epochs // 2),
        "members": members,
        "validation_percent": 20 if members > 2 else 10,
        "batch_size": batch_size_for(rows, epochs),
        "dropout": 0.2 if rows < PLENTY else 0.0,
        "learning_rate": 4e-3,
        "weight_decay": 1e-2,
    }
    return codec.from_values(ResolvedNetwork, {**following, **given})


def epochs_for(rows: int) -> int:
    """More passes over fewer rows, by the square root."""
    wanted = FEWEST_EPOCHS * math.sqrt(PLENTY / max(1, rows))
    return min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(wanted)))


def members_for(rows: int, epochs: int) -> int:
    """As many members as the cost of a training allows."""
    return min(MOST_MEMBERS, max(1, round(EXAMPLES / (max(1, rows) * epochs))))


def batch_size_for(rows: int, epochs: int) -> int:
    """The power of two with which a training has about `STEPS` steps, from 32 to 1024."""
    return 2 ** min(10, max(5, round(math.log2(max(1, rows * epochs / STEPS)))))

"""The settings of the network that follow the data."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

from fraud import codec
from fraud.models.spec import Network, ResolvedNetwork

MOST_EPOCHS = 20
EPOCHS = 6  # where there is plenty, and not a lot
FEWEST_EPOCHS = 2  # with one, there would be nothing to choose from
MOST_MEMBERS = 10
PLENTY = 40_000  # rows from which the fewest epochs are enough
A_LOT = 250_000  # rows from which each pass brings more steps than are needed
SCARCE = 20_000  # rows below which something is dropped in training
ENOUGH = 5_000  # rows from which whole columns can be missed; with fewer, hidden units are dropped
MANY_CATEGORIES = 20  # categorical columns from which the same is true
EXAMPLES = 1_500_000  # rows × epochs × members that a training may cost
STEPS_PER_EPOCH = 50  # at least: with fewer the network learns nothing


def resolve(network: Network, rows: int, categories: int) -> ResolvedNetwork:
    """Fills in the settings that are None from the size of the train window.

    Args:
      network: the configured settings; those that are not None are kept.
      rows: number of examples in the train window.
      categories: number of categorical columns that the network reads.
    """
    given = {name: value for name, value in asdict(network).items() if value is not None}
    epochs = given.get("epochs", epochs_for(rows))
    members = given.get("members", members_for(rows, epochs))
    scarce = rows < SCARCE
    hides = scarce and rows >= ENOUGH and categories >= MANY_CATEGORIES
    following: dict[str, Any] = {
        "epochs": epochs,
        "patience": max(1, epochs // 2),
        "members": members,
        "validation_percent": 20 if members > 2 else 10,
        "batch_size": min(1024, max(1, rows // STEPS_PER_EPOCH)),
        "dropout": 0.2 if scarce and not hides else 0.0,
        "column_dropout": 0.3 if hides else 0.0,
        # A network that sees fewer columns at a time has use for more units.
        "towers": ((256, 128),) if hides else ((128, 64),),
    }
    return codec.from_values(ResolvedNetwork, {**following, **given})


def epochs_for(rows: int) -> int:
    """More passes over fewer rows.

    Above `A_LOT` rows, the number of steps grows with the square root of the number of rows.
    """
    if rows > A_LOT:
        return max(FEWEST_EPOCHS, round(EPOCHS * math.sqrt(A_LOT / rows)))
    wanted = EPOCHS * PLENTY / max(1, rows)
    return min(MOST_EPOCHS, max(EPOCHS, round(wanted)))


def members_for(rows: int, epochs: int) -> int:
    """As many members as the cost of a training allows."""
    return min(MOST_MEMBERS, max(1, round(EXAMPLES / (max(1, rows) * epochs))))

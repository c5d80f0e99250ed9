"""Point-in-time features of transactions; docs/features.md describes every family."""

import importlib
from typing import TYPE_CHECKING, Any

from fraud.features.spec import Dataset, FeatureGroup, Features

if TYPE_CHECKING:
    from fraud.features.batch import (
        add_features,
        calendar_features,
        check,
        entity_feature_names,
        entity_features,
        feature_names,
        history_days,
    )

__all__ = [
    "Dataset",
    "FeatureGroup",
    "Features",
    "add_features",
    "calendar_features",
    "check",
    "entity_feature_names",
    "entity_features",
    "feature_names",
    "history_days",
]


def __getattr__(name: str) -> Any:
    """Imports the functions on first use: they need numpy, the command line's `--help` does not."""
    if name in __all__:
        return getattr(importlib.import_module("fraud.features.batch"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

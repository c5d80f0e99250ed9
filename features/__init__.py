"""Point-in-time features of transactions; docs/features.md describes every family."""

from fraud.features.batch import (
    add_features,
    calendar_features,
    check,
    entity_feature_names,
    entity_features,
    feature_names,
    history_days,
)
from fraud.features.spec import Dataset, FeatureGroup, Features

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

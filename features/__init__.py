"""Point-in-time features of transactions: one definition, any entity, any window.

See docs/features.md for every family.
"""

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

"""The fraud pipeline. Its parts are the folders next to this one: `fraud.models` is `models/`."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("DataVerdict", "ModelCard", "Observation"):  # see fraud.pipeline.components.types
        from fraud.pipeline.components import types

        return getattr(types, name)
    raise AttributeError(name)

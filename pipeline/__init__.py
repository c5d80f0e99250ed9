"""The production pipeline: configuration, windows, graph, components, runners, command."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name in ("DataVerdict", "ModelCard"):  # see pipeline.components.types
        from pipeline.components import types

        return getattr(types, name)
    raise AttributeError(name)

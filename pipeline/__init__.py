"""The production pipeline: configuration, windows, graph, components, runners, command."""

from typing import Any


def __getattr__(name: str) -> Any:
    # Vertex AI knows an artifact's class by the name of its type: one package, one class.
    if name == "DataVerdict":
        from pipeline.components.types import DataVerdict

        return DataVerdict
    raise AttributeError(name)

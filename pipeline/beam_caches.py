"""Caches two answers that Beam computes thousands of times in a run: ADR 49 has the figures.

To build and run a graph, Beam inspects the arguments of all methods of a DoFn again for each check
of it, and parses the pipeline's flags again for each type it infers. Neither answer changes.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

Arguments = tuple[list[str], list[Any]]
"""The names of a function's positional arguments, and the defaults of the last of them."""


def install() -> None:
    """Adds the caches to Beam, once."""
    from apache_beam.options.pipeline_options import PipelineOptions
    from apache_beam.transforms import core

    if not hasattr(core.get_function_args_defaults, "__wrapped__"):
        core.get_function_args_defaults = _once_per_method(core.get_function_args_defaults)
        PipelineOptions.view_as = _once_per_options(PipelineOptions.view_as)


def _once_per_method(arguments: Callable[[Any], Arguments]) -> Callable[[Any], Arguments]:
    """Caches the arguments of bound methods by function, which all instances of a class share."""
    known: WeakKeyDictionary[Any, Arguments] = WeakKeyDictionary()

    @functools.wraps(arguments)
    def cached(method: Any) -> Arguments:
        function = getattr(method, "__func__", None)
        if type(method) is not types.MethodType or type(function) is not types.FunctionType:
            return arguments(method)
        answer = known.get(function)
        if answer is None:
            answer = known[function] = arguments(method)
        names, defaults = answer
        return list(names), list(defaults)

    return cached


def _once_per_options(view_as: Callable[[Any, type], Any]) -> Callable[[Any, type], Any]:
    """Caches the views of options; all views share one dictionary of values, so none is stale."""
    views: WeakKeyDictionary[Any, dict[type, Any]] = WeakKeyDictionary()

    @functools.wraps(view_as)
    def cached(options: Any, cls: type) -> Any:
        of_options = views.setdefault(options, {})
        view = of_options.get(cls)
        if view is None or view._all_options is not options._all_options:
            view = of_options[cls] = view_as(options, cls)
        return view

    return cached

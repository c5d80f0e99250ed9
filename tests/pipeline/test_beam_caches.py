"""Beam's cached answers are the ones that it would compute."""

from __future__ import annotations

import gc
import inspect
import types
import weakref
from collections.abc import Callable, Iterator

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import DebugOptions, PipelineOptions, StandardOptions
from apache_beam.transforms import core, userstate
from apache_beam.transforms.userstate import ReadModifyWriteStateSpec

from fraud.pipeline import beam_caches


@pytest.fixture(autouse=True)
def _fresh_caches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches without answers from other tests, even where a test before has called `import_tfx`."""
    functions = [(core, "get_function_args_defaults"), (PipelineOptions, "view_as")]
    for owner, name in functions:
        installed = getattr(owner, name)
        monkeypatch.setattr(owner, name, getattr(installed, "__wrapped__", installed))
    beam_caches.install()


class Stateful(beam.DoFn):
    """A DoFn with state."""

    LAST = ReadModifyWriteStateSpec("last", beam.coders.FloatCoder())

    def process(
        self,
        element: tuple[str, float],
        last: object = beam.DoFn.StateParam(LAST),
        share: float = 0.5,
    ) -> Iterator[float]:
        yield share


class Stateless(Stateful):
    """The same by another `process`."""

    def process(self, element: tuple[str, float]) -> Iterator[float]:
        yield element[1]


def _subclasses(of: type) -> Iterator[type]:
    for cls in of.__subclasses__():
        yield cls
        yield from _subclasses(cls)


def test_the_arguments_of_all_methods_of_all_dofns_are_beams() -> None:
    computed = core.get_function_args_defaults.__wrapped__
    compared = 0
    for cls in {beam.DoFn, *_subclasses(beam.DoFn)}:
        for name in dir(cls):
            function = inspect.getattr_static(cls, name)
            if isinstance(function, types.FunctionType):
                method = types.MethodType(function, object.__new__(cls))
                for _ in range(2):
                    assert core.get_function_args_defaults(method) == computed(method), (cls, name)
                compared += 1
    assert compared > 500


def _recording(seen: list[object], signature: Callable[[object], object]) -> Callable[..., object]:
    def recorded(function: object) -> object:
        seen.append(function)
        return signature(function)

    return recorded


def test_arguments_are_computed_once_per_function(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []
    signature = core.get_signature
    monkeypatch.setattr(core, "get_signature", _recording(seen, signature))
    first = core.get_function_args_defaults(Stateful().process)
    first[0].clear()  # the caller's own list
    assert core.get_function_args_defaults(Stateful().process)[0] == ["element", "last", "share"]
    assert len(seen) == 1


def test_an_override_in_a_subclass_has_its_own_arguments() -> None:
    assert userstate.is_stateful_dofn(Stateful())
    assert not userstate.is_stateful_dofn(Stateless())
    assert userstate.get_dofn_specs(Stateful()) == ({Stateful.LAST}, set())


def test_functions_that_beam_wraps_alike_keep_their_own_arguments() -> None:
    one = core.CallableWrapperDoFn(lambda row: [row])
    two = core.CallableWrapperDoFn(lambda row, factor=3: [row * factor])
    assert core.get_function_arguments(one, "process") == (["row"], [])
    assert core.get_function_arguments(two, "process") == (["row", "factor"], [3])


def test_a_view_is_built_once_and_shows_later_changes() -> None:
    options = PipelineOptions(["--runner=FlinkRunner"])
    view = options.view_as(StandardOptions)
    assert options.view_as(StandardOptions) is view
    options.view_as(StandardOptions).runner = "DirectRunner"
    assert view.runner == "DirectRunner"
    assert view.view_as(DebugOptions).view_as(StandardOptions).runner == "DirectRunner"


def test_options_do_not_share_views() -> None:
    flink, local = (PipelineOptions([f"--runner={name}"]) for name in ("Flink", "Direct"))
    assert flink.view_as(StandardOptions).runner == "Flink"
    assert local.view_as(StandardOptions).runner == "Direct"


def test_options_whose_values_were_replaced_get_a_new_view() -> None:
    options = PipelineOptions(["--runner=Flink"])
    options.view_as(StandardOptions)
    options._all_options = {"runner": "Direct"}
    assert options.view_as(StandardOptions).runner == "Direct"


def test_the_caches_keep_nothing_alive() -> None:
    def defined_here() -> weakref.ref[object]:
        class Temporary(beam.DoFn):
            def process(self, element: int) -> list[int]:
                return [element]

        core.get_function_args_defaults(Temporary().process)
        options = PipelineOptions([])
        options.view_as(StandardOptions).view_as(DebugOptions)
        alive.append(weakref.ref(options))
        return weakref.ref(Temporary.process)

    alive: list[weakref.ref[object]] = []
    alive.append(defined_here())
    gc.collect()
    assert [reference() for reference in alive] == [None, None]


def test_installing_twice_wraps_once() -> None:
    installed = core.get_function_args_defaults, PipelineOptions.view_as
    beam_caches.install()
    assert (core.get_function_args_defaults, PipelineOptions.view_as) == installed

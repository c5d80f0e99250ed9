"""How TFX's standard components get executors of ours."""

from __future__ import annotations

from typing import TypeVar

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_driver import BaseDriver
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec, ExecutorClassSpec

Component = TypeVar("Component", bound=BaseComponent)


def with_executor(component: Component, executor: type[BaseExecutor]) -> Component:
    """Replaces the executor of a component. To ML Metadata it remains the component of TFX."""
    spec = BeamExecutorSpec if issubclass(executor, BaseBeamExecutor) else ExecutorClassSpec
    component.executor_spec = spec(executor)
    return component


def with_driver(component: Component, driver: type[BaseDriver]) -> Component:
    """Adds a driver, which Vertex AI does not run. To ML Metadata it remains what it is."""
    component.driver_class = driver
    return component


class LocalBeam:
    """Mixin of Beam executors: runs in this process unless Beam arguments name another runner.

    Beam's own default first tries its Prism runner, a program that it downloads.
    """

    def _make_beam_pipeline(self) -> beam.Pipeline:
        if self._beam_pipeline_args or self._make_beam_pipeline_fn:  # type: ignore[attr-defined]
            return super()._make_beam_pipeline()  # type: ignore[misc]
        return beam.Pipeline(runner=FnApiRunner())

"""Executors of ours in components of TFX."""

from __future__ import annotations

import apache_beam as beam
import pytest
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from tfx.components import Pusher, StatisticsGen
from tfx.dsl.components.base.base_component import BaseComponent
from tfx.dsl.components.base.base_executor import BaseExecutor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec, ExecutorClassSpec
from tfx.proto import pusher_pb2
from tfx.types import Channel, standard_artifacts

from fraud.pipeline.components.batched_reading import StatisticsGenExecutor
from fraud.pipeline.components.executors import with_executor
from fraud.pipeline.components.pusher import PusherExecutor
from fraud.pipeline.components.transaction_example_gen import Executor as ExampleGenExecutor


def statistics_gen() -> StatisticsGen:
    return StatisticsGen(examples=Channel(type=standard_artifacts.Examples))


def pusher() -> Pusher:
    destination = pusher_pb2.PushDestination(
        filesystem=pusher_pb2.PushDestination.Filesystem(base_directory="pushed")
    )
    return Pusher(
        model=Channel(type=standard_artifacts.Model),
        model_blessing=Channel(type=standard_artifacts.ModelBlessing),
        push_destination=destination,
    )


@pytest.mark.parametrize(
    ("stock", "executor", "spec"),
    [
        (statistics_gen, StatisticsGenExecutor, BeamExecutorSpec),
        (pusher, PusherExecutor, ExecutorClassSpec),
    ],
)
def test_the_executor_changes_but_not_the_component(
    stock: type[BaseComponent], executor: type[BaseExecutor], spec: type
) -> None:
    component = with_executor(stock(), executor)
    assert component.type == stock().type
    assert component.executor_spec.executor_class is executor
    assert type(component.executor_spec) is spec
    assert stock().executor_spec.executor_class is not executor


@pytest.mark.parametrize("executor_class", [StatisticsGenExecutor, ExampleGenExecutor])
def test_beam_arguments_choose_the_runner(executor_class: type) -> None:
    executor = executor_class()
    assert type(executor._make_beam_pipeline().runner) is FnApiRunner
    chosen = beam.Pipeline()
    executor._make_beam_pipeline_fn = lambda: chosen
    assert executor._make_beam_pipeline() is chosen

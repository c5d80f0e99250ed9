"""Measures the same graph in stock TFX: python -m benchmarks.speed.stock CASE ROOT COSTS.

Components, executors, Beam and reading are TFX's, with its defaults. The data is the same examples
as a CSV file with our features as columns. Preprocessing, network and training are ours, in
functions like those of TFX's templates (`benchmarks.speed.twin`).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.meter import Meter
from benchmarks.speed.case import SPLITS, Case

if TYPE_CHECKING:
    from tensorflow_model_analysis.proto import config_pb2
    from tfx.orchestration.pipeline import Pipeline

    from fraud.pipeline.config import Config


def pipeline(case: Case, root: Path) -> Pipeline:
    """The graph: CsvExampleGen to Pusher."""
    from tfx import v1 as tfx

    from fraud import codec
    from fraud.models.columns import ModelColumns
    from fraud.pipeline import config as configuration

    config = configuration.load(case.config)
    columns = ModelColumns.of(config.dataset, config.features)
    learned = {
        "columns": codec.to_json(columns),
        "network": codec.to_json(config.network),
    }
    splits = [tfx.proto.Input.Split(name=name, pattern=f"{name}/*") for name in SPLITS]
    example_gen = tfx.components.CsvExampleGen(
        input_base=str(case.csv("train").parent.parent),
        input_config=tfx.proto.Input(splits=splits),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(examples=examples)
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = tfx.components.SchemaGen(statistics=statistics, exclude_splits=["eval", "recent"])
    schema = schema_gen.outputs["schema"]
    validator = tfx.components.ExampleValidator(statistics=statistics, schema=schema)
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema,
        preprocessing_fn="benchmarks.speed.twin.preprocessing_fn",
        splits_config=tfx.proto.SplitsConfig(analyze=["train"], transform=["train", "eval"]),
        custom_config=learned,
    )
    trainer = tfx.components.Trainer(
        examples=transform.outputs["transformed_examples"],
        transform_graph=transform.outputs["transform_graph"],
        schema=schema,
        run_fn="benchmarks.speed.twin.run_fn",
        train_args=tfx.proto.TrainArgs(splits=["train"]),
        eval_args=tfx.proto.EvalArgs(splits=["eval"]),
        custom_config={
            **learned,
            "alert_budget": codec.to_json(config.evaluation.budget(config.dataset)),
            "inputs": codec.to_json(config.inputs),
        },
    )
    evaluator = tfx.components.Evaluator(
        examples=examples,
        model=trainer.outputs["model"],
        eval_config=eval_config(config),
        example_splits=["eval"],
    )
    pusher = tfx.components.Pusher(
        model=trainer.outputs["model"],
        model_blessing=evaluator.outputs["blessing"],
        push_destination=tfx.proto.PushDestination(
            filesystem=tfx.proto.PushDestination.Filesystem(base_directory=str(root / "pushed"))
        ),
    )
    nodes = [example_gen, statistics_gen, schema_gen, validator, transform]
    return tfx.dsl.Pipeline(
        pipeline_name="stock",
        pipeline_root=str(root / "artifacts"),
        components=[*nodes, trainer, evaluator, pusher],
        metadata_connection_config=tfx.orchestration.metadata.sqlite_metadata_connection_config(
            str(root / "metadata.sqlite")
        ),
    )


def eval_config(config: Config) -> config_pb2.EvalConfig:
    """Our slices, metrics and thresholds, without the metrics that TFMA does not have."""
    from fraud.models.evaluation import eval_config as evaluation

    ours = evaluation.eval_config(config.dataset, config.evaluation)
    del ours.metrics_specs[-1]
    for metrics in ours.metrics_specs:
        metrics.ClearField("example_weights")  # ours counts examples by their weights
    return ours


def main(folder: str, root: str, costs: str) -> None:
    """Runs the graph, and writes the costs of its nodes to `costs`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
    meter = Meter()
    with meter.stage("imports"):
        from tfx import v1 as tfx
    with meter.nodes():
        tfx.orchestration.LocalDagRunner().run(pipeline(Case(Path(folder)), Path(root)))
    if not any(Path(root, "pushed").iterdir()):
        raise SystemExit("the stock run pushed nothing")
    meter.write(costs)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The graph: how the components are connected, in three stages: data, training, release."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from tfx import types
from tfx.components import (
    Evaluator,
    ExampleValidator,
    Pusher,
    SchemaGen,
    StatisticsGen,
    Trainer,
    Transform,
    Tuner,
)
from tfx.components.distribution_validator.component import DistributionValidator
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base.base_node import BaseNode
from tfx.dsl.components.common.resolver import Resolver, ResolverStrategy
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import distribution_validator_pb2, pusher_pb2, trainer_pb2, transform_pb2
from tfx.types import standard_artifacts

from fraud.codec import to_json
from fraud.features.batch import feature_names
from fraud.models.columns import ModelColumns
from fraud.models.evaluation.eval_config import eval_config
from fraud.models.spec import Network
from fraud.pipeline import lineage
from fraud.pipeline.components.batched_reading import EvaluatorExecutor, StatisticsGenExecutor
from fraud.pipeline.components.champion import (
    ChampionModel,
    ChampionStatistics,
    ReferenceStatistics,
)
from fraud.pipeline.components.daily_counts import COUNTS_BY_DAY, ToCount
from fraud.pipeline.components.data_gate import DataGate
from fraud.pipeline.components.drift_validator import DistributionValidatorExecutor
from fraud.pipeline.components.executors import with_driver, with_executor
from fraud.pipeline.components.model_card_gen import ModelCardGen
from fraud.pipeline.components.pusher import PusherDriver, PusherExecutor
from fraud.pipeline.components.schema_gen import COLUMNS, SchemaGenExecutor
from fraud.pipeline.components.serving_check import ServingCheck
from fraud.pipeline.components.trainer import TrainerExecutor
from fraud.pipeline.components.transaction_example_gen import TransactionExampleGen
from fraud.pipeline.components.transform import TransformExecutor
from fraud.pipeline.config import Config
from fraud.pipeline.drift import ROWS
from fraud.pipeline.root import Root

NAME = "fraud"
SERVING_CHECK_EXAMPLES = 100

AS_OF, DATA, SCHEMA = "as_of", "data", "schema"
"""The parameters of a run."""


@dataclass(frozen=True)
class DataStage:
    """The nodes and outputs of the data stage."""

    nodes: list[BaseNode]
    examples: types.Channel
    schema: types.Channel  # the curated one; without it, the inferred one
    verdict: types.Channel


def create_pipeline(config: Config, root: Root, data: str, latest: bool = False) -> Pipeline:
    """Wires the graph. The as-of day, the data and the schema file are parameters of each run.

    Args:
      config: everything the runs depend on.
      root: where artifacts, ML Metadata and pushed models are kept.
      data: day folders or one file of transactions; the default of the data parameter.
      latest: compare with the latest blessed model and the latest statistics instead of those of
        the champion; for Vertex AI, which does not support custom resolver strategies.
    """
    ingested = data_stage(config, data, latest)
    with Cond(ingested.verdict.future()[0].custom_property("passed") == 1):
        trained, challenger = training_stage(config, root, ingested)
        released = release_stage(config, root, ingested, challenger, latest)
    return Pipeline(
        pipeline_name=NAME,
        pipeline_root=str(root.artifacts),
        components=[*ingested.nodes, *trained, *released],
        metadata_connection_config=lineage.connection_config(config.metadata, root),
        beam_pipeline_args=config.beam.arguments,
        enable_cache=True,
    )


def data_stage(config: Config, data: str, latest: bool) -> DataStage:
    """From transactions to examples that the data gate has judged."""
    example_gen = TransactionExampleGen(
        data=RuntimeParameter(DATA, str, data),
        as_of=RuntimeParameter(AS_OF, str),
        dataset=to_json(config.dataset),
        windows=to_json(config.windows),
        features=to_json(config.features),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = with_executor(StatisticsGen(examples=examples), StatisticsGenExecutor)
    statistics_gen.exec_properties[COUNTS_BY_DAY] = to_json(to_count(config))
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = with_executor(
        SchemaGen(
            statistics=statistics, infer_feature_shape=False, exclude_splits=["eval", "recent"]
        ),
        SchemaGenExecutor,
    )
    columns = ModelColumns.of(config.dataset, config.features)
    schema_gen.exec_properties[COLUMNS] = to_json(columns)
    nodes = [example_gen, statistics_gen, schema_gen]
    schema = schema_gen.outputs["schema"]
    if config.curated_schema is not None:
        schema_file = RuntimeParameter(SCHEMA, str, str(config.curated_schema))
        curated_schema = ImportSchemaGen(schema_file=schema_file).with_id("CuratedSchema")
        schema = curated_schema.outputs["schema"]
        nodes.append(curated_schema)

    example_validator = ExampleValidator(statistics=statistics, schema=schema)
    champion = _baseline(statistics, latest, ChampionStatistics).with_id("ChampionStatistics")
    reference = _baseline(
        statistics, latest, ReferenceStatistics, run_id=config.data_gate.reference_run or ""
    ).with_id("ReferenceStatistics")
    drift_validator, reference_validator = (
        with_executor(
            DistributionValidator(
                statistics=statistics,
                baseline_statistics=baseline.outputs["baseline"].as_optional(),
                config=drift_config(config),
                include_split_pairs=[(split, "train") for split in _drift_splits(config)],
            ),
            DistributionValidatorExecutor,
        )
        for baseline in (champion, reference)
    )
    reference_validator = reference_validator.with_id("ReferenceValidator")
    data_gate = DataGate(
        examples=examples,
        statistics=statistics,
        example_anomalies=example_validator.outputs["anomalies"],
        drift_anomalies=drift_validator.outputs["anomalies"],
        reference_anomalies=reference_validator.outputs["anomalies"],
        label=config.dataset.label,
        derived=json.dumps(feature_names(config.features, config.dataset)),
        columns=json.dumps([*columns.numeric, *columns.categorical]),
        empty_columns=config.data_gate.empty_columns,
        severity=config.data_gate.severity,
        curated=int(config.curated_schema is not None),
    )
    nodes += [example_validator, champion, drift_validator]
    nodes += [reference, reference_validator, data_gate]
    return DataStage(nodes, examples, schema, data_gate.outputs["verdict"])


def training_stage(
    config: Config, root: Root, ingested: DataStage
) -> tuple[list[BaseNode], types.Channel]:
    """From judged examples to a challenger, with a search for hyperparameters if configured.

    Returns:
      The nodes, and the challenger.
    """
    columns = to_json(ModelColumns.of(config.dataset, config.features))
    network = config.network
    # Pass only the settings Transform uses, so that other changes still hit its cache.
    preprocessing = Network(
        bins=network.bins,
        vocabulary_size=network.vocabulary_size,
        oov_buckets=network.oov_buckets,
    )
    transform = with_executor(
        Transform(
            examples=ingested.examples,
            schema=ingested.schema,
            preprocessing_fn="fraud.models.preprocessing.transform_fn.preprocessing_fn",
            splits_config=transform_pb2.SplitsConfig(analyze=["train"], transform=[]),
            custom_config={"columns": columns, "network": to_json(preprocessing)},
            materialize=False,
            disable_statistics=True,
            # It helps only with several spans; the windows of a run are a single one.
            disable_analyzer_cache=True,
        ),
        TransformExecutor,
    )
    training_config = {
        "columns": columns,
        "network": to_json(network),
        "alert_budget": to_json(config.evaluation.budget(config.dataset)),
        "inputs": to_json(config.inputs),
    }
    if config.network.workers > 1:
        training_config["workers_folder"] = str(root.workers)
    tuner = None
    if config.tuning.enabled:
        tuner = Tuner(
            examples=ingested.examples,
            transform_graph=transform.outputs["transform_graph"],
            tuner_fn="fraud.models.network.tuning.tuner_fn",
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
            custom_config={**training_config, "tuning": to_json(config.tuning)},
        )
    trainer = with_executor(
        Trainer(
            examples=ingested.examples,
            transform_graph=transform.outputs["transform_graph"],
            hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
            schema=ingested.schema,
            run_fn="fraud.models.entry_point.run_fn",
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
            custom_config=training_config,
        ),
        TrainerExecutor,
    )
    nodes = [tuner, transform, trainer] if tuner else [transform, trainer]
    return nodes, trainer.outputs["model"]


def release_stage(
    config: Config, root: Root, ingested: DataStage, model: types.Channel, latest: bool
) -> list[BaseNode]:
    """Compares the challenger with the champion, pushes it if it may replace it, and reports."""
    examples = ingested.examples
    champion = _champion(model, examples, latest).with_id("Champion")
    evaluator = with_executor(
        Evaluator(
            examples=examples,
            model=model,
            baseline_model=champion.outputs["model"],
            eval_config=eval_config(config.dataset, config.evaluation),
            example_splits=["eval"],
            module_path="fraud.models.evaluation.extractors",
        ),
        EvaluatorExecutor,
    )
    serving_check = ServingCheck(
        model=model,
        examples=examples,
        count=SERVING_CHECK_EXAMPLES,
        max_latency_ms=config.serving.max_latency_ms,
    )
    pusher = with_executor(
        Pusher(
            model=model,
            model_blessing=evaluator.outputs["blessing"],
            infra_blessing=serving_check.outputs["blessing"],
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(root.pushed))
            ),
            custom_config=dataclasses.asdict(config.release),
        ),
        PusherExecutor,
    )
    pusher = with_driver(pusher, PusherDriver)
    model_card = ModelCardGen(
        examples=examples,
        verdict=ingested.verdict,
        model=model,
        evaluation=evaluator.outputs["evaluation"],
        infra_blessing=serving_check.outputs["blessing"],
        pushed_model=pusher.outputs["pushed_model"],
        text=to_json(config.model_card),
        columns=to_json(ModelColumns.of(config.dataset, config.features)),
        evaluation_settings=to_json(config.evaluation),
        alert_budget=str(config.evaluation.budget(config.dataset)),
        label_known=(
            f"the moment in {config.dataset.label_time}"
            if config.dataset.label_time
            else f"{config.windows.label_delay_days} days after its transaction"
        ),
    )
    return [champion, evaluator, serving_check, pusher, model_card]


def _baseline(
    statistics: types.Channel, latest: bool, strategy: type[ResolverStrategy], **settings: Any
) -> Resolver:
    """Resolves the statistics that drift is measured against."""
    statistics_of_any_run = types.Channel(type=standard_artifacts.ExampleStatistics)
    if latest:
        return Resolver(strategy_class=LatestArtifactStrategy, baseline=statistics_of_any_run)
    return Resolver(
        strategy_class=strategy,
        config=settings,
        statistics=statistics,
        baseline=statistics_of_any_run,
        pushed_model=types.Channel(type=standard_artifacts.PushedModel),
    )


def _champion(model: types.Channel, examples: types.Channel, latest: bool) -> Resolver:
    """Resolves the model that the challenger is compared with."""
    model_of_any_run = types.Channel(type=standard_artifacts.Model)
    if latest:
        return Resolver(
            strategy_class=LatestBlessedModelStrategy,
            model=model_of_any_run,
            model_blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
    return Resolver(
        strategy_class=ChampionModel,
        challenger=model,
        examples=examples,
        model=model_of_any_run,
        pushed_model=types.Channel(type=standard_artifacts.PushedModel),
    )


def to_count(config: Config) -> ToCount:
    """What StatisticsGen counts by day: the columns of the data, and features that are named.

    Features are checked only if a threshold names them: they change when the columns do, and those
    that look back over weeks vary too slowly for a month to show by how much.
    """
    dataset = config.dataset
    amount = (dataset.amount,) if dataset.amount else ()
    columns = dict.fromkeys((*amount, *dataset.numeric, *dataset.categorical))
    columns |= dict.fromkeys(name for name in config.data_gate.drift_thresholds if name != ROWS)
    return ToCount(tuple(columns), dataset.timestamp, dataset.card, dataset.timezone)


def drift_config(config: Config) -> distribution_validator_pb2.DistributionValidatorConfig:
    """The configured thresholds of drift; the executor derives the others."""
    gate = config.data_gate
    thresholds = dict(gate.drift_thresholds)
    if gate.max_drift is not None:
        thresholds = {
            **dict.fromkeys((*to_count(config).columns, ROWS), gate.max_drift),
            **thresholds,
        }
    drift = distribution_validator_pb2.DistributionValidatorConfig()
    for column, threshold in thresholds.items():
        feature = drift.default_slice_config.feature.add()
        feature.path.step.append(column)
        feature.distribution_comparator.jensen_shannon_divergence.threshold = threshold
    return drift


def _drift_splits(config: Config) -> list[str]:
    has_recent = config.dataset.timestamp and config.windows.label_delay_days
    return ["train", "eval", "recent"] if has_recent else ["train", "eval"]

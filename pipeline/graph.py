"""The graph: which component takes what from which. Wiring, nothing else."""

from __future__ import annotations

import json

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
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.dsl.input_resolution.strategies.latest_artifact_strategy import LatestArtifactStrategy
from tfx.dsl.input_resolution.strategies.latest_blessed_model_strategy import (
    LatestBlessedModelStrategy,
)
from tfx.orchestration.data_types import RuntimeParameter
from tfx.orchestration.pipeline import Pipeline
from tfx.proto import distribution_validator_pb2, pusher_pb2, trainer_pb2, transform_pb2
from tfx.types import standard_artifacts

from fraud import features
from fraud.codec import to_json
from fraud.models.columns import ModelColumns
from fraud.models.evaluation.eval_config import eval_config
from fraud.models.spec import Network
from fraud.pipeline import lineage
from fraud.pipeline.components.batched_reading import in_batches
from fraud.pipeline.components.champion import ChampionModel, ChampionStatistics
from fraud.pipeline.components.data_gate import DataGate
from fraud.pipeline.components.model_card_gen import ModelCard
from fraud.pipeline.components.pusher import AtomicPusherExecutor
from fraud.pipeline.components.serving_check import ServingCheck
from fraud.pipeline.components.trainer import MeasuredTrainerExecutor
from fraud.pipeline.components.transaction_example_gen import TransactionExampleGen
from fraud.pipeline.components.transform import in_one_pass
from fraud.pipeline.config import Config
from fraud.pipeline.root import Root

NAME = "fraud"
SERVING_CHECK_EXAMPLES = 100

AS_OF, DATA, SCHEMA = "as_of", "data", "schema"
"""The parameters of a run."""


def create_pipeline(config: Config, root: Root, data: str, latest: bool = False) -> Pipeline:
    """Wires the graph. The as-of day, the data and the schema's file are parameters of each run.

    Args:
      config: everything the runs depend on.
      root: where artifacts, ML Metadata and pushed models lie.
      data: day folders or one file of transactions; what runs read unless told otherwise.
      latest: compare with the latest blessed model and the latest statistics instead of those of
        the champion; for Vertex AI, where strategies of ours are not known.
    """
    columns = ModelColumns.of(config.dataset, config.features)
    learned = {"columns": to_json(columns), "network": to_json(config.network)}
    # Transform is told what it reads of the network: the cache answers when the rest changes.
    network = config.network
    read = Network(
        bins=network.bins,
        vocabulary_size=network.vocabulary_size,
        oov_buckets=network.oov_buckets,
    )

    example_gen = TransactionExampleGen(
        data=RuntimeParameter(DATA, str, data),
        as_of=RuntimeParameter(AS_OF, str),
        dataset=to_json(config.dataset),
        windows=to_json(config.windows),
        features=to_json(config.features),
    )
    examples = example_gen.outputs["examples"]
    statistics_gen = in_batches(StatisticsGen(examples=examples))
    statistics = statistics_gen.outputs["statistics"]
    schema_gen = SchemaGen(
        statistics=statistics, infer_feature_shape=False, exclude_splits=["eval", "recent"]
    )
    nodes = [example_gen, statistics_gen, schema_gen]
    schema = schema_gen.outputs["schema"]
    if config.curated_schema is not None:
        file = RuntimeParameter(SCHEMA, str, config.curated_schema)
        curated = ImportSchemaGen(schema_file=file).with_id("CuratedSchema")
        schema = curated.outputs["schema"]
        nodes.append(curated)

    example_validator = ExampleValidator(statistics=statistics, schema=schema)
    baseline = _baseline(statistics, latest).with_id("ChampionStatistics")
    drift_validator = DistributionValidator(
        statistics=statistics,
        baseline_statistics=baseline.outputs["baseline"].as_optional(),
        config=drift_config(config),
        include_split_pairs=[(split, "train") for split in _drift_splits(config)],
    )
    data_gate = DataGate(
        examples=examples,
        example_anomalies=example_validator.outputs["anomalies"],
        drift_anomalies=drift_validator.outputs["anomalies"],
        label=config.dataset.label,
        derived=json.dumps(features.feature_names(config.features, config.dataset)),
        severity=config.data_gate.severity,
        curated=int(config.curated_schema is not None),
    )
    nodes += [example_validator, baseline, drift_validator, data_gate]

    with Cond(data_gate.outputs["verdict"].future()[0].custom_property("passed") == 1):
        transform = in_one_pass(
            Transform(
                examples=examples,
                schema=schema,
                preprocessing_fn="fraud.models.preprocessing.transform_fn.preprocessing_fn",
                splits_config=transform_pb2.SplitsConfig(analyze=["train"], transform=[]),
                custom_config={**learned, "network": to_json(read)},
                materialize=False,
                disable_statistics=True,
                # It serves spans that are analyzed again; windows here are one span.
                disable_analyzer_cache=True,
            )
        )
        fitting = {**learned, "alert_budget": config.evaluation.alert_budget}
        tuner = None
        if config.tuning.enabled:
            tuner = Tuner(
                examples=examples,
                transform_graph=transform.outputs["transform_graph"],
                tuner_fn="fraud.models.network.tuning.tuner_fn",
                train_args=trainer_pb2.TrainArgs(splits=["train"]),
                eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
                custom_config={**fitting, "tuning": to_json(config.tuning)},
            )
            nodes.append(tuner)
        trainer = Trainer(
            examples=examples,
            transform_graph=transform.outputs["transform_graph"],
            hyperparameters=tuner.outputs["best_hyperparameters"] if tuner else None,
            schema=schema,
            run_fn="fraud.models.entry_point.run_fn",
            train_args=trainer_pb2.TrainArgs(splits=["train"]),
            eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
            custom_config=fitting,
            custom_executor_spec=executor_spec.ExecutorClassSpec(MeasuredTrainerExecutor),
        )
        model = trainer.outputs["model"]
        champion = _champion(model, latest).with_id("Champion")
        evaluator = in_batches(
            Evaluator(
                examples=examples,
                model=model,
                baseline_model=champion.outputs["model"],
                eval_config=eval_config(config.dataset, config.evaluation),
                example_splits=["eval"],
                module_path="fraud.models.evaluation.extractors",
            )
        )
        serving_check = ServingCheck(model=model, examples=examples, count=SERVING_CHECK_EXAMPLES)
        pusher = Pusher(
            model=model,
            model_blessing=evaluator.outputs["blessing"],
            infra_blessing=serving_check.outputs["blessing"],
            push_destination=pusher_pb2.PushDestination(
                filesystem=pusher_pb2.PushDestination.Filesystem(base_directory=str(root.pushed))
            ),
            custom_executor_spec=executor_spec.ExecutorClassSpec(AtomicPusherExecutor),
        )
        model_card = ModelCard(
            examples=examples,
            verdict=data_gate.outputs["verdict"],
            model=model,
            evaluation=evaluator.outputs["evaluation"],
            infra_blessing=serving_check.outputs["blessing"],
            pushed_model=pusher.outputs["pushed_model"],
            words=to_json(config.model_card),
            columns=learned["columns"],
            demands=to_json(config.evaluation),
            label_delay_days=config.windows.label_delay_days,
        )
    nodes += [transform, trainer, champion, evaluator, serving_check, pusher, model_card]

    return Pipeline(
        pipeline_name=NAME,
        pipeline_root=str(root.artifacts),
        components=nodes,
        metadata_connection_config=lineage.connection(config.metadata, root),
        beam_pipeline_args=beam_pipeline_args(config),
        enable_cache=True,
    )


def beam_pipeline_args(config: Config) -> list[str]:
    """Beam's command line; empty for the node's own process.

    With any argument at all TFX builds a package of itself for the workers, at each node.
    """
    beam = config.beam
    return [] if beam.runner is None else [f"--runner={beam.runner}", *beam.options]


def _baseline(statistics: types.Channel, latest: bool) -> Resolver:
    """Finds the statistics that drift is judged against."""
    found = types.Channel(type=standard_artifacts.ExampleStatistics)
    if latest:
        return Resolver(strategy_class=LatestArtifactStrategy, baseline=found)
    return Resolver(
        strategy_class=ChampionStatistics,
        statistics=statistics,
        baseline=found,
        pushed_model=types.Channel(type=standard_artifacts.PushedModel),
    )


def _champion(model: types.Channel, latest: bool) -> Resolver:
    """Finds the model that the challenger is judged against."""
    found = types.Channel(type=standard_artifacts.Model)
    if latest:
        return Resolver(
            strategy_class=LatestBlessedModelStrategy,
            model=found,
            model_blessing=types.Channel(type=standard_artifacts.ModelBlessing),
        )
    return Resolver(
        strategy_class=ChampionModel,
        challenger=model,
        model=found,
        pushed_model=types.Channel(type=standard_artifacts.PushedModel),
    )


def drift_config(config: Config) -> distribution_validator_pb2.DistributionValidatorConfig:
    """Jensen-Shannon thresholds by column, numeric or categorical; L-infinity reads 0 on numeric
    ones (data-validation#147).
    """
    gate, dataset = config.data_gate, config.dataset
    amount = (dataset.amount,) if dataset.amount else ()
    source = (*amount, *dataset.numeric, *dataset.categorical)
    thresholds = {**dict.fromkeys(source, gate.max_drift), **gate.drift_thresholds}
    drift = distribution_validator_pb2.DistributionValidatorConfig()
    for column, threshold in thresholds.items():
        feature = drift.default_slice_config.feature.add()
        feature.path.step.append(column)
        feature.distribution_comparator.jensen_shannon_divergence.threshold = threshold
    return drift


def _drift_splits(config: Config) -> list[str]:
    has_recent = config.dataset.timestamp and config.windows.label_delay_days
    return ["train", "recent"] if has_recent else ["train"]

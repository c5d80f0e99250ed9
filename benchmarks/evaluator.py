"""What the Evaluator's executor costs by itself, and whether a change of the code changes metrics.

    python -m benchmarks.evaluator ROOT CONFIG [--times N]

Evaluates the newest model of a root (after `make run`) on the eval split of its newest examples, N
times the same files. Prints examples, CPU seconds, peak memory in MB and a digest of all metrics,
which are equal to the last bit if the digests are.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter


def main() -> None:
    """Measures one evaluation."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluator", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("root", type=Path)
    parser.add_argument("config", type=Path)
    parser.add_argument("--times", type=int, default=43, metavar="N")
    arguments = parser.parse_args()
    examples = _newest(arguments.root, "TransactionExampleGen/examples")
    model = _newest(arguments.root, "Trainer/model")
    with tempfile.TemporaryDirectory() as folder:
        split = Path(folder, "examples", "Split-eval")
        split.mkdir(parents=True)
        for time in range(arguments.times):
            for file in (examples / "Split-eval").glob("*.gz"):
                shutil.copy(file, split / f"{time:05d}-{file.name}")
        meter = Meter()
        evaluation = _evaluate(meter, split.parent, model, arguments.config, Path(folder))
        import tensorflow_model_analysis as tfma

        metrics = sorted(
            (str(of_slice.slice_key), str(pair.key), pair.value.SerializeToString())
            for of_slice in tfma.load_metrics(str(evaluation))
            for pair in of_slice.metric_keys_and_values
        )
    count = next(v for where, key, v in metrics if not where and "example_count" in key)
    digest = hashlib.sha256(repr(metrics).encode()).hexdigest()[:16]
    cost = meter.costs["Evaluator"]
    print(f"{_number(count):,.0f} examples, {cost.cpu} CPU s, {cost.mb:,} MB, metrics {digest}")


def _newest(root: Path, output: str) -> Path:
    """The artifact that was written last."""
    return max((root / "artifacts" / output).iterdir(), key=lambda path: int(path.name))


def _evaluate(meter: Meter, examples: Path, model: Path, config: Path, to: Path) -> Path:
    """Runs the executor; returns the folder of what it wrote."""
    from tfx.types import standard_artifacts
    from tfx.utils import proto_utils

    from fraud.models.evaluation import extractors
    from fraud.models.evaluation.eval_config import eval_config
    from fraud.pipeline import config as configuration
    from fraud.pipeline.components.batched_reading import EvaluatorExecutor

    def artifact(kind: Any, path: Path) -> Any:
        new = kind()
        new.uri, new.id = str(path), 1
        return new

    inputs = artifact(standard_artifacts.Examples, examples)
    inputs.split_names = '["eval"]'
    settings = configuration.load(config)
    with meter.stage("Evaluator"):
        EvaluatorExecutor().Do(
            {
                "examples": [inputs],
                "model": [artifact(standard_artifacts.Model, model)],
                "baseline_model": [],
            },
            {
                "evaluation": [artifact(standard_artifacts.ModelEvaluation, to / "evaluation")],
                "blessing": [artifact(standard_artifacts.ModelBlessing, to / "blessing")],
            },
            {
                "eval_config": proto_utils.proto_to_json(
                    eval_config(settings.dataset, settings.evaluation)
                ),
                "example_splits": '["eval"]',
                "module_path": extractors.__name__,
            },
        )
    return to / "evaluation"


def _number(value: bytes) -> float:
    """The number of a metric."""
    from tensorflow_model_analysis.proto import metrics_for_slice_pb2

    return metrics_for_slice_pb2.MetricValue.FromString(value).double_value.value


if __name__ == "__main__":
    main()

"""Compares what Beam's nodes of two roots produced: examples, statistics, transform graph, metrics.

    .venv/bin/python deploy/flink/compare.py build/flink/local build/flink/cluster

compares the newest artifacts of each root, prints a line for each part, and ends with 1 if one
differs. What has to be equal, and how:

- examples: the records of each split, byte for byte, whatever their order and files;
- statistics: all counts, names and values exactly, and floating-point numbers up to `TOLERANCE`,
  since TFDV adds up parts in the order in which they arrive;
- quantiles: TFDV estimates them, and histograms from them, by merging sketches in that order; so
  edges of buckets up to `ESTIMATE` of the column's standard deviation, and their counts up to that
  share of all rows;
- transform graph: vocabularies byte for byte, and the constants of the graph, such as the bin
  edges, exactly;
- metrics: of the newest run's summary, with their intervals: counts exactly, others up to
  `METRICS`, since TFMA keeps some of them as 32-bit numbers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOLERANCE = 1e-9
"""Of statistics: the largest difference relative to the larger of two numbers."""
METRICS = 1e-6
"""Of metrics: the same."""
ESTIMATE = 0.01
"""Of quantiles: TFDV's own error of a rank, by default."""

_ESTIMATED = re.compile("/(histograms?/.*/(lowValue|highValue|sampleCount)|median)$")
_RANKS = re.compile("/sampleCount$")


@dataclass(frozen=True)
class Comparison:
    """How a part of two roots compares.

    Attributes:
      part: what was compared, such as "examples train".
      compared: how many records or values.
      different: how many of them are not exactly equal.
      largest: the largest difference of two numbers; infinite if anything else differs.
      allowed: up to where that counts as equal.
    """

    part: str
    compared: int
    different: int
    largest: float
    allowed: float = 0.0

    @property
    def equal(self) -> bool:
        """Whether the part counts as equal."""
        return self.compared > 0 and self.largest <= self.allowed

    def __str__(self) -> str:
        verdict = "equal" if self.equal else "DIFFERENT"
        detail = f"{self.compared:,} compared"
        if self.different:
            detail += f", {self.different:,} not the same, largest difference {self.largest:.1e}"
        return f"{self.part:28} {verdict:10} {detail}"


def compare_values(
    part: str,
    here: Mapping[str, Any],
    there: Mapping[str, Any],
    allowed: float = 0.0,
    relative: bool = True,
) -> Comparison:
    """Compares values by name. Two NaNs are equal; a name that one side lacks is a difference.

    Args:
      part: what is compared.
      here, there: the values.
      allowed: see `Comparison`.
      relative: whether differences are relative to the larger of two numbers.
    """
    names = here.keys() | there.keys()
    differences = [_difference(here.get(name), there.get(name), relative) for name in names]
    different = sum(difference > 0 for difference in differences)
    return Comparison(part, len(names), different, max(differences, default=0.0), allowed)


def _difference(a: Any, b: Any, relative: bool) -> float:
    both_numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (a, b))
    if a == b or (both_numbers and math.isnan(a) and math.isnan(b)):
        return 0.0
    if not both_numbers or not (math.isfinite(a) and math.isfinite(b)):
        return math.inf
    if isinstance(a, int) and isinstance(b, int):
        return math.inf  # a count
    return abs(a - b) / (max(abs(a), abs(b)) if relative else 1)


def compare_records(part: str, here: Counter[bytes], there: Counter[bytes]) -> Comparison:
    """Compares records, of which each side may have several that are the same."""
    different = max((here - there).total(), (there - here).total())
    largest = math.inf if different else 0.0
    return Comparison(part, max(here.total(), there.total()), different, largest)


def flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The numbers, texts and so on in nested dictionaries and lists, by their path."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}/{key}")
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from flat(inner, f"{name}/{number}")
    else:
        yield name, value


def newest(root: Path, node: str, output: str) -> Path:
    """The folder of a node's newest output.

    Raises:
      FileNotFoundError: it has none.
    """
    folders = [folder for folder in root.glob(f"artifacts/{node}/{output}/*") if folder.is_dir()]
    if not folders:
        raise FileNotFoundError(f"{root}: no {output} of {node}; did the run succeed?")
    return max(folders, key=lambda folder: int(folder.name))


def comparisons(here: Path, there: Path) -> Iterator[Comparison]:
    """Compares everything; see the module.

    Raises:
      FileNotFoundError: a root lacks an output.
    """
    examples = [newest(root, "TransactionExampleGen", "examples") for root in (here, there)]
    for split in _splits(*examples):
        records = [_records(folder / split) for folder in examples]
        yield compare_records(f"examples {split.removeprefix('Split-')}", *records)
    statistics = [newest(root, "StatisticsGen", "statistics") for root in (here, there)]
    for split in _splits(*statistics):
        name = split.removeprefix("Split-")
        values = [_statistics(folder / split / "FeatureStats.pb") for folder in statistics]
        yield compare_values(f"statistics {name}", *(exact for exact, _ in values), TOLERANCE)
        estimated = (estimates for _, estimates in values)
        yield compare_values(f"quantiles {name}", *estimated, allowed=ESTIMATE, relative=False)
    graphs = [newest(root, "Transform", "transform_graph") for root in (here, there)]
    yield compare_values("vocabularies", *(_vocabularies(folder) for folder in graphs))
    constants = [_constants(folder / "transform_fn" / "saved_model.pb") for folder in graphs]
    yield compare_records("constants of the graph", *constants)
    summaries = [_summary(root) for root in (here, there)]
    for part in ("metrics", "intervals"):
        values_of_part = (dict(flat(summary[part])) for summary in summaries)
        yield compare_values(part, *values_of_part, allowed=METRICS)


def _splits(here: Path, there: Path) -> list[str]:
    return sorted({folder.name for root in (here, there) for folder in root.glob("Split-*")})


def _records(folder: Path) -> Counter[bytes]:
    import tensorflow as tf

    files = sorted(map(str, folder.glob("*")))
    counted: Counter[bytes] = Counter()
    for batch in tf.data.TFRecordDataset(files, "GZIP").batch(4096):
        counted.update(hashlib.blake2b(r, digest_size=16).digest() for r in batch.numpy())
    return counted


def _statistics(file: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """All values of a split's statistics, and those that are estimated from quantiles."""
    from google.protobuf import json_format
    from tensorflow_metadata.proto.v0 import statistics_pb2

    statistics = statistics_pb2.DatasetFeatureStatisticsList()
    statistics.ParseFromString(file.read_bytes())
    values: dict[str, Any] = {}
    estimates: dict[str, Any] = {}
    for dataset in statistics.datasets:
        values[f"{dataset.name}/examples"] = int(dataset.num_examples)
        for feature in dataset.features:
            name = f"{dataset.name}/{feature.name or '/'.join(feature.path.step)}"
            spread = feature.num_stats.std_dev or 1.0
            for path, value in flat(json_format.MessageToDict(feature), name):
                if _ESTIMATED.search(path) and isinstance(value, int | float):
                    unit = dataset.num_examples if _RANKS.search(path) else spread
                    estimates[path] = value / unit
                else:
                    values[path] = value
    return values, estimates


def _vocabularies(folder: Path) -> dict[str, Any]:
    files = sorted((folder / "transform_fn" / "assets").glob("*"))
    return {file.name: file.read_bytes() for file in files}


def _constants(file: Path) -> Counter[bytes]:
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(file.read_bytes())
    counted: Counter[bytes] = Counter()
    for meta_graph in saved.meta_graphs:
        graph = meta_graph.graph_def
        for nodes in (graph.node, *(function.node_def for function in graph.library.function)):
            # Texts are paths, which differ.
            counted.update(
                node.attr["value"].tensor.SerializeToString(deterministic=True)
                for node in nodes
                if node.op == "Const" and not node.attr["value"].tensor.string_val
            )
    return counted


def _summary(root: Path) -> dict[str, Any]:
    files = sorted(root.glob("runs/*/summary.json"))
    if not files:
        raise FileNotFoundError(f"{root}: no run has ended")
    return json.loads(files[-1].read_text())


def main() -> int:
    """Prints the comparisons; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("here", type=Path, help="a root")
    parser.add_argument("there", type=Path, help="another root")
    arguments = parser.parse_args()
    try:
        compared = list(comparisons(arguments.here, arguments.there))
    except FileNotFoundError as error:
        print(f"compare: {error}", file=sys.stderr)
        return 2
    for comparison in compared:
        print(comparison)
    return 0 if all(comparison.equal for comparison in compared) else 1


if __name__ == "__main__":
    sys.exit(main())

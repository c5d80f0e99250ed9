"""A small model of any specification, exported with all its signatures, and a server of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import numpy as np

from fraud.codec import to_json
from fraud.models.columns import ModelColumns
from fraud.models.specification import EXTRA, SPECIFICATION_FILE, InputSpecification


def export_model(folder: Path, specification: InputSpecification, seed: int = 0) -> Path:
    """Trains a small network on random columns and exports it; returns the folder."""
    import tensorflow_transform as tft
    from tensorflow_transform.tf_metadata.dataset_metadata import DatasetMetadata
    from tensorflow_transform.tf_metadata.metadata_io import write_metadata

    from fraud.models.examples import Examples
    from fraud.models.export import ServedModel
    from fraud.models.network import training
    from fraud.models.network.explain import Explainer, typical_genuine
    from fraud.models.preprocessing import in_memory
    from fraud.models.spec import AlertBudget, Network

    columns = ModelColumns.of(specification.dataset, specification.features)
    network = Network(bins=4, towers=((8,),), epochs=2, batch_size=128, seed=seed)
    random, rows = np.random.default_rng(seed), 2000
    data = {name: random.uniform(0, 100, rows).astype(np.float32) for name in columns.numeric}
    for name in columns.categorical:
        data[name] = np.array([b"web", b"shop", b""], object)[random.integers(0, 3, rows)]
    data[columns.label] = (data[columns.numeric[0]] + random.normal(0, 20, rows) > 90).astype(int)
    transform = folder.with_name(f"{folder.name}-transform")
    learned = in_memory.learn(data, columns, network, str(transform))
    metadata = DatasetMetadata(_schema(columns))
    write_metadata(metadata, str(transform / tft.TFTransformOutput.RAW_METADATA_DIR))
    number = np.arange(rows)
    examples = Examples(learned(data), data[columns.label], number * 60, number % 400)
    fitted = training.fit(network, examples, learned.vocabularies, AlertBudget(100))
    typical = typical_genuine(examples.inputs, examples.labels)
    explainer = Explainer(fitted.model, typical, columns.numeric, columns.categorical)
    ServedModel(fitted, explainer, learned.transform, columns).save(str(folder))
    (folder / EXTRA / SPECIFICATION_FILE).write_text(to_json(specification))
    return folder


def _schema(columns: ModelColumns) -> object:
    """Dense columns that may be missing, as the component Transform describes them."""
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = schema_pb2.Schema()
    tensors = schema.tensor_representation_group[""].tensor_representation
    for name in (*columns.numeric, *columns.categorical):
        is_number = name in columns.numeric
        kind = schema_pb2.FLOAT if is_number else schema_pb2.BYTES
        schema.feature.add(name=name, type=kind)
        tensors[name].dense_tensor.column_name = name
        tensors[name].dense_tensor.shape.dim.add(size=1)
        missing = tensors[name].dense_tensor.default_value
        if is_number:
            missing.float_value = float("nan")
        else:
            missing.bytes_value = b""
    return schema


class RunningServer:
    """A process of `fraud-pipeline serve`.

    Attributes:
      process: it.
      url: of its HTTP server.
    """

    def __init__(self, root: Path, *options: str, environment: dict[str, str] | None = None):
        self._log = root / "server.log"
        start = len(self.log)
        command = [sys.executable, "-m", "fraud.pipeline.cli", "serve", "--root", str(root)]
        with open(self._log, "a", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, "--port", "0", "--grpc-port", "0", *options],
                stderr=log,
                stdout=log,
                env={**os.environ, **(environment or {})},
            )
        listening = self._wait(start)
        self.url = listening["http"]
        self.client = httpx.Client(base_url=self.url, timeout=30)

    def _wait(self, start: int) -> dict:
        """The line of the log that says where it listens, once it is ready."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            if self.process.poll() is not None:
                break
            for line in self.lines(start):
                if line.get("message") == "listening":
                    with suppress(httpx.TransportError):
                        if httpx.get(f"{line['http']}/readyz").status_code == 200:
                            return line
            time.sleep(0.05)
        self.process.kill()
        raise AssertionError(f"the server did not start: {self.log[start:]}")

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8") if self._log.exists() else ""

    def lines(self, start: int = 0) -> list[dict]:
        return [json.loads(x) for x in self.log[start:].splitlines() if x.startswith("{")]

    def post(self, path: str, document: object) -> httpx.Response:
        return self.client.post(path, json=document)

    def stop(self) -> int:
        self.client.close()
        self.process.terminate()
        return self.process.wait(60)

    def kill(self) -> None:
        self.client.close()
        self.process.kill()
        self.process.wait()


@contextmanager
def serving(root: Path, *options: str, environment: dict[str, str] | None = None):
    """A server that is stopped at the end."""
    server = RunningServer(root, *options, environment=environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
            server.process.wait()

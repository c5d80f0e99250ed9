"""Models and servers for the tests of serving."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest


@dataclass(frozen=True)
class SavedModels:
    """Small models, without the network but with the signatures of a real one.

    Attributes:
      plain: two models of the inputs `TX_AMOUNT` and `CHANNEL`, whose scores of an amount of 50 are
        .6 and .7.
      other_inputs: a model of the inputs `TX_AMOUNT` and `velocity`.
    """

    plain: tuple[Path, Path]
    other_inputs: Path


def export(folder: Path, score: float, numeric: tuple[str, ...], text: tuple[str, ...]) -> Path:
    """A model that scores an amount of 50 with `score`, and a missing one with .25."""
    import tensorflow as tf

    spec = {name: tf.io.FixedLenFeature([], tf.float32, float("nan")) for name in numeric}
    spec |= {name: tf.io.FixedLenFeature([], tf.string, "") for name in text}

    class Model(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.score = tf.Variable(score)

        def of_columns(self, **columns: Any) -> dict[str, Any]:
            amount = columns["TX_AMOUNT"]
            known = self.score * amount / 50
            found = tf.where(tf.math.is_nan(amount), 0.25, tf.clip_by_value(known, 0.0, 1.0))
            return {"score": found, "alert": tf.cast(found >= 0.5, tf.float32)}

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def of_examples(self, examples: Any) -> dict[str, Any]:
            return self.of_columns(**tf.io.parse_example(examples, spec))

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string, "examples")])
        def explain(self, examples: Any) -> dict[str, Any]:
            found = self.of_columns(**tf.io.parse_example(examples, spec))
            rows = tf.shape(examples)[0]
            return {
                **found,
                "reason": tf.tile([["TX_AMOUNT"]], [rows, 1]),
                "contribution": tf.ones([rows, 1]),
            }

    model = Model()
    of_columns = tf.function(model.of_columns).get_concrete_function(
        **{name: tf.TensorSpec([None], of.dtype, name) for name, of in spec.items()}
    )
    signatures = {
        "serving_default": model.of_examples,
        "predict": of_columns,
        "explain": model.explain,
    }
    tf.saved_model.save(model, str(folder), signatures)
    (folder / "assets.extra").mkdir()
    names = json.dumps({name: name for name in spec})
    (folder / "assets.extra" / "inputs.json").write_text(names)
    return folder


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory: pytest.TempPathFactory) -> SavedModels:
    folder = tmp_path_factory.mktemp("saved_models")
    return SavedModels(
        (
            export(folder / "six", 0.6, ("TX_AMOUNT",), ("CHANNEL",)),
            export(folder / "seven", 0.7, ("TX_AMOUNT",), ("CHANNEL",)),
        ),
        export(folder / "other", 0.8, ("TX_AMOUNT", "velocity"), ()),
    )


def push(model: Path, folder: Path, version: int) -> Path:
    """Lets a copy of a model appear in a push folder by one rename, as the Pusher does."""
    staged = folder.parent / f"staged-{version}"
    shutil.copytree(model, staged)
    folder.mkdir(exist_ok=True)
    os.rename(staged, folder / str(version))
    return folder / str(version)


class Server:
    """A process of `fraud-pipeline serve`.

    Attributes:
      root: its root.
      process: it.
      http: the address of HTTP, such as 127.0.0.1:4711.
      grpc: the address of gRPC.
    """

    def __init__(self, root: Path, *options: str, scheme: str = "http", **environment: str) -> None:
        self.root, self.log = root, root / "server.log"
        command = [sys.executable, "-m", "fraud.pipeline.cli", "serve", "--root", str(root)]
        ports = () if "--port" in options else ("--port", "0", "--grpc-port", "0")
        with open(self.log, "w", encoding="utf-8") as log:
            self.process = subprocess.Popen(
                [*command, *ports, *options],
                stdout=log,
                stderr=log,
                env={**os.environ, **environment},
            )
        line = self.wait_for(lambda: self.lines("listening"))[0]
        self.http, self.grpc = line["http"].removeprefix(f"{scheme}://"), line["grpc"]
        self.url = line["http"]

    def lines(self, message: str) -> list[dict[str, Any]]:
        """The lines of the log with this message."""
        documents = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            if line.startswith("{") and line.endswith("}"):
                documents.append(json.loads(line))
        return [document for document in documents if document["message"] == message]

    def wait_for(self, condition: Any, seconds: float = 120) -> Any:
        """What the condition returns once that is true."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.log.read_text(encoding="utf-8")
            if found := condition():
                return found
            time.sleep(0.05)
        raise AssertionError(f"waited in vain: {self.log.read_text(encoding='utf-8')[-3000:]}")

    def wait_for_version(self, version: int, **options: Any) -> None:
        """Waits until this version answers."""

        def is_live() -> bool:
            answer = httpx.get(f"{self.url}/readyz", **{"timeout": 30, **options})
            return answer.json()["version"] == str(version)

        self.wait_for(is_live)

    def stop(self) -> int:
        """Terminates the process; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)


@pytest.fixture(scope="session")
def server(saved_models: SavedModels, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the first model as version 7, for tests that leave it as it is."""
    root = tmp_path_factory.mktemp("root")
    push(saved_models.plain[0], root / "pushed", 7)
    started = Server(root)
    try:
        started.wait_for_version(7)
        yield started
    finally:
        started.stop()

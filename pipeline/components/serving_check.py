"""ServingCheck: can the model be served?

TFX's InfraValidator requires Docker or Kubernetes. ServingCheck starts `fraud-pipeline serve` with
the model in a process of its own, sends it transactions, and outputs the same standard artifact.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples, InfraBlessing, Model
from tfx.utils import path_utils

from fraud import tracing
from fraud.codec import to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.features.spec import Dataset

START_SECONDS = 180
"""How long the server may take until it is ready."""
REQUEST_SECONDS = 60
TOLERANCE = 1e-5
"""How far scores may differ, as those of one by one and of a batch do."""

_SINGLE_REQUESTS = 20
_EXPLAINED = 3
_MODEL = "/v1/models/fraud:predict"


class Refused(FraudPipelineError):
    """The model cannot be served as it is; the message says why."""


def check_serving(
    model_dir: str, tfrecord: str, count: int, max_latency_ms: float, inputs: str = ""
) -> dict:
    """Serves a model and compares what it answers with what it must.

    Args:
      model_dir: the folder of the SavedModel.
      tfrecord: a gzipped TFRecord file of examples.
      count: how many of them to send.
      max_latency_ms: the largest median of single requests.
      inputs: what the examples were computed with, an `InputSpecification` as JSON; "" if they do
        not say.

    Returns:
      `examples`, `seconds` and `latency_ms`, or `error`.
    """
    started = time.monotonic()
    try:
        if inputs:
            _check_specification(Path(model_dir), inputs)
        with tempfile.TemporaryDirectory() as root:
            version = Path(root, "pushed", "1")
            version.parent.mkdir()
            version.symlink_to(os.path.abspath(model_dir), target_is_directory=True)
            with _Server(Path(root)) as server:
                # While the server starts, its answers are computed.
                expected = _Expected(Path(model_dir), tfrecord, count)
                server.wait_until_ready()
                latency_ms = _compare(server, expected)
    except (BadInput, FraudPipelineError) as error:
        return {"error": str(error)}
    if latency_ms > max_latency_ms:
        return {
            "error": f"a transaction took {latency_ms:.0f} ms (median of {_SINGLE_REQUESTS}), more "
            f"than serving.max_latency_ms, {max_latency_ms:g}"
        }
    return {
        "examples": len(expected.records),
        "seconds": round(time.monotonic() - started, 2),
        "latency_ms": round(latency_ms, 2),
    }


def _check_specification(model_dir: Path, inputs: str) -> None:
    """Checks that the model records what its examples were computed with.

    The server computes by what it records: with another label delay, say, by labels that training
    did not see. Without a history of labels, no score would show it.

    Raises:
      Refused: it records something else.
    """
    from fraud.codec import from_json
    from fraud.models.specification import InputSpecification

    recorded, used = InputSpecification.read(model_dir), from_json(InputSpecification, inputs)
    for name in ("dataset", "features", "label_delay_days"):
        ours, theirs = getattr(recorded, name), getattr(used, name)
        if ours != theirs:
            shown = f": {ours} instead of {theirs}" if name == "label_delay_days" else ""
            raise Refused(f"it records another {name} than its examples were computed with{shown}")


class _Expected:
    """Examples, what the model says about them in this process, and their raw transactions.

    Attributes:
      records: serialized examples.
      scores: of these, by `serving_default`, [n].
      transactions: the same as raw transactions, in the order of time, JSON objects.
      raw_scores: of those, if nothing else had ever happened: by features that the code of
        ingestion computes from these transactions alone; [n].
      threshold: the lowest score that is an alert.
    """

    def __init__(self, model_dir: Path, tfrecord: str, count: int) -> None:
        import pyarrow as pa
        import tensorflow as tf

        from fraud.features.batch import add_features
        from fraud.models.specification import InputSpecification

        inputs = InputSpecification.read(model_dir)
        self.records = [
            record.numpy() for record in tf.data.TFRecordDataset(tfrecord, "GZIP").take(count)
        ]
        if not self.records:
            raise Refused(f"{tfrecord} has no examples")
        try:
            model = tf.saved_model.load(str(model_dir))
            self.scores = model.signatures["serving_default"](tf.constant(self.records))[
                "score"
            ].numpy()
        except Exception as error:
            raise Refused(f"TensorFlow cannot load or call it: {_line(error)}") from None
        _check_calendar(self.records, inputs)
        table = _transactions(self.records, inputs.dataset)
        self.transactions = _as_json(table, inputs.dataset)
        if inputs.dataset.label_time:  # of labels that are not known
            unknown = pa.nulls(len(table), pa.timestamp("us"))
            table = table.append_column(inputs.dataset.label_time, unknown)
        with_features = add_features(
            table, inputs.dataset, inputs.features, inputs.label_delay_days
        )
        predict = model.signatures["predict"]
        names = json.loads((model_dir / "assets.extra" / "inputs.json").read_text("utf-8"))
        specs = predict.structured_input_signature[1]
        columns = {
            name: tf.constant(_column(with_features, column), specs[name].dtype)
            for column, name in names.items()
        }
        self.raw_scores = predict(**columns)["score"].numpy()


# Not `-m` and a module's name, which would make the command line part of the node's code.
COMMAND = "import sys; from fraud.pipeline.cli import main; sys.exit(main())"


class _Server:
    """A process of `fraud-pipeline serve`; a context, at whose end it is gone."""

    def __init__(self, root: Path) -> None:
        # Imported, so that the server's code, but no command's, decides about the cache.
        from fraud.serving import server, service  # noqa: F401
        from fraud.serving.settings import ROLES

        self._root, self._log = root, root / "server.log"
        command = [sys.executable, "-c", COMMAND, "serve", "--root", str(root)]
        # It asks for no token, and its requests are no client's that anybody would trace.
        unset = (*(f"FRAUD_{role.upper()}_TOKENS" for role in ROLES), tracing.VARIABLE)
        environment = {k: v for k, v in os.environ.items() if k not in unset}
        with open(self._log, "w", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*command, "--port", "0", "--grpc-port", "0"],
                stdout=log,
                stderr=log,
                env={**environment, "CUDA_VISIBLE_DEVICES": "-1"},
            )
        self._client: Any = None

    def __enter__(self) -> "_Server":
        return self

    def __exit__(self, *_: object) -> None:
        if self._client is not None:
            self._client.close()
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def wait_until_ready(self) -> None:
        """Waits until the model is loaded.

        Raises:
          Refused: the server refuses it, ends, or takes too long.
        """
        import httpx

        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            lines = self._lines()
            for line in lines:
                if line.get("message") == "version refused":
                    raise Refused(f"the server refuses it: {line['error']}")
                if line.get("message") == "listening" and self._client is None:
                    self._client = httpx.Client(base_url=line["http"], timeout=REQUEST_SECONDS)
            if self._process.poll() is not None:
                tail = " ".join(self._log.read_text("utf-8", "replace").split()[-40:])
                raise Refused(f"the server exited with code {self._process.returncode}: {tail}")
            with suppress(httpx.TransportError):  # it listens only just after it says so
                if self._client is not None and self._client.get("/readyz").status_code == 200:
                    return
            time.sleep(0.02)
        raise Refused(f"the server was not ready within {START_SECONDS} s")

    def post(self, path: str, document: dict) -> dict:
        """Sends a request.

        Raises:
          Refused: the answer is an error, or there is none.
        """
        import httpx

        try:
            response = self._client.post(path, json=document)
        except httpx.HTTPError as error:
            raise Refused(f"{path}: no answer: {_line(error)}") from None
        if response.status_code != 200:
            raise Refused(f"{path}: status {response.status_code}: {response.text[:300]}")
        return response.json()

    def _lines(self) -> list[dict]:
        lines = self._log.read_text("utf-8", "replace").splitlines()
        found = []
        for line in lines:
            if line.startswith("{") and line.endswith("}"):
                found.append(json.loads(line))
        return found


def _compare(server: _Server, expected: _Expected) -> float:
    """Sends everything; returns the median latency of single transactions, in milliseconds.

    Raises:
      Refused: an answer is not the expected one.
    """
    import base64

    instances = [{"b64": base64.b64encode(record).decode()} for record in expected.records]
    answer = server.post(_MODEL, {"signature_name": "serving_default", "instances": instances})
    scores = np.array([prediction["score"] for prediction in answer["predictions"]])
    _check_scores("ready-made features", scores, expected.scores)

    transactions, path = expected.transactions, "/v1/transactions:score"
    results, latencies = [], []
    for transaction in transactions[:_SINGLE_REQUESTS]:
        sent = time.perf_counter()
        results += server.post(path, {"transactions": [transaction]})["results"]
        latencies.append((time.perf_counter() - sent) * 1000)
    if len(transactions) > _SINGLE_REQUESTS:
        rest = transactions[_SINGLE_REQUESTS:]
        results += server.post(path, {"transactions": rest})["results"]
    raw_scores = np.array([result["score"] for result in results])
    _check_scores("raw transactions", raw_scores, expected.raw_scores)

    some = transactions[:_EXPLAINED]
    explained = server.post(path, {"transactions": some, "explain": True})["results"]
    for before, result in zip(results, explained, strict=False):
        contributions = [reason["contribution"] for reason in result["reasons"]]
        if not contributions or not np.isfinite(contributions).all():
            raise Refused(f"explain: the reasons {result['reasons']} are no finite numbers")
        if abs(result["score"] - before["score"]) > TOLERANCE:
            raise Refused(f"explain: the score is {result['score']}, but {before['score']} without")
    return statistics.median(latencies)


def _check_scores(kind: str, scores: np.ndarray, expected: np.ndarray) -> None:
    if len(scores) != len(expected):
        raise Refused(f"{kind}: {len(scores)} scores for {len(expected)} transactions")
    if not ((scores >= 0) & (scores <= 1)).all():  # also if one is not a number
        raise Refused(f"{kind}: scores outside [0, 1]")
    difference = float(np.abs(scores - expected).max())
    if not difference <= TOLERANCE:
        raise Refused(
            f"{kind}: the server's scores differ from the model's by up to {difference:.2g}"
        )


def _transactions(records: list[bytes], dataset: Dataset) -> Any:
    """The raw columns of examples as an Arrow table, in the order of time.

    If the data is of the future, it is moved back by whole weeks, as the server records nothing
    that has not happened yet.
    """
    import pyarrow as pa
    import tensorflow as tf

    rows = [_values(tf.train.Example.FromString(record)) for record in records]
    columns: dict[str, Any] = {}
    for name in dataset.columns:
        if name in (dataset.label, dataset.label_time):
            continue
        values = [row.get(name) for row in rows]
        if name == dataset.timestamp:
            week = 7 * 86_400
            seconds = np.array([row[name] for row in rows], np.int64)
            ahead = max(int(seconds.max() - time.time()), 0)
            seconds -= week * -(-ahead // week)
            columns[name] = pa.array(seconds * 1_000_000, pa.timestamp("us"))
        elif name in (dataset.amount, *dataset.numeric):
            columns[name] = pa.array(values, pa.float64())
        else:
            texts = [v.decode() if isinstance(v, bytes) else v for v in values]
            columns[name] = pa.array([None if v is None else str(v) for v in texts], pa.string())
    table = pa.table(columns)
    if dataset.timestamp is None:
        return table
    return table.take(pa.array(np.argsort(table[dataset.timestamp].to_numpy(), kind="stable")))


def _check_calendar(records: list[bytes], inputs: Any) -> None:
    """Checks that the features of time are those of the examples.

    They need no history, and tell whether the model records the definitions it was trained with.

    Raises:
      Refused: they are not.
    """
    import tensorflow as tf

    from fraud.features.batch import calendar_features

    dataset = inputs.dataset
    if dataset.timestamp is None:
        return
    rows = [_values(tf.train.Example.FromString(record)) for record in records]
    seconds = np.array([row[dataset.timestamp] for row in rows], "datetime64[s]")
    computed = calendar_features(inputs.features, dataset, seconds.astype("datetime64[us]"))
    for name, values in computed.items():
        given = np.array([row.get(name, np.nan) for row in rows], np.float32)
        # Examples have whole seconds.
        if not np.allclose(given, values, rtol=0, atol=1e-3):
            raise Refused(
                f"its {name} is not that of the examples, so the model does not record the "
                "definitions that it was trained with"
            )


def _values(example: Any) -> dict[str, Any]:
    """The values of an example by column; missing ones are left out."""
    values = {}
    for column, feature in example.features.feature.items():
        kind = feature.WhichOneof("kind")
        if kind and getattr(feature, kind).value:
            values[column] = getattr(feature, kind).value[0]
    return values


def _as_json(table: Any, dataset: Dataset) -> list[dict[str, Any]]:
    """Transactions as clients send them."""
    rows = table.to_pylist()
    for row in rows:
        if dataset.timestamp:
            row[dataset.timestamp] = row[dataset.timestamp].isoformat() + "Z"
    return rows


def _column(table: Any, name: str) -> Any:
    """A column as an input of `predict`: NaN or "" where missing."""
    import pyarrow as pa

    if pa.types.is_string(table[name].type):
        return table[name].fill_null("").to_pylist()
    return table[name].cast(pa.float32()).to_numpy()


def _line(error: Exception) -> str:
    text = str(error) or type(error).__name__
    return text.splitlines()[0]


@component
def ServingCheck(  # noqa: N802 (TFX names components like classes)
    model: InputArtifact[Model],
    examples: InputArtifact[Examples],
    blessing: OutputArtifact[InfraBlessing],
    count: Parameter[int],
    max_latency_ms: Parameter[float],
) -> None:
    """Blesses a model that can be served.

    Args:
      model: the challenger.
      examples: from TransactionExampleGen; its eval split is scored.
      blessing: InfraBlessing with `blessed` 1 or 0, and `reason` if 0.
      count: how many examples to score.
      max_latency_ms: the largest median of single transactions.
    """
    uri = artifact_utils.get_split_uri([examples], "eval")
    shard = os.path.join(uri, sorted(os.listdir(uri))[0])
    folder = path_utils.serving_model_path(model.uri)
    inputs = examples.get_string_custom_property("inputs")
    answer = check_serving(folder, shard, count, max_latency_ms, inputs)
    blessing.set_int_custom_property("blessed", int("error" not in answer))
    blessing.set_string_custom_property("reason", answer.get("error", ""))
    blessing.set_string_custom_property("answer", to_json(answer))
    marker = "INFRA_BLESSED" if "error" not in answer else "INFRA_NOT_BLESSED"
    with open(os.path.join(blessing.uri, marker), "w", encoding="utf-8"):
        pass

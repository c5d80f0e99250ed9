"""Two processes that train together get the weights of one that trains alone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKERS = 2


def spec():
    from fraud.models.spec import ResolvedNetwork

    return ResolvedNetwork(
        bins=8, towers=((16,),), members=2, epochs=3, batch_size=65, learning_rate=0.02
    )


def random_examples(streams: bool):
    from fraud.models.examples import Examples
    from fraud.models.streamed import Streamed

    random = np.random.default_rng(0)
    numeric = random.uniform(0, 4, (6000, 3)).astype(np.float32)
    labels = (random.random(6000) < 0.4 * (numeric[:, 0] > 3.5)).astype(int)
    inputs = {"numeric": numeric, "categorical": random.integers(0, 40, (6000, 2))}
    if streams:
        for name, array in inputs.items():
            inputs[name] = Streamed()
            inputs[name].append(array)
    return Examples(inputs, labels, np.arange(6000) * 400, random.integers(0, 600, 6000))


def train(index: int | None, kind: str, out: Path) -> None:
    """Trains as a worker, or alone, and writes what came out."""
    from dataclasses import replace

    from fraud.models.network import training
    from fraud.models.network.team import Team
    from fraud.models.spec import AlertBudget

    team = None if index is None else Team.joined(WORKERS, index)
    sizes = {"channel": 4 * 10, "country": 40}
    # The batch of one process must be one that two can share.
    settings = spec() if team else spec().tuned({"batch_size": 64})
    examples = random_examples(kind == "streams")
    if index == 1 and kind == "other labels":
        examples = replace(examples, labels=np.roll(examples.labels, 1))
    if index == 1 and kind == "fewer rows":
        examples = examples.at(np.arange(5000))
    fitted = training.fit(settings, examples, sizes, AlertBudget(20), team=team)
    history = np.array(list(fitted.history.values()))
    np.savez(out, *fitted.model.get_weights(), history, np.array(fitted.threshold))


def free_ports() -> list[int]:
    with socket.socket() as one, socket.socket() as other:
        for each in (one, other):
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in (one, other)]


def run(index: int | None, ports: list[int], kind: str, out: Path) -> subprocess.Popen:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": index}}
    environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
    command = [sys.executable, __file__, str(index), kind, str(out)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["in memory", pytest.param("streams", marks=pytest.mark.slow)])
def test_two_workers_get_the_weights_of_one_process(tmp_path, kind) -> None:
    ports = free_ports()
    outputs = {index: tmp_path / f"{index}.npz" for index in (None, 0, 1)}
    processes = [run(index, ports, kind, out) for index, out in outputs.items()]
    for process in processes:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    alone, first, second = (list(np.load(out).values()) for out in outputs.values())
    for one_value, same, value in zip(first, second, alone, strict=True):
        np.testing.assert_array_equal(one_value, same)
        np.testing.assert_allclose(one_value, value, atol=2e-5)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["other labels", "fewer rows"])
def test_workers_with_other_examples_do_not_train(tmp_path, kind) -> None:
    ports = free_ports()
    processes = [run(index, ports, kind, tmp_path / f"{index}.npz") for index in range(WORKERS)]
    try:
        for process in processes:
            _, said = process.communicate(timeout=120)
            assert process.returncode == 1 and "the workers have read other examples" in said
    finally:
        for process in processes:
            process.kill()
    assert not list(tmp_path.iterdir())


if __name__ == "__main__":
    number = None if sys.argv[1] == "None" else int(sys.argv[1])
    train(number, sys.argv[2], Path(sys.argv[3]))

"""Training on several machines: how the Trainer finds its workers, and hands them their task.

TF_CONFIG, TensorFlow's own description of a cluster, tells each process who takes part. The node
Trainer leads: it writes what is to be trained into a folder that all share, waits until the others
have announced themselves there, and says when to begin. Each then trains in a process of its own,
as TensorFlow can join a cluster only where it was not used before, and ends the whole process when
another worker is lost.

    folder/job.json   what is to be trained, by whom
    folder/ready-1    worker 1 has read it, and what keeps it from taking part, if anything
    folder/begin      all are ready
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fraud.features
import fraud.models
from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import write_atomically

VARIABLE = "TF_CONFIG"
JOB, BEGIN = "job.json", "begin"
CONNECTED, MESSAGE = "connected", "message"
CONNECT_SECONDS = 120.0
"""How long workers that are ready may take to connect to one another."""
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
      workers: host and port of each; the first one leads.
      index: which of them this process is.
    """

    workers: tuple[str, ...]
    index: int

    @classmethod
    def of_environment(cls, environment: Mapping[str, str] = os.environ) -> Cluster:
        """The cluster that TF_CONFIG describes.

        Raises:
          BadInput: there is none, or it is no cluster of workers.
        """
        example = (
            '{"cluster": {"worker": ["HOST:PORT", "HOST:PORT"]}, '
            '"task": {"type": "worker", "index": 0}}'
        )
        text = environment.get(VARIABLE)
        if not text:
            raise BadInput(
                f"the environment variable {VARIABLE} is not set; to train on several machines, "
                f"set it on each to {example}, with its own index"
            )
        try:
            config = json.loads(text)
            tasks, task = config["cluster"], config["task"]
            workers = tuple(map(str, [*tasks.get("chief", []), *tasks["worker"]]))
            index = int(task["index"]) + len(tasks.get("chief", [])) * (task["type"] == "worker")
            known = set(tasks) <= {"chief", "worker"} and task["type"] in tasks
            known &= 0 <= int(task["index"]) < len(tasks[task["type"]])
            known &= all(isinstance(of_type, list) for of_type in tasks.values())
            known &= all(worker.rpartition(":")[2].isdecimal() for worker in workers)
            if not known or not 0 <= index < len(workers) or len(set(workers)) < len(workers):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
            raise BadInput(
                f"{VARIABLE} is {text}, which is no cluster of workers with a task of its own; "
                f"write it as {example}"
            ) from None
        return cls(workers, index)

    def name(self, index: int) -> str:
        """A worker as messages call it."""
        return f"worker {index} ({self.workers[index]})"


@dataclass(frozen=True)
class Job:
    """A training that several workers do together.

    Attributes:
      id: of this attempt.
      workers: see `Cluster`.
      code: a digest of what trains; with other code, batches or weights may differ.
      task: JSON of the arguments of the Trainer that training needs.
    """

    id: str
    workers: tuple[str, ...]
    code: str
    task: str


@dataclass(frozen=True)
class Ready:
    """A worker's answer to a job: its id, and why the worker cannot take part, if so."""

    job: str
    problem: str = ""


def code() -> str:
    """A digest of the code that trains, and of the versions of what it uses."""
    digest = hashlib.sha256()
    for package in (fraud.models, fraud.features):
        folder = Path(str(package.__file__)).parent
        for path in sorted(folder.rglob("*.py")):
            digest.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    for name in ("tensorflow", "keras", "numpy"):
        digest.update(f"{name} {metadata.version(name)}".encode())
    return digest.hexdigest()


def lead(task: Mapping[str, Any], folder: Path, workers: int, wait_seconds: float) -> None:
    """Trains together with the other workers of the cluster. Called by the Trainer.

    Args:
      task: the arguments of the Trainer that training needs; must be JSON.
      folder: all workers can read and write it.
      workers: how many there are, this one included.
      wait_seconds: how long to wait for the others.

    Raises:
      BadInput: TF_CONFIG is missing or describes another cluster, a worker runs other code, or
        see `training.fit`.
      FraudPipelineError: a worker did not come, or was lost.
    """
    cluster = Cluster.of_environment()
    if len(cluster.workers) != workers or cluster.index:
        raise BadInput(
            f"network.workers is {workers}, but {VARIABLE} of the Trainer has "
            f"{len(cluster.workers)} workers, of which this is number {cluster.index}; it must "
            f"have {workers}, and be number 0, the first"
        )
    job = Job(uuid.uuid4().hex, cluster.workers, code(), json.dumps(task))
    _clear(folder, workers)
    try:
        write_atomically(folder / JOB, to_json(job))
        _wait_for_all(job, cluster, folder, time.monotonic() + wait_seconds)
        write_atomically(folder / BEGIN, job.id)
        _train(folder / JOB, cluster)
    finally:
        _clear(folder, workers)


def serve(folder: Path, once: bool, say: Callable[[str], None]) -> None:
    """Takes part in one training after the other as a worker that does not lead.

    Args:
      folder: see `lead`.
      once: return after one training.
      say: told what happens.

    Raises:
      BadInput: TF_CONFIG is missing, or names the worker that leads.
      FraudPipelineError: with `once`, the training failed.
    """
    cluster = Cluster.of_environment()
    if not cluster.index:
        raise BadInput(
            f"{VARIABLE} names worker 0, which is the Trainer itself; the others are workers 1 to "
            f"{len(cluster.workers) - 1}"
        )
    me = cluster.name(cluster.index)
    done = ""
    say(f"{me}: waits in {folder} for a training")
    while True:
        job = _read(Job, folder / JOB)
        if job is None or job.id == done or job.workers != cluster.workers:
            time.sleep(POLL_SECONDS)
            continue
        done = job.id
        if _has_begun(job, folder):  # without this process: its Trainer was perhaps killed
            continue
        problem = ""
        if job.code != code():
            problem = (
                "has another version of the code, TensorFlow, Keras or NumPy; install that of the "
                "Trainer"
            )
        elif unseen := _unseen(job):
            problem = f"does not see {unseen}; have the root there as it is for the Trainer"
        write_atomically(folder / f"ready-{cluster.index}", to_json(Ready(job.id, problem)))
        begins = not problem and _begins(job, folder)
        try:
            if problem:
                raise BadInput(f"{me} {problem}")
            if begins:
                say(f"{me}: trains")
                _train(folder / JOB, cluster)
                say(f"{me}: has trained")
        except FraudPipelineError as error:
            if once:
                raise
            say(str(error))
        if once and begins:
            return


def _unseen(job: Job) -> str:
    """What of a job's inputs is not where the Trainer has it; "" if all of it is."""
    transform = json.loads(job.task).get("transform_output", "")
    return "" if not transform or os.path.exists(transform) else transform


def _begins(job: Job, folder: Path) -> bool:
    """Waits until a job begins; False if it is given up before."""
    while not _has_begun(job, folder):
        if _read(Job, folder / JOB) != job:
            return False
        time.sleep(POLL_SECONDS)
    return True


def _has_begun(job: Job, folder: Path) -> bool:
    with suppress(FileNotFoundError):
        return (folder / BEGIN).read_text(encoding="utf-8") == job.id
    return False


def _wait_for_all(job: Job, cluster: Cluster, folder: Path, deadline: float) -> None:
    """Waits until all other workers are ready.

    Raises:
      BadInput: one of them cannot take part.
      FraudPipelineError: they are not, in time.
    """
    missing = set(range(1, len(cluster.workers)))
    while missing:
        for index in sorted(missing):
            ready = _read(Ready, folder / f"ready-{index}")
            if ready is not None and ready.job == job.id:
                if ready.problem:
                    raise BadInput(f"{cluster.name(index)} {ready.problem}")
                missing.remove(index)
        if missing and time.monotonic() > deadline:
            raise FraudPipelineError(
                f"{', '.join(map(cluster.name, sorted(missing)))} did not come in time "
                "(network.workers_wait_minutes); start there, with the same root, "
                "fraud-pipeline train-worker, and run again"
            )
        time.sleep(POLL_SECONDS)


def _read(kind: type[Any], path: Path) -> Any:
    """A file of the folder; None if it is not there."""
    try:
        return from_json(kind, path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _clear(folder: Path, workers: int) -> None:
    for name in (JOB, BEGIN, *(f"ready-{index}" for index in range(1, workers))):
        (folder / name).unlink(missing_ok=True)


def _train(job_file: Path, cluster: Cluster) -> None:
    """Trains in a process of its own, which ends with this one at the latest.

    Raises:
      FraudPipelineError: it failed.
    """
    with tempfile.TemporaryDirectory() as told:
        command = [sys.executable, "-m", "fraud.models.workers", str(job_file), told]
        process = subprocess.Popen(command, stdin=subprocess.PIPE)
        try:
            deadline = time.monotonic() + CONNECT_SECONDS
            while process.poll() is None:
                if not Path(told, CONNECTED).exists() and time.monotonic() > deadline:
                    raise FraudPipelineError(
                        f"the workers {', '.join(cluster.workers)} cannot connect to one another; "
                        f"see that each can reach the others by these names, at these ports"
                    )
                time.sleep(POLL_SECONDS)
        finally:
            process.kill()
            process.wait()
        if process.returncode == 0:
            return
        message = Path(told, MESSAGE)
        if message.exists():
            failure = BadInput if process.returncode == BadInput.exit_code else FraudPipelineError
            raise failure(message.read_text(encoding="utf-8"))
        raise FraudPipelineError(
            f"{cluster.name(cluster.index)} could not go on: it or another of the workers "
            f"{', '.join(cluster.workers)} was lost; their output says more. Nothing was "
            "written; run again once all are there"
        )


def _main(job_file: str, told: str) -> int:
    """The process that trains."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    cluster = Cluster.of_environment()
    job = from_json(Job, Path(job_file).read_text(encoding="utf-8"))
    try:
        from fraud.models import entry_point
        from fraud.models.network.team import Team

        team = Team.joined(len(cluster.workers), cluster.index)
        Path(told, CONNECTED).touch()
        entry_point.train_from_files(SimpleNamespace(**json.loads(job.task)), team)
    except FraudPipelineError as error:
        Path(told, MESSAGE).write_text(str(error), encoding="utf-8")
        return error.exit_code
    return 0


def _end_with_parent() -> None:
    """Ends this process when the one that started it has ended, however that did."""
    os.read(sys.stdin.fileno(), 1)  # unlike sys.stdin, without a lock that the end would wait for
    os._exit(FraudPipelineError.exit_code)


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))

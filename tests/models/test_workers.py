from __future__ import annotations

import json
import threading
import time

import pytest

from fraud.codec import from_json, to_json
from fraud.errors import BadInput, FraudPipelineError
from fraud.files import write_atomically
from fraud.models import workers
from fraud.models.workers import Cluster, Job, Ready

ADDRESSES = ("a:1", "b:2", "c:3")


def tf_config(index: int, **cluster: list[str]) -> str:
    cluster = cluster or {"worker": list(ADDRESSES)}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})


@pytest.fixture(autouse=True)
def fast(monkeypatch) -> None:
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.01)


@pytest.fixture
def trained(monkeypatch) -> list[str]:
    """The jobs that were trained."""
    ids: list[str] = []

    def train(job_file, cluster) -> None:
        ids.append(from_json(Job, job_file.read_text()).id)

    monkeypatch.setattr(workers, "_train", train)
    return ids


def wait_for(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_the_cluster_is_that_of_the_environment() -> None:
    assert Cluster.of_environment({"TF_CONFIG": tf_config(2)}) == Cluster(ADDRESSES, 2)


def test_a_chief_is_worker_0() -> None:
    text = tf_config(1, worker=["b:2", "c:3"], chief=["a:1"])
    assert Cluster.of_environment({"TF_CONFIG": text}) == Cluster(ADDRESSES, 2)
    text = text.replace('"type": "worker", "index": 1', '"type": "chief", "index": 0')
    assert Cluster.of_environment({"TF_CONFIG": text}) == Cluster(ADDRESSES, 0)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        tf_config(3),
        tf_config(-1),
        tf_config(0, worker="h:12"),
        tf_config(0, worker=["a", "b"]),
        tf_config(0, worker=["a:1", "b:two"]),
        tf_config(0).replace('"index": 0', '"index": 1e999'),
        tf_config(1, chief=["a:1"], worker=["b:2"]).replace('"type": "worker"', '"type": "chief"'),
        tf_config(0, worker=["a:1", "a:1"]),
        tf_config(0, worker=["a:1"], ps=["b:2"]),
        tf_config(0).replace('"type": "worker"', '"type": "evaluator"'),
        tf_config(0).replace('"index": 0', '"index": null'),
    ],
)
def test_a_cluster_that_is_none_is_refused(text) -> None:
    with pytest.raises(BadInput, match="no cluster of workers") as refused:
        Cluster.of_environment({"TF_CONFIG": text})
    assert text in str(refused.value)


@pytest.mark.parametrize("environment", [{}, {"TF_CONFIG": ""}])
def test_without_a_cluster_the_message_says_how_to_describe_it(environment) -> None:
    with pytest.raises(BadInput, match=r'TF_CONFIG is not set.*\{"cluster": \{"worker"'):
        Cluster.of_environment(environment)


@pytest.mark.parametrize(("index", "count"), [(1, 3), (0, 2)])
def test_the_trainer_is_the_first_of_as_many_workers_as_configured(
    tmp_path, monkeypatch, index, count
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(index))
    with pytest.raises(BadInput, match=f"network.workers is {count}.* has 3 workers"):
        workers.lead({}, tmp_path, count, 1)


def test_the_trainer_does_not_serve(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(0))
    with pytest.raises(BadInput, match="the Trainer itself; the others are workers 1 to 2"):
        workers.serve(tmp_path, True, print)


def test_workers_that_do_not_come_are_named(tmp_path, monkeypatch, trained) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(0))

    def write(path, text) -> None:
        write_atomically(path, text)
        if path.name == "job.json":
            ready = to_json(Ready(from_json(Job, text).id))
            (tmp_path / "ready-1").write_text(ready)
            (tmp_path / "ready-2").write_text(to_json(Ready("of another attempt")))

    monkeypatch.setattr(workers, "write_atomically", write)
    with pytest.raises(FraudPipelineError, match=r"^worker 2 \(c:3\) did not come") as failure:
        workers.lead({}, tmp_path, 3, 0.2)
    assert "fraud-pipeline train-worker" in str(failure.value) and failure.value.exit_code == 1
    assert not trained and not list(tmp_path.iterdir())


def lead_and_serve(
    folder, monkeypatch, serving: Cluster, codes=("same", "same"), task=None
) -> list:
    """Leads two workers, of which this process is both; what came of it on either side."""
    results: list = []
    leading = Cluster(serving.workers, 0)
    mine = threading.local()
    monkeypatch.setattr(workers, "code", lambda: codes[getattr(mine, "serves", 0)])
    monkeypatch.setattr(
        Cluster,
        "of_environment",
        lambda: serving if getattr(mine, "serves", 0) else leading,
    )

    def serve() -> None:
        mine.serves = 1
        try:
            results.append(workers.serve(folder, True, lambda text: None))
        except FraudPipelineError as error:
            results.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        workers.lead(task or {"columns": 1}, folder, 2, 5)
    except FraudPipelineError as error:
        results.append(error)
    thread.join(10)
    assert not thread.is_alive()
    return results


def test_both_train_when_all_are_ready(tmp_path, monkeypatch) -> None:
    tasks = []
    both = threading.Barrier(2, timeout=10)  # the job is there until the Trainer has trained

    def train(job_file, cluster) -> None:
        tasks.append((json.loads(from_json(Job, job_file.read_text()).task), cluster.index))
        both.wait()

    monkeypatch.setattr(workers, "_train", train)
    assert lead_and_serve(tmp_path, monkeypatch, Cluster(("a:1", "b:2"), 1)) == [None]
    assert sorted(tasks, key=str) == [({"columns": 1}, 0), ({"columns": 1}, 1)]
    assert not list(tmp_path.iterdir())


def test_a_worker_with_other_code_does_not_take_part(tmp_path, monkeypatch, trained) -> None:
    results = lead_and_serve(
        tmp_path, monkeypatch, Cluster(("a:1", "b:2"), 1), ("theirs", "another")
    )
    assert len(results) == 2 and not trained
    for result in results:
        assert isinstance(result, BadInput)
        assert "worker 1 (b:2) has another version of the code" in str(result)


def test_a_worker_that_does_not_see_the_inputs_does_not_take_part(
    tmp_path, monkeypatch, trained
) -> None:
    """Its root is mounted elsewhere."""
    unseen = str(tmp_path / "mounted-elsewhere")
    results = lead_and_serve(
        tmp_path / "workers",
        monkeypatch,
        Cluster(("a:1", "b:2"), 1),
        task={"transform_output": unseen},
    )
    assert len(results) == 2 and not trained
    for result in results:
        assert isinstance(result, BadInput)
        assert f"worker 1 (b:2) does not see {unseen}" in str(result)


def test_the_code_is_what_trains(tmp_path, monkeypatch) -> None:
    for name in ("models", "features"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "__init__.py").write_text("")
        package = getattr(workers.fraud, name)
        monkeypatch.setattr(package, "__file__", str(folder / "__init__.py"))
    before = workers.code()
    assert workers.code() == before
    (tmp_path / "models" / "x.py").write_text("x = 1")
    assert workers.code() != before


def test_a_worker_serves_no_job_that_began_without_it_or_is_given_up(
    tmp_path, monkeypatch, trained
) -> None:
    monkeypatch.setenv("TF_CONFIG", tf_config(1))
    monkeypatch.setattr(workers, "code", lambda: "same")

    def write(name: str, workers_of_job=ADDRESSES) -> None:
        temporary = tmp_path / "temporary"
        temporary.write_text(to_json(Job(name, workers_of_job, "same", "{}")))
        temporary.replace(tmp_path / "job.json")

    def is_ready(name: str) -> bool:
        path = tmp_path / "ready-1"
        return path.exists() and from_json(Ready, path.read_text()).job == name

    (tmp_path / "begin").write_text("begun")
    write("begun")
    said: list[str] = []
    thread = threading.Thread(target=workers.serve, args=(tmp_path, True, said.append), daemon=True)
    thread.start()
    time.sleep(0.3)
    assert not (tmp_path / "ready-1").exists() and len(said) == 1
    write("of others", ("x:1", "b:2"))
    time.sleep(0.3)
    assert not (tmp_path / "ready-1").exists()
    write("given up")
    wait_for(lambda: is_ready("given up"))
    write("ours")
    wait_for(lambda: is_ready("ours"))
    (tmp_path / "begin").write_text("ours")
    thread.join(10)
    assert trained == ["ours"] and len(said) == 3


@pytest.mark.parametrize(("code", "raised"), [(2, BadInput), (1, FraudPipelineError)])
def test_what_the_process_says_is_the_error(tmp_path, monkeypatch, code, raised) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\necho no frauds > $4/message\nexit {code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(program))
    with pytest.raises(raised, match="no frauds") as failure:
        workers._train(tmp_path / "job.json", Cluster(("a:1", "b:2"), 1))
    assert failure.value.exit_code == code


def test_a_process_that_was_killed_says_nothing(tmp_path, monkeypatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(program))
    with pytest.raises(FraudPipelineError, match=r"worker 1 \(b:2\) could not go on: .* was lost"):
        workers._train(tmp_path / "job.json", Cluster(("a:1", "b:2"), 1))


def test_workers_that_cannot_connect_are_given_up(tmp_path, monkeypatch) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(workers.sys, "executable", str(program))
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 0.2)
    with pytest.raises(FraudPipelineError, match="a:1, b:2 cannot connect to one another"):
        workers._train(tmp_path / "job.json", Cluster(("a:1", "b:2"), 1))


def test_the_process_that_trains_ends_with_the_one_that_started_it(tmp_path) -> None:
    """Its standard input is a pipe from there."""
    import subprocess
    import sys

    program = (
        "import threading, time; from fraud.models import workers; "
        "threading.Thread(target=workers._end_with_parent, daemon=True).start(); "
        "print('begun', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None and process.stdin is not None
    process.stdout.readline()
    assert process.poll() is None
    process.stdin.close()
    assert process.wait(20) == 1

"""Every command that the documents and the program print is executed, here or elsewhere.

A new command is executed by this test without further ado: in a folder with the sample as
`transactions`, a small configuration, and the root of one run, which each command finds as that run
left it. What cannot be executed here names the test that does it, or a reason.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from pyarrow import csv, parquet

from scripts import first_hour
from tests.e2e.conftest import CONFIG, REPOSITORY, SAMPLE, free_port
from tests.printed import ROOT, commands_of, everything, parser_of

LAST_DAY = "2026-03-21"
SECONDS = 300
"""For one command, on a machine with other jobs."""

ELSEWHERE: dict[str, tuple[str, str]] = {
    r"fraud-pipeline backtest": ("tests/e2e/test_backtest.py", '"backtest", "--data"'),
    r"fraud-pipeline run .*--tune": ("tests/e2e/test_tune.py", 'SAMPLE, AS_OF, "--tune"'),
    r"fraud-pipeline run .*tuned.yaml": ("tests/e2e/test_tune.py", '"--config", first["tuned"]'),
    r"fraud-pipeline (train-worker|run .*) --root /mnt/fraud": (
        "tests/e2e/test_workers.py",
        '"train-worker"',
    ),
    r"fraud-pipeline watch .*--simulate": (
        "tests/e2e/test_watch.py",
        'bank.call("watch", "--data", data, "--simulate")',
    ),
    r"fraud-pipeline watch": ("tests/e2e/test_watch.py", 'bank.command("watch", "--data", data'),
    r"fraud-pipeline decide .*--approve": ("tests/e2e/test_watch.py", 'broken[1], "--approve"'),
    r"fraud-pipeline decide .*--run": ("tests/e2e/test_watch.py", 'decide(FIRST, "--run"'),
    r"fraud-pipeline rollback --reason": (
        "tests/pipeline/test_releases.py",
        'cli.main(["rollback", "--reason", ',
    ),
    r"fraud-pipeline rollback --to": ("tests/e2e/test_run.py", 'bank.call("rollback", "--to", '),
    r"fraud-pipeline node": (
        "tests/pipeline/runners/test_launch.py",
        '["node", "--ir", str(run.ir), "--node", name, "--run-id"',
    ),
    r"MLFLOW_TRACKING_URI=\S+ fraud-pipeline track": (
        "tests/e2e/test_run.py",
        'bank.call("track", "--json")',
    ),
    r"mlflow server": ("tests/e2e/tracking_server.py", '"mlflow", "server"'),
    r"fraud-pipeline lineage --openlineage": (
        "tests/report/test_openlineage_events.py",
        '"--openlineage"',
    ),
    r"fraud-pipeline compile --target vertex": (
        "tests/e2e/orchestrators/test_vertex.py",
        '"--target", "vertex", "--image"',
    ),
    r"python deploy/kubeflow/fraud.py compile": (
        "tests/e2e/orchestrators/test_kubeflow.py",
        '"compile"',
    ),
    r"(\.venv/bin/python deploy/flink/cluster.py|\S*fraud-pipeline run .*beam.yaml)": (
        "tests/e2e/orchestrators/test_flink.py",
        "cluster",
    ),
    r"curl -s localhost:8501/v[12]/models|curl -s localhost:8501/(readyz|metrics)": (
        "tests/serving/test_docs.py",
        "test_every_curl_line_is_answered",
    ),
    r"make (train|deploy|undeploy|jenkins-lint|lint)$": (
        "tests/deploy/test_jenkins.py",
        '"train"',
    ),
    r"make docs": ("tests/test_docs.py", "document_configuration"),
    r"make setup": ("tests/test_setup.py", "setup.sh"),
    r"make airflow": ("tests/e2e/orchestrators/test_airflow.py", "airflow"),
    r"make kubeflow": ("tests/e2e/orchestrators/test_kubeflow.py", "kubeflow"),
    r"make (run|serve)$|curl -s localhost:8501/v1/transactions:score": (
        "tests/e2e/test_printed_commands.py",
        "test_the_first_steps_of_the_readme",
    ),
}
"""Commands (pattern) → the test that executes them, and a text in it that shows that."""

BY_PAGE = {"operations.md": "tests/e2e/test_operations.py", "kubernetes.md": "make manifests-apply"}
"""Pages whose blocks are executed as a whole, in order, and by what."""

NOT_HERE: dict[str, str] = {
    r"make (unit|test|test-slow|test-modern|jenkins-test|mutants)\b": "runs tests",
    r"make (format|lock)$": "changes the checkout; `make lint` checks the same format",
    r"\S*python -m pytest": "runs tests",
    r"make (bench|bench-serving|bench-models|demo)": "minutes to hours; for figures of pages",
    r"(nice )?python -m (benchmarks|tests\.monitoring)": "minutes; for the figures of the pages",
    r"(\S*/)?fraud-pipeline (simulate --out simulated --days 100|score simulated)|/usr/bin/time": (
        "a million rows; made the figures of the documents"
    ),
    r"make (image|sbom|manifests|manifests-apply|flink)$|scripts/setup_flink.sh": (
        "needs a builder, Go or a JDK; is a check of its own"
    ),
    r"make promote$": "pushes images to a registry",
    r"docker ": "needs Docker; `make image` builds the same Dockerfile",
    r"kubectl ": "needs a cluster; the manifests are applied by `make manifests-apply`",
    r"airflow ": "needs Airflow's own environment: tests/e2e/orchestrators/test_airflow.py",
    r"pip install": "needs a package index",
}
"""Commands (pattern) that no test executes → why."""

SERVERS = {
    "fraud-pipeline serve": ("--port {port} --grpc-port {other}", "/v1/models/fraud"),
    "fraud-pipeline ui": ("--port {port}", "/"),
    "tensorboard": ("--port {port}", "/"),
}
"""Commands that do not end → options for free ports, and a path that is to be answered."""

SECRET = "a-token-of-this-test-that-is-long-enough"
STATUS = {r"fraud-pipeline schema --diff": (0, 1)}
"""Commands whose exit status says more than that they worked."""


def covered_elsewhere(command: str, page: str) -> bool:
    patterns = [*ELSEWHERE, *NOT_HERE]
    of_page = BY_PAGE.get(page) is not None
    return of_page or command in first_hour.COMMANDS or any(re.match(p, command) for p in patterns)


def typed_here(command: str) -> str:
    """A command with names, numbers and days of this workplace instead of the page's."""
    changes = {
        r"^\.venv/bin/": "",
        r"\b2018-07-31\b": LAST_DAY,
        r"(--customers|--terminals) \d+": r"\1 60",
        r"--min-rows \d+": "--min-rows 100",
        r"data/sample/transactions$": "transactions",
        r"/(backups|srv/fraud)\b": r"\1",
        r" \| dot -Tsvg": "",  # Graphviz is the reader's
        r"\b0\.0\.0\.0\b": "127.0.0.1",
    }
    if "simulate" not in command and "statistics" not in command:
        changes[r"data/sample/transactions"] = "transactions"
    for pattern, text in changes.items():
        command = re.sub(pattern, text, command)
    named = re.match(r"fraud-pipeline ([a-z][a-z-]*)", command)
    if named and not {"--config", "--help"} & {*command.split()}:
        options = {o for a in parser_of(named[1])._actions for o in a.option_strings}
        if (
            "--config" in options or named[1] == "state"
        ):  # where documents name none, it is the reader's own
            command = re.sub(r"( >|$)", r" --config fraud.yaml\1", command, count=1)
    return command


HERE = list(
    dict.fromkeys(
        typed_here(command)
        for command, page in everything().items()
        if not covered_elsewhere(command, page)
    )
)
RUN = f"fraud-pipeline run --data transactions --as-of {LAST_DAY} --config fraud.yaml"
STATE = f"fraud-pipeline state build --data transactions --as-of {LAST_DAY} --config fraud.yaml"
BACKUP = "fraud-pipeline backup backups/before-upgrade --root fraud-root --config fraud.yaml"


@dataclass
class Workplace:
    """The folder of the commands.

    Attributes:
      folder: where they are typed.
      done: what the fixture has executed.
    """

    folder: Path
    done: dict[str, subprocess.CompletedProcess[str]]

    @property
    def environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if "FRAUD" not in name}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        return {**inherited, "PATH": path, "FRAUD_SCORE_TOKENS": SECRET}

    def names(self, command: str) -> str:
        """The command with a version and a run of this root instead of the page's."""
        root = self.folder / "fraud-root"
        command = re.sub(r"\b179\d{7}\b", os.listdir(root / "pushed")[0], command)
        return re.sub(r"\b20261129-\d{6}\b", os.listdir(root / "runs")[0], command)

    def execute(self, command: str) -> subprocess.CompletedProcess[str]:
        folder = self.folder
        if re.search(r" (simulate|init) ", command):  # what these write is not there yet
            folder = Path(tempfile.mkdtemp(dir=folder))
            shutil.copy(self.folder / "claims.csv", folder)
        return subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    @contextlib.contextmanager
    def started(self, command: str) -> Iterator[subprocess.Popen[str]]:
        """A command that does not end by itself, which is ended as by Ctrl-C."""
        with open(self.folder / "server.log", "w+", encoding="utf-8") as log:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
            try:
                yield process
            finally:
                # How TensorBoard ends is not ours: under load it has ignored Ctrl-C for a minute.
                try:
                    if not command.startswith("tensorboard"):
                        with contextlib.suppress(ProcessLookupError):
                            os.killpg(process.pid, signal.SIGINT)
                        process.wait(60)
                finally:
                    with contextlib.suppress(ProcessLookupError):
                        os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    """A root with a pushed model, a state and a backup."""
    folder = tmp_path_factory.mktemp("typed")
    own = CONFIG.replace("paths: {", "paths: {data: transactions, ")
    (folder / "fraud.yaml").write_text(own, encoding="utf-8")
    for name in ("transactions", "simulated", "handbook"):
        (folder / name).symlink_to(SAMPLE)
    today = parquet.read_table(next((SAMPLE / f"date={LAST_DAY}").glob("*.parquet")))
    parquet.write_table(today, folder / "today.parquet")
    csv.write_csv(today, folder / "today.csv")
    csv.write_csv(today, folder / "claims.csv")
    workplace = Workplace(folder, {})
    for command in (RUN, STATE, BACKUP):
        workplace.done[command] = workplace.execute(command)
        assert workplace.done[command].returncode == 0, workplace.done[command].stderr
    shutil.copytree(folder / "fraud-root", folder / "as-it-was", symlinks=True)
    return workplace


@pytest.fixture
def workplace(first: Workplace) -> Workplace:
    """The same after every command."""
    shutil.rmtree(first.folder / "fraud-root", ignore_errors=True)
    shutil.copytree(first.folder / "as-it-was", first.folder / "fraud-root", symlinks=True)
    return first


@pytest.mark.e2e
@pytest.mark.parametrize("command", [c for c in HERE if not c.startswith(tuple(SERVERS))])
def test_it_works_as_printed(workplace: Workplace, command: str) -> None:
    done = workplace.done.get(command) or workplace.execute(workplace.names(command))
    expected = next((of for pattern, of in STATUS.items() if re.match(pattern, command)), (0,))
    assert done.returncode in expected, done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.e2e
@pytest.mark.parametrize("command", [c for c in HERE if c.startswith(tuple(SERVERS))])
def test_a_server_answers(workplace: Workplace, command: str) -> None:
    options, path = next(of for name, of in SERVERS.items() if command.startswith(name))
    port, other = free_port(), free_port()
    scheme = "http"
    if "--tls-certificate" in command:
        scheme = "https"
        subject = ["-subj", "/CN=localhost", "-keyout", "server-key.pem", "-out", "server.pem"]
        request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"]
        subprocess.run([*request, *subject], cwd=workplace.folder, check=True, capture_output=True)
    with workplace.started(f"{command} {options.format(port=port, other=other)}") as server:
        answer = awaited(f"{scheme}://127.0.0.1:{port}{path}", server, workplace)
    assert answer.status_code == 200, answer.text
    if not command.startswith("tensorboard"):
        assert server.returncode in (0, -signal.SIGINT, 128 + signal.SIGINT)
    assert "Traceback" not in (workplace.folder / "server.log").read_text(encoding="utf-8")


def awaited(url: str, server: subprocess.Popen[str], workplace: Workplace) -> httpx.Response:
    """What a server answers as soon as it does."""
    headers = {"Authorization": f"Bearer {SECRET}"}
    deadline = time.monotonic() + SECONDS
    while True:
        with contextlib.suppress(httpx.TransportError):
            # Its certificate was made a moment ago.
            answer = httpx.get(url, headers=headers, verify=False, follow_redirects=True)
            if answer.status_code != 503:
                return answer
        log = (workplace.folder / "server.log").read_text(encoding="utf-8")
        assert server.poll() is None and time.monotonic() < deadline, log
        time.sleep(0.2)


@pytest.mark.e2e
@pytest.mark.slow
def test_the_first_steps_of_the_readme(tmp_path: Path) -> None:
    """`make run`, `make serve` and the request to it, in a clone."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(clone)], check=True)
    # As if set up: a real `make setup` would take minutes, and change this very environment.
    (clone / ".venv").symlink_to(Path(sys.prefix))
    readme = (clone / "README.md").read_text(encoding="utf-8")
    assert {"make run", "make serve"} <= {*commands_of(readme)}
    request = re.search(r"^curl -s localhost:8501.*?\]\}'$", readme, re.MULTILINE | re.DOTALL)
    assert request is not None
    port, other = free_port(), free_port()
    own = {k: v for k, v in os.environ.items() if not k.startswith(("FRAUD", "MAKE"))}
    place = Workplace(clone, {})
    done = subprocess.run(
        ["make", "-o", "setup", "run"],
        cwd=clone,
        env=own,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "pushed    version" in done.stdout, done.stderr
    with place.started(f"make -o setup serve ARGS='--port {port} --grpc-port {other}'") as server:
        awaited(f"http://127.0.0.1:{port}/readyz", server, place)
        curl = (
            request[0]
            .replace("8501", str(port))
            .replace("curl -s", f"curl -sSf -H 'Authorization: Bearer {SECRET}'")
        )
        answer = place.execute(curl)
    assert answer.returncode == 0 and '"reasons"' in answer.stdout, answer.stdout + answer.stderr


def test_lists_of_exceptions_are_short_and_true() -> None:
    printed = everything()
    for pattern in [*ELSEWHERE, *NOT_HERE]:
        assert any(re.match(pattern, command) for command in printed), f"{pattern}: not printed"
    for file, text in ELSEWHERE.values():
        source = (ROOT / file).read_text(encoding="utf-8")
        assert text in source, f"{file} does not execute it any more: {text}"
    for page, by in BY_PAGE.items():
        source = ROOT / (by if by.endswith(".py") else "deploy/kubernetes/api_server.py")
        assert page in source.read_text(encoding="utf-8")
    assert {RUN, STATE, BACKUP} <= {*HERE}

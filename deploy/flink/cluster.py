"""Runs a Flink cluster on this machine: a JobManager, TaskManagers, and Beam's job server.

    .venv/bin/python deploy/flink/cluster.py --home build/flink

starts Flink's standalone JobManager and two TaskManagers, which start workers in this environment,
and Beam's job server for Flink, all at 127.0.0.1 and at ports that are free. It writes
HOME/beam.yaml, which makes a run use them (`--config CONFIG --config build/flink/beam.yaml`), and
runs until Ctrl-C or, if a command is given after `--`, until that has ended. Nothing that it
started outlives it. Needs Java 11 or 17, and what scripts/setup_flink.sh downloads.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
BEAM = REPOSITORY / ".flink" / "beam"
"""Beam's runner and job server."""

LOCAL = "127.0.0.1"
START_SECONDS = 180

# Flink's main classes; its scripts jobmanager.sh and taskmanager.sh start the same ones.
JOB_MANAGER = "org.apache.flink.runtime.entrypoint.StandaloneSessionClusterEntrypoint"
TASK_MANAGER = "org.apache.flink.runtime.taskexecutor.TaskManagerRunner"
MEMORY = "org.apache.flink.runtime.util.bash.BashJavaUtils"
JOB_SERVER = "org.apache.beam.runners.flink.FlinkJobServerDriver"

# What Flink and Beam look at by reflection, and Java 17 closes: as in Flink's own config.yaml.
_OPENED = """
    --add-exports=java.base/sun.net.util=ALL-UNNAMED
    --add-exports=java.rmi/sun.rmi.registry=ALL-UNNAMED
    --add-exports=java.security.jgss/sun.security.krb5=ALL-UNNAMED
    --add-opens=java.base/java.lang=ALL-UNNAMED
    --add-opens=java.base/java.net=ALL-UNNAMED
    --add-opens=java.base/java.io=ALL-UNNAMED
    --add-opens=java.base/java.nio=ALL-UNNAMED
    --add-opens=java.base/sun.nio.ch=ALL-UNNAMED
    --add-opens=java.base/java.lang.reflect=ALL-UNNAMED
    --add-opens=java.base/java.text=ALL-UNNAMED
    --add-opens=java.base/java.time=ALL-UNNAMED
    --add-opens=java.base/java.util=ALL-UNNAMED
    --add-opens=java.base/java.util.concurrent=ALL-UNNAMED
    --add-opens=java.base/java.util.concurrent.atomic=ALL-UNNAMED
    --add-opens=java.base/java.util.concurrent.locks=ALL-UNNAMED
""".split()

_LOG4J = """\
rootLogger.level = INFO
rootLogger.appenderRef.file.ref = file
appender.file.name = file
appender.file.type = FILE
appender.file.fileName = ${sys:log.file}
appender.file.append = true
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %-5p %c{1} - %m%n
logger.pekko.name = org.apache.pekko
logger.pekko.level = WARN
"""


class Unavailable(Exception):
    """Something that a cluster needs is not on this machine; the message says what."""


class Cluster:
    """Context manager that runs a cluster for the duration of the block.

    Args:
      home: folder for settings, logs and temporary files; those of an earlier cluster are replaced.
      workers: number of TaskManagers.
      task_memory: of each TaskManager, as Flink writes sizes.
    """

    def __init__(self, home: Path, workers: int = 2, task_memory: str = "2500m") -> None:
        self._home = home.resolve()
        self._workers = workers
        self._rest, rpc, blob, self._jobs, self._artifacts = _free_ports(5)
        self._settings: dict[str, Any] = {
            "jobmanager.rpc.address": LOCAL,
            "jobmanager.rpc.port": rpc,
            "jobmanager.bind-host": LOCAL,
            "jobmanager.memory.process.size": "1g",
            "jobmanager.execution.failover-strategy": "region",
            "rest.address": LOCAL,
            "rest.bind-address": LOCAL,
            "rest.port": self._rest,
            "blob.server.port": blob,
            "blob.storage.directory": str(self._home / "temporary"),
            "io.tmp.dirs": str(self._home / "temporary"),
            "taskmanager.host": LOCAL,
            "taskmanager.bind-host": LOCAL,
            "taskmanager.memory.process.size": task_memory,
            "taskmanager.memory.jvm-metaspace.size": "256m",
            # Of sorting. TFDV's accumulators are single records of megabytes, of which each of a
            # job's many sorters must hold one.
            "taskmanager.memory.managed.size": "1g",
            # TFDV's and TFMA's stages exchange data in hundreds of places at once, each of which
            # takes 512 buffers if it sorts, as wide clusters do.
            "taskmanager.memory.network.min": "192m",
            "taskmanager.memory.network.max": "192m",
            "taskmanager.network.sort-shuffle.min-parallelism": 1000,
            # So that a job still has all its slots when a TaskManager is lost.
            "taskmanager.numberOfTaskSlots": max(workers, 2),
            "cluster.evenly-spread-out-slots": True,
            # Hundreds of tasks are deployed at once; on a busy machine, one may wait longer than
            # the 10 s of the default.
            "pekko.ask.timeout": "60 s",
            "heartbeat.interval": 2000,
            "heartbeat.timeout": 20000,
            # The first pause is longer than it takes until a lost TaskManager counts as lost: until
            # then Flink gives it work again, and each time counts as an attempt.
            "restart-strategy.type": "exponential-delay",
            "restart-strategy.exponential-delay.initial-backoff": "10 s",
            "restart-strategy.exponential-delay.max-backoff": "30 s",
            "restart-strategy.exponential-delay.attempts-before-reset-backoff": 3,
            # Beam's classes are on the class path of Flink; a job brings the same ones.
            "classloader.resolve-order": "parent-first",
            "classloader.check-leaked-classloader": False,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        """The processes by name: jobmanager, taskmanager-1, …, job-server."""
        self._started: list[subprocess.Popen[bytes]] = []  # those that were replaced, too

    @property
    def beam_options(self) -> list[str]:
        """Beam's command line for jobs on this cluster, without the runner."""
        worker = {"command": str(Path(sys.executable).with_name("fraud-beam-worker"))}
        return [
            f"--job_endpoint={LOCAL}:{self._jobs}",
            "--environment_type=PROCESS",
            f"--environment_config={json.dumps(worker)}",
            # No image is used; but without this, TFX packages itself for the workers at each node.
            "--sdk_container_image=installed",
            # The stages of a job share their workers instead of starting new ones.
            "--environment_cache_millis=20000",
            f"--parallelism={self._workers}",
        ]

    @property
    def beam_config(self) -> dict[str, Any]:
        """The same as a section of a configuration."""
        return {"beam": {"runner": "PortableRunner", "options": self.beam_options}}

    @property
    def config(self) -> Path:
        """A configuration file for `fraud-pipeline` with these options."""
        return self._home / "beam.yaml"

    def __enter__(self) -> Cluster:
        flink = _flink()
        java = shutil.which("java")
        if java is None:
            raise Unavailable("there is no Java here, which Flink needs (11 or 17)")
        is_ours = (self._home / "conf" / "config.yaml").exists()
        if not is_ours and self._home.exists() and any(self._home.iterdir()):
            raise Unavailable(f"{self._home}: is not empty, and no cluster's; name another folder")
        shutil.rmtree(self._home, ignore_errors=True)
        for folder in ("conf", "log", "temporary"):
            (self._home / folder).mkdir(parents=True)
        lines = [f"{name}: {json.dumps(value)}\n" for name, value in self._settings.items()]
        (self._home / "conf" / "config.yaml").write_text("".join(lines))
        (self._home / "conf" / "log4j.properties").write_text(_LOG4J)
        self.config.write_text(json.dumps(self.beam_config, indent=1))  # which is YAML, too
        self._java = [java, *_OPENED, "-XX:+UseG1GC", "-XX:ActiveProcessorCount=2"]
        jars = [*_jars_of_flink(flink), *sorted(BEAM.glob("*.jar"))]
        self._class_path = ":".join(map(str, jars))
        self._flink_utilities = flink / "bin" / "bash-java-utils.jar"
        try:
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start_all(self) -> None:
        conf = ["--configDir", str(self._home / "conf")]
        self._start_java("jobmanager", JOB_MANAGER, conf, ["-Xmx512m"])
        memory, dynamic = self._memory_of_task_manager()
        self._task_manager = (memory, [*conf, *dynamic])
        for number in range(1, self._workers + 1):
            self.start_task_manager(number)
        self._wait(lambda: self.overview()["taskmanagers"] == self._workers, "Flink")
        server = ["--job-host", LOCAL, "--job-port", str(self._jobs), "--expansion-port", "-1"]
        server += ["--artifact-port", str(self._artifacts), "--clean-artifacts-per-job"]
        server += ["--artifacts-dir", str(self._home / "temporary" / "artifacts")]
        server += ["--flink-master", f"{LOCAL}:{self._rest}"]
        server += ["--flink-conf-dir", str(self._home / "conf")]
        self._start_java("job-server", JOB_SERVER, server, ["-Xmx512m"])
        self._wait(lambda: _answers(self._jobs), "Beam's job server")

    def start_task_manager(self, number: int) -> None:
        """Starts a TaskManager, as a supervisor would after one has died."""
        memory, arguments = self._task_manager
        self._start_java(f"taskmanager-{number}", TASK_MANAGER, arguments, memory)

    def overview(self) -> dict[str, Any]:
        """What Flink says about itself: the numbers of TaskManagers, slots and jobs."""
        return self.ask("/overview")

    def ask(self, path: str) -> Any:
        """The answer of Flink's REST API.

        Raises:
          OSError: it does not answer.
        """
        with urllib.request.urlopen(f"http://{LOCAL}:{self._rest}{path}", timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        """Ends all processes, and those that they started."""
        # The last started first, so that nothing waits for what has ended.
        started = self._started[::-1]
        for process in started:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + 10
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.1, deadline - time.monotonic()))
            _signal(process, signal.SIGKILL)
            process.wait()
        self._started.clear()
        self.processes.clear()
        shutil.rmtree(self._home / "temporary", ignore_errors=True)

    def _memory_of_task_manager(self) -> tuple[list[str], list[str]]:
        """How Flink divides the memory: Java's options, and options of the TaskManager."""
        command = [*self._java, "-cp", f"{self._flink_utilities}:{self._class_path}", MEMORY]
        command += ["GET_TM_RESOURCE_PARAMS", "--configDir", str(self._home / "conf")]
        done = subprocess.run(command, capture_output=True, text=True)
        lines = [
            line.partition(":")[2]
            for line in (done.stdout + done.stderr).splitlines()
            if line.startswith("BASH_JAVA_UTILS_EXEC_RESULT")
        ]
        if len(lines) != 2:
            raise Unavailable(f"Flink cannot divide its memory: {done.stdout}{done.stderr}")
        return lines[0].split(), lines[1].split()

    def _start_java(
        self, name: str, main: str, arguments: Sequence[str], options: Sequence[str]
    ) -> None:
        log4j = f"-Dlog4j.configurationFile={self._home}/conf/log4j.properties"
        log = f"-Dlog.file={self._home}/log/{name}.log"
        command = [*self._java, *options, log4j, log, "-cp", self._class_path, main, *arguments]
        self._start(name, command)

    def _start(self, name: str, command: Sequence[object]) -> None:
        with (self._home / "log" / f"{name}.out").open("ab") as log:
            process = subprocess.Popen(
                [str(part) for part in command],
                cwd=self._home,  # as on another machine, no relative path works
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # Its own group, so that Ctrl-C ends the command first and then, in order, these.
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        self.processes[name] = process
        self._started.append(process)

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with suppress(OSError):  # not yet
                if condition():
                    return
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise Unavailable(f"{name} ended while starting: {self._home}/log/{name}.*")
            if time.monotonic() > deadline:
                raise Unavailable(f"{what} did not start in {START_SECONDS} s: {self._home}/log")
            time.sleep(0.2)


def _flink() -> Path:
    """The folder of Flink's distribution.

    Raises:
      Unavailable: they have not been downloaded.
    """
    flink = next(REPOSITORY.glob(".venv-flink/lib/python*/site-packages/pyflink"), None)
    if flink is None or not BEAM.is_dir():
        raise Unavailable("there is no Flink here: run scripts/setup_flink.sh")
    return flink


def _jars_of_flink(flink: Path) -> list[Path]:
    """Flink's jars, without those of its tables and formats, which Beam does not use."""
    names = ("flink-dist", "log4j-api", "log4j-core", "log4j-slf4j-impl")
    return [jar for jar in sorted((flink / "lib").iterdir()) if jar.name.startswith(names)]


def _end_with_parent() -> None:
    """Has the kernel end this process when the one that started it ends, however that ends."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Sends a signal to a process and what it started, even if it has ended itself."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for free in sockets:
        free.bind((LOCAL, 0))
    ports = [free.getsockname()[1] for free in sockets]
    for free in sockets:
        free.close()
    return ports


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex((LOCAL, port)) == 0


def _raise_interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def main() -> int:
    """Starts a cluster, runs the command if there is one; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--home", type=Path, required=True, help="settings, logs, beam.yaml")
    parser.add_argument("--workers", type=int, default=2, help="number of TaskManagers")
    parser.add_argument("--task-memory", default="2500m", help="memory of each TaskManager")
    parser.add_argument("command", nargs="*", help="after --: ends the cluster when it has ended")
    arguments = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_interrupt)
    try:
        with Cluster(arguments.home, arguments.workers, arguments.task_memory) as cluster:
            if arguments.command:
                return subprocess.run(arguments.command).returncode
            print(f"Flink: http://{LOCAL}:{cluster.overview() and cluster._rest}")
            print(f"run:   fraud-pipeline run … --config {shlex.quote(str(cluster.config))}")
            print("Ctrl-C ends it", flush=True)
            signal.pause()
    except Unavailable as error:
        print(f"cluster: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

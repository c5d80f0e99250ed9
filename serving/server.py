"""The server's processes: HTTP and gRPC in one event loop, the watch beside it, and its workers."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import APIRouter
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from fraud import tracing
from fraud.errors import BadInput, FraudPipelineError
from fraud.serving import logs
from fraud.serving.logs import log
from fraud.serving.settings import Settings

if TYPE_CHECKING:
    from fraud.serving.inference import Inference
    from fraud.serving.models import LoadedModel


@dataclass(frozen=True)
class Service:
    """What a server does besides calling the model.

    Attributes:
      routers: further routes; see `fraud.serving.api.rest.create_app`.
      check: raises a FraudPipelineError if the service cannot use a version, which is then refused.
    """

    routers: Sequence[APIRouter] = ()
    check: Callable[[LoadedModel], None] = lambda model: None


ServiceContext = Callable[["Inference"], AbstractAsyncContextManager[Service]]
"""Makes the service of a process: entered before the server listens, left after its last answer.
With several workers it must be picklable."""


_SECONDS_TO_RESTART = 1.0
_WAITING_CONNECTIONS = 2048
_SWITCH_SECONDS = 0.001
_SECONDS_TO_WAIT = 75
"""How long a connection waits for its client."""
_UPGRADE = re.compile(rb"\r\nupgrade:", re.IGNORECASE)
_CONTINUE = b"HTTP/1.1 100"
_MOST_HEAD_BYTES = 64 << 10
_HEAD_TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def serve(settings: Settings, service: ServiceContext | None = None) -> None:
    """Serves until the process gets SIGTERM or SIGINT; then answers what it has begun to answer.

    Args:
      settings: how.
      service: what it does besides calling the model.

    Raises:
      BadInput: a port is in use, or a file of a certificate cannot be used.
      FraudPipelineError: TensorFlow cannot be loaded.
    """
    _check_tls(settings)
    if settings.workers == 1:
        _run(_Worker(settings, service))
    else:
        _Workers(settings, service).run()


class _Worker:
    """One process that answers requests."""

    def __init__(self, settings: Settings, service: ServiceContext | None) -> None:
        # Here, because it is slow, and because a process that only starts others needs none of it.
        from fraud.serving.inference import Inference
        from fraud.serving.versions import Versions

        self._settings, self._service = settings, service
        self._versions = Versions(_report)
        self._inference = Inference(self._versions, settings.limits)

    async def run(self) -> None:
        """Serves until a signal comes."""
        from fraud.serving.api import rest, rpc
        from fraud.serving.versions import Watch

        # For so long, a thread that loads a version or writes the log keeps a request waiting.
        sys.setswitchinterval(_SWITCH_SECONDS)
        settings, inference = self._settings, self._inference
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        rpc_server = rpc.create_server(inference, settings)
        # Alone, it listens before all else: a port in use is named, and who connects early waits.
        listening = self._listen(rpc_server) if settings.workers == 1 else None
        async with (self._service or _no_service)(inference) as service:
            app = rest.create_app(inference, settings.tokens, service.routers, settings.gauges)
            http = _Http(_http_config(tracing.traced(app), settings))
            watch = Watch(settings.folder, self._versions, service.check)
            watch.start()
            if listening is None:
                # Until it has a model, the other workers answer.
                await asyncio.get_running_loop().run_in_executor(None, watch.has_looked.wait)
                listening = self._listen(rpc_server)
            http_socket, rpc_port = listening
            await rpc_server.start()
            serving = asyncio.create_task(http.serve(sockets=[http_socket]))
            log(
                logging.INFO,
                "listening",
                http=f"{'https' if settings.tls else 'http'}://{_address(http_socket)}",
                grpc=_joined(settings.host, rpc_port),
                folder=str(settings.folder),
                pid=os.getpid(),
            )
            await stopped.wait()
            log(logging.INFO, "stopping", pid=os.getpid())
            inference.stop()
            http.should_exit = True
            await asyncio.gather(serving, rpc_server.stop(settings.limits.shutdown_seconds))
        await asyncio.get_running_loop().run_in_executor(None, watch.stop)
        tracing.send()
        log(logging.INFO, "stopped", pid=os.getpid())

    def _listen(self, rpc_server: Any) -> tuple[socket.socket, int]:
        """Opens the ports.

        Returns:
          The socket for HTTP, and the port of gRPC.
        """
        settings = self._settings
        http_socket = _bind(
            settings,
            settings.port,
            "--port",
            is_shared=settings.workers > 1,
            backlog=_WAITING_CONNECTIONS,
        )
        return http_socket, _add_port(rpc_server, settings)


class _Http(uvicorn.Server):
    """uvicorn's server, whose process handles the signals itself."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leaves the signals alone."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ends the connections that have waited for their clients too long, once a second."""
        if counter % 10 == 0:
            for connection in [*self.server_state.connections]:
                if isinstance(connection, _Protocol):
                    connection.end_if_stuck(time.monotonic())
        return await super().on_tick(counter)


class _WholeAnswers:
    """A transport that sends the head of an answer together with its body.

    uvicorn writes one after the other, which wakes the client twice.
    """

    def __init__(self, transport: Any) -> None:
        self._transport, self._head = transport, b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends data, unless a body must follow."""
        if data.startswith(b"HTTP/1.1 ") and not (self._head or data.startswith(_CONTINUE)):
            self._head = data
        else:
            self._transport.write(self._head + data)
            self._head = b""

    def flush(self) -> None:
        """Sends a head without a body."""
        if self._head:
            self.write(b"")

    def close(self) -> None:
        """Closes the connection once everything is sent."""
        self.flush()
        self._transport.close()


class _Protocol(HttpToolsProtocol):
    """uvicorn's protocol, with a limit on the bytes before a body, and without other protocols.

    uvicorn ends connections between requests (`timeout_keep_alive`), but waits for ever for a
    request that is begun and for an answer to be read.
    """

    _in_head = True
    _head_bytes = 0
    _is_between_requests = False
    _waits_since: float | None = None

    def end_if_stuck(self, now: float) -> None:
        """Ends the connection if no request was completed and no answer read for too long.

        Args:
          now: by `time.monotonic`; this is called again and again.
        """
        is_written = not (self.flow.write_paused or self.transport.is_closing())
        if self._is_between_requests and is_written:
            self._waits_since = None
        elif self._waits_since is None:
            self._waits_since = now
        elif now - self._waits_since > _SECONDS_TO_WAIT:
            self.transport.abort()

    def resume_writing(self) -> None:
        """The client has read."""
        self._waits_since = None
        super().resume_writing()

    def connection_made(self, transport: Any) -> None:
        """A client has connected."""
        super().connection_made(_WholeAnswers(transport))  # type: ignore[arg-type]

    def on_response_complete(self) -> None:
        """An answer has been written."""
        if isinstance(self.transport, _WholeAnswers):
            self.transport.flush()
        super().on_response_complete()

    def data_received(self, data: bytes) -> None:
        """Ends the connection if a request does not come to its body."""
        if self._in_head:
            self._is_between_requests = False
            data = _without_upgrade(data)
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > _MOST_HEAD_BYTES:
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()

    def on_headers_complete(self) -> None:
        """The body of a request begins."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The next request may begin."""
        self._in_head, self._head_bytes = True, 0
        self._is_between_requests, self._waits_since = True, None
        super().on_message_complete()


def _without_upgrade(data: bytes) -> bytes:
    """The beginning of a request that does not ask for another protocol, as Java's client does.

    A server may ignore that, but the parser takes what follows for the other protocol.
    """
    head, end, body = data.partition(b"\r\n\r\n")
    return _UPGRADE.sub(b"\r\nx-upgrade:", head) + end + body


class _Workers:
    """A process that starts the workers, and starts one again that ends by itself."""

    def __init__(self, settings: Settings, service: ServiceContext | None) -> None:
        self._settings, self._service = settings, service
        self._context = multiprocessing.get_context("spawn")
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serves until a signal comes."""
        from fraud.serving.metrics import FOLDER_VARIABLE

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        held = _hold_ports(self._settings)
        folder = tempfile.mkdtemp(prefix="fraud-metrics-")
        os.environ[FOLDER_VARIABLE] = folder
        workers: list[Any] = []
        try:
            while not self._stopping.is_set():
                workers = [w for w in workers if w.is_alive() or self._forget(w)]
                while len(workers) < self._settings.workers:
                    workers.append(self._start())
                self._stopping.wait(_SECONDS_TO_RESTART)
        finally:
            for worker in workers:
                worker.terminate()
            end = time.monotonic() + self._settings.limits.shutdown_seconds + 5
            for worker in workers:
                worker.join(max(0.0, end - time.monotonic()))
                if worker.is_alive():
                    worker.kill()
            for reserved in held:
                reserved.close()
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self) -> Any:
        worker = self._context.Process(target=_work, args=(self._settings, self._service))
        worker.start()
        return worker

    def _forget(self, worker: Any) -> bool:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)
        if worker.exitcode == BadInput.exit_code:  # as would all others
            raise BadInput("a worker cannot start; the line above says why")
        log(logging.ERROR, "worker ended; starting another", pid=worker.pid, code=worker.exitcode)
        return False


def _work(settings: Settings, service: ServiceContext | None) -> None:
    """The main function of a worker."""
    logs.set_up()
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=follow, daemon=True).start()
    try:
        _run(_Worker(settings, service))
    except FraudPipelineError as error:
        log(logging.ERROR, "worker failed", error=str(error))
        sys.exit(error.exit_code)


def _run(worker: _Worker) -> None:
    """Runs a worker in uvicorn's choice of event loop: uvloop where there is one."""
    loop = (uvicorn.Config(app="", log_config=None).get_loop_factory() or asyncio.new_event_loop)()
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(worker.run())
    finally:
        loop.run_until_complete(loop.shutdown_default_executor())
        loop.close()


def _http_config(app: Any, settings: Settings) -> uvicorn.Config:
    certificate, key = settings.tls or (None, None)
    return uvicorn.Config(
        app,
        http=_Protocol,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="off",
        ssl_certfile=certificate,
        ssl_keyfile=key,
        timeout_graceful_shutdown=int(settings.limits.shutdown_seconds) or 1,
        timeout_keep_alive=_SECONDS_TO_WAIT,
        backlog=_WAITING_CONNECTIONS,
    )


def _hold_ports(settings: Settings) -> list[socket.socket]:
    """Sockets that keep the ports for the workers of this process alone.

    Those at the ports do not listen, so that no connection waits in them.

    Raises:
      BadInput: a port is in use.
    """
    held = []
    for port, option in ((settings.port, "--port"), (settings.grpc_port, "--grpc-port")):
        if sys.platform == "linux":
            # Until the workers listen, another server with workers could share the port with them.
            held.append(_reserve(settings, port, option))
        _bind(settings, port, option, is_shared=False).close()
        held.append(_bind(settings, port, option, is_shared=True))
    return held


def _reserve(settings: Settings, port: int, option: str) -> socket.socket:
    """Takes a name that belongs to one process at a time, and is free again when that ends.

    Raises:
      BadInput: another process has it.
    """
    address = _joined(settings.host, port)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(f"\0fraud-pipeline serve {address}")
    except OSError:
        made.close()
        raise BadInput(
            f"{address}: another server with workers is starting there; choose another {option}"
        ) from None
    return made


def _bind(
    settings: Settings, port: int, option: str, is_shared: bool, backlog: int | None = None
) -> socket.socket:
    """A socket at a port, which workers share; it listens if there is a backlog.

    Raises:
      BadInput: the address is not this machine's, or the port is in use.
    """
    try:
        found = socket.getaddrinfo(settings.host, port, type=socket.SOCK_STREAM)[0]
        # With the protocol named, or asyncio would not switch Nagle's algorithm off.
        made = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind(found[4])
        if backlog is not None:
            made.listen(backlog)
    except OSError as error:
        raise BadInput(
            f"{settings.host}:{port}: {error.strerror}; choose another {option} or --host"
        ) from None
    return made


def _add_port(server: Any, settings: Settings) -> int:
    import grpc

    address = _joined(settings.host, settings.grpc_port)
    try:
        if settings.tls is None:
            return server.add_insecure_port(address)
        certificate, key = (path.read_bytes() for path in settings.tls)
        credentials = grpc.ssl_server_credentials([(key, certificate)])
        return server.add_secure_port(address, credentials)
    except RuntimeError:
        raise BadInput(f"{address}: cannot listen there; choose another --grpc-port") from None


def _check_tls(settings: Settings) -> None:
    """Checks the files of the certificate before anything is started.

    Raises:
      BadInput: they cannot be used.
    """
    if settings.tls is None:
        return
    import ssl

    certificate, key = settings.tls

    def refuse() -> str:
        raise BadInput(f"--tls-key {key}: has a passphrase; use a key without one")

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=refuse)
    except FileNotFoundError:
        missing = certificate if not certificate.is_file() else key
        raise BadInput(f"{missing}: no such file; see --tls-certificate and --tls-key") from None
    except OSError as error:
        raise BadInput(
            f"--tls-certificate {certificate}: no certificate in PEM that belongs to {key}: {error}"
        ) from None


def _address(bound: socket.socket) -> str:
    return _joined(*bound.getsockname()[:2])


def _joined(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _report(status: Any) -> None:
    """Logs and counts what happens to the versions."""
    from fraud.serving import metrics

    if status.error:
        metrics.REFUSED_VERSIONS.inc()
        log(logging.ERROR, "version refused", version=status.version, error=status.error)
        return
    if status.state == "AVAILABLE":
        metrics.SWAPS.inc()
        metrics.LIVE_VERSION.set(int(status.version))
    log(logging.INFO, "version", version=status.version, state=status.state)


@asynccontextmanager
async def _no_service(inference: Inference) -> AsyncIterator[Service]:
    yield Service()

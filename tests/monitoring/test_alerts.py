"""Alerts, delivered to real servers on this machine."""

from __future__ import annotations

import base64
import email
import email.policy
import http.server
import itertools
import json
import os
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from fraud.errors import BadInput
from fraud.monitoring import alerts
from fraud.monitoring.alerts import Alert, Alerts, Command, Mail, Webhook, raised_in, receivers
from fraud.monitoring.policy import AlertSettings
from tests.certificates import Certificate, authority, signed

ALERT = Alert(
    kind="hold",
    subject="2026-03-01 TX_AMOUNT",
    text="data of 2026-03-01 is broken: nothing is trained on it",
    reasons=("TX_AMOUNT: 100 % missing", "see <!channel> & co"),
    day="2026-03-01",
)


@dataclass
class Hook:
    """An HTTP server that keeps what is posted and answers with the statuses that it is given."""

    statuses: list[int] = field(default_factory=list)
    bodies: list[dict] = field(default_factory=list)
    answered: list[float] = field(default_factory=list)
    hang: float = 0.0
    url: str = ""


@contextmanager
def hook(*statuses: int, hang: float = 0.0) -> Iterator[Hook]:
    state = Hook(list(statuses), hang=hang)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.headers["Content-Type"] == "application/json"
            state.bodies.append(json.loads(body))
            time.sleep(state.hang)
            state.answered.append(time.monotonic())
            self.send_response(state.statuses.pop(0) if state.statuses else 200)
            self.send_header("Location", state.url)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        state.url = f"http://127.0.0.1:{server.server_port}/secret-path"
        yield state
        server.shutdown()


class MailServer(socketserver.ThreadingTCPServer):
    """Enough of SMTP (RFC 5321), STARTTLS and AUTH PLAIN for smtplib; keeps what it gets.

    aiosmtpd is not among the dependencies, and Python 3.12 removed smtpd.
    """

    allow_reuse_address = daemon_threads = True

    def __init__(self, certificate: Certificate | None, password: str, refusal: int) -> None:
        super().__init__(("127.0.0.1", 0), _Smtp)
        self.password, self.refusal = password, refusal
        self.messages: list[tuple[list[str], bytes, bool]] = []
        self.tls: ssl.SSLContext | None = None
        if certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(certificate.path, certificate.key)

    @property
    def port(self) -> int:
        return self.server_address[1]


class _Smtp(socketserver.BaseRequestHandler):
    server: MailServer

    def handle(self) -> None:
        connection, encrypted, trusted = self.request, False, not self.server.password
        reader = connection.makefile("rb")
        recipients: list[str] = []

        def say(text: str) -> None:
            connection.sendall(text.encode() + b"\r\n")

        say("220 here")
        while line := reader.readline().decode().strip():
            verb = line.split()[0].upper()
            if verb == "EHLO":
                offers = ["STARTTLS"] if self.server.tls and not encrypted else []
                offers += ["AUTH PLAIN"] if self.server.password and encrypted else []
                say(
                    "\r\n".join(["250-here", *(f"250-{offer}" for offer in offers), "250 8BITMIME"])
                )
            elif verb == "STARTTLS":
                say("220 go ahead")
                assert self.server.tls
                try:
                    connection = self.server.tls.wrap_socket(connection, server_side=True)
                except ssl.SSLError:  # the client did not like the certificate
                    return
                reader, encrypted = connection.makefile("rb"), True
            elif verb == "AUTH":
                given = base64.b64decode(line.split()[2]).split(b"\0")[2].decode()
                trusted = given == self.server.password
                say("235 welcome" if trusted else "535 no")
            elif verb == "MAIL":
                recipients = []
                say("250 yes" if trusted else "530 log in")
            elif verb == "RCPT":
                if self.server.refusal:
                    say(f"{self.server.refusal} no")
                    continue
                recipients.append(line.partition("<")[2].rstrip(">"))
                say("250 yes")
            elif verb == "DATA":
                say("354 go ahead")
                lines = []
                while (part := reader.readline()) != b".\r\n":
                    lines.append(part[1:] if part.startswith(b".") else part)
                self.server.messages.append((recipients, b"".join(lines), encrypted))
                say("250 taken")
            elif verb == "QUIT":
                say("221 bye")
                return
            else:
                say("250 fine")


@contextmanager
def mail_server(
    certificate: Certificate | None = None, password: str = "", refusal: int = 0
) -> Iterator[MailServer]:
    with MailServer(certificate, password, refusal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def mail_settings(port: int, security: str = "none", user: str | None = None) -> AlertSettings:
    return AlertSettings(
        smtp_host="localhost",
        smtp_port=port,
        smtp_security=security,  # type: ignore[arg-type]
        smtp_user=user,
        smtp_from="loop@bank.example",
        smtp_to=("fraud@bank.example", "night@bank.example"),
    )


def until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def test_a_webhook_gets_all_facts_as_json(tmp_path: Path) -> None:
    with hook() as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)])
        assert raised.send(ALERT)
        assert raised.flush(10)
        raised.close()
    (body,) = receiver.bodies
    assert body["kind"] == "hold" and body["day"] == "2026-03-01" and body["text"] == ALERT.text
    assert body["reasons"] == list(ALERT.reasons)
    assert {"outcome", "run", "version", "log", "host", "id"} <= body.keys()


def test_slack_gets_one_text_in_which_data_cannot_mention_anybody(tmp_path: Path) -> None:
    with hook() as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "slack", 5)])
        raised.send(ALERT)
        assert raised.flush(10)
        raised.close()
    (body,) = receiver.bodies
    assert body.keys() == {"text"}
    assert "&lt;!channel&gt; &amp; co" in body["text"] and "<" not in body["text"]


def test_what_fails_is_repeated_until_it_is_delivered(tmp_path: Path) -> None:
    with hook(500, 503, 429, 200) as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)], first_wait=0.01)
        raised.send(ALERT)
        until(lambda: raised_in(tmp_path)[0].deliveries[0].state == "delivered")
        raised.close()
    assert len(receiver.bodies) == 4
    assert raised_in(tmp_path)[0].deliveries[0].attempts == 4


def test_waits_get_longer(tmp_path: Path) -> None:
    with hook(500, 500, 500, 500) as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)], first_wait=0.05)
        raised.send(ALERT)
        until(lambda: len(receiver.answered) >= 4)
        raised.close()
    waits = [b - a for a, b in itertools.pairwise(receiver.answered)]
    # On a busy machine a wait may be longer, and is up to a fifth shorter by chance.
    assert all(wait > 0.8 * 0.05 * 2**k for k, wait in enumerate(waits))


@pytest.mark.parametrize("status", [302, 400, 403, 404])
def test_a_refusal_that_will_not_change_is_not_repeated(tmp_path: Path, status: int) -> None:
    with hook(status) as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)], first_wait=0.01)
        raised.send(ALERT)
        until(lambda: raised_in(tmp_path)[0].deliveries[0].state == "given_up")
        time.sleep(0.1)
        raised.close()
    assert len(receiver.bodies) == 1  # a redirection is not followed, either


def test_the_url_is_a_secret(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with hook(500, 404) as receiver:
        webhook = Webhook(receiver.url, "json", 5)
        assert "secret-path" not in repr(webhook)
        raised = Alerts(tmp_path, [webhook], first_wait=0.01)
        raised.send(ALERT)
        until(lambda: raised_in(tmp_path)[0].deliveries[0].state == "given_up")
        raised.close()
    assert "attempt 1 failed: HTTP status 500" in caplog.text
    written = "".join(path.read_text() for path in tmp_path.iterdir())
    assert "secret-path" not in caplog.text + written


def test_the_same_alert_is_sent_once_until_its_time_is_over(tmp_path: Path) -> None:
    clock = [1e9]
    settings = AlertSettings(repeat_hours=24)
    with hook() as receiver:
        to = [Webhook(receiver.url, "json", 5)]
        raised = Alerts(tmp_path, to, settings, now=lambda: clock[0])
        assert raised.send(ALERT)
        assert not raised.send(replace(ALERT, text="in other words"))
        assert raised.send(replace(ALERT, subject="2026-03-02"))
        assert raised.send(replace(ALERT, kind="drift"))
        assert raised.flush(10)
        raised.close()
        later = Alerts(tmp_path, to, settings, now=lambda: clock[0])  # another process
        clock[0] += 23.9 * 3600
        assert not later.send(ALERT)
        clock[0] += 0.2 * 3600
        assert later.send(ALERT)
        assert later.flush(10)
        later.close()
    assert len(receiver.bodies) == 4


def test_what_a_process_could_not_deliver_the_next_one_does(tmp_path: Path) -> None:
    with hook(500) as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)], first_wait=0.5)
        raised.send(ALERT)
        assert not raised.flush(10)
        raised.close()
        again = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)])
        until(lambda: raised_in(tmp_path)[0].deliveries[0].state == "delivered")
        again.close()
    assert len(receiver.bodies) == 2


def test_a_receiver_that_hangs_holds_nobody_up(tmp_path: Path) -> None:
    with hook(hang=3) as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 1)])
        started = time.monotonic()
        for number in range(20):
            raised.send(replace(ALERT, subject=str(number)))
        raised.close()
        assert time.monotonic() - started < 10  # twenty times the limit of 1 s if they waited


def test_an_alert_that_cannot_be_recorded_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "file"
    file.write_text("")
    raised = Alerts(file / "alerts")
    assert not raised.send(ALERT)
    raised.close()
    assert "could not be recorded" in caplog.text and ALERT.text in caplog.text


def test_one_receiver_that_fails_does_not_keep_the_others_from_it(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read())"
    copy = (sys.executable, "-c", code, str(out))
    with hook(*[500] * 50) as receiver:
        to = [Webhook(receiver.url, "json", 5), Command(copy, 10)]
        raised = Alerts(tmp_path / "alerts", to, first_wait=0.05)
        raised.send(ALERT)
        until(out.exists)
        until(lambda: out.read_text().endswith("}"))
        raised.close()
    assert json.loads(out.read_text())["text"] == ALERT.text


def test_a_command_gets_the_alert_on_its_input_and_never_as_an_argument(tmp_path: Path) -> None:
    out = tmp_path / "out"
    evil = replace(ALERT, text=f"$(touch {tmp_path}/evil); `touch {tmp_path}/evil`")
    copy = """if True:
        import json, sys
        with open(sys.argv[1], "w") as out:
            json.dump([sys.argv[2:], json.load(sys.stdin)], out)
    """
    Command((sys.executable, "-c", copy, str(out), "$HOME"), 10).deliver(evil.document())
    arguments, document = json.loads(out.read_text())
    assert arguments == ["$HOME"] and document["text"] == evil.text
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("program", "limit", "problem"),
    [
        ((sys.executable, "-c", "import sys; sys.exit(3)"), 30, "exit code 3"),
        ((sys.executable, "-c", "import time; time.sleep(60)"), 0.5, "no end after 0.5 s"),
        (("/no/such/program",), 30, "/no/such/program: No such file or directory"),
    ],
)
def test_a_command_that_fails_is_said_why(
    program: tuple[str, ...], limit: float, problem: str
) -> None:
    with pytest.raises(OSError, match=problem):
        Command(program, limit).deliver(ALERT.document())


def test_mail_arrives_whole(tmp_path: Path) -> None:
    with mail_server() as server:
        Mail(mail_settings(server.port)).deliver(replace(ALERT, text="naïve — “fraud”").document())
    ((recipients, content, encrypted),) = server.messages
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert recipients == ["fraud@bank.example", "night@bank.example"] and not encrypted
    assert message["Subject"] == "fraud-pipeline: hold: naïve — “fraud”"
    assert message["From"] == "loop@bank.example" and message["Date"]
    text = message.get_content()
    assert "- TX_AMOUNT: 100 % missing" in text and "day: 2026-03-01" in text


def test_a_text_cannot_add_headers_to_a_mail() -> None:
    evil = replace(ALERT, text="x\r\nBcc: thief@example.org")
    with mail_server() as server:
        Mail(mail_settings(server.port)).deliver(evil.document())
    ((recipients, content, _),) = server.messages
    assert "thief@example.org" not in recipients
    assert email.message_from_bytes(content)["Bcc"] is None


def test_mail_over_starttls_with_a_password(tmp_path: Path) -> None:
    root = authority(tmp_path, "root")
    certificate = signed(root, "mail", "DNS:localhost")
    with mail_server(certificate, password="pass word") as server:
        settings = mail_settings(server.port, "starttls", "loop")
        Mail(settings, "pass word", str(root.path)).deliver(ALERT.document())
        assert server.messages[0][2]
        with pytest.raises(alerts.Undeliverable, match="535"):
            Mail(settings, "wrong", str(root.path)).deliver(ALERT.document())
        with pytest.raises(ssl.SSLError):  # not signed by whom the system trusts
            Mail(settings, "pass word").deliver(ALERT.document())
    assert len(server.messages) == 1
    with mail_server() as plain, pytest.raises(Exception, match="STARTTLS"):
        Mail(replace(settings, smtp_port=plain.port), "pass word").deliver(ALERT.document())
    assert not plain.messages


@pytest.mark.parametrize(
    ("status", "kind"), [(450, OSError), (550, alerts.Undeliverable)], ids=["greylisted", "refused"]
)
def test_a_mail_server_that_refuses(status: int, kind: type[Exception]) -> None:
    with (
        mail_server(refusal=status) as server,
        pytest.raises(kind, match=f"SMTP status {status}"),
    ):
        Mail(mail_settings(server.port)).deliver(ALERT.document())


def test_receivers_come_from_settings_and_environment() -> None:
    settings = replace(mail_settings(25, "tls", "loop"), command=("page", "fraud"))
    environment = {"FRAUD_ALERT_URL": "https://hooks.example/T0/B0", "FRAUD_SMTP_PASSWORD": "x"}
    assert [r.name for r in receivers(settings, environment)] == ["webhook", "mail", "command"]
    assert receivers(AlertSettings(), {}) == ()


@pytest.mark.parametrize(
    ("settings", "environment", "problem"),
    [
        (AlertSettings(), {"FRAUD_ALERT_URL": "file:///etc/passwd"}, "FRAUD_ALERT_URL: not an"),
        (AlertSettings(), {"FRAUD_ALERT_URL": "hooks.example"}, "FRAUD_ALERT_URL: not an"),
        (mail_settings(25, "tls", "loop"), {}, "set the password in FRAUD_SMTP_PASSWORD"),
    ],
)
def test_receivers_that_cannot_work_are_refused(
    settings: AlertSettings, environment: dict[str, str], problem: str
) -> None:
    with pytest.raises(BadInput, match=problem) as refused:
        receivers(settings, environment)
    assert "hooks.example" not in str(refused.value) and "passwd" not in str(refused.value)


def test_an_alert_with_a_name_that_is_no_text_is_delivered(tmp_path: Path) -> None:
    odd = replace(ALERT, subject="\udcff", text="\udcff.csv is gone", reasons=("\udcff",))
    with hook() as receiver:
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)])
        assert raised.send(odd) and not raised.send(odd)
        assert raised.flush(10)
        raised.close()
    assert [body["text"] for body in receiver.bodies] == ["\\udcff.csv is gone"]


def test_muted_kinds_are_recorded_and_not_sent(tmp_path: Path) -> None:
    with hook() as receiver:
        to = [Webhook(receiver.url, "json", 5)]
        raised = Alerts(tmp_path, to, AlertSettings(mute=("hold",)))
        assert not raised.send(ALERT)
        assert raised.send(replace(ALERT, kind="push"))
        assert raised.flush(10)
        raised.close()
    assert [body["kind"] for body in receiver.bodies] == ["push"]
    assert len(raised_in(tmp_path)) == 2


def test_alerts_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "KEPT", 5)
    clock = [1e9]
    raised = Alerts(tmp_path, now=lambda: clock[0])
    for number in range(12):
        clock[0] += 1
        raised.send(replace(ALERT, subject=str(number)))
    raised.close()
    assert [r.alert.subject for r in raised_in(tmp_path)] == ["11", "10", "9", "8", "7"]


def test_a_process_that_is_killed_while_it_delivers_loses_no_alert(tmp_path: Path) -> None:
    code = f"""
import time
from pathlib import Path
from fraud.monitoring.alerts import Alert, Alerts, Webhook
import sys
raised = Alerts(Path({str(tmp_path)!r}), [Webhook(sys.argv[1], "json", 30)])
raised.send(Alert("push", "7", "version 7 is live"))
time.sleep(60)
"""
    with hook(hang=30) as receiver:
        process = subprocess.Popen(
            [sys.executable, "-c", code, receiver.url], env={**os.environ, "PYTHONPATH": "."}
        )
        until(lambda: receiver.bodies, 60)
        process.kill()
        process.wait()
        receiver.hang = 0
        raised = Alerts(tmp_path, [Webhook(receiver.url, "json", 5)])
        until(lambda: raised_in(tmp_path)[0].deliveries[0].state == "delivered")
        raised.close()

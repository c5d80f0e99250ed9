"""Tells people what the loop found and did, without ever being in its way.

Whoever raises an alert only writes a small file, `ROOT/alerts/ID.json`. A thread delivers it to
each receiver and repeats what fails, also after the process was killed. An alert of the same kind
about the same subject has the same id, so it is sent once until `alerts.repeat_hours` have passed.
Each receiver gets it at least once: if the process dies between a delivery and its record, twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import random
import smtplib
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from fraud.codec import from_json, to_json
from fraud.errors import BadInput
from fraud.files import write_atomically
from fraud.monitoring.policy import AlertSettings, Kind
from fraud.text import plain

URL = "FRAUD_ALERT_URL"
"""The environment variable with the webhook's URL, which often contains a secret."""
SMTP_PASSWORD = "FRAUD_SMTP_PASSWORD"
"""The environment variable with the password for the mail server."""

FIRST_WAIT, LONGEST_WAIT = 5.0, 3600.0
"""Seconds between two attempts: at first, and at most; doubled each time."""
KEPT = 200
"""Alerts that are kept, the newest."""
MOST_REASONS = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Alert:
    """Something that a person should know.

    Attributes:
      kind: the occasion.
      subject: what it is about, such as a day or a version; not shown. An alert of the same kind
        and subject is not sent again for a while.
      text: one sentence.
      reasons: details, a sentence each.
      day: the as-of day; "" if there is none.
      run: the id of the run, and `log` its log.
      version: the version of the model that it is about.
      outcome: as in a run's summary.
    """

    kind: Kind
    subject: str
    text: str
    reasons: tuple[str, ...] = ()
    day: str = ""
    run: str = ""
    version: str = ""
    outcome: str = ""
    log: str = ""

    @property
    def id(self) -> str:
        """Equal for alerts of the same kind and subject."""
        return hashlib.sha256(f"{self.kind}\n{self.subject}".encode()).hexdigest()[:16]

    def document(self) -> dict[str, Any]:
        """The facts as JSON, all of them plain text: what the webhook and the command get.

        The alerts of the Airflow DAGs have the same keys, plus those of Airflow.
        """
        facts = plain({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})
        del facts["subject"]
        facts["reasons"] = list(facts["reasons"][:MOST_REASONS])
        if (more := len(self.reasons) - MOST_REASONS) > 0:
            facts["reasons"].append(f"and {more} more")
        return {**facts, "id": self.id, "host": socket.gethostname()}


def as_text(document: Mapping[str, Any]) -> str:
    """An alert for people to read."""
    shown = [document["text"], *(f"- {reason}" for reason in document["reasons"])]
    facts = [(name, document.get(name)) for name in ("day", "version", "run", "log", "host")]
    return "\n".join([*shown, "", *(f"{name}: {value}" for name, value in facts if value)])


class Undeliverable(Exception):
    """A receiver refused an alert in a way that will not change."""


class Receiver(Protocol):
    """Somebody who gets alerts. Anything but `Undeliverable` that it raises is tried again."""

    @property
    def name(self) -> str:
        """What it is called in the records of deliveries."""

    def deliver(self, document: Mapping[str, Any]) -> None:
        """Delivers an alert."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        """None: what is posted goes to the configured address only."""


@dataclass(frozen=True)
class Webhook:
    """Posts alerts as JSON.

    Attributes:
      url: where, http or https.
      format: "json", or "slack" for a message that Slack and compatible services show.
      timeout: in seconds.
    """

    url: str = field(repr=False)
    format: str
    timeout: float
    name: str = "webhook"

    def deliver(self, document: Mapping[str, Any]) -> None:
        """See `Receiver`. The URL is in no message, because it may contain a secret."""
        body = {"text": _for_slack(as_text(document))} if self.format == "slack" else document
        request = urllib.request.Request(
            self.url, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        opener = urllib.request.build_opener(_NoRedirect)
        try:
            opener.open(request, timeout=self.timeout).close()
        except urllib.error.HTTPError as error:
            error.close()
            message = f"HTTP status {error.code}"
            if error.code < 500 and error.code not in (408, 425, 429):
                raise Undeliverable(message) from None
            raise OSError(message) from None
        except urllib.error.URLError as error:
            raise OSError(str(error.reason)) from None


@dataclass(frozen=True)
class Mail:
    """Sends alerts by SMTP.

    Attributes:
      settings: the configuration's section `alerts`.
      password: for `smtp_user`.
      trusted: a file of certificates (PEM) to trust instead of the system's.
    """

    settings: AlertSettings
    password: str = field(repr=False, default="")
    trusted: str | None = None
    name: str = "mail"

    def deliver(self, document: Mapping[str, Any]) -> None:
        """See `Receiver`."""
        settings = self.settings
        assert settings.smtp_host is not None and settings.smtp_from is not None
        message = EmailMessage()
        message["From"], message["To"] = settings.smtp_from, ", ".join(settings.smtp_to)
        subject = f"fraud-pipeline: {document['kind'].replace('_', ' ')}: {document['text']}"
        message["Subject"] = subject[:200]
        message["Date"] = formatdate(localtime=True)
        message["Message-ID"] = make_msgid(document["id"], "fraud-pipeline.invalid")
        message.set_content(as_text(document))
        tls = None
        if settings.smtp_security != "none":
            tls = ssl.create_default_context(cafile=self.trusted)
        address = (settings.smtp_host, settings.smtp_port)
        try:
            if settings.smtp_security == "tls":
                client: smtplib.SMTP = smtplib.SMTP_SSL(
                    *address, timeout=settings.timeout_seconds, context=tls
                )
            else:
                client = smtplib.SMTP(*address, timeout=settings.timeout_seconds)
            with client:
                if settings.smtp_security == "starttls":
                    client.starttls(context=tls)
                if settings.smtp_user is not None:
                    client.login(settings.smtp_user, self.password)
                refused = client.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:  # all of them
            raise _refused(min(code for code, _ in error.recipients.values())) from None
        except smtplib.SMTPResponseException as error:
            raise _refused(error.smtp_code) from None
        if refused:
            _log.warning("mail: %d of %d recipients refused", len(refused), len(settings.smtp_to))


def _refused(status: int) -> Exception:
    """What a mail server's status means: from 500 on, that it will not change its mind."""
    message = f"refused with SMTP status {status}"
    return Undeliverable(message) if status >= 500 else OSError(message)


@dataclass(frozen=True)
class Command:
    """Starts a program that reads the alert from its standard input.

    Attributes:
      arguments: the program and its arguments.
      timeout: in seconds; then it is killed.
    """

    arguments: tuple[str, ...]
    timeout: float
    name: str = "command"

    def deliver(self, document: Mapping[str, Any]) -> None:
        """See `Receiver`."""
        try:
            done = subprocess.run(
                self.arguments,
                input=json.dumps(document).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=self.timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(f"no end after {self.timeout:g} s") from None
        except (FileNotFoundError, PermissionError) as error:
            raise OSError(f"{self.arguments[0]}: {error.strerror}") from None
        if done.returncode:
            raise OSError(f"exit code {done.returncode}")


def receivers(
    settings: AlertSettings, environment: Mapping[str, str] = os.environ
) -> tuple[Receiver, ...]:
    """Those that are configured.

    Raises:
      BadInput: the webhook's URL is none, or a password is missing.
    """
    found: list[Receiver] = []
    if url := environment.get(URL):
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).netloc:
            raise BadInput(f"{URL}: not an address that begins with https:// or http://")
        found.append(Webhook(url, settings.webhook_format, settings.timeout_seconds))
    if settings.smtp_host is not None:
        password = environment.get(SMTP_PASSWORD, "")
        if settings.smtp_user is not None and not password:
            raise BadInput(f"alerts.smtp_user: set the password in {SMTP_PASSWORD}")
        found.append(Mail(settings, password))
    if settings.command:
        found.append(Command(settings.command, settings.timeout_seconds))
    return tuple(found)


@dataclass(frozen=True)
class Delivery:
    """How far an alert is on its way to one receiver.

    Attributes:
      receiver: its name.
      state: "pending", "delivered", or "given_up".
      attempts: how many there were.
      due: when the next one is, in seconds since 1970.
      problem: of the last attempt.
    """

    receiver: str
    state: str = "pending"
    attempts: int = 0
    due: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Raised:
    """An alert that was raised: a file in the folder of alerts.

    Attributes:
      alert: what it says.
      time: when it was last sent, in seconds since 1970.
      deliveries: one per receiver; none if its kind is muted.
      suppressed: how often it was raised again since, too soon to be sent again.
    """

    alert: Alert
    time: float
    deliveries: tuple[Delivery, ...] = ()
    suppressed: int = 0


class Alerts:
    """The alerts of a root. Close it at the end; several threads may use it.

    Args:
      folder: where alerts are kept.
      to: who gets them.
      settings: the configuration's section `alerts`.
      now: the time, in seconds since 1970.
      first_wait: seconds after the first attempt that failed.
    """

    def __init__(
        self,
        folder: Path,
        to: Sequence[Receiver] = (),
        settings: AlertSettings | None = None,
        now: Callable[[], float] = time.time,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        self._folder, self._settings = folder, settings or AlertSettings()
        self._receivers = {receiver.name: receiver for receiver in to}
        self._now, self._first_wait = now, first_wait
        self._changed = threading.Condition()
        self._closing = False
        self._attempting = False
        self._thread: threading.Thread | None = None
        if self._receivers:
            self._thread = threading.Thread(target=self._deliver, name="alerts", daemon=True)
            self._thread.start()

    def send(self, alert: Alert) -> bool:
        """Raises an alert; returns at once, and never raises an exception.

        Returns:
          Whether it will be sent: not if it was sent a short while ago, or is muted.
        """
        try:
            with self._changed:
                return self._send(plain(alert))  # what is no text cannot be written
        except Exception:  # nothing that happens to an alert may stop the loop
            _log.exception("alert %s: could not be recorded: %s", alert.kind, plain(alert.text))
            return False

    def _send(self, alert: Alert) -> bool:
        now, earlier = self._now(), _read(self._path(alert.id))
        if earlier and 0 <= now - earlier.time < self._settings.repeat_hours * 3600:
            self._write(replace(earlier, suppressed=earlier.suppressed + 1))
            return False
        _log.warning("alert: %s: %s", alert.kind, plain(alert.text))
        to = () if alert.kind in self._settings.mute else tuple(self._receivers)
        self._write(Raised(alert, now, tuple(Delivery(name, due=now) for name in to)))
        self._forget()
        self._changed.notify_all()
        return bool(to)

    def flush(self, timeout: float) -> bool:
        """Waits until every alert was tried once, at most for so many seconds.

        Returns:
          Whether all are delivered. The others are tried again by the next process.
        """
        end = time.monotonic() + timeout
        with self._changed:
            while self._thread and (self._attempting or self._due()[0]):
                if (left := end - time.monotonic()) <= 0:
                    break
                self._changed.wait(min(left, 0.05))
        pending = (d for raised in raised_in(self._folder) for d in raised.deliveries)
        return all(delivery.state == "delivered" for delivery in pending)

    def close(self, timeout: float = 0.0) -> None:
        """Ends; what is not delivered by then is tried by the next process."""
        self.flush(timeout)
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread:
            self._thread.join(0.1)  # a receiver that hangs must not keep the process

    def _deliver(self) -> None:
        while True:
            with self._changed:
                while not self._closing:
                    try:
                        due, wait = self._due()
                    except OSError:
                        due, wait = None, LONGEST_WAIT
                    if due:
                        break
                    self._changed.wait(min(wait, 60.0))
                if self._closing:
                    return
                assert due
                self._attempting = True
            raised, delivery = due
            try:
                done = self._attempt(raised, delivery)
                with self._changed:
                    self._record(raised.alert.id, done)
            except Exception:
                _log.exception("alert %s: could not be recorded", raised.alert.kind)
                time.sleep(self._first_wait)  # such as a full disk
            finally:
                with self._changed:
                    self._attempting = False
                    self._changed.notify_all()

    def _due(self) -> tuple[tuple[Raised, Delivery] | None, float]:
        """A delivery that is due, or the seconds until one is."""
        now, wait = self._now(), LONGEST_WAIT
        for raised in raised_in(self._folder):
            for delivery in raised.deliveries:
                if delivery.state == "pending" and delivery.receiver in self._receivers:
                    if delivery.due <= now:
                        return (raised, delivery), 0.0
                    wait = min(wait, delivery.due - now)
        return None, wait

    def _attempt(self, raised: Raised, delivery: Delivery) -> Delivery:
        attempts = delivery.attempts + 1
        try:
            self._receivers[delivery.receiver].deliver(raised.alert.document())
            return replace(delivery, state="delivered", attempts=attempts, problem="")
        except Undeliverable as error:
            problem, is_final = str(error), True
        except Exception as error:
            problem = str(error) or type(error).__name__
            is_final = self._now() - raised.time > self._settings.give_up_hours * 3600
        _log.warning(
            "alert %s: %s: attempt %d failed: %s%s",
            raised.alert.kind,
            delivery.receiver,
            attempts,
            plain(problem),
            "; given up" if is_final else "",
        )
        wait = min(self._first_wait * 2 ** min(attempts - 1, 20), LONGEST_WAIT)
        return replace(
            delivery,
            state="given_up" if is_final else "pending",
            attempts=attempts,
            due=self._now() + wait * random.uniform(0.8, 1.2),
            problem=plain(problem)[:500],
        )

    def _record(self, id_: str, done: Delivery) -> None:
        """Replaces one delivery of an alert, which may have been raised anew meanwhile."""
        if raised := _read(self._path(id_)):
            deliveries = tuple(
                done if other.receiver == done.receiver else other for other in raised.deliveries
            )
            self._write(replace(raised, deliveries=deliveries))

    def _write(self, raised: Raised) -> None:
        write_atomically(self._path(raised.alert.id), to_json(raised, indent=1))

    def _path(self, id_: str) -> Path:
        return self._folder / f"{id_}.json"

    def _forget(self) -> None:
        """Deletes the oldest alerts that are not on their way any more."""
        old = [
            raised
            for raised in raised_in(self._folder)[KEPT:]
            if all(delivery.state != "pending" for delivery in raised.deliveries)
        ]
        for raised in old:
            with contextlib.suppress(OSError):
                self._path(raised.alert.id).unlink()


def raised_in(folder: Path) -> list[Raised]:
    """The alerts in a folder, newest first; a file that is damaged is left out."""
    found = [raised for path in folder.glob("*.json") if (raised := _read(path))]
    return sorted(found, key=lambda raised: raised.time, reverse=True)


def _read(path: Path) -> Raised | None:
    try:
        return from_json(Raised, path.read_bytes())
    except (OSError, BadInput):
        return None


def _for_slack(text: str) -> str:
    """Text in which nothing is a mention, a link or a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

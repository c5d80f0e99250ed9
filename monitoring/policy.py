"""When the loop retrains, holds and rolls back, and who is told: sections of the configuration."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat
from pydantic.dataclasses import dataclass

from fraud.codec import STRICT, Count
from fraud.errors import BadInput

Kind = Literal[
    "failed_run",
    "gate_stop",
    "hold",
    "nothing_blessed",
    "push",
    "rollback",
    "drift",
    "stale_data",
    "stale_model",
]
"""The occasions for an alert; docs/alerts.md describes them."""


@dataclass(frozen=True, config=STRICT)
class AlertSettings:
    """Who is told what the loop found and did; see docs/alerts.md. Secrets come from the
    environment: `FRAUD_ALERT_URL` is the URL of a webhook, `FRAUD_SMTP_PASSWORD` the password for
    SMTP.
    """

    mute: tuple[Kind, ...] = ()
    """Kinds of alerts that are recorded, but sent to nobody."""
    repeat_hours: PositiveFloat = 24.0
    """Hours until the same alert is sent again, if its cause persists."""
    give_up_hours: PositiveFloat = 48.0
    """Hours for which a delivery that fails is repeated, less and less often."""
    timeout_seconds: PositiveFloat = 10.0
    """Seconds that a receiver has to answer."""
    webhook_format: Literal["json", "slack"] = "json"
    """What the webhook gets: `json`, all facts; `slack`, a message as Slack, Mattermost and others
    accept it."""
    smtp_host: str | None = None
    """Mail server; null sends no mail."""
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    """Its port."""
    smtp_security: Literal["starttls", "tls", "none"] = "starttls"
    """How the connection is encrypted; the server's certificate is checked."""
    smtp_user: str | None = None
    """User name; null sends without logging in."""
    smtp_from: str | None = None
    """Address of the sender."""
    smtp_to: tuple[str, ...] = ()
    """Addresses of the recipients."""
    command: tuple[str, ...] = ()
    """A program and its arguments, started for each alert, which it reads as JSON from its standard
    input, without a shell and without anything from the alert among the arguments."""

    def check(self) -> None:
        """Checks what involves several keys.

        Raises:
          BadInput: naming key and fix.
        """
        if self.smtp_host is not None and not (self.smtp_from and self.smtp_to):
            raise BadInput("alerts.smtp_host: give alerts.smtp_from and alerts.smtp_to, too")
        if self.smtp_user is not None and self.smtp_security == "none":
            raise BadInput(
                "alerts.smtp_user: with alerts.smtp_security none, the password would cross the "
                "network in the clear; use starttls or tls"
            )


@dataclass(frozen=True, config=STRICT)
class LoopSettings:
    """When the loop (`fraud-pipeline watch`) trains, holds and rolls back; see docs/loop.md."""

    cool_down_days: Count = 7
    """Days from one training to the next; doubled after each training that did not end what asked
    for it."""
    max_trainings_per_week: Count = 2
    """Trainings in any seven days."""
    max_trainings_per_eight_weeks: Count | None = None
    """Trainings in any 56 days while something is live; with 8, the loop trains no more often than
    once a week on average, whatever its checks ask for; null sets no such limit."""
    consecutive_days: Count = 2
    """Observations in a row in which a check must ask for a training, unless it is severe."""
    severe_ratio: Annotated[float, Field(ge=1)] = 2.0
    """How many times a value must be beyond its threshold to be severe."""
    min_changed_days: NonNegativeInt = 1
    """Days from after a change that the train window must contain before the change starts a
    training; 0 does not wait for that."""
    follow_up_ratio: Annotated[float, Field(gt=1)] | None = 2.0
    """How many times as many days of a change the train window must contain as at the last training
    for another one, until it contains nothing else: a change is learnt bit by bit; null does not
    train again for that."""
    change_eval_days: Count | None = 3
    """Days of the eval window of a training for a change, if `windows.eval_days` are more: the
    train window ends before the eval window, so with a shorter one it reaches the change sooner;
    null keeps `windows.eval_days`."""
    roll_back_days: Count = 21
    """Days after a push during which the version is taken back if it proves harmful; later, that
    is decay and asks for a training."""
    probation_days: NonNegativeInt = 0
    """Days that a blessed model scores in the server's shadow before it is promoted; 0 pushes it
    at once."""
    refused_days: Count = 30
    """Days that a model which was refused is kept and listed."""
    min_rows: Count | None = None
    """Rows from which on a day is complete even without the file `_SUCCESS`; null counts only that
    file."""
    poll_seconds: PositiveFloat = 60.0
    """Seconds between two looks for a new day."""
    attempts: Count = 3
    """Attempts at a step that fails, before a person is told."""
    retry_seconds: PositiveFloat = 60.0
    """Seconds after the first attempt that failed; doubled each time."""
    stale_data_hours: PositiveFloat = 36.0
    """Hours after the end of the last day at which missing data is an alert."""
    nothing_blessed_days: Count = 35
    """Days without a push at which that is an alert, although models were trained."""
    server: str | None = None
    """Address of the one server, such as http://localhost:8501, which is asked whether it took a
    new version; null does not ask; a token, if the server needs one, comes from the environment
    variable `FRAUD_SERVER_TOKEN`."""
    verify_rows: Count = 500
    """Transactions that a new version must have scored before it is judged by them."""
    max_alert_rate_ratio: Annotated[float, Field(gt=1)] = 4.0
    """How many times more or fewer alerts a new version may raise than the one before."""
    max_score_shift: PositiveFloat = 0.25
    """Population stability index between the scores of a new version and of the one before, up to
    which the new one stays."""
    max_errors: NonNegativeFloat = 0.01
    """Share of scores, and of the server's requests, that may fail after the swap."""

"""What to do about what was observed: nothing, train, hold, or roll back.

`decide` is pure: the same observation, history and policy always give the same decision, so a
history can be replayed and a policy tried on the past. docs/loop.md has an example of each outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

from fraud.monitoring.checks import Check, Kind, Observation, Verdict
from fraud.monitoring.policy import LoopSettings

Action = Literal["nothing", "retrain", "hold", "roll_back"]

HOLD = (Kind.DATA, Kind.SKEW, Kind.FRESHNESS)
"""What only a person can repair, and a model trained now would learn."""
LATE = (Kind.PERFORMANCE, Kind.HARM)
"""What is measured by labels, hence shows a change only after the label delay."""
RETRAIN = (Kind.DRIFT, Kind.SCORES, Kind.PERFORMANCE, Kind.ESTIMATE, Kind.HARM, Kind.AGE)
"""What a new model may cure."""
WEEK = timedelta(days=7)
EIGHT_WEEKS = 8 * WEEK


@dataclass(frozen=True)
class Lags:
    """How late a day counts, from the configuration's section `windows`.

    Attributes:
      labels: days until performance shows a change: label delay, and half of the days that are
        judged together.
      training: days until it is in the train window of a training for a change: label delay, its
        eval window, label delay.
      window: days of the train window; 0 trains for no change a second time.
    """

    labels: int = 0
    training: int = 0
    window: int = 0

    @classmethod
    def of(
        cls,
        delay: int,
        eval_days: int,
        train_days: int,
        judged_days: int,
        change_eval_days: int | None,
    ) -> Lags:
        """Those of a configuration.

        Args:
          delay: `windows.label_delay_days`.
          eval_days, train_days: of `windows`.
          judged_days: `monitoring.performance_days`.
          change_eval_days: of `loop`.
        """
        evaluated = min(eval_days, change_eval_days or eval_days)
        return cls(delay + judged_days // 2, 2 * delay + evaluated, train_days)


@dataclass(frozen=True)
class Decision:
    """What to do, and why.

    Attributes:
      as_of: the day of the observation.
      action: what to do.
      reasons: why, or why not more; a sentence each.
      asking: the names of the checks that ask for a training, whatever is done; none if the data
        is broken, as then nobody knows.
      changed: since when the world is another, as far as the checks can tell, if a training for
        that is waited for or begins; None without such a change. Of several that are waited for,
        the earliest; of several that can be trained on, the latest.
    """

    as_of: date
    action: Action
    reasons: tuple[str, ...] = ()
    asking: tuple[str, ...] = ()
    changed: date | None = None


@dataclass(frozen=True)
class Past:
    """What was decided on an earlier day, and what became of it.

    Attributes:
      decision: that day's.
      outcome: of its training, as in a run's summary, or "failed"; "" without a training.
      pushed: the version that went live by it; "" if none did.
      went_live: the day on which it did.
      on_probation: whether the model that was trained is still in the server's shadow.
    """

    decision: Decision
    outcome: str = ""
    pushed: str = ""
    went_live: date | None = None
    on_probation: bool = False


def decide(
    observation: Observation,
    history: Sequence[Past],
    policy: LoopSettings,
    lags: Lags = Lags(),
) -> Decision:
    """Decides what to do about an observation.

    Broken data wins over everything: while it lasts, nobody can tell the harm of a model from that
    of its data. A rollback wins over a training, because it helps at once.

    Args:
      observation: what was seen.
      history: earlier days, in any order; those that are not earlier are ignored, so that a day
        may be decided again.
      policy: the configuration's section `loop`.
      lags: of labels and training.
    """
    as_of = observation.as_of
    past = sorted(
        (day for day in history if day.decision.as_of < as_of), key=lambda day: day.decision.as_of
    )
    acting = [check for check in observation.checks if check.verdict is Verdict.ACT]
    if broken := [check for check in acting if check.kind in HOLD]:
        return Decision(as_of, "hold", tuple(map(_sentence, broken)))

    asks = [check for check in acting if check.kind in RETRAIN]
    asking = tuple(sorted(check.name for check in asks))
    harm = [check for check in asks if check.kind is Kind.HARM]
    pushed = _pushed_on(past, observation.version)
    if harm and pushed and (as_of - pushed).days <= policy.roll_back_days:
        since = f"version {observation.version} went live on {pushed}"
        return Decision(as_of, "roll_back", (*map(_sentence, harm), since), asking)

    wanted, notes, learnable, awaited = _wanted(observation, asks, past, policy, lags)
    # Without a live model nothing asks in vain, so the cool-down stays as it is.
    in_question = asks if observation.version is not None else []
    if follow_up := _follow_up(as_of, past, policy, lags):
        # What still asks does so because the last model knew little of the change.
        wanted, in_question = [*wanted, follow_up[0]], []
        learnable = learnable or follow_up[1]
    if not wanted:
        return Decision(as_of, "nothing", tuple(notes), asking, awaited)
    if obstacles := _obstacles(observation, in_question, past, policy, lags):
        return Decision(as_of, "nothing", (*obstacles, *wanted), asking, awaited)
    return Decision(as_of, "retrain", tuple(wanted), asking, learnable)


def _wanted(
    observation: Observation,
    asks: Sequence[Check],
    past: Sequence[Past],
    policy: LoopSettings,
    lags: Lags,
) -> tuple[list[str], list[str], date | None, date | None]:
    """Why to train, and why not yet, a sentence each; and since when the world is another: for the
    latest change that can be trained on, and the earliest that is waited for, be it for its labels
    or, if something is in the way, for its training.
    """
    if observation.version is None:
        return ["nothing is live"], [], None, None
    as_of, lag = observation.as_of, _lag(policy, lags)
    wanted, notes, learnable, awaited, delayed = [], [], [], [], []
    learnt = max((_learnt(day, lag) for day in past), default=date.min)
    for check in asks:
        if check.kind is Kind.AGE:  # needs no second day, and has been learnable for long
            continue
        streak = _streak(check.name, past)
        changed = _began(check, streak[0].decision.as_of if streak else as_of, lags)
        if len(streak) + 1 < policy.consecutive_days and not is_severe(check, policy):
            notes.append(f"{_sentence(check)}; not yet on {policy.consecutive_days} days in a row")
        elif policy.min_changed_days and as_of < changed + lag:
            until = changed + lag
            notes.append(f"{_sentence(check)}; its labels can be trained on from {until} on")
            awaited.append(changed)
        else:
            wanted.append(_sentence(check))
            learnable.append(changed)
            if policy.min_changed_days and changed > learnt:
                delayed.append(changed)  # if something is in the way of its training
    awaited = awaited or delayed
    pending = _pending(as_of, past, lag)
    if pending and all(pending[0] < changed for changed in (*learnable, *awaited)):
        # Checks that begin to ask later date the same change later.
        changed, seen = pending
        if as_of < changed + lag:
            until = changed + lag
            notes.append(f"change of {changed}; its labels can be trained on from {until} on")
        else:
            wanted.append(f"change of {changed}, last seen on {seen}")
            learnable.append(changed)
        awaited = awaited and [changed]  # a day on which no check asks does not prolong the wait
    if not notes:  # A version that knows nothing of a change promises little, which would hide it.
        wanted += [_sentence(check) for check in asks if check.kind is Kind.AGE]
    return wanted, notes, max(learnable, default=None), min(awaited, default=None)


def _lag(policy: LoopSettings, lags: Lags) -> timedelta:
    """From the first day of a change to the day from which on it can be trained on."""
    return timedelta(days=lags.training + policy.min_changed_days - 1)


def _began(check: Check, first: date, lags: Lags) -> date:
    """Since when the world is another, if a check has asked for a training since a day."""
    return first - timedelta(days=lags.labels if check.kind in LATE else 0)


def _learnt(day: Past, lag: timedelta) -> date:
    """The last change of which a day's training had days; the earliest date without a training."""
    return day.decision.as_of - lag if day.decision.action == "retrain" else date.min


def _pending(as_of: date, past: Sequence[Past], lag: timedelta) -> tuple[date, date] | None:
    """A change that is waited for, and when it was last seen, if that was in the last week.

    A check near its threshold is silent on some days. A training ends the wait for the changes that
    can be trained on by then.
    """
    learnt = date.min
    for day in reversed(past):
        made = day.decision
        if as_of - made.as_of > WEEK:
            return None
        if made.action == "retrain":
            learnt = max(learnt, _learnt(day, lag))
        elif made.changed is not None and made.changed > learnt:
            return made.changed, made.as_of
    return None


def _follow_up(
    as_of: date, past: Sequence[Past], policy: LoopSettings, lags: Lags
) -> tuple[str, date] | None:
    """Why to train for the last change again, and since when the world has changed."""
    trainings = [day.decision for day in past if day.decision.action == "retrain"]
    changes = [training.changed for training in trainings if training.changed]
    if policy.follow_up_ratio is None or not changes:
        return None
    changed = max(changes)
    had, has = (
        max(1, (day - changed).days + 1 - lags.training) for day in (trainings[-1].as_of, as_of)
    )
    if had >= lags.window or has < policy.follow_up_ratio * had:
        return None
    known = f"{min(has, lags.window)} of its days can be trained on, of which the last model had"
    return f"change of {changed}: {known} {had}", changed


def _obstacles(
    observation: Observation,
    asks: Sequence[Check],
    past: Sequence[Past],
    policy: LoopSettings,
    lags: Lags,
) -> list[str]:
    """Why not to train although there are reasons."""
    as_of = observation.as_of
    trainings = [day.decision.as_of for day in past if day.decision.action == "retrain"]
    if waiting := [day for day in past if day.on_probation]:
        return [f"the model of {waiting[-1].decision.as_of} is on probation"]
    if not trainings:
        return []
    in_vain = 0
    for check in asks:
        if streak := _streak(check.name, past):
            since = streak[0].decision.as_of
            if policy.min_changed_days and check.kind is not Kind.AGE:
                # What was trained for another reason before could not end this.
                since = max(since, _began(check, since, lags) + _lag(policy, lags))
            in_vain = max(in_vain, sum(day >= since for day in trainings))
    wait = policy.cool_down_days * 2 ** min(max(in_vain - 1, 0), 3)
    due = trainings[-1] + timedelta(days=wait)
    if as_of < due:
        return [f"trained on {trainings[-1]}; not again before {due}"]
    recent = [day for day in trainings if day > as_of - WEEK]
    if len(recent) >= policy.max_trainings_per_week:
        return [f"trained {len(recent)} times in the last seven days"]
    limit = policy.max_trainings_per_eight_weeks
    recent = [day for day in trainings if day > as_of - EIGHT_WEEKS]
    if limit is not None and len(recent) >= limit and observation.version is not None:
        due = recent[-limit] + EIGHT_WEEKS
        return [f"no more trainings in eight weeks (limit {limit}); not again before {due}"]
    return []


def is_severe(check: Check, policy: LoopSettings) -> bool:
    """Whether a check that asks for action is so far beyond its threshold that one day suffices."""
    value, threshold = check.value, check.threshold
    if value is None or threshold is None or threshold <= 0 or value < 0:
        return False
    low, high = sorted((value, threshold))
    return high >= policy.severe_ratio * low


def _streak(name: str, past: Sequence[Past]) -> list[Past]:
    """The last days in a row on which a check asked for a training; days of a hold do not count."""
    streak: list[Past] = []
    for day in reversed(past):
        if day.decision.action == "hold":
            continue
        if name not in day.decision.asking:
            break
        streak.insert(0, day)
    return streak


def _pushed_on(past: Sequence[Past], version: int | None) -> date | None:
    """The day on which the loop pushed a version; None if it did not."""
    days = [day.went_live for day in past if version is not None and day.pushed == str(version)]
    return days[-1] if days else None


def _sentence(check: Check) -> str:
    shown = check.name if check.value is None else f"{check.name} is {check.value:.4g}"
    if check.threshold is not None:
        shown += f" (threshold {check.threshold:.4g})"
    return f"{shown}: {check.detail}" if check.detail else shown

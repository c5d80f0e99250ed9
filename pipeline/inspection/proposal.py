"""A configuration for data that was inspected: the settings, and the file that explains them."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fraud.files import is_uri
from fraud.models.spec import Evaluation
from fraud.pipeline.config.loading import Dumper
from fraud.pipeline.inspection.roles import (
    AMOUNT,
    CATEGORICAL,
    ENTITY,
    ID,
    LABEL,
    LEFT_OUT,
    NUMERIC,
    TIMESTAMP,
    Role,
    Roles,
)
from fraud.pipeline.inspection.sample import Sample

FEWEST_DAYS = 8
"""With fewer days there is no room for train, eval and two label delays."""

SHOWN = 12
"""Columns of one role that the terminal shows."""

LONGEST_GAP = 366
"""Days without transactions between a few days and all others, beyond which these are a mistake."""

EVAL_FRAUDS, TRAIN_FRAUDS = 50, 1000
"""Frauds that the windows should hold, as far as the data goes."""


@dataclass(frozen=True)
class WindowChoice:
    """The lengths of the windows, in days."""

    train_days: int
    eval_days: int
    label_delay_days: int
    max_empty_days: int


def choose_windows(days: np.ndarray, frauds: float) -> WindowChoice | None:
    """Windows that the data covers; None if it covers too few days.

    Args:
      days: the different days of the data, as numbers, ascending.
      frauds: the number of frauds in all of it, estimated.
    """
    span = int(days[-1] - days[0]) + 1
    if span < FEWEST_DAYS:
        return None
    delay = min(7, max(1, span // 8))
    per_day = max(frauds, 1) / span
    room = span - 2 * delay
    needed = math.ceil(EVAL_FRAUDS / per_day)
    evaluated = max(1, min(max(7, needed), room // 4))
    train = min(max(30, math.ceil(TRAIN_FRAUDS / per_day)), room - evaluated)
    return WindowChoice(train, evaluated, delay, span - len(days))


def stray_days(days: np.ndarray) -> np.ndarray:
    """Days at either end that are years away from nearly all others, as placeholders are.

    Args:
      days: as in `choose_windows`.
    """
    most = max(1, len(days) // 50)
    far = np.flatnonzero(np.diff(days) > LONGEST_GAP)
    first = max((i + 1 for i in far if i < most), default=0)
    last = min((i + 1 for i in far if i + 1 >= len(days) - most), default=len(days))
    return np.concatenate([days[:first], days[last:]]) if first < last else days[:0]


def demands(fraud_rate: float) -> dict[str, float]:
    """What a first model must reach: clearly more than chance.

    By chance, average precision is the share of frauds, ROC AUC 0.5, and recall at the budget the
    share of transactions that alert. Where frauds are many, neither can be half as
    good again: average precision is at most 1, and recall the budget's share of the frauds.
    """
    least = min(1.5 * fraud_rate, fraud_rate + (1 - fraud_rate) / 8)
    budget = Evaluation().alert_share
    reachable = min(1.0, budget / fraud_rate) if fraud_rate > 0 else 1.0
    digits = 1 - math.floor(math.log10(least)) if least > 0 else 4
    return {
        "min_average_precision": round(least, max(3, digits)),
        "min_roc_auc": 0.6,
        "min_recall_at_budget": round(min(0.07, (budget + reachable) / 2), 3),
    }


def warnings(sample: Sample, roles: Roles) -> list[str]:
    """What a person must look at before the first run."""
    found = []
    frauds = round(roles.frauds * sample.rows / max(1, sample.table.num_rows))
    if frauds < EVAL_FRAUDS:
        few = "1 fraud" if frauds == 1 else f"{frauds} frauds"
        found.append(
            f"{few} in {count(sample)}: no model can be judged by so few; bring data with "
            f"at least {EVAL_FRAUDS}, better hundreds"
        )
    if roles.unlabelled:
        label = roles.one(LABEL)
        found.append(
            f"{label} is empty in {roles.unlabelled / sample.table.num_rows:.1%} of the rows; a "
            "run refuses rows without a label once the label delay is over: fill or remove them"
        )
    if sample.table.num_rows < sample.rows:
        found.append(
            f"only {sample.table.num_rows:,} rows were looked at; a run checks all, and names the "
            "first that it cannot read"
        )
    if roles.fraud_rate > 0.5:
        genuine, fraud = roles.spelled
        found.append(
            f"{roles.fraud_rate:.1%} of the rows are frauds; if {fraud!r} means genuine, set "
            f"dataset.label_values to {_scalar([fraud, genuine])} (genuine, fraud)"
        )
    return found


def count(sample: Sample) -> str:
    """The number of rows, in words."""
    about = "about " if sample.table.num_rows < sample.rows else ""
    return f"{about}{sample.rows:,} rows"


def text(data: str, out: Path, sample: Sample, roles: Roles, windows: WindowChoice | None) -> str:
    """The configuration as commented YAML.

    Args:
      data: the path or URI that was inspected.
      out: where the file will be; a local path is written relative to it if it is below.
      sample: what was read.
      roles: what was guessed.
      windows: None if the data has no usable timestamp.
    """
    return "\n".join([*_lines(data, out, sample, roles, windows), ""])


def _lines(
    data: str, out: Path, sample: Sample, roles: Roles, windows: WindowChoice | None
) -> Iterator[str]:
    yield "# Written by `fraud-pipeline init`. It guesses from names and values: check the roles."
    yield f"# {count(sample)}, of which {roles.fraud_rate:.3%} are frauds."
    for warning in warnings(sample, roles):
        yield f"# Warning: {_comment(warning)}."
    yield "# Every key that is not given here has its default; `fraud-pipeline config` prints all."
    yield "dataset:"
    reasons = {role.column: role.reason for role in roles.roles}
    for role in (TIMESTAMP, AMOUNT, LABEL, ID):
        column = roles.one(role)
        why = reasons[column] if column else "none was found"
        yield f"  {role}: {_scalar(column)} # {_comment(why)}"
    if roles.label_values:
        yield f"  label_values: {_scalar(list(roles.label_values))} # genuine, fraud"
    if roles.time_format:
        yield f"  time_format: {_scalar(roles.time_format)}"
    for key, value, default in (
        ("csv_delimiter", sample.csv.delimiter, ","),
        ("csv_decimal", sample.csv.decimal, "."),
        ("csv_encoding", sample.csv.encoding, "utf-8"),
    ):
        if value != default:
            yield f"  {key}: {_scalar(value)}"
    by_role = roles.by_role
    if ENTITY in by_role:
        yield "  # Who has a history of its own; analysts check the first one."
    for key in (ENTITY, NUMERIC, CATEGORICAL):
        if key not in by_role:
            yield f"  {key}: []"
            continue
        yield f"  {key}:"
        for column in by_role[key]:
            yield f"    - {_scalar(column)} # {_comment(reasons[column])}"
    if CATEGORICAL in by_role:
        yield "  # Name categories here to have each of their values judged by itself."
        yield "  slices: []"
    if LEFT_OUT in by_role:
        yield "  # Left out:"
        for column in by_role[LEFT_OUT]:
            yield f"  #   {_comment(column)}: {_comment(reasons[column])}"
    yield ""
    if windows:
        yield "# Days; the data must cover train + eval + twice the label delay."
        yield "windows:"
        yield f"  train_days: {windows.train_days}"
        yield f"  eval_days: {windows.eval_days}"
        yield f"  label_delay_days: {windows.label_delay_days} # how long until fraud is known?"
        if windows.max_empty_days:
            yield f"  max_empty_days: {windows.max_empty_days} # some days have no transactions"
        yield ""
    yield "# A first model must be clearly better than chance, which reaches"
    yield f"# {roles.fraud_rate:.2g}, 0.5 and 0.05. Raise these once you know what is possible."
    yield "evaluation:"
    for key, least in demands(roles.fraud_rate).items():
        yield f"  {key}: {least}"
    yield ""
    yield "paths:"
    yield f"  data: {_scalar(_relative(data, out))}"
    yield f"  schema: {_scalar(f'{out.stem}-schema.pbtxt')} # the first run writes it, for review"


def table(roles: Roles) -> str:
    """The roles with their reasons, for the terminal; of many columns the first ones."""
    width = min(40, max(len(role.column) for role in roles.roles))
    lines = []
    for kind in (LABEL, TIMESTAMP, AMOUNT, ID, ENTITY, NUMERIC, CATEGORICAL, LEFT_OUT):
        listed = [role for role in roles.roles if role.role == kind]
        lines += [_line(role, width) for role in listed[:SHOWN]]
        if len(listed) > SHOWN:
            lines.append(f"  {kind:<12} and {len(listed) - SHOWN} more, which the file lists")
    return "\n".join(lines)


def _line(role: Role, width: int) -> str:
    return f"  {role.role:<12} {role.column:<{width}}  {role.reason}"


def _relative(data: str, out: Path) -> str:
    if is_uri(data):
        return data
    relative = os.path.relpath(data, out.parent)
    return data if relative.startswith("..") else relative


def _scalar(value: Any) -> str:
    """A value as YAML on one line."""
    dumped = yaml.dump(
        value, Dumper=Dumper, default_flow_style=True, allow_unicode=True, width=sys.maxsize
    )
    return str(dumped).removesuffix("\n").removesuffix("\n...")


def _comment(words: str) -> str:
    """Words that stay on the line of a comment."""
    return " ".join("".join(c if c.isprintable() else " " for c in words).split())

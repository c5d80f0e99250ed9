"""Guesses the role of each column from its name and values, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.names import check_column, input_name
from fraud.pipeline.inspection.columns import FLAG, NUMBER, OTHER, TIME, Column

TIMESTAMP, AMOUNT, LABEL, ID, ENTITY = "timestamp", "amount", "label", "id", "entities"
NUMERIC, CATEGORICAL, LEFT_OUT = "numeric", "categorical", "left out"

MOST_CATEGORIES = 1000
"""Text with more different values is no list of categories."""
FEWEST_ENTITIES = 50
"""A column with fewer different values is a category, not an entity with a history of its own."""
FEWEST_FRAUDS = 20
"""With fewer in the sample, no column is accused of giving the label away."""
GIVEN_AWAY = 0.995
"""ROC AUC of a single column above which it is taken for a consequence of the label."""

_EXACT = {"fraud", "isfraud", "txfraud", "fraudlabel", "fraudflag", "fraudfound", "fraudfoundp"}
_EXACT |= {
    "fraudreported",
    "fraudbool",
    "betrug",
    "istbetrug",
    "fraude",
    "label",
    "class",
    "target",
}
_FRAUD = {"fraud", "fraudulent", "betrug", "betrugsfall", "fraude", "chargeback", "scam"}
_YES = {"1", "1.0", "true", "yes", "y", "t", "ja", "j", "si", "sí", "oui", "fraud", "fraudulent"}
_YES |= {"betrug", "scam", "bad"}
_TIME = {"time", "timestamp", "datetime", "date", "datum", "zeit", "zeitpunkt", "booked", "fecha"}
_TIME |= {"trans", "transaction", "tx", "buchung", "buchungstag", "incident", "created", "event"}
_STEP = {"step": "hours", "hour": "hours", "hours": "hours", "minute": "minutes", "day": "days"}
_AMOUNT: tuple[str, ...] = (
    "amount",
    "amt",
    "betrag",
    "summe",
    "umsatz",
    "sum",
    "value",
    "wert",
    "price",
    "preis",
)
_AMOUNT += ("total", "claim", "monto", "importe", "montant")
_CARD = {"card", "cc", "account", "acct", "konto", "customer", "client", "kunde", "kunden", "user"}
_CARD |= {"member", "policy", "policyholder", "iban", "orig", "sender", "payer"}
_ENTITY = _CARD | {"merchant", "terminal", "device", "ip", "email", "phone", "händler", "haendler"}
_ENTITY |= {"shop", "store", "dest", "receiver", "beneficiary", "vendor", "payee", "agent"}
_ENTITY |= {"kundennummer", "kontonummer", "kartennummer", "kundennr", "gerät"}
_CARD |= {"kundennummer", "kontonummer", "kartennummer", "kundennr"}
_ID = {"id", "nr", "no", "nummer", "number", "num", "key", "uuid", "guid", "index", "ref"}
_ID |= {"transaction", "referenz", "vorgang", "unnamed"}
_CODE = {"code", "type", "typ", "kind", "category", "kategorie", "mcc", "class", "group", "zip"}
_CODE |= {"plz", "postcode", "postal", "channel", "kanal", "country", "land", "region", "state"}
_CODE |= {"branch", "branche", "status", "gender", "sex", "brand", "currency", "sector", "segment"}


@dataclass(frozen=True)
class Role:
    """What a column is taken for, and why.

    Attributes:
      column: its name.
      role: a constant of this module.
      reason: in a few words.
    """

    column: str
    role: str
    reason: str


@dataclass(frozen=True)
class Roles:
    """The roles of all columns.

    Attributes:
      roles: in the order of the data.
      label_values: the spelling of genuine and fraud, unless it is 0 and 1.
      time_format: of the timestamp; None if it needs none.
      fraud_rate: the share of frauds among the rows of the sample that have a label.
    """

    roles: tuple[Role, ...]
    label_values: tuple[str, str] | None
    time_format: str | None
    fraud_rate: float
    by_role: dict[str, tuple[str, ...]] = field(init=False)

    def __post_init__(self) -> None:
        by_role: dict[str, tuple[str, ...]] = {}
        for role in self.roles:
            by_role[role.role] = (*by_role.get(role.role, ()), role.column)
        object.__setattr__(self, "by_role", by_role)

    def one(self, role: str) -> str | None:
        """The column with a role that one column has at most."""
        return self.by_role.get(role, (None,))[0]

    def without_time(self, reason: str) -> Roles:
        """The same roles without a timestamp."""
        changed = [
            Role(r.column, LEFT_OUT, reason) if r.role == TIMESTAMP else r for r in self.roles
        ]
        return replace(self, roles=tuple(changed), time_format=None)


def guess(columns: Sequence[Column], chosen: dict[str, str | None] | None = None) -> Roles:
    """Guesses the roles.

    Args:
      columns: the columns of the sample.
      chosen: role → column that a person named; None if no column shall have it.

    Raises:
      BadInput: there is no label, or more than one column could be it.
    """
    chosen = chosen or {}
    of_name = {column.name: column for column in columns}
    for role, name in chosen.items():
        if name is not None and name not in of_name:
            raise BadInput(f"{role}: no column {name!r}; the data has {_listed(list(of_name))}")
    label, why, others = _label(columns, chosen.get(LABEL))
    fraud, values = _fraud_value(label)
    is_fraud = np.array(pc.fill_null(pc.equal(label.text, fraud), False).to_numpy(False), bool)
    labelled = len(label.text) - label.missing
    found = {label.name: Role(label.name, LABEL, why)}
    for other in others:
        reason = f"looks like another label, so it may tell {label.name}"
        found[other.name] = Role(other.name, LEFT_OUT, reason)
    rest = [column for column in columns if column.name not in found]
    found |= {column.name: unusable for column in rest if (unusable := _unusable(column))}

    def take(role: str, candidates: list[tuple[Column, str]]) -> Column | None:
        """Gives a role to the column that a person chose, or to the first candidate."""
        if role in chosen:
            name = chosen[role]
            if name is None:
                return None
            if name == label.name:
                raise BadInput(f"{role}: column {name!r} is already the label")
            found[name] = Role(name, role, "chosen by you")
            return of_name[name]
        for column, reason in candidates:
            if column.name not in found and column.name not in chosen.values():
                found[column.name] = Role(column.name, role, reason)
                return column
        return None

    timestamp = take(TIMESTAMP, _timestamps(rest))
    take(ID, _ids(rest))
    take(AMOUNT, _amounts(rest))
    for column, reason in _entities(rest):
        if ENTITY not in chosen and column.name not in found:
            found[column.name] = Role(column.name, ENTITY, reason)
    inputs: dict[str, str] = {}
    for column in rest:
        guessed = found.get(column.name) or _model_input(column, is_fraud)
        if guessed.role in (AMOUNT, NUMERIC, CATEGORICAL):
            same = inputs.setdefault(input_name(column.name), column.name)
            if same != column.name:
                reason = f"its name differs from {same!r} only where the model's inputs cannot"
                guessed = Role(column.name, LEFT_OUT, reason)
        found[column.name] = guessed
    return Roles(
        roles=tuple(found[column.name] for column in columns),
        label_values=values,
        time_format=_time_format(timestamp),
        fraud_rate=float(is_fraud.sum() / max(1, labelled)),
    )


def step_unit(column: Column) -> str | None:
    """The unit in which a column counts time from the beginning of the data; None if it does not.

    Such a column is a small whole number that never falls from one row to the next.
    """
    units = [unit for word, unit in _STEP.items() if word in column.words]
    if not units or column.numbers is None or not column.is_whole or column.missing:
        return None
    rises = bool(np.all(np.diff(column.numbers) >= 0)) and column.distinct > 2
    return units[0] if rises and column.numbers.min() >= 0 else None


def _time_format(column: Column | None) -> str | None:
    if column is None:
        return None
    return column.time_format or step_unit(column)


def _label(columns: Sequence[Column], chosen: str | None) -> tuple[Column, str, list[Column]]:
    """The label, why, and the columns that look like one, too."""
    binary = [c for c in columns if c.distinct == 2 and c.kind not in (TIME, OTHER)]
    if chosen is not None:
        column = next(c for c in columns if c.name == chosen)
        if column not in binary:
            raise BadInput(_not_binary(column))
        others = [c for c in binary if _label_score(c) and c is not column]
        return column, "chosen by you", others
    scores = {c.name: _label_score(c) for c in columns}
    best = max((scores[c.name] for c in binary), default=0)
    named = [c for c in columns if scores[c.name] > max(best, 1)]
    if named:  # a better name, but no two values
        raise BadInput(_not_binary(named[0]))
    if not best:
        names = [c.name for c in binary]
        hint = (
            f"name it with --label; it may be {_listed(names)}"
            if names
            else ("no column has just two values; add one that is 1 for fraud and 0 for genuine")
        )
        raise BadInput(f"no column looks like the label; {hint}")
    first, *others = [c for c in binary if scores[c.name] == best]
    if others:
        raise BadInput(
            f"{_listed([first.name, *(c.name for c in others)])} could each be the label; name "
            "it with --label"
        )
    others = [c for c in binary if 0 < scores[c.name] < best and "fraud" in " ".join(c.words)]
    return first, "by its name, with two values", others


def _label_score(column: Column) -> int:
    """How much a name looks like that of a label: 0 not at all, 4 exactly."""
    joined = "".join(column.words)
    if joined in _EXACT:
        return 4 if "fraud" in joined or "betrug" in joined else 3
    if set(column.words) & {"flagged", "suspected", "alert", "score", "predicted"}:
        return 1 if set(column.words) & _FRAUD or "fraud" in joined else 0
    return 2 if set(column.words) & _FRAUD or "fraud" in joined or "betrug" in joined else 0


def _not_binary(column: Column) -> str:
    values = list(column.counts)
    if not values:
        return f"{column.name}: it looks like the label, but is empty"
    if len(values) == 1:
        return (
            f"{column.name}: it looks like the label, but is {values[0]!r} in all rows; there must "
            "be frauds and genuine transactions to learn from"
        )
    return (
        f"{column.name}: it looks like the label, but has {len(values)} values, "
        f"{_listed(values)}; it must have two, for fraud and genuine"
    )


def _fraud_value(label: Column) -> tuple[str, tuple[str, str] | None]:
    """The spelling that means fraud, and both spellings unless they are 0 and 1."""
    common, rare = label.counts
    fraud = next((v for v in (rare, common) if v.lower() in _YES), rare)
    genuine = common if fraud == rare else rare
    numbers = {"0", "1", "0.0", "1.0"}
    is_plain = {genuine, fraud} <= numbers and float(fraud) == 1
    if label.kind == FLAG and not label.from_csv:
        is_plain = True
    return fraud, None if is_plain else (genuine, fraud)


def _unusable(column: Column) -> Role | None:
    def left_out(reason: str) -> Role:
        return Role(column.name, LEFT_OUT, reason)

    try:
        check_column(column.name)
    except BadInput as error:
        return left_out(str(error))
    if column.kind == OTHER:
        return left_out("neither numbers, text nor times")
    if column.distinct == 0:
        return left_out("always empty")
    if column.distinct == 1 and not column.missing:
        return left_out(f"always {next(iter(column.counts))[:40]!r}")
    return None


def _timestamps(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    """Candidates, the best first: by name, then with a time of day, then with more moments."""
    found = []
    for column in columns:
        if column.missing or column.distinct < 2:
            continue
        by_name = bool(set(column.words) & _TIME or set(column.words) & set(_STEP))
        if column.kind == TIME:
            written = f", written as {column.time_format}" if column.time_format else ""
            found.append((by_name, column.distinct, column, f"times in every row{written}"))
        elif unit := step_unit(column):
            reason = f"never falls: taken for {unit} since the data begins"
            found.append((by_name, column.distinct, column, reason))
        elif by_name and column.is_whole and _is_epoch(column):
            found.append((by_name, column.distinct, column, "times since 1970"))
    found.sort(key=lambda candidate: candidate[:2], reverse=True)
    return [(column, reason) for _, _, column, reason in found]


def _is_epoch(column: Column) -> bool:
    assert column.numbers is not None
    low, high = column.numbers.min(), column.numbers.max()
    return any(946_684_800 * 10**k <= low <= high < 4_102_444_800 * 10**k for k in (0, 3, 6, 9))


def _ids(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    found = []
    for column in columns:
        is_text = column.kind not in (NUMBER, TIME)
        if column.is_unique and (is_text or column.is_whole):
            if set(column.words) & _ID or (column.words[-1:] and column.words[-1].endswith("id")):
                rank = ("transaction" in column.words or "tx" in column.words, True)
                found.append((rank, column))
            elif column is columns[0] and not set(column.words) & _ENTITY:
                found.append(((False, False), column))
    found.sort(key=lambda candidate: candidate[0], reverse=True)
    return [(column, "another value in every row") for _, column in found]


def _amounts(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    named = [
        (rank, column)
        for column in columns
        for rank, word in enumerate(_AMOUNT)
        if word in column.words and column.kind == NUMBER and column.distinct > 10
        if not (set(column.words) & _ID)
    ]
    named.sort(key=lambda candidate: candidate[0])
    return [(column, "by its name, a number") for _, column in named]


def _entities(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    """Entities, whoever holds cards first."""
    found = []
    for column in columns:
        is_key = column.kind not in (NUMBER, TIME, FLAG) or column.is_whole
        if not is_key or column.missing or column.distinct < FEWEST_ENTITIES:
            continue
        words = set(column.words)
        if words & _ENTITY and column.distinct < 0.9 * len(column.text):
            reason = f"by its name, {column.distinct:,} that occur more than once"
            found.append((not words & _CARD, column, reason))
    found.sort(key=lambda candidate: candidate[0])
    return [(column, reason) for _, column, reason in found]


def _model_input(column: Column, is_fraud: NDArray[np.bool_]) -> Role:
    """A numeric or categorical column, or why it is left out."""
    name, distinct = column.name, column.distinct
    if column.kind == TIME:
        return Role(name, LEFT_OUT, "a second time; the model reads no times")
    if is_fraud.sum() >= FEWEST_FRAUDS and (auc := _auc(column, is_fraud)) > GIVEN_AWAY:
        reason = f"tells the label almost alone (ROC AUC {auc:.3f}): is it known in time?"
        return Role(name, LEFT_OUT, reason)
    zeros = ", with leading zeros" if column.has_leading_zeros else ""
    is_code = bool(set(column.words) & _CODE) and column.is_whole and distinct > 2
    if column.kind == NUMBER and not zeros and not is_code:
        if column.is_unique and column.is_whole and set(column.words) & (_ID | _ENTITY):
            return Role(name, LEFT_OUT, "another value in every row")
        return Role(name, NUMERIC, f"numbers, {distinct:,} different")
    if distinct <= MOST_CATEGORIES and distinct <= max(2, len(column.text) // 3):
        kind = "codes by its name" if is_code and not zeros else "values"
        return Role(name, CATEGORICAL, f"{distinct:,} {kind}{zeros}")
    if column.kind == NUMBER and not zeros:
        return Role(name, NUMERIC, f"numbers, {distinct:,} different")
    return Role(name, LEFT_OUT, f"{distinct:,} different values: text, or identifiers")


def _auc(column: Column, is_fraud: NDArray[np.bool_]) -> float:
    """How well a column alone ranks frauds, in either direction; 0.5 if that cannot be told."""
    if column.numbers is not None:
        values = column.numbers
    elif column.distinct <= 100:
        codes = {value: float(i) for i, value in enumerate(column.counts)}
        coded = np.array([codes.get(v, -1.0) for v in column.text.to_pylist()])
        of_value = [is_fraud[coded == code].mean() for code in codes.values()]
        values = np.array([np.nan if code < 0 else of_value[int(code)] for code in coded])
    else:
        return 0.5
    present = ~np.isnan(values)
    fraud = is_fraud[present]
    if not 0 < fraud.sum() < fraud.size:
        return 0.5
    _, order, counts = np.unique(values[present], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[order.reshape(-1)]
    positives = fraud.sum()
    wins = ranks[fraud].sum() - positives * (positives + 1) / 2
    auc = float(wins / (positives * (fraud.size - positives)))
    covered = present.mean()
    return max(auc, 1 - auc) if covered > 0.5 else 0.5


def _listed(names: Sequence[str]) -> str:
    shown = [*names[:8], f"{len(names) - 8} more"] if len(names) > 8 else list(names)
    return " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]])) if shown else "none"

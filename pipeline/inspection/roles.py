"""Guesses the role of each column from its name and values, and says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.names import check_column, input_name
from fraud.pipeline.inspection.columns import FLAG, NUMBER, OTHER, TEXT, TIME, Column

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
ALMOST_ONLY = 0.95
"""Share of frauds among the rows with a value, from which on having one gives the label away."""
FEWEST_VALUES, LEAST_FILLED = 50, 0.05
"""With fewer values, in a smaller share of the rows, train or eval may have none by chance."""

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
_YES = {"true", "yes", "y", "t", "ja", "j", "si", "sí", "oui", "fraud", "fraudulent"}
_YES |= {"betrug", "scam", "bad"}
_NO = {"false", "no", "n", "nein", "non", "genuine", "legit", "legitimate", "normal", "good"}
_ZERO, _ONE = {"0", "0.0"}, {"1", "1.0"}
_TIME = {"time", "timestamp", "datetime", "date", "datum", "zeit", "zeitpunkt", "booked", "fecha"}
_TIME |= {"ts", "unix", "epoch", "unixtime", "buchung", "buchungstag", "created"}
# Parts of the words of a time's name: that of the transaction, and those of something else.
_EVENT: tuple[str, ...] = (
    "trans",
    "tx",
    "incident",
    "event",
    "occur",
    "claim",
    "purchas",
    "order",
    "payment",
)
_EVENT += ("buchung", "booked")
_OTHER_TIMES: tuple[str, ...] = ("birth", "dob", "born", "bind", "expir", "open", "since", "valid")
_OTHER_TIMES += ("issu", "start", "regist", "signup", "joined", "enrol", "effective", "updated")
_OTHER_TIMES += ("last", "first", "previous", "geburt", "ablauf", "gültig", "seit", "eröffn")
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
# A name with such a word is that of a quantity; one that begins with "num" is, too.
_MEASURE = {"age", "limit", "count", "cnt", "days", "weeks", "months", "years", "hours", "minutes"}
_MEASURE |= {"score", "risk", "amount", "amt", "balance", "rate", "ratio", "total", "sum", "since"}
_MEASURE |= {"avg", "mean", "max", "min", "tenure", "income", "price", "value", "distance"}
_MEASURE |= {"alter", "anzahl", "tage", "monate", "jahre", "betrag", "saldo", "summe", "wert"}
_COUNTS = {"num", "number", "n", "no", "nr"}
_CODE = {"code", "type", "typ", "kind", "category", "kategorie", "mcc", "class", "group", "zip"}
_CODE |= {"plz", "postcode", "postal", "channel", "kanal", "country", "land", "region", "state"}
_CODE |= {"branch", "branche", "status", "gender", "sex", "brand", "currency", "sector", "segment"}

_PLAIN = r"^[-+]?(\d+[.,]?\d*|[.,]\d+)([eE][-+]?\d+)?$"
_DIGITS = r"\d[\d.,']*"
# $12, USD 12, 12 € or 12%, but not identifiers such as ABC12.
_WITH_SIGN = rf"^[-+(]?(?:(?:\p{{Sc}}\s*|[A-Z]{{3}}\s+)[-+]?{_DIGITS}"
_WITH_SIGN += rf"|{_DIGITS}(?:\s*(?:\p{{Sc}}|%)|\s+[A-Z]{{3}}))\)?$"
_WITH_GROUPS = r"^[-+]?\d{1,3}(,\d{3})*\.\d+$"


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
      frauds: the number of frauds in the sample.
    """

    roles: tuple[Role, ...]
    label_values: tuple[str, str] | None
    time_format: str | None
    fraud_rate: float
    frauds: int
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
    fraud, values, doubt = _fraud_value(label)
    is_fraud = np.array(pc.fill_null(pc.equal(label.text, fraud), False).to_numpy(False), bool)
    labelled = len(label.text) - label.missing
    found = {label.name: Role(label.name, LABEL, why + doubt)}
    for other in others:
        reason = f"looks like another label, so it may tell {label.name}"
        found[other.name] = Role(other.name, LEFT_OUT, reason)
    rest = [column for column in columns if column.name not in found]
    for column in rest:
        if unusable := _unusable(column, label.name):
            found[column.name] = Role(column.name, LEFT_OUT, unusable)

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
    take(AMOUNT, [amount for amount in _amounts(rest) if not _leak(amount[0], is_fraud)])
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
        frauds=int(is_fraud.sum()),
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
    return 2 if _named_after_fraud(column) else 0


def _named_after_fraud(column: Column) -> bool:
    joined = "".join(column.words)
    return bool(set(column.words) & _FRAUD) or "fraud" in joined or "betrug" in joined


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


def _fraud_value(label: Column) -> tuple[str, tuple[str, str] | None, str]:
    """The spelling that means fraud, both spellings unless they are 0 and 1, and what is unsure."""
    common, rare = label.counts
    if {common, rare} <= _ZERO | _ONE:
        fraud, doubt = rare if rare in _ONE else common, ""
        is_plain = True
    else:
        pairs = ((rare, common), (common, rare))
        clear = [v for v, other in pairs if v.lower() in _YES or other.lower() in _NO]
        fraud = clear[0] if clear else rare
        is_rarer = label.counts[rare] < label.counts[common]
        why = "because it is rarer" if is_rarer else "though both are as frequent: check it"
        doubt = "" if clear else f"; {rare!r} is taken for fraud, {why}"
        is_plain = label.kind == FLAG and not label.from_csv
    genuine = common if fraud == rare else rare
    return fraud, None if is_plain else (genuine, fraud), doubt


def _unusable(column: Column, label: str) -> str | None:
    """Why a column can have no role at all; None if it can."""
    try:
        check_column(column.name)
    except BadInput as error:
        return str(error)
    if _named_after_fraud(column):
        return f"named after fraud, so it may tell {label}"
    if column.kind == OTHER:
        return "neither numbers, text nor times"
    if column.distinct == 0:
        return "always empty"
    if column.distinct == 1 and not column.missing:
        return f"always {next(iter(column.counts))[:40]!r}"
    filled = len(column.text) - column.missing
    if filled < FEWEST_VALUES and filled < LEAST_FILLED * len(column.text):
        return f"filled in {_rows(filled)} only: train or eval may have none"
    if column.numbers is not None and (infinite := int(np.isinf(column.numbers).sum())):
        return (
            f"infinite in {_rows(infinite)}, which a run refuses; empty these, then list it as "
            "numeric"
        )
    return None


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _timestamps(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    """Candidates, the best first: by name, then with more moments.

    The name of the transaction's time is better than that of any time, which is better than none.
    """
    found = []
    for column in columns:
        if column.missing or column.distinct < 2 or _part(column, _OTHER_TIMES):
            continue
        by_name = bool(set(column.words) & (_TIME | set(_STEP)))
        rank = 2 if _part(column, _EVENT) else int(by_name)
        if column.kind == TIME:
            written = f", written as {column.time_format}" if column.time_format else ""
            found.append((rank, column.distinct, column, f"times in every row{written}"))
        elif unit := step_unit(column):
            reason = f"never falls: taken for {unit} since the data begins"
            found.append((rank, column.distinct, column, reason))
        elif _is_epoch(column) and _has_digits_only(column):
            found.append((rank, column.distinct, column, "times since 1970"))
    found.sort(key=lambda candidate: candidate[:2], reverse=True)
    return [(column, reason) for _, _, column, reason in found]


def _part(column: Column, parts: Sequence[str]) -> str | None:
    """The first of the parts that a word of the name contains."""
    return next((part for part in parts if any(part in word for word in column.words)), None)


def _is_epoch(column: Column) -> bool:
    """Whether a number is a time since 1970, in any unit, by name and values."""
    words = set(column.words)
    named = words & _TIME or any(word.endswith(("time", "date")) for word in words)
    if column.numbers is None or not named or words & _ID - {"transaction"}:
        return False
    low, high = np.nanmin(column.numbers), np.nanmax(column.numbers)
    return any(946_684_800 * 10**k <= low <= high < 4_102_444_800 * 10**k for k in (0, 3, 6, 9))


def _has_digits_only(column: Column) -> bool:
    """Whether a whole number is written as one, which the timestamp must be."""
    if not column.from_csv:
        return column.is_whole
    return bool(pc.all(pc.match_substring_regex(column.text, r"^\d+$")).as_py())


def _why_no_timestamp(column: Column) -> str:
    """Why a time is not the timestamp."""
    if part := _part(column, _OTHER_TIMES):
        return f"a time, but by its name ({part!r}) not that of the transaction"
    if column.missing:
        lack = "has" if column.missing == 1 else "have"
        return (
            f"a time, but {_rows(column.missing)} {lack} none; the timestamp must be in every row"
        )
    if column.kind == NUMBER and not _has_digits_only(column):
        return "times since 1970 with a decimal point; as the timestamp, write whole numbers"
    return "a second time; the model reads no times"


def _ids(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    found = []
    for column in columns:
        if _is_measure(column):
            continue
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
        if not (set(column.words) & (_ID - {"transaction"}))
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
        if _is_measure(column):
            continue
        words = set(column.words)
        if words & _ENTITY and column.distinct < 0.9 * len(column.text):
            reason = f"by its name, {column.distinct:,} that occur more than once"
            found.append((not words & _CARD, column, reason))
    found.sort(key=lambda candidate: candidate[0])
    return [(column, reason) for _, column, reason in found]


def _is_measure(column: Column) -> bool:
    """Whether numbers are a quantity, by their name: customer_age and num_cards, but not cc_num."""
    words = column.words
    named = set(words) & _MEASURE or (len(words) > 1 and words[0] in _COUNTS)
    return column.kind == NUMBER and bool(named)


def _model_input(column: Column, is_fraud: NDArray[np.bool_]) -> Role:
    """A numeric or categorical column, or why it is left out."""
    name, distinct = column.name, column.distinct
    if column.kind == TIME or _is_epoch(column):
        return Role(name, LEFT_OUT, _why_no_timestamp(column))
    if reason := _leak(column, is_fraud):
        return Role(name, LEFT_OUT, reason)
    zeros = ", with leading zeros" if column.has_leading_zeros else ""
    is_code = bool(set(column.words) & _CODE) and column.is_whole and distinct > 2
    is_key = bool(set(column.words) & (_ID | _ENTITY))
    if _is_measure(column):
        is_code = is_key = False
    if column.kind == NUMBER and not zeros and not is_code:
        if column.is_unique and column.is_whole and is_key:
            return Role(name, LEFT_OUT, "another value in every row")
        return Role(name, NUMERIC, f"numbers, {distinct:,} different")
    not_numbers = _not_numbers(column)
    if distinct <= MOST_CATEGORIES and distinct <= max(2, len(column.text) // 3):
        values = "value" if distinct == 1 else "values"
        kind = "codes by its name" if is_code and not zeros else values
        but = f"; {not_numbers}" if not_numbers else ""
        return Role(name, CATEGORICAL, f"{distinct:,} {kind}{zeros}{but}")
    if column.kind == NUMBER and not zeros:
        return Role(name, NUMERIC, f"numbers, {distinct:,} different")
    if not_numbers:
        return Role(name, LEFT_OUT, not_numbers)
    return Role(name, LEFT_OUT, f"{distinct:,} different values: text, or identifiers")


def _not_numbers(column: Column) -> str | None:
    """What is in the way of text that is numbers, mostly; None if it is not."""
    if column.kind != TEXT:
        return None
    values = column.text.drop_null()
    plain = pc.match_substring_regex(values, _PLAIN)
    others = values.filter(pc.invert(plain))
    count = len(values) - len(others)
    if not len(others):  # "1,234", which is no number without a decimal comma
        others = values.filter(pc.match_substring(values, ","))
    if not len(others):
        return None
    shown = others[0].as_py()[:40]
    if len(values) > count > len(values) / 2:
        others_are = "1 is" if len(others) == 1 else f"{len(others):,} are"
        return (
            f"{count:,} of {len(values):,} values are numbers; {others_are} not, such as "
            f"{shown!r}: empty these to use it as numbers"
        )
    signed = pc.or_(
        pc.match_substring_regex(values, _WITH_SIGN), pc.match_substring_regex(values, _WITH_GROUPS)
    )
    if 2 * (pc.sum(pc.or_(signed, plain)).as_py() or 0) > len(values):
        return f"numbers such as {shown!r}: write them as 1234.5 to use it as numbers"
    return None


def _leak(column: Column, is_fraud: NDArray[np.bool_]) -> str | None:
    """How a column tells the label by its values, or by having one; None if it does not."""
    if not FEWEST_FRAUDS <= is_fraud.sum() < is_fraud.size:
        return None
    if (auc := _auc(column, is_fraud)) > GIVEN_AWAY:
        return f"tells the label almost alone (ROC AUC {auc:.3f}): is it known in time?"
    filled = column.text.is_valid().to_numpy(zero_copy_only=False)
    of_frauds, of_others = filled[is_fraud].mean(), filled[~is_fraud].mean()
    frauds = is_fraud[filled].sum()
    almost_only = frauds >= max(FEWEST_FRAUDS, ALMOST_ONLY * filled.sum())
    if (almost_only and is_fraud.mean() < 0.5) or 0.5 + abs(of_frauds - of_others) / 2 > GIVEN_AWAY:
        return (
            f"filled in {of_frauds:.1%} of frauds and {of_others:.1%} of other rows, so that it "
            "tells the label: is it known in time?"
        )
    return None


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

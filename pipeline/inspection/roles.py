"""Guesses the role of each column from its name and values, and says why."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from fraud.errors import BadInput
from fraud.features.history import LARGEST
from fraud.features.spec import Features
from fraud.features.values import LARGEST_NUMBER
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
_NOT = r"(not|no|non|kein|keine|nicht)\W?_?(fraud|fraudulent|betrug|scam)"
_TIME = {"time", "timestamp", "datetime", "date", "datum", "zeit", "zeitpunkt", "booked", "fecha"}
_TIME |= {"ts", "unix", "epoch", "unixtime", "buchung", "buchungstag", "created", "zeitstempel"}
_TIME_ENDINGS = ("time", "date", "datum", "zeit", "zeitstempel")
# How words of the name of a transaction's time begin.
_EVENT: tuple[str, ...] = ("trans", "tx", "incident", "event", "occur", "claim", "purchas", "order")
_EVENT += ("payment", "loss", "accident", "booked", "buchung", "bestell", "zahlung", "kauf")
_EVENT += ("verkauf", "umsatz", "schaden", "unfall", "vorfall", "ereignis")
# Words, and parts of words, of the names of other times: of the customer, the card or what follows.
_OTHER_TIMES = {"dob", "born", "bind", "since", "last", "first", "previous", "due", "end", "ended"}
_OTHER_TIMES |= {"paid", "seit", "ende", "until", "bis", "posted", "posting"}
_PARTS_OF_OTHER_TIMES: tuple[str, ...] = ("birth", "expir", "open", "valid", "inception", "issu")
_PARTS_OF_OTHER_TIMES += ("regist", "signup", "joined", "enrol", "effective", "updated", "modif")
_PARTS_OF_OTHER_TIMES += ("close", "settle", "deliver", "report", "process", "resolv", "refund")
_PARTS_OF_OTHER_TIMES += ("detect", "investigat", "review", "disput", "geburt", "ablauf", "gültig")
_PARTS_OF_OTHER_TIMES += ("gueltig", "eröffn", "eroeffn", "beginn", "liefer", "melde", "fällig")
_PARTS_OF_OTHER_TIMES += ("faellig", "regulier", "erledig", "valuta", "wertstell")
_STEP = {"step": "hours", "hour": "hours", "hours": "hours", "minute": "minutes", "day": "days"}
_ELAPSED = {"time", "dt", "elapsed", "seconds", "secs", "sec", "zeit", "sekunden"}
_LATEST_START = 604_800  # seconds: the first transaction of such a column is in the first week
_SMALLEST_DIGITS = 190_001_010_000  # of a time from year to minute, as one number
_AS_TIMES = "write 2026-01-31 13:05:00, or name its format as dataset.time_format"
_EARLIEST_EPOCH = 946_684_800  # the year 2000
_AMOUNT: tuple[str, ...] = ("amount", "amt", "betrag", "höhe", "hoehe", "summe", "umsatz", "sum")
_AMOUNT += ("value", "wert", "price", "preis", "total", "claim", "monto", "importe", "montant")
_AMOUNT_ENDINGS: tuple[str, ...] = (
    "amount",
    "amt",
    "betrag",
    "höhe",
    "hoehe",
    "summe",
    "umsatz",
    "preis",
    "wert",
)
_AMOUNT_ENDINGS += ("aufwand",)
_CARD = {"card", "cc", "account", "acct", "konto", "customer", "client", "kunde", "kunden", "user"}
_CARD |= {"member", "policy", "policyholder", "iban", "orig", "sender", "payer", "karte", "karten"}
_CARD |= {"carte", "tarjeta", "cliente", "compte", "cuenta"}
_CARD |= {"holder", "cardholder", "accountholder", "insured", "pan", "vertrag", "police"}
_CARD |= {"versicherungsnehmer", "versicherungsschein", "versicherungs", "vertrags", "policen"}
_PAYEE = {"merchant", "terminal", "dest", "receiver", "beneficiary", "vendor", "payee", "recipient"}
_PAYEE |= {"comercio", "commerce", "commerçant", "beneficiario"}
_PAYEE |= {"händler", "haendler", "empfänger", "empfaenger"}
_ENTITY = _CARD | _PAYEE | {"device", "ip", "email", "phone", "shop", "store", "agent", "gerät"}
_ENTITY |= {"geraet", "filiale", "werkstatt", "makler"}
_NO_ENTITY = {"user agent"}
_ID = {"id", "nr", "no", "nummer", "number", "num", "key", "uuid", "guid", "index", "ref"}
_ID |= {"transaction", "referenz", "vorgang", "unnamed"}
# What follows or precedes the word for an entity, also as the end of the same word.
_KEY = {"id", "nr", "no", "nummer", "number", "num", "key", "code", "uuid", "guid", "ref", "hash"}
_KEY |= {"token", "name", "fingerprint", "address", "adresse", "identifier", "kennung"}
_KEY_ENDINGS = tuple(sorted(_KEY, key=len, reverse=True))
# A name with such a word is that of a quantity.
_MEASURE = {"age", "limit", "count", "cnt", "days", "weeks", "months", "years", "hours", "minutes"}
_MEASURE |= {"score", "risk", "balance", "rate", "ratio", "since", "avg", "mean", "max", "min"}
_MEASURE |= {"tenure", "income", "distance", "velocity", "freq", "frequency", "percent", "pct"}
_MEASURE |= {"alter", "anzahl", "tage", "monate", "jahre", "saldo", "quote"}
_QUANTITY = _MEASURE | {*_AMOUNT} - {"claim"}
_POSTAL = ("zip", "zipcode", "plz", "postleitzahl", "postcode", "postal")
_CODE = {"code", "type", "typ", "kind", "category", "kategorie", "mcc", "class", "group"}
_CODE |= {"channel", "kanal", "country", "land", "region", "state", "bin", "iin", "last4"}
_CODE |= {"branch", "branche", "status", "gender", "sex", "brand", "currency", "sector", "segment"}

_ELAPSED_REASON = (
    "no dates, but seconds since some start, by its name and values; to have a timestamp, write a "
    "column of dates: that start plus these seconds"
)
# Numbers as they are read, and with the decimal point of other files.
_PLAIN = {
    point: rf"^[-+]?(\d+{escaped}?\d*|{escaped}\d+)([eE][-+]?\d+)?$"
    for point, escaped in ((".", r"\."), (",", ","))
}
_OTHER_POINT = {".": r"^[-+]?\d*,\d+$", ",": r"^[-+]?\d*\.\d+$"}
_DIGITS = r"\d[\d.,']*"
# $12, USD 12, 12 € or 12%, but not identifiers such as ABC12.
_WITH_SIGN = rf"^[-+(]?(?:(?:\p{{Sc}}\s*|[A-Z]{{3}}\s+)[-+]?{_DIGITS}"
_WITH_SIGN += rf"|{_DIGITS}(?:\s*(?:\p{{Sc}}|%)|\s+[A-Z]{{3}}))\)?$"
_WITH_GROUPS = r"^[-+]?\d{1,3}((,\d{3})*\.\d+|(\.\d{3})+,\d+|((,|\.|')\d{3}){2,}"
_WITH_GROUPS += r"|('\d{3})+(\.\d+)?|([ \x{a0}\x{202f}]\d{3})+[.,]\d+)$"


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
      roles: entities, whoever holds cards first; then the others in the order of the data.
      spelled: genuine and fraud as the data has them.
      label_values: the same, unless they are 0 and 1, which need no mention.
      time_format: of the timestamp; None if it needs none.
      fraud_rate: the share of frauds among the rows of the sample that have a label.
      frauds: the number of frauds in the sample.
      unlabelled: the number of rows in the sample without a label.
    """

    roles: tuple[Role, ...]
    spelled: tuple[str, str]
    label_values: tuple[str, str] | None
    time_format: str | None
    fraud_rate: float
    frauds: int
    unlabelled: int
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


@dataclass(frozen=True)
class _Labels:
    """The labels of the sample: whether each row has one, and whether it is fraud, bool [rows]."""

    is_known: NDArray[np.bool_]
    is_fraud: NDArray[np.bool_]


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
    spelled, is_plain, doubt = _label_values(label)
    labels = _Labels(
        label.text.is_valid().to_numpy(zero_copy_only=False),
        np.array(pc.fill_null(pc.equal(label.text, spelled[1]), False).to_numpy(False), bool),
    )
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
    take(AMOUNT, [amount for amount in _amounts(rest) if not _leak(amount[0], labels)])
    entities = {}
    for column, reason in _entities(rest):
        if column.name not in found:
            entities[column.name] = Role(column.name, ENTITY, reason)
    found |= entities
    inputs: dict[str, str] = {}
    for column in rest:
        guessed = found.get(column.name) or _model_input(column, labels)
        if guessed.role in (AMOUNT, NUMERIC, CATEGORICAL):
            same = inputs.setdefault(input_name(column.name), column.name)
            if same != column.name:
                reason = f"its name differs from {same!r} only where the model's inputs cannot"
                guessed = Role(column.name, LEFT_OUT, reason)
        found[column.name] = guessed
    return Roles(
        roles=tuple((entities | {column.name: found[column.name] for column in columns}).values()),
        spelled=spelled,
        label_values=None if is_plain else spelled,
        time_format=_time_format(timestamp),
        fraud_rate=float(labels.is_fraud.sum() / max(1, labels.is_known.sum())),
        frauds=int(labels.is_fraud.sum()),
        unlabelled=int((~labels.is_known).sum()),
    )


def step_unit(column: Column) -> str | None:
    """The unit in which a column counts time from the beginning of the data; None if it does not.

    Such a column is a small whole number that never falls from one row to the next.
    """
    units = [unit for word, unit in _STEP.items() if word in column.words]
    if not units or column.numbers is None or not column.is_whole or column.missing:
        return None
    rises = bool(np.all(np.diff(column.numbers) >= 0)) and column.distinct > 2
    return units[0] if rises and 0 <= column.numbers.min() < column.numbers.max() < np.inf else None


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
    if joined in _EXACT | _FRAUD:
        return 4 if joined in _FRAUD or "fraud" in joined or "betrug" in joined else 3
    if set(column.words) & {"flagged", "suspected", "alert", "score", "predicted"}:
        return 1 if set(column.words) & _FRAUD or "fraud" in joined else 0
    return 2 if _named_after_fraud(column) else 0


def _named_after_fraud(column: Column) -> bool:
    joined = "".join(column.words)
    return bool(set(column.words) & _FRAUD) or "fraud" in joined or "betrug" in joined


def _not_binary(column: Column) -> str:
    values = list(column.counts)
    if column.kind in (TIME, OTHER):
        are = "times" if column.kind == TIME else "neither text, numbers nor true and false"
        return f"{column.name}: as the label, it must have two values; these are {are}"
    if not values:
        return f"{column.name}: as the label, it must have two values, but it is empty"
    if len(values) == 1:
        where = f"or empty (in {_rows(column.missing)})" if column.missing else "in all rows"
        return (
            f"{column.name}: as the label, it must have two values, for fraud and genuine, but it "
            f"is {values[0]!r} {where}; write both, such as 1 and 0"
        )
    return (
        f"{column.name}: as the label, it must have two values, for fraud and genuine, but has "
        f"{len(values)} values, {_listed(values)}"
    )


def _label_values(label: Column) -> tuple[tuple[str, str], bool, str]:
    """The spelling of genuine and fraud, whether it is 0 and 1, and what is unsure about it."""
    common, rare = label.counts
    if {common, rare} <= _ZERO | _ONE:
        genuine, fraud = (common, rare) if rare in _ONE else (rare, common)
        return (genuine, fraud), True, ""
    pairs = ((common, rare), (rare, common))
    clear = [
        (genuine, fraud) for genuine, fraud in pairs if _means_fraud(fraud) or _is_genuine(genuine)
    ]
    is_rarer = label.counts[rare] < label.counts[common]
    why = "because it is rarer" if is_rarer else "though both are equally frequent: check it"
    doubt = "" if clear else f"; {rare!r} is taken for fraud, {why}"
    is_plain = label.kind == FLAG and not label.from_csv
    return clear[0] if clear else pairs[0], is_plain, doubt


def _means_fraud(value: str) -> bool:
    return value.lower() in _YES


def _is_genuine(value: str) -> bool:
    return value.lower() in _NO or re.fullmatch(_NOT, value.lower()) is not None


def _unusable(column: Column, label: str) -> str | None:
    """Why a column can have no role at all; None if it can."""
    try:
        check_column(column.name)
    except BadInput as error:
        return str(error)
    if column.name in Features().calendar:
        return "has the name of a generated feature; rename it to use it"
    if _named_after_fraud(column):
        reason = f"named after fraud, so it may tell {label}"
        if column.kind in (TIME, OTHER):
            return reason
        kind = NUMERIC if column.kind == NUMBER else CATEGORICAL
        return f"{reason}; if it is known at the time of the transaction, list it as {kind}"
    if column.kind == OTHER:
        return "neither numbers, text nor times"
    if column.distinct == 0:
        return "always empty"
    if column.distinct == 1 and not column.missing:
        return f"always {next(iter(column.counts))[:40]!r}"
    filled = len(column.text) - column.missing
    if filled < FEWEST_VALUES and filled < LEAST_FILLED * len(column.text):
        return f"filled in {_rows(filled)} only: train or eval may have none"
    is_name = column.from_csv and _has_key_word(column) and _has_digits_only(column)
    if column.numbers is not None and not is_name:
        beyond = int((np.abs(column.numbers) > LARGEST_NUMBER).sum())
        if beyond:
            return (
                f"infinite or beyond {LARGEST_NUMBER:.1e} in {_rows(beyond)}, which a run "
                "refuses; empty these, then list it as numeric"
            ).replace("e+", "e")
    return None


def _has_key_word(column: Column) -> bool:
    return bool(set(column.words) & (_ID | _ENTITY)) and not _is_measure(column)


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count:,} rows"


def _timestamps(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    """Candidates, the best first: by name, then with more moments."""
    found = []
    for column in columns:
        if column.missing or column.distinct < 2 or _other_time(column):
            continue
        rank = _time_rank(column)
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


def _time_rank(column: Column) -> int:
    """How much a name looks like that of the transaction's time.

    The name of an event is better than that of any time, which is better than none. That of a start
    or of something of a customer's is worse than none.
    """
    if _is_of_customer(column):
        return -1
    if any(word.startswith(_EVENT) for word in column.words):
        return 2
    return -1 if "start" in column.words else int(_is_named_time(column))


def _is_named_time(column: Column) -> bool:
    words = set(column.words)
    return bool(words & (_TIME | set(_STEP))) or any(w.endswith(_TIME_ENDINGS) for w in words)


def _is_of_customer(column: Column) -> bool:
    return any(
        _entity_word(word) in _CARD or word.startswith(("kunden", "konto", "karten"))
        for word in column.words
    )


def _other_time(column: Column) -> str | None:
    """What in a name tells that a time is not that of the transaction; None if nothing does."""
    if "start" in column.words and _is_of_customer(column):
        return "start"
    exact = [word for word in column.words if word in _OTHER_TIMES or word.endswith("ende")]
    parts = [part for part in _PARTS_OF_OTHER_TIMES if any(part in word for word in column.words)]
    return next(iter(exact + parts), None)


def _is_epoch(column: Column) -> bool:
    """Whether numbers, also in text, are times since 1970, in any unit, by name and values."""
    if not _is_named_time(column) or set(column.words) & _ID - {"transaction"}:
        return False
    numbers = column.digits if column.kind == TEXT else column.numbers
    if numbers is None or np.isnan(numbers).all():
        return False
    low, high = np.nanmin(numbers), np.nanmax(numbers)
    return any(_EARLIEST_EPOCH * 10**k <= low <= high < 4_102_444_800 * 10**k for k in (0, 3, 6, 9))


def _is_unread_time(column: Column) -> bool:
    """Whether text or whole numbers are times by their name, but not as a run reads them."""
    if not _is_named_time(column) or set(column.words) & _ID - {"transaction"}:
        return False
    if column.kind != NUMBER or column.numbers is None:
        return column.kind == TEXT
    return column.is_whole and bool(np.nanmin(column.numbers) >= _SMALLEST_DIGITS)


def _is_elapsed(column: Column) -> bool:
    """Whether a number counts seconds since the first transaction, by name and values."""
    named = any(word in _ELAPSED or word.endswith("dt") for word in column.words)
    if column.numbers is None or not named or not column.is_whole or column.missing:
        return False
    low, high = column.numbers.min(), column.numbers.max()
    rises = bool(np.all(np.diff(column.numbers) >= 0)) and column.distinct > 2
    return rises and 0 <= low <= _LATEST_START and 3600 < high - low < _EARLIEST_EPOCH


def _has_digits_only(column: Column) -> bool:
    """Whether whole numbers are written as such, which times since 1970 must be."""
    if not column.from_csv:
        return column.is_integer or column.kind == TEXT
    return bool(pc.all(pc.match_substring_regex(column.text, r"^\d+$")).as_py())


def _why_no_timestamp(column: Column) -> str:
    """Why a time is not the timestamp."""
    if part := _other_time(column):
        return f"a time, but by its name ({part!r}) not that of the transaction"
    if column.missing:
        lack = "has" if column.missing == 1 else "have"
        return (
            f"a time, but {_rows(column.missing)} {lack} none; the timestamp must be in every row"
        )
    if column.kind == NUMBER and not _has_digits_only(column):
        return "times since 1970, but no integers; as the timestamp, write them as such"
    return "a second time; the model reads no times"


def _ids(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    found = []
    for column in columns:
        if _is_measure(column) or _is_epoch(column) or _is_elapsed(column) or step_unit(column):
            continue
        if _is_unread_time(column):
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
    """Candidates, the best first: of the transaction rather than of something else."""
    found = []
    for column in columns:
        words = column.words
        if column.numbers is None or column.distinct <= 10 or _is_number_of(column):
            continue
        if set(words) & (_MEASURE | _ID - {"transaction"}):
            continue
        if np.nanmax(np.abs(column.numbers)) > LARGEST:
            continue
        ranks = [rank for rank, word in enumerate(_AMOUNT) if word in words]
        if any(word.endswith(_AMOUNT_ENDINGS) for word in words):
            ranks.append(0)
        if ranks:
            of_event = len(words) == 1 or any(word.startswith(_EVENT) for word in words)
            found.append(((_is_of_customer(column), not of_event, min(ranks)), column))
    found.sort(key=lambda candidate: candidate[0])
    return [(column, "by its name, a number") for _, column in found]


def _entities(columns: Sequence[Column]) -> list[tuple[Column, str]]:
    """Entities, whoever holds cards first."""
    found = []
    for column in columns:
        is_key = column.kind not in (NUMBER, TIME, FLAG) or column.is_whole
        if not is_key or column.missing or column.distinct < FEWEST_ENTITIES:
            continue
        if _is_measure(column) or " ".join(column.words) in _NO_ENTITY:
            continue
        words = [word for word in map(_entity_word, column.words) if word not in _KEY]
        if words and words[-1] in _ENTITY and column.distinct < 0.9 * len(column.text):
            reason = f"by its name, {column.distinct:,} that occur more than once"
            holds_cards = words[-1] in _CARD and not set(words) & _PAYEE
            found.append((not holds_cards, column, reason))
    found.sort(key=lambda candidate: candidate[0])
    return [(column, reason) for _, column, reason in found]


def _entity_word(word: str) -> str:
    """A word without the key word or number at its end, if it names an entity: userid, card1."""
    stems = [word.rstrip("0123456789")]
    stems += [word.removesuffix(ending) for ending in _KEY_ENDINGS]
    return next((stem for stem in stems if stem in _ENTITY), word)


def _is_measure(column: Column) -> bool:
    """Whether numbers are a quantity, by their name: customer_age and num_cards, but not cc_num."""
    if column.kind != NUMBER:
        return False
    is_amount = any(word.endswith(_AMOUNT_ENDINGS) for word in column.words)
    return is_amount or bool(set(column.words) & _QUANTITY) or _is_number_of(column)


def _is_number_of(column: Column) -> bool:
    """Whether a name is that of a count: num_cards, number_of_accounts, AnzahlKonten."""
    first, *rest = column.words or ("",)
    if not rest:
        return False
    is_first = first in ("num", "n") or first.startswith("anzahl")
    return is_first or (first in _KEY and rest[0] == "of")


def _model_input(column: Column, labels: _Labels) -> Role:
    """A numeric or categorical column, or why it is left out."""
    name, distinct = column.name, column.distinct
    if column.kind == TIME or _is_epoch(column):
        return Role(name, LEFT_OUT, _why_no_timestamp(column))
    if _is_elapsed(column):
        return Role(name, LEFT_OUT, _ELAPSED_REASON)
    if _is_unread_time(column) and (column.kind == NUMBER or distinct > MOST_CATEGORIES):
        shown = next(iter(column.counts))[:40]
        unread = f"a time by its name, but {shown!r} is not read as one: {_AS_TIMES}"
        return Role(name, LEFT_OUT, unread)
    if reason := _leak(column, labels):
        return Role(name, LEFT_OUT, reason)
    zeros = ", with leading zeros" if column.has_leading_zeros else ""
    is_postal = any(word.endswith(_POSTAL) for word in column.words)
    is_code = is_postal or bool(set(column.words) & _CODE)
    is_code = is_code and column.is_whole and distinct > 2 and not _is_measure(column)
    is_key = _has_key_word(column)
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
    if column.kind == NUMBER and not zeros and not is_postal:
        return Role(name, NUMERIC, f"numbers, {distinct:,} different")
    if not_numbers:
        return Role(name, LEFT_OUT, not_numbers)
    kind = "codes, and no numbers" if is_postal else "values: text, or identifiers"
    return Role(name, LEFT_OUT, f"{distinct:,} different {kind}")


def _not_numbers(column: Column) -> str | None:
    """What is in the way of text that is numbers, mostly; None if it is not."""
    if column.kind != TEXT:
        return None
    values = column.text.drop_null()
    is_plain = pc.match_substring_regex(values, _PLAIN[column.decimal])
    others = values.filter(pc.invert(is_plain))
    count = len(values) - len(others)
    patterns = "|".join([_WITH_SIGN, _WITH_GROUPS, _OTHER_POINT[column.decimal]])
    formatted = others.filter(pc.match_substring_regex(others, patterns))
    if len(formatted) > len(others) / 2 and 2 * (count + len(formatted)) > len(values):
        shown, number = formatted[0].as_py()[:40], f"1234{column.decimal}5"
        return f"numbers such as {shown!r}: write them as {number} to use it as numbers"
    if len(values) > count > len(values) / 2:
        shown = others[0].as_py()[:40]
        others_are = "1 is" if len(others) == 1 else f"{len(others):,} are"
        return (
            f"{count:,} of {len(values):,} values are numbers; {others_are} not, such as "
            f"{shown!r}: empty these to use it as numbers"
        )
    return None


def _leak(column: Column, labels: _Labels) -> str | None:
    """How a column tells the label by its values, or by having one; None if it does not.

    Rows that have no label yet do not count: what is found out later, they cannot have, either.
    """
    is_fraud = labels.is_fraud[labels.is_known]
    if not FEWEST_FRAUDS <= is_fraud.sum() < is_fraud.size:
        return None
    if (auc := _auc(_ranking(column, labels)[labels.is_known], is_fraud)) > GIVEN_AWAY:
        return f"tells the label almost alone (ROC AUC {auc:.3f}): is it known in time?"
    filled = column.text.is_valid().to_numpy(zero_copy_only=False)[labels.is_known]
    of_frauds, of_others = filled[is_fraud].mean(), filled[~is_fraud].mean()
    frauds = is_fraud[filled].sum()
    almost_only = frauds >= max(FEWEST_FRAUDS, ALMOST_ONLY * filled.sum())
    if (almost_only and is_fraud.mean() < 0.5) or 0.5 + abs(of_frauds - of_others) / 2 > GIVEN_AWAY:
        return (
            f"filled in {of_frauds:.1%} of frauds and {of_others:.1%} of other rows, so that it "
            "tells the label: is it known in time?"
        )
    return None


def _ranking(column: Column, labels: _Labels) -> NDArray[np.float64]:
    """The numbers of a column, or the share of frauds of each of its categories; else NaN."""
    if column.numbers is not None:
        return column.numbers
    rates = np.full(len(column.text), np.nan)
    if column.distinct <= 100:
        for value in column.counts:
            has_it = np.array(pc.fill_null(pc.equal(column.text, value), False).to_numpy(False))
            known = has_it & labels.is_known
            if known.any():
                rates[has_it] = labels.is_fraud[known].mean()
    return rates


def _auc(values: NDArray[np.float64], is_fraud: NDArray[np.bool_]) -> float:
    """How well numbers rank frauds, in either direction; 0.5 if that cannot be told."""
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

"""Schemas of the data: what they tolerate, and changes to their text that keep the rest of it."""

from __future__ import annotations

import io
import re
from collections.abc import Collection, Iterator, Mapping, MutableSequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2, statistics_pb2

from fraud.errors import BadInput

TOLERANCE = 0.01
"""The share of the rows in which a column may be missing, or have a category that is not listed,
although neither occurred in the data that a schema was inferred from."""

MOST_CATEGORIES = 100
"""A column with more values is no list of categories; TFDV has the same limit."""

_TOKEN = re.compile(
    r"""(?P<comment>\#[^\n]*) | (?P<text>"(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
    | (?P<word>[^\s\#"'{}<>\[\]:,;]+) | (?P<mark>[{}<>\[\]:,;])""",
    re.VERBOSE,
)
_END_OF_LINE = re.compile(r"[ \t,;]*(?:\#[^\n]*)?(?:\n|\Z)")
_ONLY_BLANKS = re.compile(r"[ \t,;]*(?:\n|\Z)")


def tolerate(schema: schema_pb2.Schema, names: Collection[str] | None = None) -> None:
    """Relaxes, in place, what was inferred of columns: one odd row in a hundred is no anomaly.

    Args:
      schema: the schema.
      names: the columns; None for all.
    """
    for feature in schema.feature:
        if names is not None and feature.name not in names:
            continue
        if feature.presence.min_fraction == 1:
            feature.presence.min_fraction = 1 - TOLERANCE
        if feature.HasField("domain") or feature.HasField("string_domain"):
            feature.distribution_constraints.min_domain_mass = 1 - TOLERANCE
        if feature.type == schema_pb2.BYTES and feature.HasField("int_domain"):
            feature.ClearField("int_domain")  # text that has been digits so far, like 00123


def typed(
    schema: schema_pb2.Schema, numeric: Collection[str], categorical: Collection[str]
) -> schema_pb2.Schema:
    """The same schema with the types that the configuration gives to columns.

    The type of a column without any value cannot be inferred: TFDV takes it for text. Columns that
    the schema lacks are added.
    """
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    of_name = {feature.name: feature for feature in result.feature}
    types = {
        **dict.fromkeys(numeric, schema_pb2.FLOAT),
        **dict.fromkeys(categorical, schema_pb2.BYTES),
    }
    for name, type_ in types.items():
        feature = of_name[name] if name in of_name else result.feature.add(name=name)
        feature.type = type_
    return result


def list_categories(
    schema: schema_pb2.Schema,
    statistics: statistics_pb2.DatasetFeatureStatisticsList,
    categorical: Collection[str],
) -> None:
    """Gives a domain, in place, to categories that look like numbers, as others have one.

    TFDV infers no list of values for text that consists of digits. As it does for other text,
    columns of more than `MOST_CATEGORIES` values are left without one.

    Args:
      schema: inferred from the statistics.
      statistics: of the train window.
      categorical: the columns.
    """
    values = {
        described.path.step[0]: [b.label for b in described.string_stats.rank_histogram.buckets]
        for described in statistics.datasets[0].features
        if 0 < described.string_stats.unique <= MOST_CATEGORIES
    }
    for feature in schema.feature:
        is_listed = feature.HasField("domain") or feature.HasField("string_domain")
        if feature.name in categorical and feature.name in values and not is_listed:
            feature.ClearField("domain_info")
            feature.domain = feature.name
            schema.string_domain.add(name=feature.name, value=sorted(values[feature.name]))


def contradictions(
    schema: schema_pb2.Schema, numeric: Collection[str], categorical: Collection[str]
) -> list[str]:
    """The columns whose type in a schema is not the one that the configuration gives them.

    Returns:
      A sentence each.
    """
    of_name = {feature.name: feature.type for feature in schema.feature}
    wanted = {
        **dict.fromkeys(numeric, (schema_pb2.FLOAT, "a number")),
        **dict.fromkeys(categorical, (schema_pb2.BYTES, "text")),
    }
    return [
        f"{name} has type {schema_pb2.FeatureType.Name(of_name[name])}, but the configuration "
        f"makes it {words}, {schema_pb2.FeatureType.Name(type_)}"
        for name, (type_, words) in wanted.items()
        if name in of_name and of_name[name] != type_
    ]


def for_review(folder: str, run_id: str) -> str:
    """The text of the schema that SchemaGen wrote into a folder, with what a reviewer should know.

    Args:
      folder: the Schema artifact's.
      run_id: the run that inferred it.
    """
    (file,) = Path(folder).glob("*.pbtxt")
    return (
        f"# Inferred by run {run_id} from its train window. Review it like code: from now on data\n"
        "# that does not fit stops a run. `fraud-pipeline schema --update` adapts it.\n"
        f"{read(file)}"
    )


def read(path: str | Path) -> str:
    """The text of a schema file.

    Raises:
      BadInput: it cannot be read.
    """
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise BadInput(f"cannot read the curated schema: {reason}") from None


def parsed(text: str) -> schema_pb2.Schema:
    """The schema in a text.

    Raises:
      BadInput: it is no schema.
    """
    try:
        return text_format.Parse(text, schema_pb2.Schema())
    except text_format.ParseError as error:
        raise BadInput(f"not a schema: {error}") from None


def edited(text: str, after: schema_pb2.Schema) -> str:
    """The text, changed so that it means another schema; comments, order and layout are kept.

    Args:
      text: a schema, perhaps written by hand.
      after: what it shall mean. Columns and domains are told apart by name; they and the values of
        domains stay in the order of the text.

    Raises:
      BadInput: the text is no schema, or is laid out in a way that cannot be changed in place.
    """
    before = parsed(text)
    if before == after:
        return text
    entries, _ = _fields([m for m in _TOKEN.finditer(text) if m.lastgroup != "comment"], 0)
    changes = list(_changes(text, entries, len(text), before, after, 0))
    changes.sort(key=lambda change: change[0])
    result = text
    for start, end, replacement in reversed(changes):
        result = result[:start] + replacement + result[end:]
    if _sorted(parsed(result)) != _sorted(after):
        raise BadInput("the change cannot be made in place; make it by hand")
    return result


@dataclass(frozen=True)
class _Entry:
    """A field with its value in a text.

    Attributes:
      name: of the field.
      start, end: its place, without the blanks and comments around it.
      value: where its value begins.
      entries: the fields of its value; empty if that is no message.
    """

    name: str
    start: int
    end: int
    value: int
    entries: tuple[_Entry, ...]


_Change = tuple[int, int, str]
"""Start, end, and what replaces the text between them."""


def _fields(tokens: list[re.Match[str]], at: int) -> tuple[tuple[_Entry, ...], int]:
    """The fields from a token on up to the end of their message, and the index of that end."""
    entries: list[_Entry] = []
    while at < len(tokens) and tokens[at][0] not in "}>":
        name, inner = tokens[at], tuple[_Entry, ...]()
        at += 2 if tokens[at + 1][0] == ":" else 1
        value = tokens[at]
        if value[0] == "[":
            raise BadInput(f"{name[0]}: [...] cannot be changed in place; repeat the field instead")
        if value[0] in "{<":
            inner, at = _fields(tokens, at + 1)
        while value.lastgroup == "text" and tokens[at + 1].lastgroup == "text":  # "a" "b" is "ab"
            at += 1
        entries.append(_Entry(name[0], name.start(), tokens[at].end(), value.start(), inner))
        at += 1
        while at < len(tokens) and tokens[at][0] in ",;":
            at += 1
    return tuple(entries), at


def _changes(
    text: str, entries: tuple[_Entry, ...], close: int, before: Any, after: Any, depth: int
) -> Iterator[_Change]:
    """What turns a message into another.

    Args:
      text: the whole text.
      entries: the fields of the message in it.
      close: where the message ends.
      before, after: the messages.
      depth: how many messages it is in.
    """
    for field in before.DESCRIPTOR.fields:
        mine = [entry for entry in entries if entry.name == field.name]
        old, new = _values(before, field.name), dict(_values(after, field.name))
        for entry, (key, value) in zip(mine, old, strict=True):
            if key not in new:
                yield _removal(text, entry)
            elif field.message_type:
                inner = (entry.entries, entry.end - 1, value, new[key], depth + 1)
                yield from _changes(text, *inner)
            elif value != new[key]:
                written = io.StringIO()
                text_format.PrintFieldValue(field, new[key], written, as_utf8=True)
                yield entry.value, entry.end, written.getvalue()
        written = io.StringIO()
        for key in new:
            if key not in dict(old):
                text_format.PrintField(field, new[key], written, indent=2 * depth, as_utf8=True)
        if added := written.getvalue():
            yield _addition(text, mine[-1].end if mine else None, close, added)


def _values(message: Any, name: str) -> list[tuple[str, Any]]:
    """The values of a field, each with what tells it apart; one at most if it is not repeated."""
    value = getattr(message, name)
    if isinstance(value, Mapping):  # which nobody has yet changed; `edited` would notice
        return []
    if not isinstance(value, MutableSequence):
        return [(name, value)] if message.HasField(name) else []
    return [(getattr(v, "name", None) or str(v), v) for v in value]


def _removal(text: str, entry: _Entry) -> _Change:
    """Removes a field, with its line if that is then empty, but none of the comments in it."""
    start = text.rfind("\n", 0, entry.start) + 1
    indent, rest = text[start : entry.start], _ONLY_BLANKS.match(text, entry.end)
    inside = (m[0] for m in _TOKEN.finditer(text, entry.start, entry.end))
    comments = "".join(f"{indent}{token}\n" for token in inside if token.startswith("#"))
    if rest and not indent.strip():
        return start, rest.end(), comments
    return entry.start, entry.end, comments and f"\n{comments}"


def _addition(text: str, after: int | None, close: int, lines: str) -> _Change:
    """Adds lines after a field that ends at `after`, or else at the end of the message."""
    if after is not None:
        rest = _END_OF_LINE.match(text, after)
        at = rest.end() if rest else after
    else:
        start = text.rfind("\n", 0, close) + 1
        at = close if text[start:close].strip() else start
    return at, at, lines if at == 0 or text[at - 1] == "\n" else f"\n{lines}"


def _sorted(schema: schema_pb2.Schema) -> schema_pb2.Schema:
    """The schema with columns, domains and their values in alphabetical order."""
    result = schema_pb2.Schema()
    result.CopyFrom(schema)
    for items in (result.feature, result.string_domain):
        items.sort(key=lambda item: item.name)
    for domain in result.string_domain:
        domain.value.sort()
    return result

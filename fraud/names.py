"""Names that come from outside: of runs, and of columns."""

from __future__ import annotations

import re
import unicodedata

from fraud.errors import BadInput

LONGEST_RUN_ID = 200
"""TFX makes the names of artifacts from it, of which ML Metadata keeps 255 characters."""

_IDENTIFIES = {"id", "ids", "nr", "no", "num", "number", "key", "code", "hash", "uuid", "ref"}

LONGEST_COLUMN = 120
"""In bytes of UTF-8: the file of a column's vocabulary is named after it, in twice as many."""


def check_run_id(run_id: str) -> None:
    """Checks that a run id can be the name of a folder, and of no other than a run's.

    Those of Airflow and Kubeflow can, such as `scheduled__2018-06-15T00:00:00+00:00`.

    Raises:
      BadInput: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.:~+-]*", run_id) or len(run_id) > LONGEST_RUN_ID:
        raise BadInput(
            f"run id {run_id!r}: it names a folder; use at most {LONGEST_RUN_ID} letters, digits "
            "and _ . : ~ + -, beginning with a letter, digit or _"
        )


def check_column(column: str) -> None:
    """Checks the name of a column. It may look like a path, as no file is named by it.

    Raises:
      BadInput: the name is empty, too long or contains control characters.
    """
    if not column.strip():
        raise BadInput(f"{column!r} is no name of a column")
    if any(unicodedata.category(character) == "Cc" for character in column):
        raise BadInput(f"{column!r} contains a control character; rename the column")
    if len(column.encode()) > LONGEST_COLUMN:
        raise BadInput(f"{column!r} is longer than {LONGEST_COLUMN} bytes; rename the column")


def spoken(column: str) -> str:
    """What the values of a column are called in a sentence: "policy holder" for POLICY_HOLDER_ID.

    Words that only say that it identifies something are left out, unless there is no other.
    """
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", column)
    words = re.findall(r"[^\W_]+", apart.lower()) or [column]
    while len(words) > 1 and words[-1] in _IDENTIFIES:
        words.pop()
    return " ".join(words)


def plural(noun: str) -> str:
    """An English noun in the plural, if it is not already."""
    if re.search(r"[^aeiou]y$", noun):
        return f"{noun[:-1]}ies"
    if re.search(r"(ss|x|ch|sh)$", noun):
        return f"{noun}es"
    return noun if noun.endswith("s") else f"{noun}s"


def input_name(column: str) -> str:
    """The name of a column as an input of a SavedModel signature.

    TensorFlow allows only letters, digits and underscores in it, starting with a letter:
    "age of account" becomes "age_of_account", and "3ds" becomes "column_3ds".
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)
    return name if name[:1].isalpha() else f"column_{name}"

"""The names of columns in a served model."""

from __future__ import annotations

import re


def input_name(column: str) -> str:
    """The name of a column as an input of a SavedModel signature.

    TensorFlow allows only letters, digits and underscores in it, starting with a letter:
    "age of account" becomes "age_of_account", and "3ds" becomes "column_3ds".
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)
    return name if name[:1].isalpha() else f"column_{name}"

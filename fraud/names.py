"""How columns are named where a model is served."""

from __future__ import annotations

import re


def input_name(column: str) -> str:
    """The name of a column as an input of a SavedModel signature.

    TensorFlow allows letters, digits and underscores there, and a letter first: "age of account"
    becomes "age_of_account", "3ds" becomes "column_3ds".
    """
    name = re.sub(r"[^A-Za-z0-9_]", "_", column)
    return name if name[:1].isalpha() else f"column_{name}"

"""Artifact types of our own components.

Vertex AI imports an artifact's class by the name of its type, of which it allows one package and
one class; the package `pipeline` has them for it.
"""

from tfx.types.artifact import Artifact


class DataVerdict(Artifact):
    """What the data gate decided.

    Holds `verdict.json`: `{"passed": bool, "anomalies": [{"feature", "anomaly", "description",
    "severity", "window", "source"}], "notes": [str]}`. Custom property `passed` is 1 or 0.
    """

    TYPE_NAME = "fraud.DataVerdict"


class ModelCard(Artifact):
    """What a pushed model is for, was made from and showed.

    Holds the same content as `model_card.html`, a page that needs nothing else, and
    `model_card.md`. Neither is there if the model was not pushed: custom property `written` is 1
    or 0.
    """

    TYPE_NAME = "fraud.ModelCard"


VERDICT_FILE = "verdict.json"
CARD_PAGE, CARD_TEXT = "model_card.html", "model_card.md"

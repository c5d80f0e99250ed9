"""The artifact types of this package.

Vertex AI imports an artifact's class by its type name, which must be PACKAGE.CLASS; so the package
`fraud` exports them too.
"""

from tfx.types.artifact import Artifact


class DataVerdict(Artifact):
    """The data gate's decision.

    Contains `verdict.json`, a `fraud.pipeline.artifacts.Verdict`. The custom property `passed` is 1
    or 0.
    """

    TYPE_NAME = "fraud.DataVerdict"


class ModelCard(Artifact):
    """The purpose, origin and measured quality of a pushed model.

    Contains `model_card.html`, a self-contained page, and `model_card.md` with the same content;
    neither if the model was not pushed. The custom property `written` is 1 or 0.
    """

    TYPE_NAME = "fraud.ModelCard"


class Observation(Artifact):
    """What one look at production found.

    Contains `observation.json`, a `fraud.monitoring.checks.Observation`. Custom properties:
    `as_of`, `version`, empty if nothing was live, and the worst `verdict`.
    """

    TYPE_NAME = "fraud.Observation"

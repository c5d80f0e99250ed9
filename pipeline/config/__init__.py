"""The configuration: one tree of frozen dataclasses, read from YAML files.

Every default, range and meaning is declared on a field of these classes (and of those in
`fraud.features.spec` and `fraud.models.spec`); a file names only what differs. Any mistake in a
file is reported before work starts, in one message with the key, the value and the fix.
"""

from fraud.pipeline.config.checks import check
from fraud.pipeline.config.loading import load
from fraud.pipeline.config.sections import (
    PACKAGED_SCHEMA,
    Beam,
    Config,
    DataGateSettings,
    Metadata,
    ModelCardText,
    Paths,
    ReleaseSettings,
    WindowLengths,
)

__all__ = [
    "PACKAGED_SCHEMA",
    "Beam",
    "Config",
    "DataGateSettings",
    "Metadata",
    "ModelCardText",
    "Paths",
    "ReleaseSettings",
    "WindowLengths",
    "check",
    "load",
]

"""The configuration: one tree of frozen dataclasses, read from YAML files.

Every default, range and meaning is declared on a field of these classes (and of those in
`fraud.features.spec` and `fraud.models.spec`); a file names only what differs. Any mistake in a
file is reported before work starts, in one message with the key, the value and the fix.
"""

from fraud.pipeline.config.checks import check as check
from fraud.pipeline.config.loading import load as load
from fraud.pipeline.config.sections import PACKAGED_SCHEMA as PACKAGED_SCHEMA
from fraud.pipeline.config.sections import Beam as Beam
from fraud.pipeline.config.sections import Config as Config
from fraud.pipeline.config.sections import Metadata as Metadata
from fraud.pipeline.config.sections import ModelCardText as ModelCardText
from fraud.pipeline.config.sections import Paths as Paths
from fraud.pipeline.config.sections import ReleaseSettings as ReleaseSettings
from fraud.pipeline.config.sections import WindowLengths as WindowLengths

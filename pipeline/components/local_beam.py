"""Which Beam runner executes on this machine."""

from __future__ import annotations

import apache_beam as beam
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner


class LocalBeam:
    """Mixin of Beam executors: the in-process runner, where no Beam arguments name another one.

    Beam's default first tries its Prism runner, a program that it downloads.
    """

    def _make_beam_pipeline(self) -> beam.Pipeline:
        if self._beam_pipeline_args or self._make_beam_pipeline_fn:  # type: ignore[attr-defined]
            return super()._make_beam_pipeline()  # type: ignore[misc]
        return beam.Pipeline(runner=FnApiRunner())

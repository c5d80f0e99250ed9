"""The errors a user sees, and the exit code each one means."""

from __future__ import annotations


class FraudPipelineError(Exception):
    """A failure that is explained by its message alone; the command prints it without traceback."""

    exit_code = 1


class BadInput(FraudPipelineError):
    """Misuse: a wrong option, an impossible configuration or unusable data. Nothing was changed."""

    exit_code = 2


class StoppedByDataGate(FraudPipelineError):
    """The data of this run was refused: no failure, but nothing further may be done with it."""

    exit_code = 3


class NotYet(FraudPipelineError):
    """Something that is waited for has not happened yet; ask again later."""

    exit_code = 4

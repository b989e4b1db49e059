"""The exceptions that reach a user as one line: what happened, where, what to do."""

from __future__ import annotations


class TerselmError(Exception):
    """The job failed. The command line prints the message alone and exits with 1."""

    exit_code = 1


class UsageError(TerselmError):
    """The request itself was wrong (option, recipe, name). Exits with 2."""

    exit_code = 2

"""Errors that a user can act on: one line, naming the field, the value and the bound."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user handed in; command lines print it as one line and exit with code 2."""


class CheckpointError(UserError):
    """A model folder that cannot be trusted: missing, truncated, altered, or of another version."""


class DataError(UserError):
    """Recorded data that cannot be used as it is: truncated, of another version, or not finite."""

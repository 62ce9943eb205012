"""Errors that a user can act on: one line, naming the field, the value and the bound."""

from __future__ import annotations


class UserError(ValueError):
    """A mistake in what the user handed in.

    Command lines print it as one line and exit with code 2.
    """


class CheckpointError(UserError):
    """A model folder that cannot be trusted.

    It is missing, truncated, altered, or of another version.
    """


class DataError(UserError):
    """Recorded data that cannot be used as it is: truncated, of another version, or not finite."""


class MessageError(UserError):
    """A message that cannot be used; the sentence says why."""


class NotFiniteError(UserError):
    """A number that came from outside is infinite or NaN: whoever sent it is not to be trusted."""


class NotFiniteMessageError(MessageError, NotFiniteError):
    """A message with an infinite number or NaN in a place that matters."""


def one_line(error: BaseException) -> str:
    """First line of an error's words, or its type where it has none."""
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__

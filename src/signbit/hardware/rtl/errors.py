"""The error of this package."""

from __future__ import annotations

from signbit.errors import SignbitError


class CircuitError(SignbitError):
    """A layer has no circuit, or not at the size asked for; the message has the way out."""

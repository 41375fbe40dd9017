"""What the shell is to do, until it is told."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.engine.messages import RunActivity, ToShell

__all__ = ["Outbox"]


class Outbox:
    """Effects in the order in which they are to be followed."""

    def __init__(self) -> None:
        self._gathered: list[ToShell] = []

    def add(self, message: ToShell) -> None:
        """Have something done once the shell is told."""
        self._gathered.append(message)

    def take(self) -> list[ToShell]:
        """Return what has gathered, to be handed on."""
        outbox, self._gathered = self._gathered, []
        return outbox

    def put_back(self, outbox: Sequence[ToShell]) -> None:
        """Keep what could not be handed on yet; it comes before what gathers from now on."""
        self._gathered = [*outbox, *self._gathered]

    def drop_beginnings(self) -> None:
        """Begin none of the activities that were to begin and have not been handed on."""
        self._gathered = [
            message for message in self._gathered if not isinstance(message, RunActivity)
        ]

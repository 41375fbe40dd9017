"""What the shell is to do, until it is told."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.engine.items import Effect, RunActivity

__all__ = ["Effects"]


class Effects:
    """Effects in the order in which they are to be followed."""

    def __init__(self) -> None:
        self._gathered: list[Effect] = []

    def add(self, effect: Effect) -> None:
        """Have something done once the shell is told."""
        self._gathered.append(effect)

    def take(self) -> list[Effect]:
        """Return what has gathered, to be handed on."""
        effects, self._gathered = self._gathered, []
        return effects

    def put_back(self, effects: Sequence[Effect]) -> None:
        """Keep what could not be handed on yet; it comes before what gathers from now on."""
        self._gathered = [*effects, *self._gathered]

    def drop_beginnings(self) -> None:
        """Begin none of the activities that were to begin and have not been handed on."""
        self._gathered = [
            effect for effect in self._gathered if not isinstance(effect, RunActivity)
        ]

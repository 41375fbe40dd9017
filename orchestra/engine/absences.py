"""Steps whose code does not return: the engine goes on without them, and takes up their result whenever it comes.

Whoever watches the engine's thread may declare, from another thread, that the step being made is not waited for any more.
Its instance stays owned, and *away*: nobody touches its desk while its code may still run. The thread that made the step
finds out when the code returns, and hands the result in.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from orchestra.engine.desk import Desk
from orchestra.engine.items import ActivityEnded, Heartbeat
from orchestra.engine.stepping import Step
from orchestra.providers.rows import Write

__all__ = ["Absences", "LeftBehind", "Returned", "Stepping"]

Result: TypeAlias = tuple[Write | None, Step] | Exception
"""What a step came to."""


@dataclass(slots=True, eq=False)
class Stepping:
    """A step that is being made: of which instance, and since when on the monotonic clock."""

    desk: Desk
    since: float
    kept: list[ActivityEnded | Heartbeat] = field(default_factory=lambda: [])
    """What came for the instance while it was away."""
    _token: list[None] = field(default_factory=lambda: [None])

    def take(self) -> bool:
        """Decide what becomes of the step. Of the thread that makes it and the one that gives it up, one gets ``True``."""
        try:
            self._token.pop()  # atomic between threads
        except IndexError:
            return False
        return True


@dataclass(frozen=True, slots=True)
class Returned:
    """Code that was left behind has returned after all."""

    stepping: Stepping
    result: Result

    def discard(self) -> None:
        """Drop the execution, which nobody wants any more."""
        if self.stepping.desk.execution is not None:
            self.stepping.desk.execution.evict()


class LeftBehind(BaseException):
    """The engine has gone on without the thread that made this step. It must have ``returned`` handed in, and touch nothing."""

    def __init__(self, returned: Returned) -> None:
        super().__init__(returned)
        self.returned = returned


class Absences:
    """Which step is being made, and which ones were left behind."""

    def __init__(self) -> None:
        self._away: dict[str, Stepping] = {}
        self.stepping: Stepping | None = None
        """The step that is being made and waited for; read by the watchdog."""

    def __len__(self) -> int:
        return len(self._away)

    def __iter__(self) -> Iterator[str]:
        return iter(self._away)

    def begin(self, desk: Desk, since: float) -> Stepping:
        """Note that the code of this instance is about to run."""
        self.stepping = stepping = Stepping(desk, since)
        return stepping

    def finish(self, stepping: Stepping, result: Result) -> None:
        """Note that the code has returned.

        Raises:
            LeftBehind: nobody waits for it any more.
        """
        if not stepping.take():
            raise LeftBehind(Returned(stepping, result))
        self.stepping = None

    def leave(self, stepping: Stepping) -> bool:
        """Go on without this step, unless it has returned. Return whether it is away now; then no thread runs the engine."""
        if not stepping.take():
            return False
        self.stepping = None
        self._away[stepping.desk.instance_id] = stepping
        return True

    def keep(self, item: ActivityEnded | Heartbeat) -> bool:
        """Keep an item for an instance that is away. Return whether it is."""
        stepping = self._away.get(item.key.instance_id)
        if stepping is not None:
            stepping.kept.append(item)
        return stepping is not None

    def take_back(self, stepping: Stepping) -> bool:
        """Take back an instance whose code has returned. Return whether it is still wanted."""
        instance_id = stepping.desk.instance_id
        if self._away.get(instance_id) is not stepping:
            return False
        del self._away[instance_id]
        return True

    def incarnation_of(self, instance_id: str) -> str | None:
        """Return the incarnation of an instance that is away."""
        stepping = self._away.get(instance_id)
        return None if stepping is None else stepping.desk.incarnation

    def disown(self, instance_id: str) -> Sequence[ActivityEnded | Heartbeat]:
        """Want an instance no more whose code is away: it belongs to somebody else, or was claimed anew.

        Return what was reported for it and no write has recorded, for whoever has claimed it anew on this node.
        """
        stepping = self._away.pop(instance_id, None)
        return () if stepping is None else (*stepping.desk.unacknowledged, *stepping.kept)

    def release(self) -> None:
        """Have every instance that is away released, should it return."""
        for stepping in self._away.values():
            stepping.desk.releasing = True

    def clear(self) -> None:
        """Want none of them any more."""
        self._away.clear()

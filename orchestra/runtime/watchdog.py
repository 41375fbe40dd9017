"""Names orchestration code that blocks: a sleep, a socket, an endless loop inside a turn.

Such code cannot be stopped, for it is Python in a thread. Whoever wrote it is told which line it is, and the thread is left
behind with it: the engine goes on with another one, so that the other instances do not wait.
"""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any, Final

import anyio

from orchestra.clock import Clock
from orchestra.engine.absences import Closing, Stepping
from orchestra.engine.engine import Engine
from orchestra.runtime.worker import EngineThread
from orchestra.scheduler import module_root, place
from orchestra.telemetry import engine_logger

__all__ = ["Watchdog"]

_LOOKS_PER_LIMIT: Final = 2


class Watchdog:
    """Looks at the engine's thread from the event loop, for turns, and ends of what leaves memory, that take too long.

    Args:
        limit: seconds.
    """

    def __init__(self, engine: Engine, thread: EngineThread, clock: Clock, limit: float) -> None:
        self._engine = engine
        self._thread = thread
        self._clock = clock
        self._limit = limit
        self._warned_of: Stepping | Closing | None = None

    async def watch(self) -> None:
        """Watch until cancelled."""
        while True:
            await anyio.sleep(self._limit / _LOOKS_PER_LIMIT)
            self.look()

    def look(self) -> None:
        """Warn once of code that has been running for too long, and have the engine go on without it."""
        stepping = self._engine.stepping
        if stepping is None:
            return
        blocked = self._clock.monotonic() - stepping.since
        if blocked < self._limit:
            return
        line = self._line()
        is_away = self._thread.leave_behind(stepping)
        if stepping is self._warned_of or (not is_away and self._engine.stepping is not stepping):
            return
        self._warned_of = stepping
        identity = stepping.identity
        extra: dict[str, Any] = {
            "orchestration": identity.name,
            "version": identity.version,
            "instance_id": identity.instance_id,
            "execution_id": identity.execution,
            "attempt": None,
            "fields": {},
        }
        engine_logger.warning(
            "it has blocked its node for %.1f s at %s; %s. Orchestration code must not wait or work by itself: move that "
            "into an activity",
            blocked,
            line,
            "the node's other instances go on without it" if is_away else "every instance of this node waits",
            extra=extra,
        )

    def stuck(self) -> str | None:
        """Return which code the engine's thread runs now, and where; ``None``: it is none of an orchestration."""
        stepping = self._engine.stepping
        return None if stepping is None else f"code of instance {stepping.identity.instance_id!r} at {self._line()}"

    def _line(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._thread.thread_id or 0)
        users: list[FrameType] = []
        while frame is not None and module_root(frame) != "orchestra":
            users.append(frame)
            frame = frame.f_back
        # Innermost first; the outermost is the orchestration's own. What it calls in other packages helps nobody find the line.
        own = [user for user in users if module_root(user) == module_root(users[-1])]
        return place(own[0]) if own else "an unknown place"

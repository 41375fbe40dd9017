"""Names orchestration code that blocks: a sleep, a socket, an endless loop inside a turn.

Such code cannot be stopped, for it is Python in a thread. Whoever wrote it is told which line it is, and the thread is left
behind with it: the engine goes on with another one, so that the other instances do not wait.
"""

from __future__ import annotations

import logging
import sys
from types import FrameType

import anyio

from orchestra.clock import Clock
from orchestra.engine.engine import Engine
from orchestra.frames import module_root, place
from orchestra.runtime.worker import EngineThread
from orchestra.telemetry import log_instance, named

__all__ = ["Watchdog"]


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

    async def watch(self) -> None:
        """Watch until cancelled."""
        wait = self._limit
        while True:
            await anyio.sleep(wait)
            wait = self.look()

    def look(self) -> float:
        """Warn once of code that has been running for too long, and have the engine go on without it.

        Return the seconds until the next look: when what runs now will have taken too long. What begins before that look, and
        returns after it, is then looked at in time as well. Code that returns while the event loop is late is named by the
        engine, which cannot tell the line.
        """
        stepping = self._engine.stepping
        if stepping is None:
            return self._limit
        blocked = self._clock.monotonic() - stepping.since
        if blocked < self._limit:
            return self._limit - blocked
        line = self._line()
        is_away = self._thread.leave_behind(stepping)
        has_returned = not is_away and self._engine.stepping is not stepping
        if has_returned or not stepping.naming.take():
            return self._limit
        log_instance(
            logging.WARNING,
            stepping.identity,
            "has blocked its node for %.1f s at %s; %s. Orchestration code must not wait or work by itself: move that into an "
            "activity",
            blocked,
            line,
            "the node's other instances go on without it" if is_away else "every instance of this node waits",
        )
        return self._limit

    def stuck(self) -> str | None:
        """Return which code the engine's thread runs now, and where; ``None``: it is none of an orchestration."""
        stepping = self._engine.stepping
        return None if stepping is None else f"code of {named(stepping.identity)} at {self._line()}"

    def _line(self) -> str:
        frame: FrameType | None = sys._current_frames().get(self._thread.thread_id or 0)
        users: list[FrameType] = []
        while frame is not None and module_root(frame) != "orchestra":
            users.append(frame)
            frame = frame.f_back
        # Innermost first; the outermost is the orchestration's own. What it calls in other packages helps nobody find the line.
        own = [user for user in users if module_root(user) == module_root(users[-1])]
        return place(own[0]) if own else "an unknown place"

"""Finds orchestration code that blocks: a sleep, a socket, an endless loop inside a turn.

The log names the line. The engine leaves the thread behind with the code, and continues on another
thread, so the other instances do not wait. Code that has left memory is unwound, and so is code
that still runs when the runtime is left.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import anyio

from orchestra.clock import Clock
from orchestra.engine.blocked_turns import MANY_STEPS, ClosingExecution, RunningTurn, log_wide_turn
from orchestra.engine.engine import Engine
from orchestra.runtime.interruption import UNKNOWN, Sample, interrupt, sample
from orchestra.runtime.worker import EngineThread
from orchestra.telemetry import log_instance, named

__all__ = ["Watchdog"]


_SECOND_LOOK: Final = 0.25


@dataclass(frozen=True, slots=True)
class _Blocked:
    """Code that took too long, as the watchdog saw it."""

    running: RunningTurn | ClosingExecution
    thread_id: int
    seen: Sample
    seconds: float
    is_abandoned: bool


class Watchdog:
    """Watches the engine's thread from the event loop, for turns and evictions that take too long.

    Args:
        limit: seconds.
    """

    def __init__(self, engine: Engine, thread: EngineThread, clock: Clock, limit: float) -> None:
        self._engine = engine
        self._thread = thread
        self._clock = clock
        self._limit = limit
        self._suspects: list[_Blocked] = []

    async def watch(self) -> None:
        """Watch until cancelled."""
        wait = self._limit
        while True:
            await anyio.sleep(wait)
            wait = self.look()

    def look(self) -> float:
        """Warn once about code that runs for too long, and let the engine continue without it.

        Return the seconds until the next look: the time when the running code will have taken too
        long. Code that begins before that look is then seen in time as well. If code returns while
        the event loop is late, the engine names it, without its line.
        """
        self._judge()
        running = self._engine.running_code
        if running is None:
            return self._limit
        blocked = self._clock.monotonic() - running.since
        if blocked < self._limit:
            return self._limit - blocked
        thread_id = self._thread.thread_id or 0
        seen = sample(thread_id)
        is_abandoned = self._thread.abandon(running)
        if is_abandoned and isinstance(running, ClosingExecution):
            interrupt(thread_id)  # it has left memory: nothing comes back from it
        has_returned = not is_abandoned and self._engine.running_code is not running
        if has_returned or not running.naming.take():
            return self._limit
        blocked_code = _Blocked(running, thread_id, seen, blocked, is_abandoned)
        if seen.line == UNKNOWN:  # the library is at work for it, on many events for example
            log_wide_turn(running.identity, blocked)
            return self._limit
        if seen.steps < MANY_STEPS:
            self._name(blocked_code)
            return self._limit
        # A wide turn has many steps, and each is short: check whether this step goes on.
        self._suspects.append(blocked_code)
        return min(self._limit, _SECOND_LOOK)

    def _judge(self) -> None:
        """Log code that looked blocked before, with its line if it is still in the same step."""
        suspects, self._suspects = self._suspects, []
        for blocked in suspects:
            now = sample(blocked.thread_id)
            if (now.execution, now.steps) == (blocked.seen.execution, blocked.seen.steps):
                self._name(blocked)
            else:
                log_wide_turn(blocked.running.identity, blocked.seconds)

    @staticmethod
    def _name(blocked: _Blocked) -> None:
        log_instance(
            logging.WARNING,
            blocked.running.identity,
            "has blocked its node for %.1f s at %s; %s. Orchestration code must not wait or "
            "work by itself: move that into an activity",
            blocked.seconds,
            blocked.seen.line,
            "the node's other instances go on without it"
            if blocked.is_abandoned
            else "every instance of this node waits",
        )

    def stuck(self) -> str | None:
        """Return the orchestration code in the engine's thread, and its line, or ``None``."""
        running = self._engine.running_code
        return (
            None
            if running is None
            else f"code of {named(running.identity)} at {sample(self._thread.thread_id or 0).line}"
        )

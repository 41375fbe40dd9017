"""Turns whose code does not return: the engine goes on without them.

The watchdog may abandon the running turn, from another thread. Its instance stays owned, and
*blocked*: the engine does not touch it while its code may still run. When the code returns, its
thread gets :class:`TurnAbandoned` and hands the late result to the engine.

An execution that leaves memory is closed under the same watch, for its ``finally`` blocks are code,
too. It has no result.

The log names code that took too long, once. The watchdog does it, for it sees the line. Otherwise
the engine does it when the code returns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from orchestra.clock import Clock
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.steps.step import Step
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Execution, Identity
from orchestra.store.changes import Write
from orchestra.store.executions import ExecutionRow
from orchestra.telemetry import log_instance

__all__ = [
    "MANY_STEPS",
    "BlockedTurns",
    "ClosingExecution",
    "LateResult",
    "Result",
    "RunningTurn",
    "TurnAbandoned",
    "log_wide_turn",
]

Result: TypeAlias = tuple[Write | None, Step] | Exception
"""What running a turn came to."""


MANY_STEPS: Final = 50
"""A turn with as many steps of coroutines is wide: it takes its time, and no line of its code is to
blame.
"""


def log_wide_turn(identity: Identity, seconds: float) -> None:
    """Log that a turn takes long because it has much to do."""
    log_instance(
        logging.WARNING,
        identity,
        "has kept its node busy for %.1f s with one turn, in which very many branches went on. "
        "No line of its code waits; fan out over fewer branches at a time, or over children, "
        "if other instances are to go on sooner",
        seconds,
    )


class _Token(list[None]):
    """Exactly one of two threads takes it: the one that runs some code, or the one that abandons
    it. It is made of ``_ONE``.
    """

    __slots__ = ()

    def take(self) -> bool:
        """Return whether it was still there."""
        try:
            self.pop()  # atomic between threads
        except IndexError:
            return False
        return True


_ONE: Final = (None,)


class RunningTurn:
    """The turn that runs: of which instance, and since when on the monotonic clock."""

    __slots__ = ("first", "instance", "known_reports", "naming", "since", "steps", "token")

    # Written out: each turn makes one, and factories of a dataclass would be three more calls.
    def __init__(self, instance: OwnedInstance, since: float) -> None:
        self.instance: OwnedInstance = instance
        self.since: float = since
        self.first: ExecutionRow = instance.current
        """The execution in which it began. It may cross boundaries."""
        self.steps: int = 0 if instance.execution is None else instance.execution.scheduler.steps
        """How many steps its coroutines had made when it began."""
        self.known_reports: int = 0
        """How many unrecorded reports of its activities it may have taken in, once abandoned."""
        self.token: _Token = _Token(_ONE)
        self.naming: _Token = _Token(_ONE)
        """The watchdog or the engine takes it, and names the code in the log."""

    @property
    def identity(self) -> Identity:
        """Which execution runs."""
        return self.instance.identity

    @property
    def made(self) -> int:
        """How many steps its coroutines have made since it began."""
        execution = self.instance.execution
        return 0 if execution is None else execution.scheduler.steps - self.steps

    @property
    def begun(self) -> Identity:
        """In which execution it began."""
        instance, first = self.instance, self.first
        if instance.current.number == first.number:
            # If it was opened meanwhile, the version is the one that it was opened with.
            return instance.identity
        return Identity(
            instance.instance_id, instance.incarnation, first.number, first.name, first.version
        )


@dataclass(slots=True, eq=False)
class ClosingExecution:
    """An execution that has left memory and is being closed, since then."""

    identity: Identity
    since: float
    token: _Token = field(default_factory=lambda: _Token(_ONE))
    naming: _Token = field(default_factory=lambda: _Token(_ONE))
    """The watchdog or the engine takes it, and names the code in the log."""

    @property
    def begun(self) -> Identity:
        """Which execution this is."""
        return self.identity


@dataclass(frozen=True, slots=True)
class LateResult:
    """An abandoned turn has returned after all."""

    turn: RunningTurn
    result: Result

    def discard(self) -> None:
        """Drop the execution: the engine has ended."""
        if self.turn.instance.execution is not None:
            self.turn.instance.execution.evict()


class TurnAbandoned(BaseException):
    """The engine has gone on without the thread that ran this code.

    The thread must hand ``late`` to the engine, and touch nothing else. ``late`` is ``None`` if an
    execution was closed.
    """

    def __init__(self, running: RunningTurn | ClosingExecution, late: LateResult | None) -> None:
        super().__init__(running, late)
        self.running = running
        self.late = late


class BlockedTurns:
    """The turn that runs, and the abandoned ones.

    Args:
        blocked_after: seconds after which code has taken too long.
    """

    def __init__(self, registry: OrchestrationRegistry, clock: Clock, blocked_after: float) -> None:
        self._registry = registry
        self._clock = clock
        self._blocked_after = blocked_after
        self._blocked: dict[str, RunningTurn] = {}
        self._late: list[LateResult] = []
        self.running: RunningTurn | ClosingExecution | None = None
        """The code that the engine waits for. The watchdog reads it."""

    def __len__(self) -> int:
        return len(self._blocked)

    def __iter__(self) -> Iterator[str]:
        return iter(self._blocked)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._blocked

    # --- the code that runs ---

    def begin(self, instance: OwnedInstance) -> RunningTurn:
        """Note that the code of an instance is about to run."""
        self.running = turn = RunningTurn(instance, self._clock.monotonic())
        return turn

    def seconds(self, turn: RunningTurn) -> float:
        """Return for how long a turn has run."""
        return self._clock.monotonic() - turn.since

    def finish(self, turn: RunningTurn, result: Result) -> None:
        """Note that the code has returned.

        Raises:
            TurnAbandoned: the engine does not wait for it any longer.
        """
        if not turn.token.take():
            raise TurnAbandoned(turn, LateResult(turn, result))
        self._has_returned(turn)

    def close(self, execution: Execution) -> None:
        """Close an execution that has left memory.

        Raises:
            TurnAbandoned: the engine does not wait for it any longer.
        """
        self.running = closing = ClosingExecution(execution.identity, self._clock.monotonic())
        execution.evict()
        if not closing.token.take():
            raise TurnAbandoned(closing, None)
        self._has_returned(closing)

    def _has_returned(self, running: RunningTurn | ClosingExecution) -> None:
        """Name code that took too long, unless the watchdog has: it looks only now and then."""
        self.running = None
        blocked = self._clock.monotonic() - running.since
        if blocked < self._blocked_after or not running.naming.take():
            return
        identity = running.begun
        if isinstance(running, RunningTurn) and running.made >= MANY_STEPS:
            log_wide_turn(identity, blocked)
            return
        definition = self._registry.find(identity.name, identity.version)
        log_instance(
            logging.WARNING,
            identity,
            "has blocked its node for %.1f s and has returned, so that the line is not known: "
            "%s, or what it calls. Orchestration code must not wait or work by itself: move "
            "that into an activity",
            blocked,
            "its code" if definition is None else definition.place,
        )

    # --- abandoned turns ---

    def abandon(self, running: RunningTurn | ClosingExecution) -> bool:
        """Go on without this code. Return whether it has not returned; then no thread runs the
        engine.
        """
        if not running.token.take():
            return False
        self.running = None
        if isinstance(running, RunningTurn):
            self._blocked[running.instance.instance_id] = running
        return True

    @property
    def has_late_results(self) -> bool:
        """Whether an abandoned turn has returned."""
        return bool(self._late)

    def add_late_result(self, late: LateResult) -> None:
        """Take in that an abandoned turn has returned."""
        self._late.append(late)

    def take_late_results(self) -> list[LateResult]:
        """Return the results of abandoned turns."""
        late, self._late = self._late, []
        return late

    def unblock(self, turn: RunningTurn) -> bool:
        """Remove a turn that has returned. Return whether its instance is still this node's."""
        instance_id = turn.instance.instance_id
        if self._blocked.get(instance_id) is not turn:
            return False
        del self._blocked[instance_id]
        return True

    def incarnation_of(self, instance_id: str) -> str | None:
        """Return the incarnation of a blocked instance."""
        turn = self._blocked.get(instance_id)
        return None if turn is None else turn.instance.incarnation

    def drop(self, instance_id: str) -> bool:
        """Drop a blocked instance: another node owns it, or it was claimed anew. Return whether it
        was blocked.
        """
        return self._blocked.pop(instance_id, None) is not None

    def release_all(self) -> None:
        """Release every blocked instance once its code returns."""
        for turn in self._blocked.values():
            turn.instance.releasing = True

    def clear(self) -> None:
        """Drop all blocked instances."""
        self._blocked.clear()

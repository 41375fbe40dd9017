"""Steps whose code does not return: the engine goes on without them, and takes up their result
whenever it comes.

Whoever watches the engine's thread may declare, from another thread, that the step being made is
not waited for any more. Its instance stays owned, and *away*: nobody touches its desk while its
code may still run. The thread that made the step finds out when the code returns, and hands the
result in.

What has left memory is closed under the same watch, for its ``finally`` blocks are code, too.
Nothing comes back from there.

Code that took too long is named in the log, once: by the watcher, who sees the line, or else where
it returns.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from orchestra.clock import Clock
from orchestra.engine.messages import ActivityEnded, Heartbeat
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.stepping import Step
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
    "RunningTurn",
    "TurnAbandoned",
    "log_wide_turn",
]

Result: TypeAlias = tuple[Write | None, Step] | Exception
"""What a step came to."""


MANY_STEPS: Final = 50
"""Steps of coroutines from which a turn is a wide one: it takes its time, and no line of its code
is to blame.
"""


def log_wide_turn(identity: Identity, seconds: float) -> None:
    """Say that a turn takes long because it has much to do."""
    log_instance(
        logging.WARNING,
        identity,
        "has kept its node busy for %.1f s with one turn, in which very many branches went on. "
        "No line of its code waits; fan out over fewer branches at a time, or over children, "
        "if other instances are to go on sooner",
        seconds,
    )


class _Token(list[None]):
    """Of the thread that runs some code and the one that gives it up, one takes it. Made of
    ``_ONE``.
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
    """A step that is being made: of which instance, and since when on the monotonic clock."""

    __slots__ = ("first", "instance", "kept", "naming", "since", "steps", "token")

    # Written out: each step makes one, and factories of a dataclass would be three calls more.
    def __init__(self, instance: OwnedInstance, since: float) -> None:
        self.instance: OwnedInstance = instance
        self.since: float = since
        self.first: ExecutionRow = instance.current
        """The execution in which it began; it may go on over boundaries."""
        self.steps: int = 0 if instance.execution is None else instance.execution.scheduler.steps
        """How many steps its coroutines had made when it began."""
        self.kept: list[ActivityEnded | Heartbeat] = []
        """What came for the instance while it was away."""
        self.token: _Token = _Token(_ONE)
        self.naming: _Token = _Token(_ONE)
        """Of the watcher and the thread that runs it, one names it in the log."""

    @property
    def identity(self) -> Identity:
        """Which execution this is."""
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
        if (
            instance.current.number == first.number
        ):  # and if it has been opened meanwhile, on the version that it was opened with
            return instance.identity
        return Identity(
            instance.instance_id, instance.incarnation, first.number, first.name, first.version
        )


@dataclass(slots=True, eq=False)
class ClosingExecution:
    """The coroutine of an execution that has left memory is being closed, since then."""

    identity: Identity
    since: float
    token: _Token = field(default_factory=lambda: _Token(_ONE))
    naming: _Token = field(default_factory=lambda: _Token(_ONE))
    """Of the watcher and the thread that runs it, one names it in the log."""

    @property
    def begun(self) -> Identity:
        """Which execution this is."""
        return self.identity


@dataclass(frozen=True, slots=True)
class LateResult:
    """Code that was left behind has returned after all."""

    stepping: RunningTurn
    result: Result

    def discard(self) -> None:
        """Drop the execution, which nobody wants any more."""
        if self.stepping.instance.execution is not None:
            self.stepping.instance.execution.evict()


class TurnAbandoned(BaseException):
    """The engine has gone on without the thread that ran this code. It must have ``returned``
    handed in, and touch nothing.

    ``returned`` is ``None`` where nothing comes back: what had left memory is closed now.
    """

    def __init__(
        self, running: RunningTurn | ClosingExecution, returned: LateResult | None
    ) -> None:
        super().__init__(running, returned)
        self.running = running
        self.returned = returned


class BlockedTurns:
    """Which step is being made, and which ones were left behind.

    Args:
        blocked_after: seconds after which code has taken too long.
    """

    def __init__(self, registry: OrchestrationRegistry, clock: Clock, blocked_after: float) -> None:
        self._registry = registry
        self._clock = clock
        self._blocked_after = blocked_after
        self._away: dict[str, RunningTurn] = {}
        self._returned: list[LateResult] = []
        self.running: RunningTurn | ClosingExecution | None = None
        """The code that runs and is waited for; read by the watchdog."""

    def __len__(self) -> int:
        return len(self._away)

    def __iter__(self) -> Iterator[str]:
        return iter(self._away)

    def begin(self, instance: OwnedInstance) -> RunningTurn:
        """Note that the code of this instance is about to run."""
        self.running = stepping = RunningTurn(instance, self._clock.monotonic())
        return stepping

    def finish(self, stepping: RunningTurn, result: Result) -> None:
        """Note that the code has returned.

        Raises:
            LeftBehind: nobody waits for it any more.
        """
        if not stepping.token.take():
            raise TurnAbandoned(stepping, LateResult(stepping, result))
        self._has_returned(stepping)

    def close(self, execution: Execution) -> None:
        """Close what has left memory.

        Raises:
            LeftBehind: nobody waits for it any more.
        """
        self.running = closing = ClosingExecution(execution.identity, self._clock.monotonic())
        execution.evict()
        if not closing.token.take():
            raise TurnAbandoned(closing, None)
        self._has_returned(closing)

    def _has_returned(self, running: RunningTurn | ClosingExecution) -> None:
        """Go on behind code, and name it if it took too long and the watcher, who does not always
        look, has not seen it.
        """
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

    def leave(self, running: RunningTurn | ClosingExecution) -> bool:
        """Go on without this code, unless it has returned. Return whether that is so; then no
        thread runs the engine.
        """
        if not running.token.take():
            return False
        self.running = None
        if isinstance(running, RunningTurn):
            self._away[running.instance.instance_id] = running
        return True

    def keep(self, message: ActivityEnded | Heartbeat) -> bool:
        """Keep an item for an instance that is away. Return whether it is."""
        stepping = self._away.get(message.key.instance_id)
        if stepping is not None:
            stepping.kept.append(message)
        return stepping is not None

    @property
    def has_returned(self) -> bool:
        """Whether code has returned that nobody has taken back."""
        return bool(self._returned)

    def come_back(self, returned: LateResult) -> None:
        """Take note that code has returned."""
        self._returned.append(returned)

    def take_returned(self) -> list[LateResult]:
        """Return what has come back."""
        returned, self._returned = self._returned, []
        return returned

    def take_back(self, stepping: RunningTurn) -> bool:
        """Take back an instance whose code has returned. Return whether it is still wanted."""
        instance_id = stepping.instance.instance_id
        if self._away.get(instance_id) is not stepping:
            return False
        del self._away[instance_id]
        return True

    def incarnation_of(self, instance_id: str) -> str | None:
        """Return the incarnation of an instance that is away."""
        stepping = self._away.get(instance_id)
        return None if stepping is None else stepping.instance.incarnation

    def disown(self, instance_id: str) -> Sequence[ActivityEnded | Heartbeat]:
        """Want an instance no more whose code is away: it belongs to somebody else, or was claimed
        anew.

        Return what was reported for it and no write has recorded, for whoever has claimed it anew
        on this node.
        """
        stepping = self._away.pop(instance_id, None)
        return () if stepping is None else (*stepping.instance.unacknowledged, *stepping.kept)

    def release(self) -> None:
        """Have every instance that is away released, should it return."""
        for stepping in self._away.values():
            stepping.instance.releasing = True

    def clear(self) -> None:
        """Want none of them any more."""
        self._away.clear()

"""The operators of a simulated world: they hold and release, rewind, nudge and begin again, pin,
and change policies.

What the library does for them are operations; here their steps are performed on a connection that
may break.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any, Final, TypeVar

from orchestra.errors import (
    AlreadyCompleted,
    InstanceExists,
    InstanceNotFound,
    InstanceNotHeld,
    InvalidArgument,
    LevelTooLow,
    NewerLibraryNeeded,
    OrchestraError,
    OutcomeUnknown,
    StoreError,
)
from orchestra.operations.begin import IF_ENDED, IF_RUNNING, begin
from orchestra.operations.hold import hold, release
from orchestra.operations.nudge import nudge
from orchestra.operations.rewind import Rewinding, rewind
from orchestra.operations.steps import (
    Find,
    FindExecutions,
    FindMessages,
    Get,
    Operation,
    Pause,
    ReadCatalogue,
    ReadHistory,
    SetNudge,
    Step,
    Submit,
)
from orchestra.store.changes import ClientChange, IfEnded, Start
from orchestra.store.inbox_limits import Full
from orchestra.store.kinds import Status
from orchestra.store.nudges import Nudged
from orchestra.store.outcomes import Outcome
from orchestra.store.port import Provider
from tests.support.simulation.instances import WatchedInstance
from tests.support.simulation.programs import FINAL_STAGE, PROGRAMS, Program
from tests.support.simulation.witness import Witness

__all__ = ["Operators"]

T = TypeVar("T")

_IF_ENDED: Final = {
    "error": IfEnded.LEAVE,
    "return": IfEnded.LEAVE,
    "restart": IfEnded.RESTART,
    "restart_if_failed": IfEnded.RESTART_IF_FAILED,
}
_TRIES: Final = 3
"""How often an operator asks again who has heard no answer."""


class Operators:
    """Perform operations.

    Args:
        commit: commits a change over the operators' connection, or returns what became of it.
        new_id: makes ids.
        is_asked_for: whether a start of an instance may still come.
    """

    def __init__(
        self,
        provider: Provider,
        random: Random,
        witness: Witness,
        commit: Callable[[ClientChange], Outcome | OrchestraError],
        new_id: Callable[[str], str],
        is_asked_for: Callable[[str], bool],
    ) -> None:
        self._directory = provider.directory
        self._admin = provider.admin
        self._library = provider.library
        self._random = random
        self._witness = witness
        self._commit = commit
        self._new_id = new_id
        self._is_asked_for = is_asked_for

    # --- acts ---

    def hold(self, instance_id: str) -> None:
        """Put an operator's hold on an instance."""
        self._try(lambda: hold(instance_id, self._library, by="operator", reason="simulated"))

    def release(self, instance_id: str) -> None:
        """End what holds an instance."""
        self._try(lambda: release(instance_id, self._library, by="operator"))

    def nudge(self, instance_id: str) -> None:
        """Ask the current execution to reach its boundary, or one that may have passed."""
        instance = self._witness.instances.get(instance_id)
        number = None if instance is None or self._random.random() < 0.5 else instance.number
        self._try(lambda: nudge(instance_id, execution=number, by="operator", reason="simulated"))

    def rewind(self, instance: WatchedInstance) -> None:
        """Take an instance back, whether it runs or has ended."""
        random = self._random
        first = min(instance.rows_gone + 1, instance.number)
        versions = [None, "1.0.0", "1.1.0"] if PROGRAMS[instance.name].versioned else [None]
        asked = Rewinding(
            instance_id=instance.instance_id,
            execution=random.randint(first, instance.number),
            version=random.choice(versions),
            pins=random.random() < 0.5,
            children=random.choice(("abandon", "cancel")),
            by="operator",
            reason="simulated",
            request_id=self._new_id("rewind"),
            incarnation=self._new_id("life"),
        )
        self._try(lambda: rewind(asked, self._library))

    def begin(self, start: Start) -> None:
        """Start an instance, whatever has its id."""
        if_running, if_ended = self._random.choice(IF_RUNNING), self._random.choice(IF_ENDED)
        start = replace(
            start,
            if_ended=_IF_ENDED[if_ended],
            looks=(if_running, if_ended) != ("error", "error"),
        )

        def full(_: Full) -> Exception:
            raise AssertionError("no event was to come with it")

        def submitted() -> Operation[None]:
            outcome = yield from Submit(start)
            yield from begin(start, outcome, if_running, if_ended, self._library, full=full)

        done = self._try(submitted, default=False)
        if done is None and (if_running, if_ended) == ("error", "error"):
            instance = self._witness.instance(start.instance_id, start.incarnation)
            assert instance is not None, f"I1: {start} was promised"

    def candidates(self) -> list[WatchedInstance]:
        """Return the instances that may be rewound: nobody asks for one whose id is asked for."""
        return [
            instance
            for instance in self._witness.instances.values()
            if _has_way_back(PROGRAMS[instance.name])
            and (instance.status is Status.OPEN or not self._is_asked_for(instance.instance_id))
        ]

    # --- performing ---

    def _try(self, make: Callable[[], Operation[T]], default: Any = None) -> T | Any:
        """Perform an operation; again, if its answer is lost. Return its result, or the default."""
        for _ in range(_TRIES):
            try:
                return self._perform(make())
            except OutcomeUnknown:
                continue
            except (
                AlreadyCompleted,
                InstanceExists,
                InstanceNotFound,
                InstanceNotHeld,
                InvalidArgument,
                LevelTooLow,
                NewerLibraryNeeded,
            ):
                return default
            except StoreError:
                return default
        return default

    def _perform(self, operation: Operation[T]) -> T:
        answer: Any = None
        error: OrchestraError | None = None
        while True:
            try:
                step = operation.send(answer) if error is None else operation.throw(error)
            except StopIteration as end:
                return end.value
            answer = error = None
            try:
                answer = self._answer(step)
            except OrchestraError as raised:
                error = raised

    def _answer(self, step: Step[Any]) -> Any:
        directory = self._directory
        match step:
            case Get(instance_id):
                return directory.get(instance_id)
            case Find(query):
                return directory.list(query)
            case FindMessages(instance_id, after, limit):
                return directory.messages(instance_id, after, limit)
            case FindExecutions(instance_id, after, limit):
                return directory.executions(instance_id, after, limit)
            case ReadHistory(instance_id, execution):
                return directory.history(instance_id, execution)
            case ReadCatalogue():
                return directory.catalogue()
            case Submit(change):
                outcome = self._commit(change)
                if isinstance(outcome, OrchestraError):
                    raise outcome
                return outcome
            case SetNudge(instance_id, incarnation, execution, by, reason):
                return self._nudge(instance_id, incarnation, execution, by, reason)
            case Pause():
                return None
            case _:
                raise AssertionError(f"unknown step {step}")

    def _nudge(
        self, instance_id: str, incarnation: str, execution: int, by: str, reason: str
    ) -> Nudged:
        outcome = self._admin.nudge(instance_id, incarnation, execution, by=by, reason=reason)
        if outcome is Nudged.ASKED:
            self._witness.nudged(instance_id, incarnation, execution)
        return outcome


def _has_way_back(program: Program) -> bool:
    """Return whether each version of a program that may be pinned goes on with each state."""
    return program.versioned or len(program.stages[FINAL_STAGE]) == 1

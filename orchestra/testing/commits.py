"""The commits of a test, at each of which its process can be made to die."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from orchestra.errors import OrchestraError
from orchestra.store.changes import Change, Claim, Report, Write
from orchestra.store.outcomes import Claimed, Commit, Outcome
from orchestra.store.port import Store

__all__ = ["Commits", "CrashPlan", "ProcessDied", "plan_of_this_test", "under_plan"]


class ProcessDied(BaseException):
    """The process is gone in the middle of a commit. ``is_recorded``: the commit had been made,
    with these outcomes, which no code has read.
    """

    def __init__(self, changes: Sequence[Change], commit: Commit | None) -> None:
        super().__init__("the process has died")
        self._changes = changes
        self._commit = commit

    @property
    def is_recorded(self) -> bool:
        return self._commit is not None

    def outcome_of(self, change: Change) -> Outcome | OrchestraError | None:
        """Return what became of a change, if it was recorded."""
        if self._commit is None:
            return None
        pairs = zip(self._changes, self._commit.outcomes, strict=True)
        return next((outcome for one, outcome in pairs if one is change), None)


@dataclass(slots=True)
class CrashPlan:
    """At which commit of a test the process dies: never, for 0. ``cold``: each turn replays."""

    at: int = 0
    after: bool = False
    cold: bool = False
    commits: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """What each commit has held, for people."""
    histories: list[bytes] = field(default_factory=list[bytes])
    """The exported histories of the instances that a test has left, where each turn is cold."""
    held: list[str] = field(default_factory=list[str])
    """Those that code has left which does not do what its history says, and what it does."""


_PLAN: Final[ContextVar[CrashPlan | None]] = ContextVar("orchestra_crash_plan", default=None)


def plan_of_this_test() -> CrashPlan:
    """Return the plan that a test runtime is made under."""
    return _PLAN.get() or CrashPlan()


@contextmanager
def under_plan(plan: CrashPlan) -> Generator[CrashPlan, None, None]:
    """Have the test runtimes that are made meanwhile die by a plan."""
    token = _PLAN.set(plan)
    try:
        yield plan
    finally:
        _PLAN.reset(token)


@dataclass(slots=True)
class Turns:
    """Counts the turns of each instance since it was cleared. ``most`` are those of ``busiest``."""

    most: int = 0
    busiest: str = ""
    _of: Counter[str] = field(default_factory=Counter[str])

    def count(self, changes: Sequence[Change]) -> None:
        """Count what a commit holds: a write has a turn of each lap, at least."""
        for change in changes:
            if isinstance(change, Write):
                self._add(change.instance_id, max(1, len(change.executions)))
            elif isinstance(change, Report):
                self._add(change.instance_id, 1)

    def _add(self, instance_id: str, turns: int) -> None:
        self._of[instance_id] += turns
        if self._of[instance_id] > self.most:
            self.most, self.busiest = self._of[instance_id], instance_id

    def clear(self) -> None:
        """Begin at zero."""
        self._of.clear()
        self.most, self.busiest = 0, ""


class Commits:
    """Counts the commits of all lives of a test's process, and ends one of them."""

    def __init__(self, plan: CrashPlan) -> None:
        self._plan = plan
        self.turns: Turns = Turns()

    def of(self, store: Store) -> Store:
        """Return the way to the store of one life."""
        return _Counted(store, self._plan, self.turns)  # pyright: ignore[reportReturnType] - it passes the rest on


class _Counted:
    """A store whose commits are counted."""

    def __init__(self, store: Store, plan: CrashPlan, turns: Turns) -> None:
        self._store = store
        self._plan = plan
        self._turns = turns

    def commit(self, changes: Sequence[Change]) -> Commit:
        plan = self._plan
        self._turns.count(changes)
        if all(isinstance(change, Claim) for change in changes):
            commit = self._store.commit(changes)
            if not any(_has_taken(outcome) for outcome in commit.outcomes):
                return commit  # it has looked, and found nothing: no other world begins here
            self._note(changes)
        else:
            self._note(changes)
            if len(plan.commits) == plan.at and not plan.after:
                raise ProcessDied(changes, None)
            commit = self._store.commit(changes)
        if len(plan.commits) == plan.at and plan.after:
            raise ProcessDied(changes, commit)
        return commit

    def _note(self, changes: Sequence[Change]) -> None:
        self._plan.commits.append(tuple(_shown(change) for change in changes))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def _has_taken(outcome: object) -> bool:
    return isinstance(outcome, Claimed) and bool(outcome.snapshots or outcome.tasks)


def _shown(change: Change) -> str:
    whose = getattr(change, "instance_id", None)
    name = type(change).__name__.lower()
    return name if whose is None else f"{name} of {whose}"

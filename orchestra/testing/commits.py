"""The commits of a test, at each of which its process can be made to die."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final

from orchestra.store.changes import Change, Claim
from orchestra.store.outcomes import Claimed, Commit
from orchestra.store.port import Store

__all__ = ["Commits", "CrashPlan", "ProcessDied", "plan_of_this_test", "under_plan"]


class ProcessDied(BaseException):
    """The process is gone in the middle of a commit. ``is_recorded``: the commit had been made."""

    def __init__(self, *, is_recorded: bool) -> None:
        super().__init__("the process has died")
        self.is_recorded = is_recorded


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


class Commits:
    """Counts the commits of all lives of a test's process, and ends one of them."""

    def __init__(self, plan: CrashPlan) -> None:
        self._plan = plan

    def of(self, store: Store) -> Store:
        """Return the way to the store of one life."""
        return _Counted(store, self._plan)  # pyright: ignore[reportReturnType] - it passes the rest on


class _Counted:
    """A store whose commits are counted."""

    def __init__(self, store: Store, plan: CrashPlan) -> None:
        self._store = store
        self._plan = plan

    def commit(self, changes: Sequence[Change]) -> Commit:
        plan = self._plan
        if all(isinstance(change, Claim) for change in changes):
            commit = self._store.commit(changes)
            if not any(_has_taken(outcome) for outcome in commit.outcomes):
                return commit  # it has looked, and found nothing: no other world begins here
            self._note(changes)
        else:
            self._note(changes)
            if len(plan.commits) == plan.at and not plan.after:
                raise ProcessDied(is_recorded=False)
            commit = self._store.commit(changes)
        if len(plan.commits) == plan.at and plan.after:
            raise ProcessDied(is_recorded=True)
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

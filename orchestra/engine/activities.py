"""The activities that run on this node, and what they report.

Some belong to instances that this node owns. Others are *tasks*: activities of any instance that
this node has taken from the store.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Final, NamedTuple

from orchestra.codec import Packed, Payload
from orchestra.engine.messages import (
    STOPPED,
    AbortActivity,
    ActivityEnded,
    ActivityFailure,
    ActivityKey,
    Heartbeat,
    Outbox,
    PublishItems,
    RunActivity,
    StopActivity,
    ToShell,
)
from orchestra.engine.placement import FreePlaces
from orchestra.engine.sessions import Sessions
from orchestra.error_info import error_info
from orchestra.errors import HistoryCorrupt, NewerLibraryNeeded, StoreError
from orchestra.events import EVENTS, ActivityScheduled, EventForms, UnknownEvent, from_record
from orchestra.replay import Identity
from orchestra.sessions import ENTER, OPEN
from orchestra.store.changes import Publish, Report
from orchestra.store.routes import node_of
from orchestra.store.tasks import Task
from orchestra.telemetry import escaped, log_instance

__all__ = ["Activities", "Fence", "key_of"]


class Fence(NamedTuple):
    """The fence of an attempt: that of its task or, without a revision, of its instance's owner."""

    revision: int | None


_OF_SESSIONS: Final = frozenset({ENTER, OPEN})


class Activities:
    """Begins and ends attempts, and knows of each until its end is taken in.

    Args:
        outbox: what it tells the shell.
        queue: has a change committed with one of the next groups.
        sessions: the sessions on this node.
        blocking: the names of activities that need a thread.
        forms: what the library reads of histories.
    """

    def __init__(
        self,
        outbox: Outbox,
        queue: Callable[[Report], Any],
        sessions: Sessions,
        blocking: Collection[str] = (),
        forms: EventForms = EVENTS,
    ) -> None:
        self._forms = forms
        self._sessions = sessions
        self._outbox = outbox
        self._queue = queue
        self._blocking = blocking
        self._own = _OwnAttempts()
        self._tasks = _Tasks()
        self.unrecorded: dict[str, list[ActivityEnded | Heartbeat]] = {}
        """What activities of this node's instances have reported and no write has recorded, by
        instance.
        """
        self._postponed: list[ActivityEnded | Heartbeat | PublishItems] = []
        """Reports that the next step takes in."""

    def __len__(self) -> int:
        """How many attempts have begun here and not ended."""
        return len(self._own) + len(self._tasks) - self.open_sessions

    @property
    def open_sessions(self) -> int:
        """How many sessions are open here. Their activities take places, they themselves do not."""
        return len(self._own.sessions) + len(self._tasks.sessions)

    def free_places(self, instances: int, slots: int, threads: int) -> FreePlaces:
        """Return how much this node may take on.

        Args:
            instances: how many more instances it may own.
            slots: how many activities it may run, of which some run already.
            threads: how many threads it has for them.
        """
        # It looks into its parts itself: each cycle asks, and asking them would be four more calls.
        own, tasks = self._own, self._tasks
        opened = len(own.sessions) + len(tasks.sessions)
        return FreePlaces(
            instances,
            slots - own.count - len(tasks.taken) + opened,
            threads - len(own.blocking) - len(tasks.blocking),
            self._blocking,
            self._sessions.room(opened),
        )

    def clear(self) -> list[ToShell]:
        """Forget all attempts. Return the messages that abort them."""
        messages: list[ToShell] = [AbortActivity(key) for key in (*self._own, *self._tasks)]
        self._own.clear()
        self._tasks.clear()
        self._postponed.clear()
        self.unrecorded.clear()
        return messages

    # --- of this node's instances ---

    def begin(self, run: RunActivity) -> None:
        """Begin an attempt."""
        self._give_up_earlier(run.key)
        self._own.begin(run.key, run.attempt, blocks=run.name in self._blocking)
        if run.name in _OF_SESSIONS:
            self._run_here(run, self._own.sessions)
        else:
            self._outbox.add(run)

    def _run_here(self, run: RunActivity, opened: set[ActivityKey]) -> None:
        """Run an activity of the library itself. It needs no shell.

        Args:
            opened: gets the attempt if it is an open session.
        """
        if run.name == ENTER:
            result = self._sessions.enter(run, self.open_sessions)
            self._postponed.append(ActivityEnded(run.key, run.attempt, result))
        else:
            self._sessions.open(run)
            opened.add(run.key)

    def abort(self, key: ActivityKey) -> None:
        """Abort an attempt."""
        self._own.end(key)
        self._sessions.give_up(key)
        self._outbox.add(AbortActivity(key))

    def abort_begun(self, key: ActivityKey) -> None:
        """Abort an attempt that has lost its execution, if it runs here, as a task or not."""
        if self._own.attempt(key) is not None or self._tasks.drop(key) is not None:
            self.abort(key)

    def stop_begun(self, key: ActivityKey) -> None:
        """Ask a cancelled attempt to end, if it runs here, as a task or not."""
        if self._own.attempt(key) is not None:
            self._outbox.add(StopActivity(key))
        else:
            self.stop_task(key)

    def abort_all(self, instance_id: str, but: Container[ActivityKey] = ()) -> None:
        """Abort everything that runs for an instance."""
        for key, _ in self._own.of(instance_id):
            if key not in but:
                self.abort(key)

    def of(self, instance_id: str) -> list[tuple[ActivityKey, int]]:
        """Return the keys and attempts that run for an instance of this node."""
        return self._own.of(instance_id)

    def ended(self, report: ActivityEnded) -> None:
        """Take in that an attempt has ended."""
        if self._own.attempt(report.key) == report.attempt:
            self._own.end(report.key)

    def _give_up_earlier(self, key: ActivityKey) -> None:
        """Abort an earlier attempt of an activity that begins again.

        Another node has declared it lost, and this node has not learned it yet.
        """
        if self._tasks.drop(key) is not None or self._own.attempt(key) is not None:
            self.abort(key)

    def fence(self, key: ActivityKey, attempt: int) -> Fence | None:
        """Return the fence under which an attempt publishes; ``None``: it is no longer current."""
        if self._own.attempt(key) == attempt:
            return Fence(None)
        task = self._tasks.taken.get(key)
        return Fence(task.revision) if task is not None and task.attempt == attempt else None

    # --- their reports ---

    @property
    def has_postponed(self) -> bool:
        """Whether the next step has reports to take in."""
        return bool(self._postponed)

    def postpone(self, reports: Iterable[ActivityEnded | Heartbeat | PublishItems]) -> None:
        """Have the next step take in reports."""
        self._postponed.extend(reports)

    def take_postponed(self) -> list[ActivityEnded | Heartbeat | PublishItems]:
        """Return the postponed reports."""
        reports, self._postponed = self._postponed, []
        return reports

    def keep(self, report: ActivityEnded | Heartbeat) -> None:
        """Keep a report until a write has recorded it."""
        self.unrecorded.setdefault(report.key.instance_id, []).append(report)

    def unrecorded_ends(self, instance_id: str) -> tuple[ActivityEnded, ...]:
        """Return the attempts of an instance whose ends no write has recorded."""
        reports = self.unrecorded.get(instance_id, ())
        return tuple([report for report in reports if isinstance(report, ActivityEnded)])

    def forget_reports(self, instance_id: str) -> None:
        """Drop what was kept: it is recorded, or the instance is not this node's any longer.

        Reports of tasks stay, for a task is this node's in any case.
        """
        self.unrecorded.pop(instance_id, None)
        if self._postponed:
            self._postponed = [
                report
                for report in self._postponed
                if report.key.instance_id != instance_id or report.key in self._tasks.taken
            ]

    # --- tasks ---

    @property
    def has_tasks(self) -> bool:
        """Whether this node has taken any from the store."""
        return len(self._tasks) > 0

    def begin_task(self, task: Task, node: str, unknown: Container[str] = ()) -> None:
        """Begin a task, unless it runs already or is to end. If it cannot begin, it has failed.

        Args:
            node: this node's id.
            unknown: the instances whose last write has an unknown outcome.
        """
        key = key_of(task)
        if (
            self._tasks.revision(key) == task.revision
            or self.hand_over(task)
            or (task.instance_id in unknown and self._report_unrecorded(task, node))
        ):
            if task.stopping:
                self.stop_task(key)
            return
        self._give_up_earlier(key)
        self._tasks.take(task)
        if task.stopping:
            self._queue(_ended_report(task, node, STOPPED))
            return
        try:
            run = _run_task(task, self._forms)
            self._tasks.take(task, blocks=run.name in self._blocking)
            if run.name in _OF_SESSIONS:
                self._run_here(run, self._tasks.sessions)
            else:
                self._outbox.add(run)
        except NewerLibraryNeeded as error:
            self._queue(
                _ended_report(task, node, ActivityFailure(error_info(error), (), untried=True))
            )
        except Exception as error:  # noqa: BLE001 - a fault of one activity must not touch the others (I12)
            failure = ActivityFailure(error_info(error), (), non_retryable=True)
            self._queue(_ended_report(task, node, failure))

    def hand_over(self, task: Task) -> bool:
        """Go on with an own instance's attempt as a task. Return whether this very attempt runs
        here.
        """
        key = key_of(task)
        if self._own.attempt(key) != task.attempt:
            return False
        is_session = key in self._own.sessions
        self._tasks.take(task, blocks=self._own.end(key))
        if is_session:
            self._tasks.sessions.add(key)
        return True

    def _report_unrecorded(self, task: Task, node: str) -> bool:
        """Report a task that has ended as an own instance's attempt. Return whether it has.

        The write that made it a task has an unknown outcome, and was committed.
        """
        for ended in self.unrecorded_ends(task.instance_id):
            if ended.key == key_of(task) and ended.attempt == task.attempt:
                self._tasks.take(task)
                return self.report(ended, node)
        return False

    def stop_task(self, key: ActivityKey) -> None:
        """Ask a task with the stop mark to end, once. Its end is reported."""
        if self._tasks.ask(key):
            self._outbox.add(StopActivity(key))

    def compare_tasks(self, stored: Sequence[Task], node: str, unknown: Container[str]) -> None:
        """Match the tasks with those in the store (rule 13).

        Abort those that the store does not have, and begin those of which a lost reply told.

        Args:
            stored: the tasks that this node has by the store.
            node: this node's id.
            unknown: the instances whose last write has an unknown outcome.
        """
        for key in self._tasks.missing_from(stored):
            self._tasks.drop(key)
            self._outbox.add(AbortActivity(key))
        for task in stored:
            self.begin_task(task, node, unknown)

    def report(self, report: ActivityEnded | Heartbeat, node: str) -> bool:
        """Report to the store what a task has reported, once. Return whether it is a task."""
        if report.key not in self._tasks.taken:
            return False
        change = self._tasks.report(report, node)
        if change is not None:
            self._queue(change)
        return True

    def reported(self, report: Report) -> None:
        """Take in that the store has taken a report."""
        if report.is_end:
            self._tasks.drop(key_of(report))

    def report_refused(self, report: Report) -> None:
        """Take in that the store has refused a report.

        The task is not this node's any longer, or an earlier report arrived and its reply was lost.
        """
        key = key_of(report)
        if self._tasks.drop(key) is not None and not report.is_end:
            self._outbox.add(AbortActivity(key))

    def report_unstorable(self, report: Report, error: StoreError) -> None:
        """Take in that the store will never take a report. The task fails by that, unless it has
        failed anyway.
        """
        if report.result is not None:
            failure = ActivityFailure(error_info(error), (), non_retryable=True)
            self._queue(replace(report, result=None, failure=failure.to_bytes()))
            return
        task = self._tasks.drop(key_of(report))  # the next ownership check begins it once more
        if task is not None:
            code = Identity(
                task.instance_id, task.incarnation, task.execution, task.orchestration, task.version
            )
            log_instance(
                logging.ERROR,
                code,
                "the store will not take the report of an activity: %s",
                escaped(str(error)),
            )


class _OwnAttempts:
    """The running attempts of each instance that this node owns, and which of them need a
    thread.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, dict[ActivityKey, int]] = {}
        self.count = 0
        self.blocking: set[ActivityKey] = set()
        self.sessions: set[ActivityKey] = set()
        """The open sessions among them."""

    def __len__(self) -> int:
        return self.count

    def begin(self, key: ActivityKey, attempt: int, *, blocks: bool = False) -> None:
        """Add an attempt that has begun."""
        keys = self._attempts.setdefault(key.instance_id, {})
        self.count += key not in keys
        keys[key] = attempt
        if blocks:
            self.blocking.add(key)

    def end(self, key: ActivityKey) -> bool:
        """Remove an attempt. Return whether it needed a thread."""
        keys = self._attempts.get(key.instance_id, {})
        self.count -= keys.pop(key, None) is not None
        if not keys:
            self._attempts.pop(key.instance_id, None)
        blocked = key in self.blocking
        self.blocking.discard(key)
        self.sessions.discard(key)
        return blocked

    def attempt(self, key: ActivityKey) -> int | None:
        """Return the number of an activity's attempt, if one runs."""
        return self._attempts.get(key.instance_id, {}).get(key)

    def of(self, instance_id: str) -> list[tuple[ActivityKey, int]]:
        """Return the attempts that run for an instance."""
        return list(self._attempts.get(instance_id, {}).items())

    def __iter__(self) -> Iterator[ActivityKey]:
        return iter([key for keys in self._attempts.values() for key in keys])

    def clear(self) -> None:
        """Remove all attempts."""
        self._attempts.clear()
        self.blocking.clear()
        self.sessions.clear()
        self.count = 0


class _Tasks:
    """The tasks that this node has taken from the store and not handed back."""

    def __init__(self) -> None:
        self.taken: dict[ActivityKey, Task] = {}
        self.blocking: set[ActivityKey] = set()
        self.sessions: set[ActivityKey] = set()
        """The open sessions among them."""
        self._reporting: set[ActivityKey] = set()
        self._asked: set[ActivityKey] = set()
        """The tasks that were asked to end."""

    def __len__(self) -> int:
        return len(self.taken)

    def __iter__(self) -> Iterator[ActivityKey]:
        return iter(list(self.taken))

    def revision(self, key: ActivityKey) -> int | None:
        """Return the fence under which this node has a task, if it has it."""
        task = self.taken.get(key)
        return None if task is None else task.revision

    def take(self, task: Task, *, blocks: bool = False) -> None:
        """Add a task, and note whether it needs a thread."""
        key = key_of(task)
        self.taken[key] = task
        if blocks:
            self.blocking.add(key)

    def report(self, report: ActivityEnded | Heartbeat, node: str) -> Report | None:
        """Return the change that reports an attempt to the store; ``None`` if this is another
        attempt, or was reported already.
        """
        task = self.taken.get(report.key)
        if task is None or task.attempt != report.attempt or report.key in self._reporting:
            return None
        if isinstance(report, Heartbeat):
            return _report(task, node, None, None, report.payload)
        self._reporting.add(report.key)
        return _ended_report(task, node, report.result, report.heartbeat)

    def ask(self, key: ActivityKey) -> bool:
        """Note that a task is to end. Return whether to ask it now: it runs, and was not asked
        before.
        """
        if key not in self.taken or key in self._asked or key in self._reporting:
            return False
        self._asked.add(key)
        return True

    def drop(self, key: ActivityKey) -> Task | None:
        """Remove a task that was handed back, or taken away."""
        self._reporting.discard(key)
        self._asked.discard(key)
        self.blocking.discard(key)
        self.sessions.discard(key)
        return self.taken.pop(key, None)

    def missing_from(self, stored: Iterable[Task]) -> list[ActivityKey]:
        """Return the tasks that run here and are not in the store any longer."""
        valid = {(key_of(task), task.revision) for task in stored}
        return [
            key
            for key, task in self.taken.items()
            if (key, task.revision) not in valid and key not in self._reporting
        ]

    def clear(self) -> None:
        """Remove all tasks."""
        self.taken.clear()
        self._reporting.clear()
        self._asked.clear()
        self.blocking.clear()
        self.sessions.clear()


def key_of(task: Task | Report | Publish) -> ActivityKey:
    """Return the key of a task's activity."""
    return ActivityKey(task.instance_id, task.incarnation, task.execution, task.event_id)


def _run_task(task: Task, forms: EventForms) -> RunActivity:
    """Return the message that begins a task.

    Raises:
        HistoryCorrupt: the event that scheduled it cannot be read.
        NewerLibraryNeeded: a newer library has written the event.
    """
    event = from_record(task.scheduled, forms)
    if isinstance(event, UnknownEvent):
        raise NewerLibraryNeeded(
            f"event {event.id} has an {event.what}", instance_id=task.instance_id
        )
    if not isinstance(event, ActivityScheduled):
        raise HistoryCorrupt(
            f"event {event.id} of {task.instance_id!r} asks for no activity", event_id=event.id
        )
    return RunActivity(
        key=key_of(task),
        name=event.name,
        arguments=event.arguments,
        attempt=task.attempt,
        timeout=event.timeout,
        heartbeat_timeout=event.heartbeat_timeout,
        last_heartbeat=task.heartbeat,
        orchestration=task.orchestration,
        version=task.version,
        traceparent=task.traceparent,
        session=node_of(event.queue),
    )


def _ended_report(
    task: Task, node: str, result: Payload | ActivityFailure, heartbeat: Payload | None = None
) -> Report:
    """Return the change that reports an ended attempt."""
    if isinstance(result, ActivityFailure):
        return _report(task, node, None, result.to_bytes(), heartbeat)
    return _report(task, node, result, None, heartbeat)


def _report(
    task: Task, node: str, result: Payload | None, failure: Packed | None, heartbeat: Payload | None
) -> Report:
    key = key_of(task)
    return Report(*key, task.revision, node, result, failure, heartbeat)

"""The activities that run on this node, of its own instances and of others', and what they
report.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Container, Iterable, Sequence
from dataclasses import replace

from orchestra.engine.in_flight import InFlightWrites
from orchestra.engine.messages import (
    AbortActivity,
    ActivityEnded,
    ActivityFailure,
    ActivityKey,
    Heartbeat,
    RunActivity,
    StopActivity,
    ToShell,
)
from orchestra.engine.outbox import Outbox
from orchestra.engine.places import Places
from orchestra.engine.running import RunningActivities
from orchestra.engine.tasks import STOPPED, Tasks, ended_report, failure_to_bytes, key_of, run_task
from orchestra.error_info import error_info
from orchestra.errors import NewerLibraryNeeded, StoreError
from orchestra.events import EVENTS, EventForms
from orchestra.replay import Identity
from orchestra.store.changes import Report
from orchestra.store.tasks import Task
from orchestra.telemetry import escaped, log_instance

__all__ = ["Activities"]


class Activities:
    """Begins and aborts tries, and knows of each until its end is taken in.

    Those of instances that this node owns are asked for by their steps; *tasks* are activities of
    anybody's instances that this node has taken from the store.

    Args:
        effects: where it tells the shell what to do.
        flights: where it tells the store what has become of tasks.
        blocking: the names of activities that need a thread.
        forms: what the library reads of histories.
    """

    def __init__(
        self,
        outbox: Outbox,
        in_flight: InFlightWrites,
        blocking: Collection[str] = (),
        forms: EventForms = EVENTS,
    ) -> None:
        self._forms = forms
        self._outbox = outbox
        self._in_flight = in_flight
        self._blocking = blocking
        self._own = RunningActivities()
        self._tasks = Tasks()
        self._reports: list[ActivityEnded | Heartbeat] = []
        """What cannot be taken in yet, and comes once more at the next step."""

    def __len__(self) -> int:
        """How many have been begun and not reported."""
        return len(self._own) + len(self._tasks)

    def places(self, slots: int, threads: int) -> Places:
        """Return how many of so many slots and threads are free, once everything has begun that is
        promised.
        """
        # It looks into its parts itself: each step asks, and asking them would be six calls more.
        own, tasks, in_flight = self._own, self._tasks, self._in_flight
        free = slots - own._count - len(tasks._taken) - in_flight.promised
        free_threads = (
            threads - len(own._blocking) - len(tasks._blocking) - in_flight.promised_threads
        )
        return Places(free, free_threads, self._blocking)

    def clear(self) -> list[ToShell]:
        """Forget everything. Return what makes an end of what runs."""
        outbox: list[ToShell] = [AbortActivity(key) for key in (*self._own, *self._tasks)]
        self._own.clear()
        self._tasks.clear()
        self._reports.clear()
        return outbox

    # --- of the node's own instances ---

    def begin(self, run: RunActivity) -> None:
        """Begin a try of an activity of an own instance."""
        self._give_up_earlier(run.key)
        self._own.begin(run.key, run.attempt, blocks=run.name in self._blocking)
        self._outbox.add(run)

    def abort(self, key: ActivityKey) -> None:
        """Want a try of an activity of an own instance no more."""
        self._own.end(key)
        self._outbox.add(AbortActivity(key))

    def abort_begun(self, key: ActivityKey) -> None:
        """Give up a try that has lost its execution, if it runs here: for an own instance, or as a
        task.
        """
        if self._own.attempt(key) is not None or self._tasks.drop(key) is not None:
            self.abort(key)

    def stop_begun(self, key: ActivityKey) -> None:
        """Ask a try to end whose end is waited for, if it runs here: for an own instance, or as a
        task.
        """
        if self._own.attempt(key) is not None:
            self._outbox.add(StopActivity(key))
        else:
            self.stop_task(key)

    def abort_all(self, instance_id: str, but: Container[ActivityKey] = ()) -> None:
        """Want nothing any more that runs for an instance."""
        for key, _ in self._own.of(instance_id):
            if key not in but:
                self.abort(key)

    def of(self, instance_id: str) -> list[tuple[ActivityKey, int]]:
        """Return what runs for an own instance: keys, and which attempt it is."""
        return self._own.of(instance_id)

    def ended(self, message: ActivityEnded) -> None:
        """Take note that a try of an own instance's activity has ended."""
        if self._own.attempt(message.key) == message.attempt:
            self._own.end(message.key)

    def _give_up_earlier(self, key: ActivityKey) -> None:
        """Give up an earlier try of an activity that is to begin: it was lost by a node that has
        not found out yet.
        """
        if self._tasks.drop(key) is not None or self._own.attempt(key) is not None:
            self.abort(key)

    # --- reports that have to wait ---

    @property
    def has_reports(self) -> bool:
        """Whether something waits to be taken in."""
        return bool(self._reports)

    def keep(self, reports: Iterable[ActivityEnded | Heartbeat]) -> None:
        """Keep what cannot be taken in yet for the next step."""
        self._reports.extend(reports)

    def keep_unrecorded(self, reports: Iterable[ActivityEnded | Heartbeat]) -> None:
        """Keep what was taken in and may not have been recorded. Until that is known, the tries
        count as running still.
        """
        for message in reports:
            if isinstance(message, ActivityEnded):
                self._own.begin(message.key, message.attempt)
            self._reports.append(message)

    def drop_reports(self, instance_id: str) -> None:
        """Drop what was kept for an instance that is not this node's any more; tasks of it are this
        node's all the same.
        """
        kept: list[ActivityEnded | Heartbeat] = []
        for message in self._reports:
            if message.key.instance_id != instance_id or self._tasks.has(message.key):
                kept.append(message)
            elif isinstance(message, ActivityEnded):
                self._own.end(message.key)
        self._reports = kept

    def take_reports(self) -> list[ActivityEnded | Heartbeat]:
        """Return what was kept, to be taken in."""
        reports, self._reports = self._reports, []
        return reports

    # --- tasks ---

    @property
    def has_tasks(self) -> bool:
        """Whether this node has taken any from the store."""
        return len(self._tasks) > 0

    def begin_task(self, task: Task, node: str) -> None:
        """Begin a task, unless it runs already or is to end. If it cannot be begun, it has
        failed.
        """
        key = key_of(task)
        if self._tasks.revision(key) == task.revision or self.hand_over(task):
            if task.stopping:
                self.stop_task(key)
            return
        self._give_up_earlier(key)
        self._tasks.take(task)
        if task.stopping:
            self._in_flight.queue(ended_report(task, node, STOPPED))
            return
        try:
            run = run_task(task, self._forms)
            self._tasks.take(task, blocks=run.name in self._blocking)
            self._outbox.add(run)
        except NewerLibraryNeeded as error:
            self._in_flight.queue(
                ended_report(task, node, ActivityFailure(error_info(error), (), untried=True))
            )
        except Exception as error:  # noqa: BLE001 - whatever is wrong with one activity must not touch the others (I12)
            self._in_flight.queue(
                ended_report(task, node, ActivityFailure(error_info(error), (), non_retryable=True))
            )

    def hand_over(self, task: Task) -> bool:
        """Go on with a try of an own instance that was given up, as a task. Return whether this
        very try runs here.
        """
        key = key_of(task)
        if self._own.attempt(key) != task.attempt:
            return False
        self._tasks.take(task, blocks=self._own.end(key))
        return True

    def stop_task(self, key: ActivityKey) -> None:
        """Ask a task to end that has the stop mark, once. Its end is reported."""
        if self._tasks.ask(key):
            self._outbox.add(StopActivity(key))

    def compare_tasks(self, stored: Sequence[Task], node: str) -> None:
        """Give up what nobody wants any more, and take up what a lost reply has not told of (rule
        13).
        """
        for key in self._tasks.missing_from(stored):
            self._tasks.drop(key)
            self._outbox.add(AbortActivity(key))
        for task in stored:
            self.begin_task(task, node)

    def report(self, message: ActivityEnded | Heartbeat, node: str) -> bool:
        """Report to the store what a task has, once. Return whether it is one."""
        if not self._tasks.has(message.key):
            return False
        report = self._tasks.report(message, node)
        if report is not None:
            self._in_flight.queue(report)
        return True

    def reported(self, report: Report) -> None:
        """Take note that the store has taken a report."""
        if report.is_end:
            self._tasks.drop(key_of(report))

    def report_refused(self, report: Report) -> None:
        """Take note that nobody wants a task any more, or that an earlier report has arrived whose
        reply was lost.
        """
        key = key_of(report)
        if self._tasks.drop(key) is not None and not report.is_end:
            self._outbox.add(AbortActivity(key))

    def report_unstorable(self, report: Report, error: StoreError) -> None:
        """Take note that the store will never take a report: the task has failed by that, if it has
        not failed anyway.
        """
        if report.result is not None:
            failure = ActivityFailure(error_info(error), (), non_retryable=True)
            self._in_flight.queue(replace(report, result=None, failure=failure_to_bytes(failure)))
            return
        task = self._tasks.drop(key_of(report))  # the next inventory takes it up once more
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

"""Activities that are handed out: which ones, by which route, and those of others that this node
has taken.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from orchestra.codec import Packed, Payload, pack_value, unpack
from orchestra.engine.messages import (
    ActivityEnded,
    ActivityFailure,
    ActivityKey,
    Heartbeat,
    RunActivity,
)
from orchestra.engine.places import Places
from orchestra.errors import ErrorInfo, HistoryCorrupt, NewerLibraryNeeded
from orchestra.events import (
    EVENTS,
    ActivityScheduled,
    EventForms,
    UnknownEvent,
    error_from_wire,
    error_to_wire,
    from_record,
)
from orchestra.replay.execution import ACTIVITY_CANCELLED
from orchestra.store.catalogue import Catalogue, NodeRecord
from orchestra.store.changes import Report
from orchestra.store.routes import Route
from orchestra.store.tasks import LOST, ActivityRow, Task
from orchestra.telemetry import engine_logger

__all__ = [
    "CRASHED",
    "STOPPED",
    "Placement",
    "Tasks",
    "ended_report",
    "failure_to_bytes",
    "how_it_ended",
    "key_of",
    "run_task",
]

CRASHED: Final = ErrorInfo("orchestra.NodeLost", "the node that ran it was lost")
STOPPED: Final = ActivityFailure(ACTIVITY_CANCELLED, (ACTIVITY_CANCELLED.type,), non_retryable=True)
"""How a cancelled try ends that was not begun, or that says nothing else."""


class Placement:
    """Decides which activities of its instances a node runs itself: those that it has, while it has
    a place free.

    What it has, and nobody else, waits here for a place: to hand it out would only make it slower.
    """

    def __init__(self, node: NodeRecord) -> None:
        self._own = frozenset(node.routes)
        self._own_code = dict(node.fingerprints)
        self._others: frozenset[Route] = frozenset()
        self._missed: dict[Route, bool] = {}
        """What was handed out and nobody had, and whether that was said."""

    def refresh(self, catalogue: Catalogue, node_id: str) -> None:
        """Take in what the other nodes have, and say once of each route that nobody serves it."""
        others = (row.record for row in catalogue.nodes if row.record.node_id != node_id)
        self._others = frozenset(route for record in others for route in record.routes)
        for route, was_said in list(self._missed.items()):
            if route in self._others:
                del self._missed[route]
            elif not was_said:
                self._missed[route] = True
                # It looks like an instance that hangs.
                engine_logger.warning(
                    "no living node has activity %r and serves queue %r; it waits in the store "
                    "for one. Give it to Runtime(activities=..., queues=...)",
                    route.activity,
                    route.queue,
                )

    def hands_out(self, route: Route, places: Places) -> bool:
        """Return whether an activity is to go through the store, this node having these places
        free.
        """
        if route in self._own:
            return route in self._others and not places.has_one_for(route.activity)
        if route not in self._others:
            self._missed.setdefault(
                route, False
            )  # perhaps by a node that has come within the last second
        return True

    def reader(self, route: Route, unread: Collection[str]) -> Route | None:
        """Return by which route an activity goes on whose arguments some code cannot read: this one
        where it may run here.

        Args:
            unread: the fingerprints of that code.
        """
        own = self._own_code.get(route.activity)
        if route in self._own and own is not None and own not in unread:
            return route
        wanted = route.queue, route.activity, route.format
        others = (
            other for other in self._others if (other.queue, other.activity, other.format) == wanted
        )
        able = sorted(
            other
            for other in others
            if other.fingerprint is not None and other.fingerprint not in unread
        )
        return able[0] if able else None

    def is_served(self, route: Route) -> bool:
        """Return whether another node takes what is handed out by a route."""
        return route in self._others


class Tasks:
    """What this node has taken from the store, and not handed back."""

    def __init__(self) -> None:
        self._taken: dict[ActivityKey, Task] = {}
        self._blocking: set[ActivityKey] = set()
        self._reporting: set[ActivityKey] = set()
        self._asked: set[ActivityKey] = set()
        """Those that were asked to end."""

    def __len__(self) -> int:
        return len(self._taken)

    def __iter__(self) -> Iterator[ActivityKey]:
        return iter(list(self._taken))

    def revision(self, key: ActivityKey) -> int | None:
        """Return the fence under which this node has an activity, if it has it."""
        task = self._taken.get(key)
        return None if task is None else task.revision

    def take(self, task: Task, *, blocks: bool = False) -> None:
        """Take up a task, and note whether it needs a thread."""
        key = key_of(task)
        self._taken[key] = task
        if blocks:
            self._blocking.add(key)

    def report(self, message: ActivityEnded | Heartbeat, node: str) -> Report | None:
        """Return what the store is to be told of a try; ``None`` where it is no task of this node,
        or not any more.
        """
        task = self._taken.get(message.key)
        if task is None or task.attempt != message.attempt or message.key in self._reporting:
            return None
        if isinstance(message, Heartbeat):
            return _report(task, node, None, None, message.payload)
        self._reporting.add(message.key)
        return ended_report(task, node, message.result, message.heartbeat)

    def ask(self, key: ActivityKey) -> bool:
        """Take note that a task is to end. Return whether it is to be asked now: it was not asked
        before, and has not ended.
        """
        if key not in self._taken or key in self._asked or key in self._reporting:
            return False
        self._asked.add(key)
        return True

    def has(self, key: ActivityKey) -> bool:
        """Whether an activity is a task of this node."""
        return key in self._taken

    def drop(self, key: ActivityKey) -> Task | None:
        """Forget a task that was handed back, or taken away."""
        self._reporting.discard(key)
        self._asked.discard(key)
        self._blocking.discard(key)
        return self._taken.pop(key, None)

    def missing_from(self, stored: Iterable[Task]) -> list[ActivityKey]:
        """Return the tasks that run here and are not in the store any more: nobody wants them."""
        wanted = {(key_of(task), task.revision) for task in stored}
        return [
            key
            for key, task in self._taken.items()
            if (key, task.revision) not in wanted and key not in self._reporting
        ]

    def clear(self) -> None:
        """Forget all of it."""
        self._taken.clear()
        self._reporting.clear()
        self._asked.clear()
        self._blocking.clear()


def key_of(task: Task | Report) -> ActivityKey:
    """Return which activity this is."""
    return ActivityKey(task.instance_id, task.incarnation, task.execution, task.event_id)


def run_task(task: Task, forms: EventForms = EVENTS) -> RunActivity:
    """Return what the shell is to do for a task.

    Raises:
        HistoryCorrupt: the event that asked for it cannot be read.
        NewerLibraryNeeded: a newer library has written it.
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
    )


def ended_report(
    task: Task, node: str, result: Payload | ActivityFailure, heartbeat: Payload | None = None
) -> Report:
    """Return what the store is to be told of a try that has ended."""
    if isinstance(result, ActivityFailure):
        return _report(task, node, None, failure_to_bytes(result), heartbeat)
    return _report(task, node, result, None, heartbeat)


def how_it_ended(row: ActivityRow) -> Payload | ActivityFailure:
    """Return how a try has ended that was handed out."""
    if row.result is not None:
        return row.result
    assert row.failure is not None
    if row.failure == LOST:
        return ActivityFailure(CRASHED, (CRASHED.type,))
    known = unpack(row.failure)
    return ActivityFailure(
        error_from_wire(known["error"]),
        tuple(known["types"]),
        known["final"],
        known["untried"],
        known.get("unread"),
    )


def failure_to_bytes(failure: ActivityFailure) -> Packed:
    """Return the stored form of a failed try."""
    return pack_value(
        {
            "error": error_to_wire(failure.error),
            "types": list(failure.type_names),
            "final": failure.non_retryable,
            "untried": failure.untried,
            "unread": failure.unread,
        }
    )


def _report(
    task: Task, node: str, result: Payload | None, failure: Packed | None, heartbeat: Payload | None
) -> Report:
    key = key_of(task)
    return Report(*key, task.revision, node, result, failure, heartbeat)

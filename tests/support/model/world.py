"""What the model remembers: instances, nodes and policies, in plain dictionaries."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from orchestra.clock import Clock
from orchestra.codec import Payload
from orchestra.events import EventRecord, OnParentClose
from orchestra.levels import Levels, Unknown
from orchestra.store.catalogue import Catalogue, NodeRecord, NodeRow, PolicyRow
from orchestra.store.executions import ExecutionRow
from orchestra.store.instances import CRASHES_BEFORE_DELAY, LONGEST_DELAY, InstanceRow
from orchestra.store.kinds import Dialect, MessageKind, Status
from orchestra.store.messages import InboxPage, MessageRow
from orchestra.store.queries import InstanceRecord
from orchestra.store.requests import RequestRow
from orchestra.store.routes import Kind, Route
from orchestra.store.schedules import ScheduleRow, SlotKey, SlotRow
from orchestra.store.snapshots import Snapshot
from orchestra.store.tasks import ActivityRow
from tests.support.model.ages import read, read_execution, read_message, read_row
from tests.support.model.streams import ModelStream

SENT = (MessageKind.EVENT, MessageKind.REQUEST)

Operation = tuple[str, str, str, Mapping[str, Any]]
"""An entry of the audit: who did what to which subject, and the details."""


@dataclass(frozen=True, slots=True)
class ModelInstance:
    """All that belongs to one instance."""

    row: InstanceRow
    request_id: str
    created_at: int
    updated_at: int
    created_by: str
    labels: Mapping[str, str]
    executions: Mapping[int, ExecutionRow]
    status: Status | Unknown = Status.OPEN
    held: bool = False
    summary: bytes = b""
    custom_status: Payload | None = None
    cancel_sequence: int = 0
    events: Mapping[int, tuple[EventRecord, ...]] = field(
        default_factory=dict[int, tuple[EventRecord, ...]]
    )
    messages: tuple[MessageRow, ...] = ()
    tombstones: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    activities: Mapping[tuple[int, int], ActivityRow] = field(
        default_factory=dict[tuple[int, int], ActivityRow]
    )
    aside: tuple[MessageRow, ...] = ()
    unread_at_end: Mapping[str, int] = field(default_factory=dict[str, int])
    expires_at: int | None = None
    on_parent_close: OnParentClose = OnParentClose.ABANDON
    schedule: tuple[str, int] | None = None
    requests: Mapping[str, RequestRow] = field(default_factory=dict[str, RequestRow])
    streams: Mapping[str, ModelStream] = field(default_factory=dict[str, ModelStream])

    @property
    def unread_events(self) -> tuple[MessageRow, ...]:
        return tuple(message for message in self.messages if message.kind is MessageKind.EVENT)

    @property
    def sent(self) -> tuple[MessageRow, ...]:
        """What senders have sent: events, and requests that are open."""
        return tuple(message for message in self.messages if message.kind in SENT)

    def is_claimable(self) -> bool:
        return (
            self.row.owner is None
            and not self.held
            and self.status is Status.OPEN
            and self.row.wake_at is not None
        )

    def snapshot(self, dialect: Dialect, page: InboxPage = InboxPage()) -> Snapshot:  # noqa: B008 - it is immutable
        number = self.row.execution
        activities = tuple(
            self.activities[key] for key in sorted(self.activities) if key[0] == number
        )
        found, whole_to = page_of(self.messages, self.row.inbox_seq, page)
        messages = tuple(read_message(message, dialect) for message in found)
        execution = read_execution(self.executions[number], dialect)
        return Snapshot(
            read_row(self.row, dialect), execution, messages, activities, whole_to, self.summary
        )

    def record(self, dialect: Dialect) -> InstanceRecord:
        return InstanceRecord(
            row=read_row(self.row, dialect),
            held=self.held,
            status=read(self.status, dialect.library.statuses),
            execution=read_execution(self.executions[self.row.execution], dialect),
            summary=self.summary,
            custom_status=self.custom_status,
            created_at=self.created_at,
            updated_at=self.updated_at,
            created_by=self.created_by,
            unread_messages=len(self.sent),
            unread_at_end=self.unread_at_end,
            labels=self.labels,
            activities=tuple(self.activities[key] for key in sorted(self.activities)),
            expires_at=self.expires_at,
            reports=tuple(
                sorted(
                    message.source
                    for message in self.messages
                    if message.kind not in (*SENT, MessageKind.BACKGROUND_CHILD_ENDED)
                )
            ),
            set_aside=len(self.aside),
            unread_by_name=dict(self.names[:16]),
            schedule=self.schedule,
        )

    @property
    def names(self) -> list[tuple[str, int]]:
        counted = Counter(message.name for message in (*self.sent, *self.aside))
        return sorted(counted.items(), key=lambda named: (-named[1], named[0]))


def page_of(
    messages: Sequence[MessageRow], up_to: int, page: InboxPage, at_least: int = 0
) -> tuple[tuple[MessageRow, ...], int]:
    """Return all ends of children, the first events and requests that fit, and up to which number these are all
    there are.
    """
    events = [message for message in messages if message.kind in SENT]
    fitting = 0
    while fitting < len(events):
        size = sum(len(message.payload.data) for message in events[: fitting + 1])
        if fitting >= at_least and (fitting >= page.messages or size > page.bytes):
            break
        fitting += 1
    whole_to = up_to if fitting == len(events) else events[fitting].sequence - 1
    beyond = events[fitting:]
    return tuple(message for message in messages if message not in beyond), whole_to


def ring(row: InstanceRow, now: int, ready: int = 0) -> InstanceRow:
    """Take note of an arrival and make the instance ready."""
    if (
        not row.opened
        and row.cancel is None
        and row.not_before is not None
        and now < row.not_before
    ):
        ready = max(ready, row.not_before)  # a delayed start waits for its time
    wake_at = ready if row.wake_at is None else min(row.wake_at, ready)
    if (
        row.takeovers >= CRASHES_BEFORE_DELAY
        and row.owner is None
        and row.wake_at is not None
        and row.wake_at > now
    ):
        wake_at = min(row.wake_at, now + LONGEST_DELAY)
    return replace(row, inbox_seq=row.inbox_seq + 1, wake_at=wake_at)


@dataclass(slots=True)
class ModelWorld:
    """What a file or a server is to a real provider: several providers may share one."""

    instances: dict[str, ModelInstance] = field(default_factory=dict[str, ModelInstance])
    nodes: dict[str, NodeRow] = field(default_factory=dict[str, NodeRow])
    policies: dict[str, PolicyRow] = field(default_factory=dict[str, PolicyRow])
    policy_log: tuple[PolicyRow, ...] = ()
    """All policies that were ever set, the oldest first."""
    kinds: dict[Kind, None] = field(default_factory=dict[Kind, None])
    expiries: dict[str, int] = field(default_factory=dict[str, int])
    levels: Levels = Levels()  # noqa: RUF009 - it is immutable
    operations: tuple[tuple[int, Operation], ...] = ()
    """What operators did: the audit, the oldest first."""
    seen: dict[tuple[str, str, str], tuple[int, str, int, str]] = field(
        default_factory=dict[tuple[str, str, str], tuple[int, str, int, str]]
    )
    """When and where the code of a version was seen first and last."""
    schedules: dict[str, ScheduleRow] = field(default_factory=dict[str, ScheduleRow])
    slots: dict[str, dict[SlotKey, SlotRow]] = field(
        default_factory=dict[str, dict[SlotKey, SlotRow]]
    )
    running: set[str] = field(default_factory=set[str])
    writes: Counter[int] = field(default_factory=Counter[int])
    now: int = 0
    guard: threading.RLock = field(default_factory=threading.RLock)

    @contextmanager
    def transaction(self, writer: object, clock: Clock) -> Generator[int]:
        """Run the body, all or nothing, at the instant that is given to it."""
        with self.guard:
            before = (
                dict(self.instances),
                dict(self.nodes),
                dict(self.policies),
                dict(self.kinds),
                dict(self.expiries),
            )
            levels, policy_log, seen = self.levels, self.policy_log, dict(self.seen)
            operations = self.operations
            schedules = dict(self.schedules), dict(self.slots)
            self.now = self.time(clock)
            try:
                yield self.now
            except BaseException:
                self.instances, self.nodes, self.policies, self.kinds, self.expiries = before
                self.levels, self.policy_log, self.seen = levels, policy_log, seen
                self.operations = operations
                self.schedules, self.slots = schedules
                raise
            self.writes[id(writer)] += 1

    def see(self, node: NodeRecord, now: int) -> None:
        """Note the code that a node has."""
        for name, version in {(has.name, has.version) for has in node.capabilities}:
            code = [
                has.fingerprint
                for has in node.capabilities
                if (has.name, has.version) == (name, version)
            ][-1]
            first, where, last, _ = self.seen.get(
                (name, version, code), (now, node.node_id, now, node.node_id)
            )
            self.seen[name, version, code] = first, where, max(last, now), node.node_id

    def record(self, by: str, action: str, subject: str, detail: Mapping[str, Any]) -> None:
        """Leave an entry in the audit."""
        self.operations += ((self.now, (by, action, subject, dict(detail))),)

    def time(self, clock: Clock) -> int:
        """Return the time: it follows the clock, and stands still where that goes back by less than
        50 ms.
        """
        moment = clock.now()
        return self.now if self.now - 50_000 <= moment < self.now else moment

    def catalogue(self, clock: Clock, dialect: Dialect) -> Catalogue:
        """Return it as of now, and not as of the last write."""
        with self.guard:
            nodes = tuple(
                self.nodes[node_id]
                for node_id in sorted(self.nodes)
                if not self.nodes[node_id].dead
            )
            levels = dialect.heard(self.levels)
            return Catalogue(
                self.time(clock),
                nodes,
                dict(self.policies),
                tuple(self.kinds),
                levels,
                dialect.library,
                self._waiting_sessions(),
            )

    def _waiting_sessions(self) -> tuple[Route, ...]:
        routes = {
            activity.route
            for instance in self.instances.values()
            for activity in instance.activities.values()
            if activity.is_waiting and activity.route is not None
        }
        return tuple(sorted(route for route in routes if route.queue[:1] == "\x1e"))

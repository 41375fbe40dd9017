"""Random groups of changes, given to a provider and to the model: all that can be seen must be the
same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Final, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as some
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from orchestra.clock import Clock
from orchestra.codec import Packed, Payload, UserText
from orchestra.errors import StoreError
from orchestra.events import OnParentClose
from orchestra.store.changes import (
    Append,
    Cancel,
    Change,
    ChildCancel,
    ChildStart,
    Claim,
    IfEnded,
    Publish,
    Recover,
    Release,
    Report,
    Resume,
    ScheduleAct,
    ScheduleWrite,
    Send,
    Start,
    Steps,
    Stop,
    Suspend,
)
from orchestra.store.executions import (
    Closing,
    ExecutionDelta,
    ExecutionRow,
    Opening,
    Prune,
    Retargeting,
)
from orchestra.store.inbox_limits import InboxLimits, Waiting
from orchestra.store.instances import (
    CancelMark,
    HeldPage,
    InstanceRow,
    Nudge,
    OperatorHold,
    ParentLink,
    Pin,
)
from orchestra.store.kinds import THIS_LIBRARY, ExecutionEnd, HoldKind, Status
from orchestra.store.messages import Aside, MessageRow
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery, InstanceRecord, Order, Standing, Target
from orchestra.store.requests import RequestAnswer
from orchestra.store.routes import Kind, Route, node_queue, session_route
from orchestra.store.schedules import BACKFILLED, TRIGGERED, EndedRun, SlotKey, message_id_of
from orchestra.store.streams import UNBOUNDED, Bounds, Page, Published, journal_of
from orchestra.store.tasks import ActivityRow
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.schedules import a_row, a_slot
from tests.support.contract.shorthand import (
    FOREIGN_KIND,
    KIND,
    OTHER_KIND,
    POLICY,
    SECOND,
    TRACEPARENT,
    a_hold,
    a_node,
    a_start,
    a_state,
    a_write,
    an_append,
    an_event,
    an_execution,
)
from tests.support.examples import examples
from tests.support.model import ModelProvider

T = TypeVar("T")

_SLOW: Final = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)
"""What hypothesis would complain of, and what a real store's openings bring with them."""

_WINDOW: Final = 3600 * SECOND
_INSTANCES: Final = ("a", "b", "c", "late")
"""The last one is not started at first, so that a group may make it."""
_SCHEDULES: Final = ("s", "p")
_CAUSES: Final = ("slot", "slot", TRIGGERED, BACKFILLED)
_NODES: Final = ("n1", "n2", "n3")
_KINDS: Final = (KIND, OTHER_KIND, FOREIGN_KIND)
_ROUTES: Final = (
    Route("default", "probe"),
    Route("slow", "probe"),
    session_route("default", ["probe", "other"]),
    Route(node_queue("n1"), "probe"),
    Route(node_queue("n2"), "probe"),
)
_SELECTIONS: Final = (
    InstanceQuery(held=True, unserved=(OTHER_KIND,), unserved_routes=_ROUTES),
    InstanceQuery(held=False, unserved_routes=_ROUTES[:1]),
    InstanceQuery(holds=(HoldKind.STATE, HoldKind.ACTIVITY_MISSING), unserved_routes=_ROUTES),
    InstanceQuery(holds=(HoldKind.CRASHING,)),
    InstanceQuery(targets=(Target((KIND,)),), overdue=False),
    InstanceQuery(targets=(Target((KIND,), "1.1.0", wanted=False),), pinned=False),
    InstanceQuery(unserved=(OTHER_KIND,), unserved_routes=_ROUTES[:1]),
)
_GROUPS: Final = ("name", "version", "queue", "status", "held", "label:team")
_instances = some.sampled_from(_INSTANCES)
_nodes = some.sampled_from(_NODES)
_kinds = some.sampled_from(_KINDS)
_traceparents = some.sampled_from((None, TRACEPARENT))
_labels = some.sampled_from(
    ((), (), (), (("team", "red"),), (("team", None), ("x", "")), (("team", "blue"), ("x", None)))
)
_sends = some.integers(4, 7)
_mostly = some.sampled_from((True, True, True, True, False))


_ACTS: Final = (
    Nudge(1, 5, "boundary due", UserText("late")),
    Nudge(2, 6, "boundary due", UserText("later")),
    CancelMark(7, UserText("late"), "boundary due"),
    OperatorHold(8, "boundary due", UserText("late")),
)


_BOUNDS: Final = (
    UNBOUNDED,
    Bounds(2, None, None),
    Bounds(None, 12, None),
    Bounds(4, 40, 2 * SECOND),
)


class _TakenBack(Exception):
    """A transaction of the model leaves nothing."""


class ComparedWithModel(RuleBasedStateMachine):
    """Gives the same random changes to a provider and to the model, and compares all that can be
    seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.clock: ManualClock = ManualClock()
        self.folder: tempfile.TemporaryDirectory[str] = tempfile.TemporaryDirectory()
        self.provider: Provider = self.make_provider(Path(self.folder.name), self.clock)
        self.model: ModelProvider = ModelProvider(clock=self.clock)
        self.provider.open()
        self.model.open()
        self.made: int = 0
        self.compared: int = 0

    def make_provider(self, location: Path, clock: Clock) -> Provider:
        """Return the provider that is compared, as :meth:`ContractBase.make_provider` does."""
        raise NotImplementedError

    def give_back(self, location: Path) -> None:
        """Do what :meth:`ContractBase.give_back` does."""
        raise NotImplementedError

    def teardown(self) -> None:
        self.provider.close()
        self.give_back(Path(self.folder.name))
        self.folder.cleanup()

    @initialize()
    def start_something(self) -> None:
        self.both(lambda provider: provider.store.raise_level(THIS_LIBRARY.target(3)))
        self.commit([a_start(instance_id) for instance_id in _INSTANCES[:-1]])

    @rule(data=some.data(), size=some.integers(1, 5))
    def commit_a_group(self, data: some.DataObject, size: int) -> None:
        makers = some.sampled_from(
            (
                self.start,
                self.append,
                self.cancel,
                self.write,
                self.write,
                self.claim,
                self.recover,
                self.release,
                self.hold_or_resume,
                self.report,
                self.report,
                self.publish,
                self.schedule,
                self.schedule,
            )
        )
        changes = [data.draw(makers)(data) for _ in range(size)]
        if not data.draw(_mostly):
            for change in self.first_turn(data):
                changes.insert(data.draw(some.integers(0, len(changes))), change)
        self.commit(changes)

    @rule(data=some.data())
    def write_something(self, data: some.DataObject) -> None:
        self.commit([self.write(data)])

    @rule(instance_id=_instances)
    def answer_a_request_twice(self, instance_id: str) -> None:
        """The first answer is kept. Groups that are drawn seldom answer a request, and then again."""
        self.made += 1
        request_id = f"asked {self.made}"
        self.commit([replace(an_append(instance_id, request_id, "go"), asks=True)])
        for value in (b"1", b"2"):
            record = self.model.directory.get(instance_id)
            if record is None or record.status is not Status.OPEN:
                return
            request = self.model.world.instances[instance_id].requests.get(request_id)
            if request is None:
                return
            answer = RequestAnswer(
                request_id, request.sequence, value=Payload(value), at=self.clock.now()
            )
            state = a_state(record.row, opened=record.row.opened)
            self.commit([a_write(record.row, state, answers=(answer,))])
        self.compare_request(instance_id, request_id)

    @rule(milliseconds=some.sampled_from((1, 1000, 60_000, 3_600_000)))
    def let_time_pass(self, milliseconds: int) -> None:
        self.clock.advance(timedelta(milliseconds=milliseconds))

    @rule(node=_nodes, how=some.sampled_from(("join", "leave", "renew", "bury")))
    def let_a_node_live_or_die(self, node: str, how: str) -> None:
        known = {
            standing.record.node_id: standing for standing in self.model.store.catalogue().nodes
        }
        if how == "join" and node not in known:
            # A dead node never comes back: the next one has a new id (rule 11).
            self.both(lambda provider: provider.store.leave(node))
            self.both(lambda provider: provider.store.join(a_node(node)))
        elif how == "leave":
            self.both(lambda provider: provider.store.leave(node))
        elif how == "renew" and node in known:
            self.both(lambda provider: provider.store.renew(node, 3))
        elif how == "bury" and node in known:
            self.both(lambda provider: provider.store.bury(node, known[node].renewals))
        self.compare()

    @rule()
    def sweep(self) -> None:
        self.both(lambda provider: provider.store.sweep())
        self.compare()

    @rule(after=some.sampled_from((None, 0, 60 * SECOND, 3600 * SECOND)), limit=some.integers(1, 3))
    def let_what_has_ended_go(self, after: int | None, limit: int) -> None:
        self.both(lambda provider: provider.store.expire(limit))
        self.both(lambda provider: provider.admin.set_expiry({"watch": after}))
        self.compare()

    @rule(
        value=some.sampled_from(("latest", "exact:1.0.0", "range:^1")),
        expected=some.sampled_from((None, None, 0, 1, 2, 3)),
        only_first=_mostly.map(lambda mostly: not mostly),
    )
    def set_a_policy(self, value: str, expected: int | None, only_first: bool) -> None:
        self.both(
            lambda provider: provider.admin.set_policy(
                "watch",
                value,
                by="me",
                reason="",
                only_first=only_first,
                expected_revision=expected,
            )
        )
        self.both(lambda provider: provider.directory.policies("watch"))

    @rule(instance_id=_instances, pinned=some.booleans(), unless_same=some.booleans())
    def pin(self, instance_id: str, pinned: bool, unless_same: bool) -> None:
        version = "1.0.0" if pinned else None
        self.both(
            lambda provider: provider.admin.set_pin(
                instance_id, version, by="me", reason="", unless_same=unless_same
            )
        )
        self.compare()

    @rule(instance_id=_instances, execution=some.sampled_from((None, None, 1, 2)))
    def nudge(self, instance_id: str, execution: int | None) -> None:
        record = self.model.directory.get(instance_id)
        incarnation = "" if record is None else record.row.incarnation
        if execution is None:
            execution = 1 if record is None else record.row.execution
        self.both(
            lambda provider: provider.admin.nudge(
                instance_id, incarnation, execution, by="me", reason="soon"
            )
        )
        self.compare()

    @rule(instance_id=_instances)
    def delete(self, instance_id: str) -> None:
        record = self.model.directory.get(instance_id)
        incarnation = "" if record is None else record.row.incarnation
        self.both(
            lambda provider: provider.admin.delete(instance_id, incarnation, by="me", reason="")
        )
        self.compare()

    # --- changes --------------------------------------------------------------------------

    def start(self, data: some.DataObject) -> Start:
        self.made += 1
        request_id = data.draw(some.sampled_from(("r", "r2")))
        wake_at = data.draw(
            some.sampled_from((0, self.clock.now() + 1000, self.clock.now() + SECOND))
        )
        start = a_start(
            data.draw(_instances),
            f"incarnation {self.made}",
            request_id,
            data.draw(_kinds),
            wake_at,
        )
        later = some.sampled_from((None, None, self.clock.now() + 1000, self.clock.now() + SECOND))
        start = replace(start, traceparent=data.draw(_traceparents), not_before=data.draw(later))
        if data.draw(_mostly):
            return start
        return self.also_again(data, start)

    def first_turn(self, data: some.DataObject) -> Sequence[Change]:
        """Return a start for an owner, and a write as the owner makes it if the start is
        granted.
        """
        # An owner's start has no events of its own (LocalStarts).
        start = replace(self.start(data), owner=data.draw(_nodes), events=())
        changes: list[Change] = [start]
        with suppress(_TakenBack), self.model.world.transaction(self, self.clock):
            self.model.store.commit([start])
            changes.append(self.write(data, start.instance_id))
            raise _TakenBack
        return changes

    def also_again(self, data: some.DataObject, start: Start) -> Start:
        """Return a start that concerns an instance which stands already."""
        record = self.model.directory.get(start.instance_id)
        follows = None
        if record is not None and not data.draw(_mostly):
            revision = record.row.revision - data.draw(some.sampled_from((0, 1)))
            follows = record.row.incarnation, revision
        self.made += 1
        events = tuple(
            replace(append, instance_id=start.instance_id)
            for append in (self.append(data) for _ in range(data.draw(some.integers(0, 2))))
            if isinstance(append, Append)
        )
        return replace(
            start,
            request_id=data.draw(some.sampled_from(("r", f"again {self.made}"))),
            execution=replace(start.execution, request_id=f"again {self.made}"),
            if_ended=data.draw(some.sampled_from(IfEnded)),
            looks=data.draw(some.booleans()),
            gives_events=data.draw(some.booleans()),
            follows=follows,
            events=_with_room({event.message_id: event for event in events}.values()),
            pin=data.draw(some.sampled_from((None, Pin("1.0.0", 1, "me", "")))),
        )

    def hold_or_resume(self, data: some.DataObject) -> Change:
        instance_id = data.draw(_instances)
        if data.draw(some.booleans()):
            return Suspend(instance_id, "me", UserText("wait"))
        return Resume(instance_id, "me")

    def append(self, data: some.DataObject) -> Change:
        message_id, name = (
            data.draw(some.sampled_from(tuple(f"m{number}" for number in range(1, 13)))),
            data.draw(some.sampled_from(("go", "stop"))),
        )
        limits = InboxLimits(
            *data.draw(some.sampled_from(((3, 1_000), (10, 1_000), (10, 40), (2, 14), (20, 5))))
        )
        payload = Payload(b"x" * data.draw(some.sampled_from((0, 5, 7, 20))))
        append = replace(
            an_append(data.draw(_instances), message_id, name), payload=payload, limits=limits
        )
        asks = data.draw(some.sampled_from((False, False, True)))
        return replace(append, traceparent=data.draw(_traceparents), asks=asks)

    def cancel(self, data: some.DataObject) -> Change:
        return Cancel(data.draw(_instances), "enough", "me", terminate=not data.draw(_mostly))

    def claim(self, data: some.DataObject) -> Change:
        kinds = tuple(data.draw(some.lists(_kinds, min_size=1, max_size=3)))
        routes = tuple(data.draw(some.lists(some.sampled_from(_ROUTES), max_size=3)))
        return Claim(
            data.draw(_nodes),
            kinds,
            data.draw(some.integers(1, 3)),
            routes,
            data.draw(some.integers(0, 3)),
        )

    def report(self, data: some.DataObject) -> Change:
        tasks = [(node, task) for node in _NODES for task in self.model.store.taken(node)]
        if not tasks:
            return self.claim(data)
        node, task = data.draw(some.sampled_from(tasks))
        revision = task.revision if data.draw(_mostly) else task.revision - 1
        how = data.draw(some.sampled_from(("result", "failure", "heartbeat")))
        return Report(
            task.instance_id,
            task.incarnation,
            task.execution,
            task.event_id,
            revision,
            node if data.draw(_mostly) else data.draw(_nodes),
            Payload(b"1") if how == "result" else None,
            b"{}" if how == "failure" else None,
            Payload(b"%d" % revision) if how == "heartbeat" or data.draw(some.booleans()) else None,
        )

    def publish(self, data: some.DataObject) -> Change:
        """Return items of an attempt: of an owner's, or of one that was handed out."""
        tasks = [(node, task) for node in _NODES for task in self.model.store.taken(node)]
        self.made += 1
        first = self.made if data.draw(_mostly) else 1
        items = tuple(
            Published("s", Payload(b"item"), self.clock.now(), 1, 1, 1, first + place)
            for place in range(data.draw(some.integers(1, 3)))
        )
        bounds = data.draw(some.sampled_from(_BOUNDS))
        has_step = data.draw(some.booleans())
        if tasks and data.draw(some.booleans()):
            node, task = data.draw(some.sampled_from(tasks))
            revision = task.revision if data.draw(_mostly) else task.revision - 1
            head = (task.instance_id, task.incarnation, task.execution, task.event_id)
            publish = Publish(*head, task.attempt, node, revision, items, bounds)
            return _with_step(publish, Steps()) if has_step else publish
        record = self.model.directory.get(data.draw(_instances))
        if record is None:
            return self.claim(data)
        row = record.row
        node = row.owner if row.owner is not None and data.draw(_mostly) else data.draw(_nodes)
        head = (row.instance_id, row.incarnation, row.execution)
        publish = Publish(*head, 1, data.draw(some.integers(1, 2)), node, None, items, bounds)
        known = row.revision if data.draw(_mostly) else row.revision - 1
        activity = ActivityRow(row.execution, 1, publish.attempt, None, 1, b"[]", Payload(b"null"))
        return _with_step(publish, Steps(known, activity)) if has_step else publish

    def schedule(self, data: some.DataObject) -> Change:
        """Return what makes, changes, ticks, pauses or deletes a schedule."""
        schedule_id = data.draw(some.sampled_from(_SCHEDULES))
        standing = self.model.directory.schedule(schedule_id, 0)
        if standing is None:
            self.made += 1
            life, revision, row = f"life {self.made}", 0, a_row(schedule_id)
        else:
            row = standing.row
            life, revision = row.incarnation, row.revision
        if not data.draw(_mostly):
            life, revision = data.draw(
                some.sampled_from(((life, revision + 1), (life, max(0, revision - 1)), ("x", 1)))
            )
        if revision and not data.draw(_mostly) and not data.draw(_mostly):
            return ScheduleWrite(schedule_id, life, revision, None)
        self.made += 1
        row = replace(
            row,
            definition=Packed(b"definition %d" % self.made),
            state=Packed(b"state %d" % self.made),
            next_at=data.draw(some.sampled_from((None, 5, self.clock.now() + SECOND))),
            paused=data.draw(some.booleans()),
            edition=row.edition + data.draw(some.integers(0, 1)),
            request_id=data.draw(some.sampled_from(("q1", "q2"))),
        )
        refused = data.draw(some.sampled_from((None, lambda _: replace(row, paused=True))))
        some_slots = some.lists(some.integers(1, 6), unique=True, max_size=3)
        slots = tuple(
            a_slot(slot, outcome=outcome, cause="slot")
            for slot in data.draw(some_slots)
            for outcome in [data.draw(some.sampled_from(("skipped", "missed")))]
        )
        keys = [SlotKey(slot, cause) for slot in range(1, 7) for cause in _CAUSES]
        return ScheduleWrite(
            schedule_id,
            life,
            revision,
            row,
            acts=tuple(self.tick(data, schedule_id, slot) for slot in data.draw(some_slots)),
            slots=slots,
            ended=()
            if data.draw(_mostly)
            else (EndedRun(data.draw(some.sampled_from(keys)), "completed"),),
            refused=refused,
            cancels=()
            if data.draw(_mostly)
            else (Cancel(data.draw(_instances), UserText("overlap"), schedule_id),),
        )

    def tick(self, data: some.DataObject, schedule_id: str, slot: int) -> ScheduleAct:
        """Return what a slot does: by itself, by hand, or once more."""
        cause, instance_id = data.draw(some.sampled_from(_CAUSES)), data.draw(_instances)
        row = a_slot(slot, instance_id, cause=cause, follows=data.draw(_mostly))
        key = SlotKey(slot, cause)
        if data.draw(some.booleans()):
            event = an_append(instance_id, message_id_of(schedule_id, key), "go")
            limits = data.draw(some.sampled_from((InboxLimits(10, 1_000), InboxLimits(1, 5))))
            return ScheduleAct(row, event=replace(event, limits=limits))
        self.made += 1
        request_id = f"{schedule_id}/{slot}"
        start = a_start(instance_id, f"incarnation {self.made}", request_id, data.draw(_kinds))
        return ScheduleAct(row, start=replace(start, schedule=(schedule_id, slot)))

    def recover(self, data: some.DataObject) -> Change:
        return Recover(data.draw(_instances), data.draw(_nodes))

    def release(self, data: some.DataObject) -> Change:
        instance_id = data.draw(_instances)
        record = self.model.directory.get(instance_id)
        return (
            Release(instance_id, "", 0)
            if record is None
            else Release(instance_id, record.row.incarnation, record.row.revision)
        )

    def write(self, data: some.DataObject, instance_id: str | None = None) -> Change:
        instance_id = instance_id or data.draw(_instances)
        record = self.model.directory.get(instance_id)
        if record is None:
            return self.start(data)
        row = record.row
        if not data.draw(_mostly):
            row = replace(row, revision=row.revision - 1)
        number = row.execution
        boundary = record.status is Status.OPEN and data.draw(
            some.sampled_from((False, False, True))
        )
        ending = not boundary and not data.draw(_mostly)
        deltas = self.deltas(data, record, boundary=boundary, ending=ending)
        messages = self.unread(instance_id) if record.status is Status.OPEN else ()
        consumed = tuple(sequence for sequence in messages if data.draw(some.booleans()))
        # An activity is asked for by an event of the execution that goes on.
        is_asked_for = not boundary and (
            row.history_events > 0 or any(event.id == 1 for event in deltas[0].events)
        )
        route = data.draw(some.sampled_from((None, *_ROUTES))) if is_asked_for else None
        state = a_state(
            row,
            kind=_of_code(data.draw(_kinds), record.execution, deltas),
            owner=data.draw(some.sampled_from((None, row.owner))),
            wake_at=data.draw(some.sampled_from((None, 0, self.clock.now() + 1000))),
            seen_seq=data.draw(some.integers(row.seen_seq, row.inbox_seq)),
            execution=number + 1 if boundary else number,
            opened=not boundary and (row.opened or deltas[0].opened is not None),
            takeovers=data.draw(some.sampled_from((0, row.takeovers))),
            history_events=0 if boundary else row.history_events + len(deltas[0].events),
            status=Status.FAILED if ending else Status.OPEN,
            summary=data.draw(some.sampled_from((b"{}", b"other"))),
            boundary_due=data.draw(some.sampled_from((None, None, 5, 7))),
        )
        operators: dict[str, Any] = {}
        if not data.draw(_mostly):
            operators = self.by_operator(data, record, ending=ending)
        return a_write(
            row,
            state,
            **operators,
            owner=None
            if operators
            else data.draw(some.sampled_from((row.owner, row.owner, None, "n1"))),
            executions=deltas,
            consumed=consumed,
            set_aside=tuple(
                Aside(sequence, UserText(f"unfit {sequence}"))
                for sequence in consumed
                if not data.draw(_mostly)
            ),
            unkept=() if data.draw(_mostly) else self.set_aside(instance_id),
            activities=() if data.draw(_mostly) else (self.activity(data, state.execution, route),),
            completed=(1,) if not data.draw(_mostly) else (),
            custom_status=None if data.draw(_mostly) else Payload(b"%d" % row.revision),
            labels=data.draw(_labels),
            hold=None if data.draw(_mostly) else a_hold((f"f{row.revision}",)),
            prune=None if data.draw(_mostly) else self.prune(data),
            starts=tuple(
                self.child(data, row) for _ in range(data.draw(some.sampled_from((0, 0, 1, 2))))
            ),
            cancels=()
            if data.draw(_mostly)
            else (ChildCancel(data.draw(_instances), self.link(data, row), "given up"),),
            stops=(Stop(1, b"withdrawn"),) if data.draw(some.booleans()) else (),
            due=None if data.draw(_mostly) else data.draw(some.sampled_from(_ACTS)),
            answers=self.answers(data, instance_id, consumed),
            published=tuple(
                Published(
                    data.draw(some.sampled_from(("s", "t"))),
                    Payload(b"x" * data.draw(some.sampled_from((1, 5, 20)))),
                    self.clock.now(),
                    number,
                )
                for _ in range(data.draw(some.sampled_from((0, 0, 1, 3))))
            ),
            stream_bounds=data.draw(some.sampled_from(_BOUNDS)),
            sends=()
            if data.draw(_mostly)
            else tuple(self.sent(data, row, event_id) for event_id in range(4, data.draw(_sends))),
        )

    def answers(
        self, data: some.DataObject, instance_id: str, consumed: Sequence[int]
    ) -> tuple[RequestAnswer, ...]:
        """Return answers to requests, answered ones among them."""
        known = self.model.world.instances[instance_id].requests.values()
        return tuple(
            RequestAnswer(
                one.request_id,
                one.sequence,
                **data.draw(
                    some.sampled_from(
                        ({"value": Payload(b"7")}, {"rejection": UserText("sold out")})
                    )
                ),
                at=self.clock.now(),
            )
            for one in known
            if one.sequence not in consumed and data.draw(some.booleans())
        )

    def sent(self, data: some.DataObject, row: InstanceRow, event_id: int) -> Send:
        """Return what an instance sends to another one, to itself, or to nobody."""
        target = data.draw(some.sampled_from((*_INSTANCES, "nobody")))
        sender = ParentLink(row.instance_id, row.incarnation, row.execution, event_id)
        if data.draw(_mostly):
            limits = data.draw(some.sampled_from((InboxLimits(), InboxLimits(2, 20))))
            payload, trace = Payload(b'"sent"'), data.draw(_traceparents)
            name = data.draw(some.sampled_from(("go", "stop")))
            message = Append(target, str(sender), name, payload, row.instance_id, limits, trace)
            return Send(sender, message)
        return Send(sender, Cancel(target, UserText("sent"), row.instance_id))

    def by_operator(
        self, data: some.DataObject, record: InstanceRecord, *, ending: bool
    ) -> dict[str, Any]:
        """Return what only an operator's write does."""
        row = record.row
        self.made += 1
        known = {
            message.sequence for message in self.model.world.instances[row.instance_id].messages
        }
        gone = [number for number in range(1, row.inbox_seq + 1) if number not in known]
        restored = tuple(
            MessageRow(number, f"restored {self.made} {number}", "go", Payload(b"1"), 1)
            for number in gone[-2:]
            if not ending and data.draw(some.booleans())
        )
        again = a_start(row.instance_id, f"incarnation {self.made}", f"again {self.made}")
        pins = some.sampled_from((None, Pin("1.0.0", 1, "me", ""), Pin("1.1.0", 2, "me", "")))
        again = replace(again, pin=data.draw(pins))
        restart = again if ending and data.draw(some.booleans()) else None
        return {
            "restored": restored,
            "uncancels": data.draw(some.booleans()),
            # The pin of a life that begins again comes with its start.
            "pin": None if restart is not None else data.draw(pins),
            "leaves_children": data.draw(some.booleans()),
            "restart": restart,
        }

    def activity(self, data: some.DataObject, execution: int, route: Route | None) -> ActivityRow:
        attempt = data.draw(some.integers(1, 2))
        row = ActivityRow(execution, 1, attempt, None, 1, b"[]", route=route)
        if route is not None and not data.draw(_mostly):
            return replace(
                row,
                owner=data.draw(some.sampled_from(("n1", "n2"))),
                stopping=data.draw(some.booleans()),
            )
        if not data.draw(_mostly):  # a hold has kept how it ended
            return replace(
                row,
                route=None,
                **data.draw(some.sampled_from(({"result": Payload(b"1")}, {"failure": b"why"}))),
            )
        return row

    def prune(self, data: some.DataObject) -> Prune:
        some_number = some.integers(0, 4)
        return Prune(
            data.draw(some_number),
            data.draw(some_number),
            data.draw(some.sampled_from((None, 1, 2, 10**17))),
            data.draw(some.integers(0, 2)),
            data.draw(some.integers(0, 2)),
        )

    def child(self, data: some.DataObject, row: InstanceRow) -> ChildStart:
        child_id, link = data.draw(_instances), self.link(data, row)
        if not data.draw(_mostly):
            return ChildStart(child_id, link, None, b"hopeless", data.draw(some.booleans()))
        self.made += 1
        start = a_start(child_id, f"incarnation {self.made}", str(link), data.draw(_kinds))
        if not data.draw(_mostly):
            return ChildStart(child_id, link, start, None)
        close = data.draw(some.sampled_from(OnParentClose))
        return ChildStart(
            child_id,
            link,
            replace(
                start,
                parent=link,
                root_id="a",
                on_parent_close=close,
                if_ended=data.draw(some.sampled_from((IfEnded.LEAVE, IfEnded.RESTART_OWN))),
            ),
            b"taken",
            close is OnParentClose.KEEP,
        )

    def link(self, data: some.DataObject, row: InstanceRow) -> ParentLink:
        return ParentLink(
            row.instance_id, row.incarnation, row.execution, data.draw(some.integers(1, 3))
        )

    def deltas(
        self, data: some.DataObject, record: InstanceRecord, *, boundary: bool, ending: bool
    ) -> tuple[ExecutionDelta, ...]:
        row, number = record.row, record.row.execution
        opened = (
            None
            if row.opened or data.draw(some.booleans())
            else Opening(1, "1.1.0", data.draw(some.sampled_from(("f", "g"))), 1, POLICY)
        )
        retargeted = (
            None if row.opened or opened or data.draw(_mostly) else Retargeting("2.0.0", POLICY)
        )
        poisonous = row.history_events > 0 and not data.draw(_mostly) and not data.draw(_mostly)
        first = row.history_events + (0 if poisonous else 1)
        events = tuple(
            an_event(event_id) for event_id in range(first, first + data.draw(some.integers(1, 3)))
        )
        closed = None
        if boundary or ending:
            closed = Closing(
                2,
                ExecutionEnd.CONTINUED_AS_NEW if boundary else ExecutionEnd.FAILED,
                None,
                b"error",
            )
        trace = data.draw(_traceparents)
        delta = ExecutionDelta(
            number,
            opened=opened,
            retargeted=retargeted,
            events=events,
            closed=closed,
            event_count=len(events),
            byte_count=1,
            traceparent=trace,
            children=data.draw(_mostly),
            receipts=closed is not None and data.draw(_mostly),
            patches=data.draw(some.sampled_from(((), (), ("p",), ("p", "q")))),
        )
        following = an_execution(number + 1, name=record.execution.name)
        following = replace(following, traceparent=trace)
        return (delta, ExecutionDelta(number + 1, create=following)) if boundary else (delta,)

    def unread(self, instance_id: str) -> tuple[int, ...]:
        world = self.model.world
        return tuple(message.sequence for message in world.instances[instance_id].messages)

    def set_aside(self, instance_id: str) -> tuple[int, ...]:
        world = self.model.world
        return tuple(message.sequence for message in world.instances[instance_id].aside)

    # --- comparing ------------------------------------------------------------------------

    def commit(self, changes: Sequence[Change]) -> None:
        self.both(lambda provider: provider.store.commit(changes))
        self.compare()

    def both(self, ask: Callable[[Provider], T]) -> T | type[StoreError]:
        answer, expected = _answer(ask, self.provider), _answer(ask, self.model)
        assert answer == expected, f"it is\n{answer}\nand should be\n{expected}"
        return answer

    def compare_holds(self) -> None:
        """Compare all pages of holds."""
        after = None
        for _ in count():
            page = self.both(lambda provider: provider.store.held(["watch"], after, limit=2))  # noqa: B023 - used at once
            if not isinstance(page, HeldPage) or page.after is None:
                return
            after = page.after

    def compare_request(self, instance_id: str, request_id: str) -> None:
        """Compare a request. Which answers out of the window go first is left open."""
        found = self.provider.directory.request(instance_id, request_id)
        expected = self.model.directory.request(instance_id, request_id)
        known = found or expected
        answer = None if known is None else known.row.answer
        if answer is not None and answer.at <= self.clock.now() - _WINDOW:
            return
        assert found == expected

    def compare(self) -> None:
        for instance_id in _INSTANCES:
            self.both(lambda provider, key=instance_id: provider.directory.get(key))
            self.both(lambda provider, key=instance_id: provider.directory.executions(key))
            self.both(lambda provider, key=instance_id: provider.directory.messages(key))
            self.both(lambda provider, key=instance_id: provider.directory.messages(key, 2, 2))
            standing = self.model.world.instances.get(instance_id)
            for request_id in () if standing is None else standing.requests:
                self.compare_request(instance_id, request_id)
            self.both(lambda provider, key=instance_id: provider.directory.streams(key))
            self.both(lambda provider, key=instance_id: provider.directory.stream(key, "s"))
            self.both(
                lambda provider, key=instance_id: provider.directory.stream(
                    key, "t", 2, Page(2, 10)
                )
            )
            record = self.model.directory.get(instance_id)
            for number in range(1, 1 if record is None else record.row.execution + 1):
                self.both(
                    lambda provider, key=instance_id, lap=number: provider.store.history(key, lap)
                )
        for schedule_id in _SCHEDULES:
            self.both(lambda provider, key=schedule_id: provider.directory.schedule(key, 200))
        self.both(lambda provider: list(provider.directory.schedules()))
        now = self.clock.now()
        self.both(lambda provider: list(provider.store.due_schedules(now, 1)))
        self.both(lambda provider: list(provider.store.due_schedules(now, 5, (5, "p"))))
        self.both(lambda provider: provider.store.next_tick())
        self.both(lambda provider: provider.store.next_tick(5))
        for node in _NODES:
            self.both(lambda provider, key=node: provider.store.news(key))
            self.both(lambda provider, key=node: provider.store.owned(key))
            self.both(lambda provider, key=node: provider.store.taken(key))
        self.both(lambda provider: provider.store.next_wake(_KINDS))
        self.both(lambda provider: provider.store.next_wake((), _ROUTES))
        self.compare_holds()
        self.both(lambda provider: provider.store.catalogue().nodes)
        self.both(lambda provider: provider.store.catalogue().sessions)
        self.both(lambda provider: provider.directory.list(InstanceQuery(held=True)))
        for standing in Standing:
            self.both(
                lambda provider, one=standing: provider.directory.list(
                    InstanceQuery(standings=(one,))
                )
            )
        self.both(lambda provider: provider.directory.tally())
        # One after another: all of them at each step would take most of the time.
        self.compared += 1
        asked = _SELECTIONS[self.compared % len(_SELECTIONS)]
        query = replace(asked, order=Order(self.compared % len(Order)))
        self.both(lambda provider: provider.directory.list(query))
        self.both(lambda provider: _counts(provider, asked))
        self.both(lambda provider: list(provider.directory.waiting_routes()))
        self.both(lambda provider: provider.directory.census(0))
        self.both(lambda provider: provider.directory.census(3, "watch"))
        self.both(lambda provider: provider.directory.count_owned(_NODES))
        self.both(lambda provider: provider.directory.going_among(_INSTANCES))
        self.both(lambda provider: provider.directory.list(InstanceQuery(parent="a")))
        self.both(lambda provider: provider.directory.list(InstanceQuery(schedule="s")))


def _counts(provider: Provider, query: InstanceQuery) -> object:
    """Return the counts of all groups; the order of equal ones is not promised."""
    counts = provider.directory.count(query, _GROUPS)
    return counts.total, {group.values: group.count for group in counts.groups}


def _with_step(publish: Publish, steps: Steps) -> Publish:
    last, journal = publish.items[-1], journal_of(publish.execution, publish.event_id)
    step = replace(last, stream=journal, number=last.number + 1)
    return replace(publish, items=(*publish.items, step), steps=steps)


def _of_code(kind: Kind, current: ExecutionRow, deltas: Sequence[ExecutionDelta]) -> Kind:
    """Return a kind that has the name and the version of the execution that goes on: so it is in
    every store, and lists rely on it.
    """
    last = deltas[-1]
    if last.create is not None:
        return kind._replace(name=last.create.name, version=last.create.version)
    changed = last.opened or last.retargeted
    return kind._replace(
        name=current.name, version=current.version if changed is None else changed.version
    )


def _with_room(events: Iterable[Append]) -> tuple[Append, ...]:
    """Return events for which a new inbox has room: a client starts with no others."""
    kept: list[Append] = []
    whole, named = Waiting(), dict[str, Waiting]()
    for event in events:
        size, of_name = len(event.payload.data), named.get(event.name, Waiting())
        if event.limits.met_by(whole, of_name, size) is None:
            whole, named[event.name] = whole.plus(size), of_name.plus(size)
            kept.append(event)
    return tuple(kept)


def _answer(ask: Callable[[Provider], T], provider: Provider) -> T | type[StoreError]:
    """Return what a provider says; failures are compared by their type."""
    try:
        return ask(provider)
    except StoreError as error:
        return type(error)


class ComparisonTests(ContractBase):
    """The model is the reference."""

    @pytest.mark.property
    @pytest.mark.timeout(900)
    def test_it_does_what_the_model_does(self) -> None:
        """Compares random groups of changes with
        :class:`~tests.support.model.ModelProvider`.
        """
        contract = self

        class Compared(ComparedWithModel):
            def make_provider(self, location: Path, clock: Clock) -> Provider:
                return contract.make_provider(location, clock)

            def give_back(self, location: Path) -> None:
                contract.give_back(location)

        run_state_machine_as_test(
            Compared,
            settings=settings(
                max_examples=examples(40),
                stateful_step_count=25,
                deadline=None,
                database=None,
                print_blob=True,
                suppress_health_check=_SLOW,
            ),
        )

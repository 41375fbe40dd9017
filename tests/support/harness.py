"""Several engines over one store, on virtual time, in one thread.

A :class:`World` is the store, its clock and whoever sends to it; a :class:`Node` is one engine with
its activities. Nothing here waits: :meth:`World.run` moves the clock to the next instant at which a
node has something to do.
"""

from __future__ import annotations

from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import replace

from orchestra.codec import encode, plain
from orchestra.context import Limits
from orchestra.engine.engine import EngineOptions
from orchestra.engine.messages import (
    AbortActivity,
    ActivityEnded,
    ActivityFailure,
    Heartbeat,
    InstanceEnded,
    PublishItems,
    Reply,
    RunActivity,
    StopActivity,
    Submit,
    WriteLogs,
)
from orchestra.error_info import class_names, error_info, is_non_retryable
from orchestra.errors import ErrorInfo, OrchestraError, OutcomeUnknown, StoreError
from orchestra.events import (
    FORMAT,
    ActivityCompleted,
    ActivityFailedEvent,
    ActivityScheduled,
    ContinuedAsNew,
    EventAwaited,
    EventReceived,
    ExecutionStarted,
    ExecutionTerminated,
    RequestAwaited,
    RequestReceived,
    TerminalEvent,
    TimerCreated,
    TimerFired,
    from_record,
    to_record,
)
from orchestra.operations import steps
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import Execution, Identity
from orchestra.resolution import policy_of, start_version
from orchestra.retention import Retention
from orchestra.runtime import nodes
from orchestra.runtime.nodes import NodeSettings, node_record
from orchestra.sessions import ENTER
from orchestra.store.changes import Append, Cancel, Claim, Recover, Report, Start, Write
from orchestra.store.executions import Closing, ExecutionDelta, ExecutionRow, Resolution
from orchestra.store.instances import InstanceState
from orchestra.store.kinds import THIS_LIBRARY, ExecutionEnd, ResolvedBy, Status
from orchestra.store.queries import InstanceQuery
from orchestra.store.routes import DEFAULT_QUEUE, Kind
from orchestra.store.streams import journal_of
from orchestra.summary import EMPTY_SUMMARY
from orchestra.telemetry import Recorder

SECOND = 1_000_000
YEAR = 365 * 24 * 3600
LONG, LONG_POLL = 60, 5.0
"""From how many seconds on a time is long, and how often nodes poll then."""
EVERYTHING = Retention(histories=None, executions=None)
HOLD = object()
"""What a scripted activity returns that is to go on until the test ends it."""


class VirtualClock:
    """Stands still until it is moved. ``off`` is by how much the wall clock is wrong, in
    microseconds.
    """

    def __init__(self, now=1_700_000_000_000_000):
        self.origin = now
        self.instant = now
        self.off = 0

    def now(self):
        return self.instant + self.off

    def monotonic(self):
        return (self.instant - self.origin) / 1e6

    def skip(self, seconds):
        assert seconds >= 0
        self.instant += round(seconds * 1e6)


def registry(name="job", /, **versions):
    """Return a registry: ``registry(v1_0_0=f, v1_1_0=g)``; ``registry(f)`` for one version.
    ``policy=`` is the builder's.
    """
    builder = OrchestrationRegistry.builder()
    if callable(name):
        return builder.register("job", name).build()
    for version, function in versions.items():
        builder.register(name, function, version=version.removeprefix("v").replace("_", "."))
    return builder.build()


def several(**functions):
    """Return a registry of several names, each in 1.0.0."""
    builder = OrchestrationRegistry.builder()
    for name, function in functions.items():
        builder.register(name, function)
    return builder.build()


def performed(world, operation, *, node=None):
    """Perform an operation as a client does, on a connection of its own or through a node. Return
    its result.
    """
    answer = error = None
    while True:
        try:
            step = operation.send(answer) if error is None else operation.throw(error)
        except StopIteration as end:
            return end.value
        answer = error = None
        try:
            answer = _answer(world, step, node)
        except OrchestraError as raised:
            error = raised


def _answer(world, step, node):
    directory = world.directory
    match step:
        case steps.Get(instance_id):
            return directory.get(instance_id)
        case steps.Find(query):
            return directory.list(query)
        case steps.FindMessages(instance_id, after, limit):
            return directory.messages(instance_id, after, limit)
        case steps.FindExecutions(instance_id, after, limit):
            return directory.executions(instance_id, after, limit)
        case steps.ReadHistory(instance_id, execution):
            return directory.history(instance_id, execution)
        case steps.ReadCatalogue():
            return directory.catalogue()
        case steps.Submit(change) if node is None:
            return world.store.commit([change]).outcomes[0]
        case steps.Submit(change):
            token = node.submit(change)
            node.run_until_idle()
            return node.replies[token]
        case steps.Pause():
            return None
        case _:
            raise AssertionError(f"unknown step {step}")


class FaultyStore:
    """A store that fails on command, and counts what is asked of it.

    ``replies``: what becomes of the next commits: an exception is raised in the place of the
    commit, ``"lost before"`` and ``"lost after"`` raise OutcomeUnknown without and with it,
    ``None`` lets it through, ``"odd"`` refuses a group for good, but none of its halves. ``down``:
    every call raises this. ``poisonous``: which changes are never taken. ``unreadable``: what
    reading an instance's history raises. ``before_commit`` is called once between a step and its
    commit, ``around`` before and after each commit, ``before_history`` before each reading of a
    history.
    """

    def __init__(self, store):
        self.inner = store
        self.replies = deque()
        self.down = None
        self.poisonous = lambda change: False
        self.unreadable = {}
        self.before_commit = None
        self.before_history = None
        self.around = None
        self.groups = []
        self.histories = []
        self.calls = defaultdict(int)

    def commit(self, changes):
        self._reach("commit")
        hook, self.before_commit = self.before_commit, None
        if hook is not None:
            hook()
        if self.around is not None:
            self.around()
        fate = self.replies.popleft() if self.replies else None
        if fate == "lost before":
            raise OutcomeUnknown("the connection broke")
        if isinstance(fate, Exception):
            raise fate
        if fate == "odd" and len(changes) > 1:
            raise StoreError("something in this group does not fit")
        for change in changes:
            if self.poisonous(change):
                raise StoreError("a value does not fit")
        committed = self.inner.commit(changes)
        self.groups.append(list(zip(changes, committed.outcomes, strict=True)))
        if self.around is not None:
            self.around()
        if fate == "lost after":
            raise OutcomeUnknown("the connection broke")
        return committed

    def history(self, instance_id, execution):
        self._reach("history")
        if self.before_history is not None:
            self.before_history()
        if instance_id in self.unreadable:
            raise self.unreadable[instance_id]
        self.histories.append((instance_id, execution))
        return self.inner.history(instance_id, execution)

    def _reach(self, name):
        self.calls[name] += 1
        if self.down is not None:
            raise self.down

    def __getattr__(self, name):
        method = getattr(self.inner, name)

        def call(*args, **kwargs):
            self._reach(name)
            return method(*args, **kwargs)

        return call

    # --- what was committed ---

    def forget(self):
        self.groups.clear()
        self.histories.clear()
        self.calls.clear()

    @property
    def changes(self):
        return [change for group in self.groups for change, _ in group]

    @property
    def writes(self):
        return [change for change in self.changes if isinstance(change, Write)]

    @property
    def reports(self):
        return [change for change in self.changes if isinstance(change, Report)]

    @property
    def claims(self):
        return [change for change in self.changes if isinstance(change, Claim)]

    @property
    def recoveries(self):
        return [change for change in self.changes if isinstance(change, Recover)]


class World:
    """A store, its clock, and its clients."""

    def __init__(self, make_provider):
        self.clock = VirtualClock()
        self._make_provider = make_provider
        self._others = {}
        self.provider = make_provider(self.clock)
        self.provider.open()
        self.store = self.provider.store
        self.directory = self.provider.directory
        self.admin = self.provider.admin
        self.nodes = []
        self.returned = defaultdict(list)
        """What activities have returned, by key: a result in history must be one of these (I5)."""
        self.sent = defaultdict(list)
        """The messages that were acknowledged, by instance and name (I1, I8)."""
        self.count = 0

    def close(self):
        for node in self.nodes:
            node.engine.close()
        for provider in (*self._others.values(), self.provider):
            provider.close()

    def provider_of(self, library):
        """The provider of nodes with a library: of another age, it is another process's."""
        if library is THIS_LIBRARY:
            return self.provider
        if library not in self._others:
            self._others[library] = self._make_provider(self.clock, library=library)
            self._others[library].open()
        return self._others[library]

    def id(self, prefix="id"):
        self.count += 1
        return f"{prefix}-{self.count}"

    # --- clients of other processes ---

    def start_change(
        self,
        name="job",
        state=None,
        *,
        instance_id=None,
        version=None,
        queue=DEFAULT_QUEUE,
        not_before=None,
    ):
        catalogue = self.store.catalogue()
        chosen = version or start_version(catalogue, name, queue)
        assert chosen is not None, "no node has this name"
        how = ResolvedBy.POLICY if version is None else ResolvedBy.EXPLICIT
        resolution = Resolution(how, "a client", policy_of(catalogue, name)[1])
        payload = encode(state, subject="state")
        request = self.id("request")
        return Start(
            instance_id or self.id("i"),
            self.id("incarnation"),
            request,
            Kind(queue, name, chosen, FORMAT, floating=version is None),
            ExecutionRow(
                1,
                name,
                chosen,
                resolution,
                payload,
                None,
                created_at=self.clock.now(),
                request_id=request,
            ),
            wake_at=not_before or 0,
            not_before=not_before,
        )

    def start(self, name="job", state=None, **options):
        change = self.start_change(name, state, **options)
        self.store.commit([change])
        return change.instance_id

    def append_change(self, instance_id, name="go", value=None, message_id=None):
        return Append(
            instance_id, message_id or self.id("message"), name, encode(value, subject="message")
        )

    def send(self, instance_id, name="go", value=None, message_id=None):
        change = self.append_change(instance_id, name, value, message_id)
        return self.store.commit([change]).outcomes[0]

    def cancel(self, instance_id, reason="enough"):
        return self.store.commit([Cancel(instance_id, reason)]).outcomes[0]

    def nudge(self, instance_id, execution=None, reason="a deploy"):
        """Nudge an execution as an operator; by default the current one."""
        row = self.record(instance_id).row
        number = row.execution if execution is None else execution
        return self.admin.nudge(instance_id, row.incarnation, number, by="ops", reason=reason)

    def termination(self, instance_id, reason="at once"):
        """Return an operator's write that ends the instance as it stands now."""
        record = self.record(instance_id)
        row, now = record.row, max(self.clock.now(), record.updated_at)
        event = to_record(ExecutionTerminated(row.history_events + 1, now, reason))
        events = (event,) if row.opened else ()
        count, size = (
            row.history_events + len(events),
            row.history_bytes + sum(entry.size for entry in events),
        )
        closed = Closing(now, ExecutionEnd.TERMINATED, None, None)
        state = InstanceState(
            kind=row.kind,
            owner=None,
            wake_at=None,
            seen_seq=row.inbox_seq,
            execution=row.execution,
            opened=row.opened,
            takeovers=row.takeovers,
            status=Status.TERMINATED,
            history_events=count,
            history_bytes=size,
            summary=EMPTY_SUMMARY,
        )
        delta = ExecutionDelta(
            row.execution, events=events, closed=closed, event_count=count, byte_count=size
        )
        return Write(instance_id, row.incarnation, row.revision, None, state, (delta,))

    def terminate(self, instance_id, reason="at once"):
        return self.store.commit([self.termination(instance_id, reason)]).outcomes[0]

    def set_policy(self, policy, name="job"):
        self.admin.set_policy(name, str(policy), by="somebody", reason="a test")

    # --- looking ---

    def record(self, instance_id):
        record = self.directory.get(instance_id)
        assert record is not None, f"{instance_id} is not there"
        return record

    def status(self, instance_id):
        return self.record(instance_id).status

    def executions(self, instance_id):
        return self.directory.executions(instance_id)

    def versions(self, instance_id):
        return [row.version for row in self.executions(instance_id)]

    def events(self, instance_id, execution=None):
        number = execution or self.record(instance_id).row.execution
        return [from_record(record) for record in self.directory.history(instance_id, number)]

    def kinds(self, instance_id, execution=None):
        return [event.kind.name for event in self.events(instance_id, execution)]

    def output(self, instance_id):
        return plain(self.record(instance_id).execution.output)

    # --- time ---

    def node(self, *args, **options):
        return Node(self, *args, **options)

    @property
    def alive(self):
        return [node for node in self.nodes if node.alive]

    def run_until_idle(self, *, limit=3_000):
        """Let all nodes work until none has anything to do now."""
        for _ in range(limit):
            busy = [node for node in self.alive if node.is_busy]
            if not busy:
                return
            for node in busy:
                node.cycle_once()
        raise AssertionError("the nodes do not come to rest")

    def run(self, seconds):
        """Let virtual time pass, and the nodes do what is due. In a long time they poll more rarely:
        on a server a poll costs milliseconds of real time.
        """
        until = self.clock.instant + round(seconds * 1e6)
        self.run_until_idle()
        with self._polling_each(LONG_POLL if seconds >= LONG else 0):
            while self.clock.instant < until:
                waits = [round(node.cycle.idle_seconds() * 1e6) + 1 for node in self.alive]
                self.clock.instant = min([until, *(self.clock.instant + wait for wait in waits)])
                for node in self.alive:
                    node.cycle.listen()
                self.run_until_idle()

    @contextmanager
    def _polling_each(self, least):
        polls = {node: node.cycle._poll for node in self.nodes}
        for node, poll in polls.items():
            node.cycle._poll = max(poll, least)
        yield
        for node, poll in polls.items():
            cycle = node.cycle
            cycle._poll = poll
            cycle._next_poll = min(cycle._next_poll, cycle._clock.monotonic() + poll)


class Node:
    """One engine, its membership and cycle; activities are run by calling a function, or held for
    the test to end.
    """

    def __init__(
        self,
        world,
        orchestrations,
        activities=None,
        *,
        lease=10.0,
        poll=1.0,
        options=None,
        limits=None,
        retention=EVERYTHING,
        begin=True,
        recorder=None,
        clock=None,
        queues=(DEFAULT_QUEUE,),
        slots=100_000,
        registered=None,
        fingerprints=(),
        library=THIS_LIBRARY,
    ):
        self.world = world
        clock = clock or world.clock
        self.registry = orchestrations
        self.activities = dict(activities or {})
        self.provider = world.provider_of(library)
        self.store = FaultyStore(self.provider.store)
        settings = NodeSettings(
            orchestrations,
            registered or {},
            queues,
            limits or Limits(),
            retention,
            options or EngineOptions(),
            slots,
            round(lease * 1e6),
            poll,
        )
        node_id = world.id("node")
        # A host of its own for each: no lock files, no hints; deaths are found out by the lease.
        record = replace(
            node_record(node_id, self.provider, replace(settings, activities={})),
            host=node_id,
            activities=tuple(sorted(self.activities)),
            fingerprints=tuple(fingerprints),
        )
        node = nodes.Node(
            self.provider,
            node_id,
            settings,
            clock,
            Recorder() if recorder is None else recorder,
            store=self.store,
            record=record,
        )
        self.engine, self.membership, self.cycle = node.engine, node.membership, node.cycle
        self.received = []
        self.running = {}
        self.attempts = []
        self.aborted = []
        self.asked = []
        self.obeys = True
        """Whether an activity that is asked to end does so at once."""
        self.ended = []
        self.logs = []
        self.replies = {}
        self.alive = True
        world.nodes.append(self)
        if begin:
            self.cycle.begin()

    @property
    def node_id(self):
        return self.engine.node.node_id

    # --- driving ---

    @property
    def is_busy(self):
        return bool(self.received) or self.cycle.idle_seconds() <= 0

    def cycle_once(self):
        received, self.received = self.received, []
        self.take(self.cycle.run(received))

    def run_until_idle(self, *, limit=1_000):
        for _ in range(limit):
            if not self.is_busy:
                return
            self.cycle_once()
        raise AssertionError("the node does not come to rest")

    def take(self, messages):
        for message in messages:
            match message:
                case RunActivity():
                    self._run(message)
                case StopActivity(key=key):
                    self.asked.append(key)
                    if self.obeys and key in self.running:
                        run = self.running.pop(key)
                        failure = ActivityFailure(
                            ErrorInfo("Stopped", "as it was told"), ("Stopped",)
                        )
                        self.received.append(ActivityEnded(key, run.attempt, failure))
                case AbortActivity(key=key):
                    self.aborted.append(key)
                    self.running.pop(key, None)
                case Reply(token=token, outcome=outcome):
                    assert token not in self.replies, "a client was answered twice"
                    self.replies[token] = outcome
                case InstanceEnded(instance_id=instance_id):
                    self.ended.append(instance_id)
                case WriteLogs(entries=entries):
                    self.logs.extend(entry.message for entry in entries)

    def _run(self, run):
        assert run.key not in self.running, "an activity runs twice on one node"
        self.attempts.append(run)
        assert run.name in self.activities, "it was given what it does not have"
        script = self.activities[run.name]
        self.running[run.key] = run
        if script is HOLD:
            return
        try:
            value = script(run)
        except Exception as error:
            self.fail(run, error)
        else:
            if value is not HOLD:
                self.finish(run, value)

    def the_running(self, name=None):
        """Return the one activity that runs here now."""
        found = [run for run in self.running.values() if name is None or run.name == name]
        assert len(found) == 1, f"{len(found)} activities run here"
        return found[0]

    def finish(self, run=None, value=None, *, heartbeat=None):
        """End an activity with a result."""
        run = run or self.the_running()
        self.running.pop(run.key, None)
        result = encode(value, subject="result")
        self.world.returned[run.key].append(result)
        beat = None if heartbeat is None else encode(heartbeat, subject="heartbeat")
        self.received.append(ActivityEnded(run.key, run.attempt, result, beat))

    def fail(self, run=None, error=None, *, heartbeat=None):
        """End an activity with a failure."""
        run = run or self.the_running()
        self.running.pop(run.key, None)
        error = error or RuntimeError("it broke")
        failure = ActivityFailure(
            error_info(error), class_names(error), non_retryable=is_non_retryable(error)
        )
        beat = None if heartbeat is None else encode(heartbeat, subject="heartbeat")
        self.received.append(ActivityEnded(run.key, run.attempt, failure, beat))

    def hand_back(self, run=None, *, unread):
        """End an activity that was not called, for the code with this fingerprint cannot read its
        arguments.
        """
        run = run or self.the_running()
        self.running.pop(run.key, None)
        error = ErrorInfo("orchestra.ArgumentsUnread", f"{unread} could not read the arguments")
        failure = ActivityFailure(error, (error.type,), untried=True, unread=unread)
        self.received.append(ActivityEnded(run.key, run.attempt, failure, None))

    def beat(self, value, run=None):
        run = run or self.the_running()
        self.received.append(Heartbeat(run.key, run.attempt, encode(value, subject="heartbeat")))

    def step(self, name, run=None):
        """Have an activity store a step."""
        run = run or self.the_running()
        item = journal_of(run.key.execution, run.key.event_id), encode(name, subject="step")
        number = self.world.clock.now() + len(self.received)
        self.received.append(
            PublishItems(run.key, run.attempt, "job", ((*item, number),), steps=True)
        )

    # --- the clients of this node ---

    def submit(self, change):
        token = self.world.id("token")
        self.received.append(Submit(change, token))
        return token

    def start(self, name="job", state=None, **options):
        change = self.world.start_change(name, state, **options)
        self.submit(change)
        return change.instance_id

    # --- ends ---

    def crash(self):
        """Be gone without a word."""
        self.alive = False
        self.received.clear()
        self.running.clear()
        self.engine.close()

    def stop(self, *, patience=5.0):
        """Stop in order, as the runtime does: a store that is away for too long is left without a
        word.
        """
        self.engine.stop_claiming()
        self.engine.release_all()
        until = self.world.clock.monotonic() + patience
        for _ in range(1_000):
            if self.engine.owned == 0 and not self.engine.has_work:
                break
            wait = self.cycle.idle_seconds()
            if self.world.clock.monotonic() + wait > until:
                break
            self.world.clock.skip(wait + 1e-6)
            self.cycle_once()
        else:
            raise AssertionError("the node does not stop")
        self.leave()

    def leave(self):
        self.alive = False
        self.take(self.cycle.end())


# --- the invariants ---------------------------------------------------------------------------


def check_instance(world, instance_id, registries=()):
    """Hold what is stored of an instance against the invariants of the design."""
    record = world.record(instance_id)
    rows = world.executions(instance_id)
    assert [row.number for row in rows] == list(range(1, len(rows) + 1)), (
        "I3: a gap in the executions"
    )
    assert record.row.execution == len(rows), "I3: the row points elsewhere"
    received = defaultdict(list)
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        records = world.directory.history(instance_id, row.number)
        _check_execution(
            world,
            instance_id,
            record,
            row,
            after,
            [from_record(entry) for entry in records],
            received,
        )
        if row.opened_at is not None:
            _check_replay(registries, instance_id, record, row, records)
    for name, sequences in received.items():
        assert sequences == sorted(set(sequences)), f"I8: {name} was delivered {sequences}"
    last = rows[-1]
    if record.status is Status.OPEN:
        assert last.closed_at is None, "I4: its last execution has ended and it is open"
    else:
        assert last.end is not None, "I4: it has ended and its last execution is open"
        assert last.end.value == record.status.value, (
            "I4: it ended otherwise than its last execution"
        )
        assert record.row.owner is None, "I9: somebody owns what has ended"
        assert record.unread_messages == 0, "I9: messages were left behind"
    current = {
        event.id
        for event in world.events(instance_id, last.number)
        if isinstance(event, ActivityScheduled)
    }
    for activity in record.activities:
        assert record.status is Status.OPEN, "I9: an activity's row was left behind"
        assert activity.execution == last.number, (
            "I9: an activity's row of an older execution was left behind"
        )
        assert activity.event_id in current, "I9: an activity's row that nobody asked for"
    return record


def _check_execution(world, instance_id, record, row, after, events, received):
    if row.opened_at is None:
        assert events == [], "I2: events before it was opened"
        assert after is None, "I3: an execution was never opened and has a successor"
        return
    assert [event.id for event in events] == list(range(1, len(events) + 1)), (
        "I2: a gap or a duplicate"
    )
    assert isinstance(events[0], ExecutionStarted), "I2: not started first"
    assert [event.at for event in events] == sorted(event.at for event in events), (
        "event times go back"
    )
    ends = [event.id for event in events if isinstance(event, TerminalEvent)]
    assert ends == ([len(events)] if row.closed_at is not None else []), (
        "I2: its end is not last, or is missing"
    )
    started = events[0]
    assert (started.instance_id, started.execution, started.version) == (
        instance_id,
        row.number,
        row.version,
    )
    assert started.incarnation == record.row.incarnation
    if row.closed_at is not None:
        assert row.events == len(events), "the counts of a closed execution are wrong"
    if after is not None:
        assert row.end is ExecutionEnd.CONTINUED_AS_NEW, "I3: an earlier execution ended otherwise"
        assert isinstance(events[-1], ContinuedAsNew), "I4: history tells of another end"
        assert after.state == events[-1].state, "the state was changed on its way over the boundary"
    commands = {event.id: event for event in events}
    answered = []
    for event in events:
        match event:
            case ActivityCompleted() | ActivityFailedEvent():
                command = commands[event.source]
                assert isinstance(command, ActivityScheduled), "I5: nobody asked for it"
                answered.append(event.source)
                if isinstance(event, ActivityCompleted) and command.name != ENTER:
                    key = (instance_id, record.row.incarnation, row.number, event.source)
                    assert event.result in world.returned[key], "I5: no worker returned this"
            case TimerFired():
                command = commands[event.source]
                assert isinstance(command, TimerCreated)
                assert event.at >= command.due, "I7: a timer was early"
                answered.append(event.source)
            case RequestReceived():
                assert isinstance(commands[event.source], RequestAwaited)
                answered.append(event.source)
            case EventReceived():
                assert isinstance(commands[event.source], EventAwaited)
                answered.append(event.source)
                received[event.name].append(event.sequence)
            case _:
                pass
    assert len(answered) == len(set(answered)), "I5: something was answered twice"


def _check_replay(registries, instance_id, record, row, records):
    definition = next(
        (found for one in registries if (found := one.find(row.name, row.version)) is not None),
        None,
    )
    if definition is None or definition.fingerprint != row.fingerprint:
        return
    identity = Identity(instance_id, record.row.incarnation, row.number, row.name, row.version)
    execution = Execution(definition, identity, Limits())
    try:
        execution.replay(records)
        assert execution.journal.take_fresh() == (), "I10: replay asks for something new"
        assert (execution.ending is not None) == (row.closed_at is not None), (
            "I10: replay ends otherwise"
        )
    finally:
        execution.evict()


def check_rest(world, registries=()):
    """Check every instance, and that nothing is owned by nodes that do not live."""
    living = {node.node_id for node in world.alive}
    for record in world.directory.list(InstanceQuery(limit=10_000)):
        check_instance(world, record.row.instance_id, registries)
        assert record.row.owner in {None, *living}, (
            f"I9: {record.row.instance_id} is owned by a ghost"
        )
    for node in world.alive:
        if not node.engine.owned:
            assert node.engine.unrecorded == 0, "a report of an activity is kept for ever"

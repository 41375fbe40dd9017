"""Drives one Execution step by step, and replays its history into a fresh one after every step
(I10).
"""

from __future__ import annotations

from orchestra.clock import from_micros
from orchestra.codec import Payload, encode, pack, plain
from orchestra.context import BoundaryRequest, Limits
from orchestra.errors import Attempt, ErrorInfo
from orchestra.events import (
    EVENTS,
    ActivityScheduled,
    CancelSent,
    ChildAwaited,
    ChildStarted,
    CommandCancelled,
    CommandEvent,
    DetachedStarted,
    EventAwaited,
    EventSent,
    ExecutionCompleted,
    ExecutionFailed,
    InputEvent,
    Patched,
    RequestAwaited,
    error_to_wire,
    from_record,
)
from orchestra.registry import OrchestrationRegistry
from orchestra.replay import ActivityDied, ActivityDone, Execution, Identity
from orchestra.store.kinds import THIS_LIBRARY, MessageKind, Status
from orchestra.store.messages import MessageRow
from orchestra.store.receipts import DELIVERED, refusal_payload

SECOND = 1_000_000
SUBJECT = Identity("subject-1", "incarnation-1", 1, "subject", "1.0.0")


def define(function, failures=(BaseException,)):
    """Return the definition of a function that is registered as ``subject`` 1.0.0.

    Whatever it raises is a declared failure unless the test says otherwise, so that its error can
    be looked at in history.
    """
    registry = (
        OrchestrationRegistry.builder().register("subject", function, failures=failures).build()
    )
    return registry.get("subject", "1.0.0")


def fresh(function, identity=SUBJECT, limits=None, registered=None, failures=(BaseException,)):
    """Return an execution that has not begun."""
    writer = EVENTS.writer(level=THIS_LIBRARY.writes)
    return Execution(
        define(function, failures), identity, limits or Limits(), registered or {}, writer=writer
    )


def replay(function, history, identity=SUBJECT, limits=None):
    """Return an execution that has repeated a history."""
    execution = fresh(function, identity, limits)
    execution.replay(history)
    return execution


class Drive:
    """A running execution and the world around it: a clock, an inbox, workers.

    ``cold``: drop the execution from memory after every step, and go on with its replay.
    """

    def __init__(
        self, function, state=None, *, identity=SUBJECT, limits=None, now=0, cold=False, inbox=()
    ):
        self.function = function
        self.identity = identity
        self.limits = limits
        self.now = now
        self.cold = cold
        self.history = []
        self.inbox = []
        self.sent = 0
        self.request = None
        self.turns = []
        for name, value in inbox:
            self.put(name, value)
        self.execution = fresh(function, identity, limits)
        self.execution.start(encode(state, subject="state"), now)
        self.turn()

    # --- what happens ---

    def turn(self, inputs=(), cancel=None, request=None):
        """Take one turn with what is in the inbox, and check that its history repeats."""
        turn = self.execution.turn(
            self.now, inputs, list(self.inbox), cancel, request=request or self.request
        )
        self.turns.append(turn)
        self.history += turn.events
        gone = {*turn.consumed, *(answer.sequence for answer in turn.extras.answers)}
        self.inbox = [message for message in self.inbox if message.sequence not in gone]
        waits = self.pending or self.execution.commands.boundary_awaited_since is not None
        assert self.ending or waits, "it waits for nothing that could happen (I11)"
        twin = self.check_replay()
        if self.cold:
            self.execution.evict()
            self.execution = twin
        else:
            twin.evict()
        return turn

    def done(self, name, value=None):
        """The oldest pending activity of this name returns."""
        return self.turn(
            [ActivityDone(self.activity(name), self.now, 1, encode(value, subject="result"))]
        )

    def died(self, name, message="boom"):
        """The oldest pending activity of this name fails for good."""
        error = ErrorInfo("ValueError", message)
        attempts = (Attempt(1, from_micros(self.now), error),)
        return self.turn(
            [ActivityDied(self.activity(name), self.now, error, attempts, "attempts exhausted")]
        )

    def advance(self, seconds):
        """Time passes."""
        self.now += int(seconds * SECOND)
        return self.turn()

    def put(self, name, value=None):
        """A message arrives, and nobody looks yet."""
        self.sent += 1
        self.inbox.append(
            MessageRow(self.sent, f"m{self.sent}", name, encode(value, subject="message"), self.now)
        )

    def send(self, name, value=None):
        """A message arrives."""
        self.put(name, value)
        return self.turn()

    def put_request(self, name, value=None, request_id=None):
        """A request arrives, and nobody looks yet. It stays in the inbox until it is answered."""
        self.sent += 1
        payload = encode(value, subject="request")
        request_id = request_id or f"r{self.sent}"
        self.inbox.append(
            MessageRow(self.sent, request_id, name, payload, self.now, MessageKind.REQUEST)
        )

    def ask(self, name, value=None, request_id=None):
        """A request arrives."""
        self.put_request(name, value, request_id)
        return self.turn()

    @property
    def answers(self):
        """What was answered so far, by request id: a value, or the reason of a rejection."""
        given = [answer for turn in self.turns for answer in turn.extras.answers]
        assert len({answer.request_id for answer in given}) == len(given), "answered twice"
        return {
            one.request_id: plain(one.value) if one.rejection is None else f"no: {one.rejection}"
            for one in given
        }

    def put_end(self, source, value=None, kind=MessageKind.CHILD_COMPLETED):
        """A child ends, and nobody looks yet. ``value`` is its output, or the message of its
        error.
        """
        if kind is MessageKind.CHILD_COMPLETED:
            payload = encode(value, subject="output")
        else:
            payload = Payload(pack({"error": error_to_wire(ErrorInfo("ValueError", value))}))
        self.sent += 1
        self.inbox.append(
            MessageRow(self.sent, f"m{self.sent}", "child", payload, self.now, kind, source)
        )

    def receipt(self, source=None, refused=None):
        """The receipt of the oldest pending send, or of a given one, arrives: that it was
        delivered, or an ``AppendRefused``.
        """
        if source is None:
            source = next(
                event.id
                for event in self.execution.pending
                if isinstance(event, EventSent | CancelSent)
            )
        kind = MessageKind.SEND_DELIVERED if refused is None else MessageKind.SEND_REFUSED
        payload = DELIVERED if refused is None else refusal_payload(refused)
        self.sent += 1
        self.inbox.append(
            MessageRow(self.sent, f"m{self.sent}", "target", payload, self.now, kind, source)
        )
        return self.turn()

    def ended(self, name, value=None, kind=MessageKind.CHILD_COMPLETED):
        """The oldest pending child of this name ends."""
        self.put_end(self.child(name), value, kind)
        return self.turn()

    def put_background_end(self, link, value=None, status=Status.COMPLETED):
        """A background child ends, and nobody looks yet. ``value`` is as in ``put_end``."""
        if status is Status.COMPLETED:
            payload = encode(value, subject="output")
        else:
            payload = Payload(pack({"error": error_to_wire(ErrorInfo("ValueError", value))}))
        self.sent += 1
        kind = MessageKind.BACKGROUND_CHILD_ENDED
        self.inbox.append(
            MessageRow(self.sent, link, "kid-1", payload, self.now, kind, status.value)
        )

    def background_ended(self, link, value=None, status=Status.COMPLETED):
        """A background child ends."""
        self.put_background_end(link, value, status)
        return self.turn()

    def cancel(self, reason="enough"):
        """The instance is cancelled."""
        return self.turn(cancel=reason)

    def nudge(self, reason="a deploy", by="ops"):
        """An operator asks for the boundary. The request stays, as in the instance's row."""
        self.request = self.request or BoundaryRequest(from_micros(self.now), by, reason)
        return self.turn()

    # --- what is seen ---

    @property
    def events(self):
        return [from_record(record) for record in self.history]

    @property
    def ending(self):
        return self.execution.ending

    @property
    def output(self):
        assert isinstance(self.ending, ExecutionCompleted), self.ending
        return plain(self.ending.output)

    @property
    def error(self):
        assert isinstance(self.ending, ExecutionFailed), self.ending
        return self.ending.error

    @property
    def pending(self):
        """What the code waits for, in words: ``['activity a', 'timer', 'event x']``."""
        return [words(event) for event in self.execution.pending]

    @property
    def commands(self):
        """All that the code has asked for, in words."""
        return [words(event) for event in self.events if isinstance(event, CommandEvent)]

    def activity(self, name):
        """Return the event id of the oldest pending activity of a name."""
        return next(
            number for number, event in self.execution.activities.items() if event.name == name
        )

    def child(self, name):
        """Return the event id of the oldest pending child of a name."""
        pending = self.execution.pending
        return next(
            event.id for event in pending if isinstance(event, ChildStarted) and event.name == name
        )

    def check_replay(self):
        """Replay the history so far. It must arrive at the same point, and ask for nothing new
        (I10).
        """
        twin = replay(self.function, self.history, self.identity, self.limits)
        assert twin.ending == self.execution.ending
        if twin.ending is None:
            assert list(twin.pending) == list(self.execution.pending)
            assert twin.time.next_due == self.execution.time.next_due
        assert (twin.journal.count, twin.journal.size) == (
            self.execution.journal.count,
            self.execution.journal.size,
        )
        turn = twin.turn(self.now, request=self.request)
        assert (
            turn.events,
            turn.scheduled,
            turn.extras.cancelled,
            turn.extras.logs,
            turn.extras.custom_status,
        ) == (
            (),
            (),
            (),
            (),
            None,
        )
        assert (turn.extras.started, turn.extras.recalled, turn.extras.labels) == ((), (), ())
        assert (turn.extras.answers, dict(twin.commands.in_hand)) == (
            (),
            dict(self.execution.commands.in_hand),
        )
        assert (turn.extras.sent, turn.extras.refused) == ((), ())
        return twin


def words(event):
    match event:
        case ActivityScheduled():
            return f"activity {event.name}"
        case EventAwaited():
            return f"event {event.name}"
        case RequestAwaited():
            return f"request {event.name}"
        case ChildStarted():
            return f"child {event.name}"
        case ChildAwaited():
            return f"end of {event.child_id}"
        case DetachedStarted():
            return f"detached {event.name}"
        case EventSent():
            return f"send {event.name} to {event.target}"
        case CancelSent():
            return f"send cancel to {event.target}"
        case CommandCancelled():
            return f"cancel {event.source}"
        case Patched():
            return f"patch {event.patch}"
        case _:
            return "timer"


def prefixes(history):
    """Return every beginning of a history at which an execution can have stood: those that end
    before an input.
    """
    cuts = [
        at
        for at, record in enumerate(history)
        if at and isinstance(from_record(record), InputEvent)
    ]
    return [history[:cut] for cut in [*cuts, len(history)]]

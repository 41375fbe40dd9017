"""The background children of one execution's code: whose ends it awaits, and which it has got.

The end of a background child is one message to the instance. The execution that receives it gives
it to each wait for that child, also to later ones: a lap may await a handle as often as it likes.
For a later lap the engine looks up the child itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from orchestra.children import ChildHandle, handle_of
from orchestra.codec import Decoder, require_opened
from orchestra.errors import ChildEndForgotten, ChildFailed, ErrorInfo, StaleChildHandle
from orchestra.events import (
    ChildAwaited,
    ChildEnded,
    ChildStarted,
    CommandEvent,
    EventKind,
    error_from_bytes,
)
from orchestra.futures import DurableFuture
from orchestra.replay.journal import Journal
from orchestra.replay.mail import Mail, Waits
from orchestra.replay.timers import ExecutionTime
from orchestra.replay.turns import Identity
from orchestra.store.instances import ParentLink
from orchestra.store.kinds import Status
from orchestra.store.messages import EndName, MessageRow

__all__ = ["BackgroundChildren", "deliver_end", "end_event", "failure_of", "handle_for"]

_LOST: Final = "lost"
_GONE: Final = "gone"
"""The end of a child that an earlier lap has received, and that is not stored any more."""


class Pending(Protocol):
    """A command without a result."""

    @property
    def event(self) -> CommandEvent: ...


class Commands(Protocol):
    """What code asks for."""

    identity: Identity
    journal: Journal
    time: ExecutionTime
    waits: Waits

    @property
    def pending(self) -> Mapping[int, Pending]: ...
    def require_kind(self, kind: EventKind, what: str) -> None: ...
    def record(self, event: Any) -> Any: ...


class BackgroundChildren:
    """The ends that an execution has received, and its waits that need no message."""

    __slots__ = ("_commands", "_found", "_known", "ready", "unsure")

    def __init__(self, commands: Commands) -> None:
        self._commands = commands
        self._known: dict[str, ChildEnded] = {}
        """The ends that this lap has received, by the commands that started the children."""
        self._found: dict[str, MessageRow | None] = {}
        """The ends that an earlier lap has received, as they were told; ``None``: not stored any
        more.
        """
        self.ready: dict[int, None] = {}
        """The waits that may end without a message: the lap knows the end, or the child belongs to
        another life.
        """
        self.unsure: dict[str, ChildAwaited] = {}
        """The waits for children of earlier laps, by their links: such a lap may have received the
        end, and then no message tells it again.
        """

    def wait(self, handle: ChildHandle[Any]) -> ChildAwaited:
        """Record a wait for a child's end."""
        commands = self._commands
        what = f"a wait for child {handle.instance_id!r}"
        commands.require_kind(EventKind.CHILD_AWAITED, what)
        event: ChildAwaited = commands.record(
            ChildAwaited(
                commands.journal.next_id,
                commands.time.now,
                handle.orchestration,
                handle.instance_id,
                str(handle.link),
            )
        )
        commands.waits.open(EndName(event.link), event.id)
        if event.link in self._known or not self._is_own(event.link):
            self.ready[event.id] = None
        elif not event.link.startswith(self._lap):
            self.unsure[event.link] = event
        return event

    @property
    def _lap(self) -> str:
        identity = self._commands.identity
        return f"{identity.instance_id}/{identity.incarnation}/{identity.execution}/"

    def _is_own(self, link: str) -> bool:
        identity = self._commands.identity
        return link.startswith(f"{identity.instance_id}/{identity.incarnation}/")

    def close(self, event: ChildAwaited) -> None:
        """Take in that a wait has its end, or was given up."""
        self._commands.waits.close(EndName(event.link), event.id)
        self.ready.pop(event.id, None)
        if EndName(event.link) not in self._commands.waits:
            self.unsure.pop(event.link, None)

    def find(self, link: str, end: MessageRow | None) -> None:
        """Have the next turn give an end to its waits that no message tells."""
        self._found[link] = end
        self._wake(link)

    def _wake(self, link: str) -> None:
        self.ready.update(dict.fromkeys(self._commands.waits.by_name.get(EndName(link), ())))

    def learn(self, event: ChildEnded) -> None:
        """Take in an end. The other waits for that child get it as well."""
        if event.status == _LOST or event.link in self._known:
            return
        self.unsure.pop(event.link, None)
        self._known[event.link] = event
        self._wake(event.link)

    def next_end(self, mail: Mail, number: int, now: int) -> ChildEnded | None:
        """Return the end of a wait that needs no message."""
        for source in tuple(self.ready):
            del self.ready[source]
            wait = self._commands.pending[source].event
            assert isinstance(wait, ChildAwaited)
            known = self._known.get(wait.link)
            if known is not None:
                return replace(known, id=number, at=now, source=source)
            if wait.link in self._found:
                found = self._found[wait.link]
                if found is not None:
                    return end_event(found, source, number, now)
                return ChildEnded(number, now, source, wait.child_id, wait.link, _GONE, 0)
            if not mail.has(EndName(wait.link)):  # a rewind brings ends of earlier lives again
                return ChildEnded(number, now, source, wait.child_id, wait.link, _LOST, 0)
        return None


def handle_for(event: ChildStarted, identity: Identity, reads: Decoder[Any]) -> ChildHandle[Any]:
    """Return the handle of a child that this execution has started."""
    link = ParentLink(identity.instance_id, identity.incarnation, identity.execution, event.id)
    return handle_of(event.child_id, event.name, str(link), reads)


def end_event(message: MessageRow, source: int, number: int, now: int) -> ChildEnded:
    """Return the event that gives a child's end to a wait."""
    require_opened(message.payload, f"end of child {message.name!r}")
    status = Status(message.source)
    completed = status is Status.COMPLETED
    name = status.name.lower()
    return ChildEnded(
        number,
        now,
        source,
        message.name,
        message.message_id,
        name,
        message.sequence,
        message.payload if completed else None,
        None if completed else failure_of(message, name),
    )


def failure_of(message: MessageRow, status: str) -> ErrorInfo:
    """Return the error of a child that has not completed."""
    data = message.payload.data
    return error_from_bytes(data) if data else ErrorInfo(f"orchestra.{status}", "")


def deliver_end(event: ChildEnded, waited: ChildAwaited, future: DurableFuture[Any]) -> None:
    """Give the end of a child to the code that awaits it."""
    if event.status == _LOST:
        future.fail(StaleChildHandle(waited.name, event.child_id, event.link))
    elif event.status == _GONE:
        future.fail(ChildEndForgotten(waited.name, event.child_id, event.link))
    elif event.result is not None:
        future.deliver(event.result)
    else:
        cause = event.cause or ErrorInfo(f"orchestra.{event.status}", "")
        future.fail(ChildFailed(waited.name, event.child_id, event.status, cause))

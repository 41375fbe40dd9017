"""The rows of activities, and the tasks that nodes take from them."""

from __future__ import annotations

from typing import Final

from orchestra.codec import Packed, Payload
from orchestra.events import EventRecord
from orchestra.frozen import frozen
from orchestra.store.routes import Route

__all__ = ["LOST", "ActivityRow", "Task"]

LOST: Final = Packed(b"")
"""The ``failure`` of an attempt whose node has died. The store itself writes it."""


@frozen
class ActivityRow:
    """A stored activity: it has failed attempts, a heartbeat or steps, or it was handed out.

    ``due`` is when the next attempt may begin. With a ``route`` the current attempt was handed out:
    ``owner`` is the node that has taken it, and ``result`` or ``failure`` is its end there.
    ``revision`` is the fence of that node. The store sets it: it begins at 0, and each write of the
    row raises it by one. A write's own value is ignored.

    A written row is free to be taken, or with an ``owner`` it runs on that node already. A write
    that holds its instance keeps the ends that its turn had received, as ``result`` or ``failure``
    (rule 39).

    ``stopping`` is the stop mark: the instance has cancelled the attempt and waits for its end. A
    row with the mark has an owner, or it has ended.

    ``paused``: an operator holds the instance, and no node takes the attempt.
    """

    execution: int
    event_id: int
    attempt: int
    due: int | None
    started_at: int
    attempts: Packed
    heartbeat: Payload | None = None
    route: Route | None = None
    owner: str | None = None
    result: Payload | None = None
    failure: Packed | None = None
    revision: int = 0
    stopping: bool = False
    paused: bool = False

    @property
    def has_ended(self) -> bool:
        """Whether the attempt has ended or was lost, and its end waits for the instance's next
        turn.
        """
        return self.result is not None or self.failure is not None

    @property
    def is_waiting(self) -> bool:
        """Whether it was handed out, and waits for a node."""
        return (
            self.route is not None and self.owner is None and not self.has_ended and not self.paused
        )


@frozen
class Task:
    """An attempt that a node has taken. ``revision`` is its fence; ``scheduled`` is the scheduling
    event.

    ``stopping``: its instance has cancelled it. The node ends it and reports the end; it begins no
    attempt.
    """

    instance_id: str
    incarnation: str
    execution: int
    event_id: int
    revision: int
    attempt: int
    orchestration: str
    version: str
    scheduled: EventRecord
    heartbeat: Payload | None = None
    traceparent: str | None = None
    stopping: bool = False

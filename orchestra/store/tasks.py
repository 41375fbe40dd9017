"""The rows of activities, and the tasks that are handed out of them."""

from __future__ import annotations

from typing import Final

from orchestra.codec import Packed, Payload
from orchestra.events import EventRecord
from orchestra.frozen import frozen
from orchestra.store.routes import Route

__all__ = ["LOST", "ActivityRow", "Task"]

LOST: Final = Packed(b"")
"""The ``failure`` of a try whose node has died. The store itself says so."""


@frozen
class ActivityRow:
    """An activity with something to remember: failed tries, a heartbeat, or that it is handed out.

    ``due`` is when the next try may begin. With a ``route`` the current try is handed out:
    ``owner`` is the node that has taken it, and ``result`` or ``failure`` says how it has ended
    there. The fence of the node that has it (``revision``) is the store's, and in a write counts
    for nothing: it begins at 0, and each write of the row raises it by one.

    What is written is free to be taken, or with an ``owner`` it runs on that node already. A write
    that holds its instance keeps, as ``result`` or ``failure``, the ends that its turn had taken in
    (rule 39).

    ``stopping`` is the stop mark of a try that is handed out: its instance has cancelled it and
    waits for its end. A row with the mark has an owner, or it has ended.
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

    @property
    def has_ended(self) -> bool:
        """Whether the try has ended or was lost, and its end is kept for the instance's next
        turn.
        """
        return self.result is not None or self.failure is not None


@frozen
class Task:
    """A try of an activity that a node has taken. ``revision`` is its fence; ``scheduled`` the
    event that asked for it.

    ``stopping``: its instance has cancelled it. The node ends it and reports the end; it begins no
    try.
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

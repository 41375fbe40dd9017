"""The sessions that this node has taken: how many there may be, and by which routes their
activities come.
"""

from __future__ import annotations

from typing import Final

from orchestra.clock import Clock
from orchestra.codec import Payload, encode
from orchestra.engine.messages import ActivityFailure, ActivityKey, RunActivity
from orchestra.errors import ErrorInfo
from orchestra.events import FORMAT
from orchestra.sessions import OPEN, activities_of, entered_by
from orchestra.store.routes import Route, node_queue

__all__ = ["Sessions"]

_PROMISED: Final = 60.0
"""Seconds for which a session that was entered takes a place before it is open here."""

_FULL: Final = ActivityFailure(
    ErrorInfo("orchestra.SessionRefused", "the node has as many sessions as it may have"),
    ("orchestra.SessionRefused",),
    untried=True,
)


class Sessions:
    """Answers what wants to enter a session here.

    A session is entered, and then opens with its instance's next turn. Between the two it is
    *promised*: it counts, but not for ever, as its instance may have ended meanwhile.

    Args:
        most: how many sessions may be open.
        formats: the event formats that the node reads.
    """

    def __init__(self, node_id: str, clock: Clock, most: int, formats: tuple[int, ...]) -> None:
        self.node_id = node_id
        self._clock = clock
        self._most = most
        self._formats = formats
        self._promised: dict[ActivityKey, float] = {}
        """Until when each promise counts, by the activity that entered the session."""
        self._names: dict[str, None] = {}
        self.routes: tuple[Route, ...] = ()
        """By which other nodes hand out the activities of sessions on this node. They stay: what is
        scheduled late in an old session must find it.
        """
        self.are_refused = False
        """Whether this node is stopping, and takes no new ones."""

    def room(self, opened: int) -> int:
        """Return how many more this node may take, if so many are open."""
        if self.are_refused:
            return 0
        if self._promised:
            moment = self._clock.monotonic()
            self._promised = {key: end for key, end in self._promised.items() if end > moment}
        return self._most - opened - len(self._promised)

    def enter(self, run: RunActivity, opened: int) -> Payload | ActivityFailure:
        """Return the end of the activity that enters a session."""
        if self.room(opened) <= 0:
            return _FULL  # one claim may bring more than there is room for
        self._promised[run.key] = self._clock.monotonic() + _PROMISED
        names = (OPEN, *activities_of(run.arguments))
        if any(name not in self._names for name in names):
            self._names.update(dict.fromkeys(names))
            queue = node_queue(self.node_id)
            plain = [Route(queue, name) for name in self._names]
            self.routes = (
                *plain,
                *(r.of_format(n) for n in self._formats if n != FORMAT for r in plain),
            )
        return encode(self.node_id, subject="the node of a session")

    def open(self, run: RunActivity) -> None:
        """Take in that a session opens: it is promised no longer."""
        self._promised.pop(run.key._replace(event_id=entered_by(run.arguments)), None)

    def give_up(self, key: ActivityKey) -> None:
        """Take in that an activity is aborted: if it has entered a session, that will not open."""
        self._promised.pop(key, None)

    def reborn(self, node_id: str) -> None:
        """Forget all sessions: this node goes on under another id."""
        self.node_id: str = node_id
        self._promised.clear()
        self._names.clear()
        self.routes = ()

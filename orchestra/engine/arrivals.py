"""What comes for the instances of this node: reports of activities, messages, ends of children,
marks of clients.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.engine.absences import Absences
from orchestra.engine.activities import Activities
from orchestra.engine.agenda import Agenda
from orchestra.engine.desk import Desk
from orchestra.engine.doubts import Doubts
from orchestra.engine.items import ActivityEnded, ActivityKey, Heartbeat
from orchestra.engine.store_time import StoreTime
from orchestra.engine.tries import Try
from orchestra.store.instances import CancelMark
from orchestra.store.messages import InboxPage, MessageRow
from orchestra.store.outcomes import Appended
from orchestra.store.port import Store
from orchestra.store.tasks import ActivityRow

__all__ = ["Arrivals"]


class Arrivals:
    """Puts what comes onto the desk that it is for, and makes that ready. What is for none that can
    take it now is kept.

    What is in the store already is put there at once by whoever has written it through this node;
    the rest is read as *news*.
    """

    def __init__(
        self,
        store: Store,
        time: StoreTime,
        agenda: Agenda,
        absences: Absences,
        doubts: Doubts,
        activities: Activities,
        page: InboxPage,
    ) -> None:
        self._store = store
        self._page = page
        self._time = time
        self._agenda = agenda
        self._absences = absences
        self._doubts = doubts
        self._activities = activities
        self.are_wanted: bool = False
        """Whether the store is to be asked for news."""

    # --- what activities report ---

    def report(self, item: ActivityEnded | Heartbeat) -> None:
        """Take in what an activity of an own instance has reported."""
        if self._absences.keep(item):
            return
        if isinstance(item, ActivityEnded):
            self._end(item)
        else:
            self._beat(item)

    def _end(self, item: ActivityEnded) -> None:
        if self._doubts.keep(item):
            return
        desk = self._agenda.get(item.key.instance_id)
        self._activities.ended(item)
        if desk is not None and desk.still_running.get(item.key.event_id) == item.attempt:
            # The instance is claimed and not loaded yet, and perhaps never will be: then its hold
            # keeps the end.
            desk.unacknowledged.append(item)
            desk.early.append(item)
            self._agenda.make_ready(desk.instance_id)
            return
        entry = self._running_try(desk, item.key, item.attempt)
        if desk is None or entry is None:
            # late: another execution, a cancelled activity, or an attempt that was given up (I5)
            return
        desk.unacknowledged.append(item)
        desk.end_try(item.key.event_id, item.result, item.heartbeat, self._time.now)
        self._agenda.make_ready(desk.instance_id)

    def _beat(self, item: Heartbeat) -> None:
        desk = self._agenda.get(item.key.instance_id)
        if desk is not None and self._running_try(desk, item.key, item.attempt) is not None:
            desk.tries.beat(item.key.event_id, item.payload)
            self._agenda.make_ready(desk.instance_id)

    @staticmethod
    def _running_try(desk: Desk | None, key: ActivityKey, attempt: int) -> Try | None:
        """Return the try that a report is about, if it runs, and for this very execution."""
        if desk is None or (desk.incarnation, desk.current.number) != (
            key.incarnation,
            key.execution,
        ):
            return None
        entry = desk.tries.get(key.event_id)
        return entry if entry is not None and entry.running and entry.attempt == attempt else None

    # --- what is in the store ---

    def appended(self, instance_id: str, arrival: Appended, node: str) -> None:
        """Take in what a write of this node has left with an instance, if that is this node's
        own.
        """
        desk = self._agenda.get(instance_id)
        if desk is None or arrival.owner != node or arrival.sequence <= desk.known_seq:
            return
        if arrival.sequence > desk.known_seq + 1:
            self.are_wanted = True  # somebody else's message lies in between
            return
        messages = (arrival.message,) if arrival.message else ()
        self._put(
            desk,
            messages,
            arrival.sequence,
            (arrival.activity,) if arrival.activity else (),
            arrival.cancel,
        )

    def read(self, node: str) -> None:
        """Read the news, if they are wanted.

        Raises:
            StoreError: they cannot be read now, and are wanted still.
        """
        if self.are_wanted and len(self._agenda) > 0:
            for news in self._store.news(node, self._page):
                desk = self._agenda.get(news.instance_id)
                if (
                    desk is not None
                    and desk.incarnation == news.incarnation
                    and news.inbox_seq > desk.known_seq
                ):
                    self._put(
                        desk,
                        news.messages,
                        news.inbox_seq,
                        news.activities,
                        news.cancel,
                        news.whole_to,
                    )
        self.are_wanted = False

    def _put(
        self,
        desk: Desk,
        messages: Iterable[MessageRow],
        inbox_seq: int,
        activities: Iterable[ActivityRow],
        cancel: CancelMark | None,
        whole_to: int | None = None,
    ) -> None:
        desk.take_messages(messages, inbox_seq, whole_to)
        desk.take_ended(activities, self._time.now)
        desk.cancel = cancel or desk.cancel
        self._agenda.make_ready(desk.instance_id)

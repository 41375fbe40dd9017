"""What comes for the instances of this node: reports of activities, messages, ends of children and
marks of clients.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from orchestra.engine.activities import Activities
from orchestra.engine.messages import ActivityEnded, Heartbeat
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.store_time import StoreTime
from orchestra.store.instances import CancelMark
from orchestra.store.messages import InboxPage, MessageRow
from orchestra.store.outcomes import Appended
from orchestra.store.port import Store
from orchestra.store.tasks import ActivityRow

__all__ = ["Arrivals"]


class Arrivals:
    """Gives each instance what comes for it, and makes it ready.

    What this node has written itself arrives at once. The rest is read from the store as *news*.

    Args:
        blocked: the instances whose code does not return.
        unknown: the instances whose last write has an unknown outcome.
        page: how much of an inbox is read at once.
    """

    def __init__(
        self,
        store: Store,
        time: StoreTime,
        run_queue: RunQueue,
        blocked: Container[str],
        unknown: Container[str],
        activities: Activities,
        page: InboxPage,
    ) -> None:
        self._store = store
        self._page = page
        self._time = time
        self._run_queue = run_queue
        self._blocked = blocked
        self._unknown = unknown
        self._activities = activities
        self.are_due: bool = False
        """Whether the next step reads the news."""

    # --- what activities report ---

    def report(self, report: ActivityEnded | Heartbeat) -> None:
        """Take in what an activity of an own instance has reported."""
        if report.key.instance_id in self._blocked:
            self._activities.keep(report)
        elif isinstance(report, ActivityEnded):
            self._end(report)
        else:
            self._beat(report)

    def _end(self, ended: ActivityEnded) -> None:
        key = ended.key
        self._activities.ended(ended)
        if key.instance_id in self._unknown:
            self._activities.keep(ended)
            return
        instance = self._run_queue.get(key.instance_id)
        if instance is None:
            return
        if instance.still_running.get(key.event_id) == ended.attempt:
            # The instance is claimed and not loaded yet. If it never is, its hold keeps the end.
            self._activities.keep(ended)
            self._run_queue.make_ready(key.instance_id)
        elif instance.running(key, ended.attempt) is not None:
            self._activities.keep(ended)
            instance.end_attempt(key.event_id, ended.result, ended.heartbeat, self._time.now)
            self._run_queue.make_ready(key.instance_id)
        # Else it is late: another execution, a cancelled activity, or a given-up attempt (I5).

    def _beat(self, beat: Heartbeat) -> None:
        instance = self._run_queue.get(beat.key.instance_id)
        if instance is not None and instance.running(beat.key, beat.attempt) is not None:
            instance.attempts.beat(beat.key.event_id, beat.payload)
            self._run_queue.make_ready(instance.instance_id)

    # --- what is in the store ---

    def appended(self, instance_id: str, arrival: Appended, node: str) -> None:
        """Take in what a write of this node has left with an instance, if this node owns it."""
        instance = self._run_queue.get(instance_id)
        if instance is None or arrival.owner != node or arrival.sequence <= instance.known_seq:
            return
        if arrival.sequence > instance.known_seq + 1:
            self.are_due = True  # another sender's message lies in between
            return
        messages = (arrival.message,) if arrival.message else ()
        self._put(
            instance,
            messages,
            arrival.sequence,
            (arrival.activity,) if arrival.activity else (),
            arrival.cancel,
        )

    def read(self, node: str) -> None:
        """Read the news, if they are due.

        Raises:
            StoreError: they cannot be read now, and stay due.
        """
        if self.are_due and len(self._run_queue) > 0:
            for news in self._store.news(node, self._page):
                instance = self._run_queue.get(news.instance_id)
                if (
                    instance is not None
                    and instance.incarnation == news.incarnation
                    and news.inbox_seq > instance.known_seq
                ):
                    self._put(
                        instance,
                        news.messages,
                        news.inbox_seq,
                        news.activities,
                        news.cancel,
                        news.whole_to,
                    )
        self.are_due = False

    def _put(
        self,
        instance: OwnedInstance,
        messages: Iterable[MessageRow],
        inbox_seq: int,
        activities: Iterable[ActivityRow],
        cancel: CancelMark | None,
        whole_to: int | None = None,
    ) -> None:
        instance.take_messages(messages, inbox_seq, whole_to)
        instance.take_ended(activities, self._time.now)
        instance.cancel = cancel or instance.cancel
        self._run_queue.make_ready(instance.instance_id)

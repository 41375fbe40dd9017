"""What comes for the instances of this node: reports of activities, messages, ends of children,
marks of clients.
"""

from __future__ import annotations

from collections.abc import Iterable

from orchestra.engine.activities import Activities
from orchestra.engine.attempts import PendingActivity
from orchestra.engine.blocked_turns import BlockedTurns
from orchestra.engine.messages import ActivityEnded, ActivityKey, Heartbeat
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.engine.store_time import StoreTime
from orchestra.engine.unknown_outcomes import UnknownOutcomes
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
        run_queue: RunQueue,
        blocked: BlockedTurns,
        unknown: UnknownOutcomes,
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
        self.are_wanted: bool = False
        """Whether the store is to be asked for news."""

    # --- what activities report ---

    def report(self, message: ActivityEnded | Heartbeat) -> None:
        """Take in what an activity of an own instance has reported."""
        if self._blocked.keep(message):
            return
        if isinstance(message, ActivityEnded):
            self._end(message)
        else:
            self._beat(message)

    def _end(self, message: ActivityEnded) -> None:
        if self._unknown.keep(message):
            return
        instance = self._run_queue.get(message.key.instance_id)
        self._activities.ended(message)
        if (
            instance is not None
            and instance.still_running.get(message.key.event_id) == message.attempt
        ):
            # The instance is claimed and not loaded yet, and perhaps never will be: then its hold
            # keeps the end.
            instance.unacknowledged.append(message)
            instance.early.append(message)
            self._run_queue.make_ready(instance.instance_id)
            return
        activity = self._running_attempt(instance, message.key, message.attempt)
        if instance is None or activity is None:
            # late: another execution, a cancelled activity, or an attempt that was given up (I5)
            return
        instance.unacknowledged.append(message)
        instance.end_attempt(
            message.key.event_id, message.result, message.heartbeat, self._time.now
        )
        self._run_queue.make_ready(instance.instance_id)

    def _beat(self, message: Heartbeat) -> None:
        instance = self._run_queue.get(message.key.instance_id)
        if (
            instance is not None
            and self._running_attempt(instance, message.key, message.attempt) is not None
        ):
            instance.attempts.beat(message.key.event_id, message.payload)
            self._run_queue.make_ready(instance.instance_id)

    @staticmethod
    def _running_attempt(
        instance: OwnedInstance | None, key: ActivityKey, attempt: int
    ) -> PendingActivity | None:
        """Return the try that a report is about, if it runs, and for this very execution."""
        if instance is None or (instance.incarnation, instance.current.number) != (
            key.incarnation,
            key.execution,
        ):
            return None
        activity = instance.attempts.get(key.event_id)
        return (
            activity
            if activity is not None and activity.running and activity.attempt == attempt
            else None
        )

    # --- what is in the store ---

    def appended(self, instance_id: str, arrival: Appended, node: str) -> None:
        """Take in what a write of this node has left with an instance, if that is this node's
        own.
        """
        instance = self._run_queue.get(instance_id)
        if instance is None or arrival.owner != node or arrival.sequence <= instance.known_seq:
            return
        if arrival.sequence > instance.known_seq + 1:
            self.are_wanted = True  # somebody else's message lies in between
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
        """Read the news, if they are wanted.

        Raises:
            StoreError: they cannot be read now, and are wanted still.
        """
        if self.are_wanted and len(self._run_queue) > 0:
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
        self.are_wanted = False

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

"""What activities publish, on its way from the shell to the store.

Items of an attempt are stored under the fence of its instance's owner or, if the attempt was
handed out, under the fence of its task. They come first in their group, so that they stand before,
or with, the end of the attempt.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestra.engine.activities import Activities, key_of
from orchestra.engine.messages import ItemsStored, Outbox, PublishItems
from orchestra.errors import LevelTooLow, StoreError
from orchestra.levels import Levels
from orchestra.retention import Retention
from orchestra.store.changes import Publish
from orchestra.store.outcomes import Outcome, Refused
from orchestra.store.streams import STREAM_LEVEL, Published, bounds_of
from orchestra.telemetry import Recorder, engine_logger

__all__ = ["Publications"]


class Publications:
    """The items that the next group publishes.

    Args:
        retentions: how much of each stream is kept, by the orchestration.
        otherwise: the same for orchestrations that are not named.
    """

    def __init__(
        self,
        activities: Activities,
        outbox: Outbox,
        retentions: Mapping[str, Retention],
        otherwise: Retention,
        recorder: Recorder,
    ) -> None:
        self._recorder = recorder
        self._activities = activities
        self._outbox = outbox
        self._retentions = retentions
        self._otherwise = otherwise
        self._waiting: list[Publish] = []

    @property
    def has_any(self) -> bool:
        """Whether the next group publishes something."""
        return bool(self._waiting)

    def take(self, message: PublishItems, node: str, now: int, levels: Levels) -> None:
        """Take in items of an attempt. They are refused if it is no longer current."""
        key = message.key
        fence = self._activities.fence(key, message.attempt)
        if fence is None or levels.write < STREAM_LEVEL:
            if fence is None:
                self._recorder.publication_refused(len(message.items))
            error = None if fence is None else LevelTooLow(_TOO_LOW)
            self._outbox.add(ItemsStored(key, message.attempt, error, is_stale=fence is None))
            return
        retention = self._retentions.get(message.orchestration, self._otherwise)
        self._waiting.append(
            Publish(
                *key,
                attempt=message.attempt,
                node=node,
                revision=fence.revision,
                items=tuple(
                    [
                        Published(
                            stream,
                            payload,
                            now,
                            key.execution,
                            key.event_id,
                            message.attempt,
                            number,
                        )
                        for stream, payload, number in message.items
                    ]
                ),
                bounds=bounds_of(retention.streams),
            )
        )

    def take_changes(self) -> list[Publish]:
        """Return what the next group publishes."""
        changes, self._waiting = self._waiting, []
        return changes

    def answered(self, change: Publish, outcome: Outcome) -> None:
        """Tell the attempt that its items are stored, or that it is no longer current."""
        is_stale = isinstance(outcome, Refused)
        if is_stale:
            self._recorder.publication_refused(len(change.items))
        else:
            self._recorder.published(change.items)
        self._answer(change, None, is_stale=is_stale)

    def failed(self, change: Publish, error: StoreError) -> None:
        """Tell the attempt that the store will never take its items."""
        engine_logger.error("the store will not take items of a stream: %s", error)
        self._answer(change, error, is_stale=False)

    def unanswered(self, change: Publish) -> None:
        """Publish the items with the next group; the store leaves out those that stand (rule 9)."""
        self._waiting.append(change)

    def clear(self) -> None:
        """Forget all items: the attempts are aborted."""
        self._waiting.clear()

    def _answer(self, change: Publish, error: StoreError | None, *, is_stale: bool) -> None:
        self._outbox.add(ItemsStored(key_of(change), change.attempt, error, is_stale=is_stale))


_TOO_LOW = (
    f"streams are written from level {STREAM_LEVEL} of the store on; the level rises by itself "
    "once all nodes have a library that knows them"
)

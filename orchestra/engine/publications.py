"""What activities publish, on its way from the shell to the store.

Items of an attempt are stored under the fence of its instance's owner or, if the attempt was
handed out, under the fence of its task. They come first in their group, so that they stand before,
or with, the end of the attempt.

Results of steps are stored with the row of their activity. So they wait while this node does not
know whether the activity is pending: its instance is being recovered, or is not loaded yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from orchestra.engine.activities import Activities, Fence, key_of
from orchestra.engine.messages import ItemsStored, Outbox, PublishItems
from orchestra.engine.owned import OwnedInstance
from orchestra.engine.run_queue import RunQueue
from orchestra.errors import LevelTooLow, StoreError
from orchestra.levels import Levels
from orchestra.retention import Retention
from orchestra.store.changes import Publish, Steps
from orchestra.store.outcomes import Outcome, Refused
from orchestra.store.streams import STREAM_LEVEL, Published, bounds_of
from orchestra.telemetry import Recorder, engine_logger

__all__ = ["Publications"]


class Publications:
    """The items that the next group publishes.

    Args:
        run_queue: the instances of this node.
        retentions: how much of each stream is kept, by the orchestration.
        otherwise: the same for orchestrations that are not named.
    """

    def __init__(
        self,
        activities: Activities,
        outbox: Outbox,
        run_queue: RunQueue,
        retentions: Mapping[str, Retention],
        otherwise: Retention,
        recorder: Recorder,
    ) -> None:
        self._recorder = recorder
        self._activities = activities
        self._outbox = outbox
        self._run_queue = run_queue
        self._retentions = retentions
        self._otherwise = otherwise
        self._waiting: list[Publish] = []
        self._unfenced: list[Publish] = []
        """Those with steps whose fence this node does not know."""

    @property
    def has_any(self) -> bool:
        """Whether the next group publishes something."""
        return bool(self._waiting) or any(map(self._is_fenced, self._unfenced))

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
        self._add(
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
                steps=Steps() if message.steps else None,
            )
        )

    def take_changes(self) -> list[Publish]:
        """Return what the next group publishes."""
        unfenced, self._unfenced = self._unfenced, []
        for change in unfenced:
            self._add(change)
        changes, self._waiting = self._waiting, []
        return changes

    def _add(self, change: Publish) -> None:
        """Publish items with the next group; or later, if they are steps whose fence this node does
        not know, or come behind such steps. Steps of an attempt that is not current are refused.
        """
        if change.steps is None:
            (self._unfenced if self._is_behind(change) else self._waiting).append(change)
            return
        fence = self._activities.fence(key_of(change), change.attempt)
        if fence is None:
            self._refused(change)
        elif fence.revision is not None:
            self._waiting.append(replace(change, revision=fence.revision, steps=Steps()))
        elif (instance := self._instance_of(change)) is not None:
            row = instance.attempts.keep_steps(change.event_id, change.execution)
            self._waiting.append(replace(change, steps=Steps(instance.revision, row)))
        else:
            self._unfenced.append(change)

    def _is_behind(self, change: Publish) -> bool:
        """Return whether earlier items of the attempt wait: numbers are stored in order."""
        attempt = key_of(change), change.attempt
        return any((key_of(one), one.attempt) == attempt for one in self._unfenced)

    def _is_fenced(self, change: Publish) -> bool:
        """Return whether it is known by now under which fence items are stored, or that they are
        not.
        """
        if change.steps is None:
            return False  # it goes with those before it
        fence = self._activities.fence(key_of(change), change.attempt)
        return fence != Fence(None) or self._instance_of(change) is not None

    def _instance_of(self, change: Publish) -> OwnedInstance | None:
        """Return the instance of an own attempt, if this node knows that the attempt runs."""
        instance = self._run_queue.get(change.instance_id)
        if instance is None or instance.running(key_of(change), change.attempt) is None:
            return None
        return instance

    def answered(self, change: Publish, outcome: Outcome) -> OwnedInstance | None:
        """Tell the attempt that its items are stored, or that it is no longer current.

        Return an instance of which this node has a wrong idea: its steps wait until it is
        recovered.
        """
        if not isinstance(outcome, Refused):
            self._recorder.published(change.items)
            self._answer(change, None, is_stale=False)
            return None
        is_own = change.steps is not None and change.revision is None
        instance = self._instance_of(change) if is_own else None
        if instance is None:
            self._refused(change)
        else:  # others raise the revision too, and the attempt goes on
            self._unfenced.append(change)
        return instance

    def _refused(self, change: Publish) -> None:
        self._recorder.publication_refused(len(change.items))
        self._answer(change, None, is_stale=True)

    def failed(self, change: Publish, error: StoreError) -> None:
        """Tell the attempt that the store will never take its items."""
        engine_logger.error("the store will not take items of a stream: %s", error)
        self._answer(change, error, is_stale=False)

    def unanswered(self, change: Publish) -> None:
        """Publish the items with the next group; the store leaves out those that stand (rule 9)."""
        (self._waiting if change.steps is None else self._unfenced).append(change)

    def clear(self) -> None:
        """Forget all items: the attempts are aborted."""
        self._waiting.clear()
        self._unfenced.clear()

    def _answer(self, change: Publish, error: StoreError | None, *, is_stale: bool) -> None:
        self._outbox.add(ItemsStored(key_of(change), change.attempt, error, is_stale=is_stale))


_TOO_LOW = (
    f"streams are written from level {STREAM_LEVEL} of the store on; the level rises by itself "
    "once all nodes have a library that knows them"
)

"""Hints for readers of streams and for watchers of instances: something may have been published, or
have changed. Correctness does not depend on them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence

from orchestra.store.changes import NO_EXTRAS, Change, Claim, Publish, Write
from orchestra.store.kinds import Status
from orchestra.store.streams import JOURNAL

__all__ = ["Listener", "StreamHints", "published_by"]

Listener = Callable[[Collection[str] | None], None]
"""Is told the instances that have published or ended; ``None``: perhaps any. Called from any
thread; it must not block.
"""


class StreamHints:
    """The readers that listen at one provider. Any thread may call it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._listeners: tuple[Listener, ...] = ()
        self._watchers: tuple[Listener, ...] = ()
        """Listeners that also hear of other changes."""
        self._patient: tuple[Listener, ...] = ()
        """Those of them that may hear of other processes late."""
        self.on_listening: Callable[[bool], None] | None = None
        """Is called as the first listener comes, and as the last one goes. It must not block."""

    @property
    def is_listening(self) -> bool:
        """Whether there is a listener."""
        return bool(self._listeners)

    def add(self, listener: Listener) -> None:
        """Add a listener."""
        with self._guard:
            self._listeners = (*self._listeners, listener)
            if len(self._listeners) == 1 and self.on_listening is not None:
                self.on_listening(True)

    @property
    def are_patient(self) -> bool:
        """Whether all listeners may hear of other processes a part of a second late."""
        return len(self._patient) == len(self._listeners)

    def watch(self, listener: Listener, *, is_patient: bool = False) -> None:
        """Add a listener that hears of all changes; a patient one of those of other processes
        later, which costs less.
        """
        with self._guard:
            self._watchers = (*self._watchers, listener)
            if is_patient:
                self._patient = (*self._patient, listener)
        self.add(listener)

    def remove(self, listener: Listener) -> None:
        """Remove a listener."""
        with self._guard:
            self._watchers = tuple(one for one in self._watchers if one != listener)
            self._patient = tuple(one for one in self._patient if one != listener)
            self._listeners = tuple(one for one in self._listeners if one != listener)
            if not self._listeners and self.on_listening is not None:
                self.on_listening(False)

    def tell(self, instance_ids: Collection[str] | None) -> None:
        """Tell all listeners."""
        for listener in self._listeners:
            listener(instance_ids)

    def committed(self, changes: Sequence[Change]) -> None:
        """Tell the listeners what a group of this provider has done. Without a listener it costs
        nothing.
        """
        if not self._listeners:
            return
        published, ended = published_by(changes)
        if published or ended:
            self.tell(published | ended)
        if any(not isinstance(change, Claim) for change in changes):
            self.changed()

    def changed(self) -> None:
        """Tell those that hear of all changes that any instance may have changed."""
        for watcher in self._watchers:
            watcher(None)


def published_by(changes: Sequence[Change]) -> tuple[set[str], set[str]]:
    """Return the instances that a group publishes for, or answers requests for, and those that it
    ends.
    """
    published: set[str] = set()
    ended: set[str] = set()
    for change in changes:
        if isinstance(change, Write):
            extras = change.extras
            if extras is not NO_EXTRAS and (extras.published or extras.answers):
                published.add(change.instance_id)
            if change.state.status is not Status.OPEN:
                ended.add(change.instance_id)
        elif isinstance(change, Publish) and (change.steps is None or _has_readers(change)):
            published.add(change.instance_id)
    return published, ended


def _has_readers(publish: Publish) -> bool:
    """Return whether a change publishes more than steps, which no reader follows."""
    return any(not item.stream.startswith(JOURNAL) for item in publish.items)

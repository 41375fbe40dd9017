"""Which activities this node has begun and not heard the end of."""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.engine.messages import ActivityKey

__all__ = ["RunningActivities"]


class RunningActivities:
    """The running tries of each instance: keys, which attempt it is, and which of them need a
    thread.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, dict[ActivityKey, int]] = {}
        self._count = 0
        self._blocking: set[ActivityKey] = set()

    def __len__(self) -> int:
        return self._count

    def begin(self, key: ActivityKey, attempt: int, *, blocks: bool = False) -> None:
        """Note that a try was begun, and whether it needs a thread."""
        keys = self._attempts.setdefault(key.instance_id, {})
        self._count += key not in keys
        keys[key] = attempt
        if blocks:
            self._blocking.add(key)

    def end(self, key: ActivityKey) -> bool:
        """Note that a try has ended, or is not wanted any more. Return whether it needed a
        thread.
        """
        keys = self._attempts.get(key.instance_id, {})
        self._count -= keys.pop(key, None) is not None
        if not keys:
            self._attempts.pop(key.instance_id, None)
        blocked = key in self._blocking
        self._blocking.discard(key)
        return blocked

    def attempt(self, key: ActivityKey) -> int | None:
        """Return which try of an activity runs, if one does."""
        return self._attempts.get(key.instance_id, {}).get(key)

    def of(self, instance_id: str) -> list[tuple[ActivityKey, int]]:
        """Return what runs for an instance."""
        return list(self._attempts.get(instance_id, {}).items())

    def __iter__(self) -> Iterator[ActivityKey]:
        return iter([key for keys in self._attempts.values() for key in keys])

    def clear(self) -> None:
        """Forget all of it."""
        self._attempts.clear()
        self._blocking.clear()
        self._count = 0

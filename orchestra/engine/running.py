"""Which activities this node has begun and not heard the end of."""

from __future__ import annotations

from collections.abc import Iterator

from orchestra.engine.items import ActivityKey

__all__ = ["RunningActivities"]


class RunningActivities:
    """The running tries of each instance: keys, and which attempt it is."""

    def __init__(self) -> None:
        self._attempts: dict[str, dict[ActivityKey, int]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._attempts.values()))

    def begin(self, key: ActivityKey, attempt: int) -> None:
        """Note that a try was begun."""
        self._attempts.setdefault(key.instance_id, {})[key] = attempt

    def end(self, key: ActivityKey) -> None:
        """Note that a try has ended, or is not wanted any more."""
        keys = self._attempts.get(key.instance_id, {})
        keys.pop(key, None)
        if not keys:
            self._attempts.pop(key.instance_id, None)

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

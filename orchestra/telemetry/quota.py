"""Limit the log lines of one kind in a minute."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

__all__ = ["Quota"]

_MINUTE: Final = 60_000_000
_KEYS: Final = 4_096


@dataclass(slots=True)
class _Minute:
    begun: int
    lines: int = 0
    suppressed: int = 0


class Quota:
    """Lets the first lines of each key and minute pass, and counts the others."""

    def __init__(self, lines: int) -> None:
        self._lines = lines
        self._minutes: OrderedDict[str, _Minute] = OrderedDict()

    def take(self, key: str, now: int) -> int | None:
        """Return ``None`` to leave the line out; otherwise the number of lines left out before
        it.

        ``now`` is in microseconds, of any clock.
        """
        minute = self._minutes.get(key)
        if minute is None:
            minute = self._minutes[key] = _Minute(now)
            if len(self._minutes) > _KEYS:
                self._minutes.popitem(last=False)
        suppressed = 0
        if now - minute.begun >= _MINUTE:
            suppressed, minute.begun, minute.lines, minute.suppressed = minute.suppressed, now, 0, 0
        if minute.lines >= self._lines:
            minute.suppressed += 1
            return None
        minute.lines += 1
        return suppressed

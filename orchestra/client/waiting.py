"""What a wait for an end comes to where the end does not come."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from orchestra.clock import Clock
from orchestra.errors import ErrorInfo, InstanceHeld, WaitTimeout
from orchestra.providers.rows import InstanceRecord, shown_hold

__all__ = ["Patience", "no_end"]

_SECONDS: Final = 10.0
"""How long a wait without a timeout goes on for an instance that an error holds: a deploy of mended code may be under way."""


class Patience:
    """Notices that an instance stays held by one error, for a wait that has no timeout of its own."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hold: tuple[str, int] | None = None
        self._since = 0.0

    def is_over(self, record: InstanceRecord) -> bool:
        """Return whether this very hold has been seen for ten seconds. To be asked at each look at the store."""
        hold = record.row.hold
        if hold is None or _error_of(record) is None:
            self._hold = None
            return False
        now = self._clock.monotonic()
        if self._hold != (hold.by, hold.since):
            self._hold, self._since = (hold.by, hold.since), now
        return now - self._since >= _SECONDS


def no_end(record: InstanceRecord, timeout: timedelta | None) -> WaitTimeout:
    """Return the error of a wait that is over, which names what holds the instance."""
    row = record.row
    has_not_ended = f"instance {row.instance_id!r} has not ended" + ("" if timeout is None else f" within {timeout}")
    if not record.held or row.hold is None:
        return WaitTimeout(has_not_ended)
    message = f"{has_not_ended}: it is held ({shown_hold(row.hold)}: {row.hold.detail})"
    error = _error_of(record)
    if error is None:
        return WaitTimeout(f"{message}, and goes on once that is mended")
    return InstanceHeld(
        f"{message}, and goes on once code that differs is deployed, or client.release() is called",
        instance_id=row.instance_id,
        error=error,
    )


def _error_of(record: InstanceRecord) -> ErrorInfo | None:
    return record.row.hold.error if record.held and record.row.hold is not None else None

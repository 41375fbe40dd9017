"""Wait for the end of an instance: return the end, or raise why there is none."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any, Final

from orchestra.client.access import Access
from orchestra.client.arguments import check_id
from orchestra.client.describing import stored_error
from orchestra.client.port import End
from orchestra.clock import Clock
from orchestra.codec import EMPTY, decoder
from orchestra.errors import (
    ErrorInfo,
    InstanceCancelled,
    InstanceFailed,
    InstanceHeld,
    InstanceTerminated,
    WaitTimeout,
)
from orchestra.levels import Unknown
from orchestra.operations.holds import releases_when
from orchestra.operations.known import require_known
from orchestra.options import check_duration
from orchestra.store.instances import hold_in_force, hold_text
from orchestra.store.kinds import Status
from orchestra.store.queries import InstanceRecord

__all__ = ["Patience", "no_end", "result_of", "wait_for_end"]

_SECONDS: Final = 10.0
"""How long a wait without a timeout tolerates an error's hold: a deploy of repaired code may be
under way.
"""

_PAST: Final = {
    Status.FAILED: "failed",
    Status.CANCELLED: "was cancelled",
    Status.TERMINATED: "was terminated",
}


async def wait_for_end(access: Access, instance_id: str, timeout: timedelta | None) -> End:  # noqa: ASYNC109
    """Wait until an instance has ended, and return how; see :meth:`Client.wait_for_completion`."""
    check_id(instance_id)
    # Any duration is valid, also none or a negative one: the caller gets the present state.
    check_duration(timeout, "timeout", least=timedelta.min, most=timedelta.max, optional=True)
    with access.port.watch(
        instance_id, math.inf if timeout is None else timeout.total_seconds()
    ) as watch:
        look = not watch.known_open or watch.late  # it may have ended elsewhere
        patience = Patience(access.clock) if timeout is None else None
        while watch.end is None:
            late = watch.late
            if look:
                record = await access.record(instance_id)
                if isinstance(record.status, Unknown):
                    require_known(record, access.provider.library)
                elif record.status is not Status.OPEN:
                    return End(record.status, record.execution.output, record.execution.error)
                if late or (patience is not None and patience.is_over(record)):
                    raise no_end(record, timeout)
            look = True
            await watch.wait()
        return watch.end


def result_of(end: End, instance_id: str, annotation: Any) -> Any:
    """Return the output of an instance that has ended, read as an annotation.

    Raises:
        InstanceFailed, InstanceCancelled, InstanceTerminated: it ended in that way.
        DecodeError: the output does not fit the annotation.
    """
    if end.status is Status.COMPLETED:
        return decoder(annotation).decode(end.output or EMPTY, subject=f"output of {instance_id!r}")
    error = stored_error(end.error)
    detail = f"instance {instance_id!r} {_PAST[end.status]}"
    # A message says little without its type: KeyError('name') has only the message 'name'.
    shown = error and (str(error) if end.status is Status.FAILED else error.message or error.type)
    message = f"{detail}: {shown}" if shown else detail
    match end.status:
        case Status.CANCELLED:
            raise InstanceCancelled(message, instance_id=instance_id)
        case Status.TERMINATED:
            raise InstanceTerminated(message, instance_id=instance_id)
        case _:
            raise InstanceFailed(message, instance_id=instance_id, error=error)


class Patience:
    """Detects that one error keeps an instance held, for a wait without a timeout."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._hold: tuple[str, int] | None = None
        self._since = 0.0

    def is_over(self, record: InstanceRecord) -> bool:
        """Return whether this hold has been seen for ten seconds. Call it at each look at the
        store.
        """
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
    has_not_ended = f"instance {row.instance_id!r} has not ended" + (
        "" if timeout is None else f" within {timeout}"
    )
    hold = hold_in_force(row.hold, row.operator_hold, paused=row.paused)
    if not record.held or hold is None:
        return WaitTimeout(has_not_ended)
    message = f"{has_not_ended}: it is held ({hold_text(hold)})"
    error = _error_of(record)
    if error is None:
        return WaitTimeout(f"{message}; it goes on {releases_when(hold.kind)}")
    return InstanceHeld(
        f"{message}, and goes on once changed code is deployed, or client.release() is called",
        instance_id=row.instance_id,
        error=error,
    )


def _error_of(record: InstanceRecord) -> ErrorInfo | None:
    hold = record.row.hold
    by_fault = record.held and not record.row.paused
    return stored_error(hold.error) if by_fault and hold is not None else None

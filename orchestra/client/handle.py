"""A started instance, as a value that can be asked and told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from orchestra.client.info import InstanceInfo, stored_error
from orchestra.codec import EMPTY, decoder
from orchestra.errors import InstanceCancelled, InstanceFailed, InstanceTerminated
from orchestra.providers.rows import Status

if TYPE_CHECKING:
    from orchestra.client.client import Client

__all__ = ["Handle"]

T = TypeVar("T")

_PAST: Final = {Status.FAILED: "failed", Status.CANCELLED: "was cancelled", Status.TERMINATED: "was terminated"}


@dataclass(frozen=True, slots=True)
class Handle:
    """A started instance."""

    client: Client
    instance_id: str

    async def info(self) -> InstanceInfo:
        """Return the instance as it stands now."""
        return await self.client.get_instance_info(self.instance_id)

    @overload
    async def result(self, *, timeout: timedelta | None = None) -> Any: ...  # noqa: ASYNC109
    @overload
    async def result(self, type: type[T], *, timeout: timedelta | None = None) -> T: ...  # noqa: ASYNC109
    @overload
    async def result(self, type: Any, *, timeout: timedelta | None = None) -> Any: ...  # noqa: ASYNC109
    async def result(self, type: Any = Any, *, timeout: timedelta | None = None) -> Any:  # noqa: A002, ASYNC109
        """Wait for the instance's end, over all its boundaries, and return its output, read as ``type``.

        Raises:
            InstanceFailed, InstanceCancelled, InstanceTerminated: it ended in that way.
            WaitTimeout: it has not ended in time.
            DecodeError: the output does not fit ``type``.
            InvalidArgument: ``timeout`` is no timedelta.
            InstanceNotFound: there is no such instance, or not any more.
        """
        end = await self.client._wait_for_end(self.instance_id, timeout)
        if end.status is Status.COMPLETED:
            return decoder(type).decode(end.output or EMPTY, subject=f"output of {self.instance_id!r}")
        error = stored_error(end.error)
        detail = f"instance {self.instance_id!r} {_PAST[end.status]}"
        # What was raised says little without its type: KeyError('name') has no message but 'name'.
        shown = error and (str(error) if end.status is Status.FAILED else error.message or error.type)
        message = f"{detail}: {shown}" if shown else detail
        match end.status:
            case Status.CANCELLED:
                raise InstanceCancelled(message, instance_id=self.instance_id)
            case Status.TERMINATED:
                raise InstanceTerminated(message, instance_id=self.instance_id)
            case _:
                raise InstanceFailed(message, instance_id=self.instance_id, error=error)

    async def raise_event(self, name: str, payload: Any = None) -> None:
        """Send it an event."""
        await self.client.raise_event(self.instance_id, name, payload)

    async def cancel(self, reason: str = "") -> None:
        """Ask it to stop."""
        await self.client.cancel(self.instance_id, reason)

    async def terminate(self, reason: str = "") -> None:
        """End it at once."""
        await self.client.terminate(self.instance_id, reason)

"""A started instance, as a value that can be asked and told."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, overload

from typing_extensions import TypeForm

from orchestra.client.history import HistoryEvent
from orchestra.client.info import InstanceInfo, stored_error
from orchestra.codec import EMPTY, decoder
from orchestra.errors import InstanceCancelled, InstanceFailed, InstanceTerminated
from orchestra.providers.rows import Status

if TYPE_CHECKING:
    from orchestra.client.client import Client

__all__ = ["Handle"]

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")

_AS_STARTED: Final = object()

_PAST: Final = {Status.FAILED: "failed", Status.CANCELLED: "was cancelled", Status.TERMINATED: "was terminated"}


@dataclass(frozen=True, slots=True)
class Handle(Generic[R_co]):
    """A started instance. ``Handle[R]``: its result is an ``R``, as far as is known."""

    client: Client
    instance_id: str
    returns: Any = field(default=Any, compare=False, repr=False)
    """What :meth:`result` reads the result as, where it is not told otherwise: a type, or ``Any`` for plain JSON."""

    async def info(self) -> InstanceInfo:
        """Return the instance as it stands now."""
        return await self.client.get_instance_info(self.instance_id)

    @overload
    async def result(self, *, timeout: timedelta | None = None) -> R_co: ...  # noqa: ASYNC109
    @overload
    async def result(self, type: type[T], *, timeout: timedelta | None = None) -> T: ...  # noqa: ASYNC109
    @overload
    async def result(self, type: TypeForm[T], *, timeout: timedelta | None = None) -> T: ...  # noqa: ASYNC109
    async def result(self, type: Any = _AS_STARTED, *, timeout: timedelta | None = None) -> Any:  # noqa: A002, ASYNC109
        """Wait for the instance's end, over all its boundaries, and return its output, read as ``type``.

        Args:
            type: by default the annotation of the function with which it was started, or what ``returns`` said.
            timeout: how long to wait; for ever by default.

        Raises:
            InstanceFailed, InstanceCancelled, InstanceTerminated: it ended in that way.
            WaitTimeout: it has not ended in time.
            InstanceHeld: (a WaitTimeout, and an InstanceFailed) an error of its code holds it: at the timeout or, without one,
                once it has been held for ten seconds.
            DecodeError: the output does not fit ``type``.
            InvalidArgument: ``timeout`` is no timedelta.
            InstanceNotFound: there is no such instance, or not any more.
        """
        end = await self.client._wait_for_end(self.instance_id, timeout)
        if end.status is Status.COMPLETED:
            annotation = self.returns if type is _AS_STARTED else type
            return decoder(annotation).decode(end.output or EMPTY, subject=f"output of {self.instance_id!r}")
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

    async def wait(self, timeout: timedelta | None = None) -> InstanceInfo:  # noqa: ASYNC109
        """Wait for its end, however it ends, and return it; see :meth:`Client.wait_for_completion`."""
        return await self.client.wait_for_completion(self.instance_id, timeout)

    async def raise_event(self, name: str, payload: Any = None, *, message_id: str | None = None) -> None:
        """Send it an event; see :meth:`Client.raise_event`. The same ``message_id`` again has no effect."""
        await self.client.raise_event(self.instance_id, name, payload, message_id=message_id)

    async def cancel(self, reason: str = "") -> None:
        """Ask it to stop; see :meth:`Client.cancel`."""
        await self.client.cancel(self.instance_id, reason)

    async def terminate(self, reason: str = "") -> None:
        """End it at once; see :meth:`Client.terminate`."""
        await self.client.terminate(self.instance_id, reason)

    async def release(self) -> None:
        """Let the code that is there try once more with it, where it is held; see :meth:`Client.release`."""
        await self.client.release(self.instance_id)

    async def delete(self, *, reason: str = "") -> None:
        """Delete it, once it has ended; see :meth:`Client.delete`."""
        await self.client.delete(self.instance_id, reason=reason)

    async def history(self, execution_id: int | None = None) -> tuple[HistoryEvent, ...]:
        """Return the events of one of its executions, by default of the current one; see :meth:`Client.get_history`."""
        return await self.client.get_history(self.instance_id, execution_id)

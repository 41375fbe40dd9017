"""The futures that orchestration code awaits.

The running turn completes a :class:`Future` once, in memory. A :class:`DurableFuture` stands for a
command in history: an activity, a timer, a wait for an event, a child. Its result comes from an
event, now or on replay.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Final, Generic, NoReturn, Protocol, TypeAlias, TypeVar

from orchestra.codec import Decoder, Payload
from orchestra.errors import Evicted, OperationCancelled, PayloadError, PayloadUnreadable
from orchestra.unwinding import Unwinder

__all__ = ["DurableFuture", "Future", "Seal", "TimedWait", "Unawaited"]

T_co = TypeVar("T_co", covariant=True)

Unawaited: TypeAlias = dict[int, Any]
"""Commands that were not awaited yet, by event id."""

_PATIENCE: Final = 100
"""How often one coroutine is refused before it is unwound by force. Orderly cleanup needs far
fewer.
"""


class Seal:
    """Whether an execution has left memory; shared by all its objects (protocol rule 22)."""

    __slots__ = ("_refusals", "_unwinder", "closed")

    def __init__(self) -> None:
        self.closed: bool = False
        self._unwinder: Unwinder | None = None  # hardly any execution needs one
        self._refusals = 0

    @property
    def caught(self) -> str | None:
        """The line of code that went on after many refusals."""
        return None if self._unwinder is None else self._unwinder.caught

    def unwind(self, coroutine: object = None) -> None:
        """Unwind by force the running code, or a coroutine before it is closed."""
        if self._unwinder is None:
            self._unwinder = Unwinder()
        self._unwinder.arm(coroutine)

    def check(self) -> None:
        """Raise :class:`~orchestra.errors.Evicted` once the execution has left memory.

        Code that goes on after many refusals is unwound by force.
        """
        if self.closed:
            self._refusals += 1
            if self._refusals >= _PATIENCE:
                self.unwind()
            raise Evicted("this execution has left memory; nothing that it asks for now is done")

    def begin_anew(self) -> None:
        """Restart the count of refusals, for other code, and stop unwinding the former."""
        self._refusals = 0
        if self._unwinder is not None:
            self._unwinder.disarm()


class Future(Generic[T_co]):
    """A value that is not known yet. Several branches may await it, repeatedly."""

    __slots__ = ("_callbacks", "_done", "_error", "_unawaited", "_value", "event_id", "seal")

    def __init__(self, seal: Seal) -> None:
        self.seal: Seal = seal
        self.event_id: int = 0
        """The number of the event that recorded it; 0: none."""
        self._done = False
        self._unawaited: Unawaited | None = None
        """The registry of unawaited futures that holds it until it is awaited, read, or
        cancelled.
        """
        self._value: T_co | None = None
        self._error: BaseException | None = None
        # Created by the first callback. A dict removes a callback at once, however many branches
        # wait; it counts duplicates.
        self._callbacks: dict[Callable[[Future[Any]], None], int] | None = None

    def __await__(self) -> Generator[Future[Any], None, T_co]:
        self.seal.check()
        while not self._done:
            # the task parks here, and is stepped again once the future is complete
            yield self
        return self.result()

    def __bool__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} has no truth value: await it for its result, or ask whether it is `done`"
        )

    @property
    def done(self) -> bool:
        """Whether it has its value, or its error."""
        if self._unawaited is not None:
            self._is_used()
        return self._done

    def _is_used(self) -> None:
        unawaited, self._unawaited = self._unawaited, None
        if unawaited is not None:
            unawaited.pop(self.event_id, None)

    def result(self) -> T_co:
        """Return the value, or raise the error. Call it only when ``done``."""
        if self._unawaited is not None:
            self._is_used()
        if self._error is not None:
            raise self._error
        value: Any = self._value
        return value

    @property
    def error(self) -> BaseException | None:
        """Its error, if it has one."""
        if self._unawaited is not None:
            self._is_used()
        return self._error

    def complete(self, value: Any) -> None:
        """Give it its value; later calls change nothing."""
        self._finish(value, None)

    def fail(self, error: BaseException) -> None:
        """Give it an error; later calls change nothing."""
        self._finish(None, error)

    def _finish(self, value: Any, error: BaseException | None) -> None:
        if self._done:
            return
        self._done, self._value, self._error = True, value, error
        callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            for callback, times in callbacks.items():
                for _ in range(times):
                    callback(self)

    @property
    def awaited(self) -> bool:
        """Whether a branch waits for it now."""
        return bool(self._callbacks)

    def add_callback(self, callback: Callable[[Future[Any]], None]) -> None:
        """Call back once it is complete (at once if it is), in the order of registration."""
        if self._unawaited is not None:
            self._is_used()
        if self._done:
            callback(self)
        elif self._callbacks is None:
            self._callbacks = {callback: 1}
        else:
            self._callbacks[callback] = self._callbacks.get(callback, 0) + 1

    def remove_callback(self, callback: Callable[[Future[Any]], None]) -> bool:
        """Remove a callback. Return whether no branch waits now."""
        callbacks = self._callbacks
        if callbacks and callback in callbacks:
            if callbacks[callback] > 1:
                callbacks[callback] -= 1
            else:
                del callbacks[callback]
        return not callbacks

    def cancel(self) -> None:
        """Cancel the command behind this future. Awaiting it then raises ``OperationCancelled``."""
        self.fail(OperationCancelled("it was cancelled"))


class Canceller(Protocol):
    """Records that a command was cancelled."""

    def cancel_command(self, future: DurableFuture[Any]) -> None: ...
    def ask_to_end(self, future: DurableFuture[Any], *, waits: bool) -> bool: ...


class DurableFuture(Future[T_co]):
    """The result of a command in history. ``event_id`` is the number of its event."""

    __slots__ = ("_canceller", "_decoder", "_result", "ending", "subject")

    def __init__(
        self,
        seal: Seal,
        canceller: Canceller,
        event_id: int,
        subject: str,
        decoder: Decoder[T_co] | None,
        result: str,
    ) -> None:
        super().__init__(seal)
        self._canceller = canceller
        self._decoder = decoder
        self._result = result
        self.event_id = event_id
        self.subject: str = subject
        self.ending: bool = False
        """Whether it is cancelled, and completes once the activity has ended."""

    def __repr__(self) -> str:
        return f"<{'done' if self._done else 'pending'} {self.subject}, event {self.event_id}>"

    def read(self, payload: Payload) -> Any:
        """Return the value of its result's payload.

        Raises:
            PayloadError: it does not fit what the code awaits.
        """
        return (
            None if self._decoder is None else self._decoder.decode(payload, subject=self._result)
        )

    def deliver(self, payload: Payload) -> PayloadError | None:
        """Complete it with its result's payload. If that cannot be read, fail it and return the
        error.

        Raises:
            PayloadUnreadable: it is sealed, and this node cannot open it.
        """
        try:
            value = self.read(payload)
        except PayloadUnreadable:
            raise  # the reader lacks something here: no code may learn of it
        except PayloadError as error:
            self.fail(error)
            return error
        self.complete(value)
        return None

    def cancel(self) -> None:
        """Cancel the activity, timer, wait or child. A late result is dropped; a wait takes no
        later event.

        Awaiting it afterwards raises ``OperationCancelled``: at once, or with ``on_cancel="wait"``
        once the activity has ended. Harmless if it is done.
        """
        self.give_up(waits=False)

    def give_up(self, *, waits: bool) -> bool:
        """Cancel it. Return whether it is done now; otherwise it is once the activity has ended.

        Args:
            waits: whether to wait for an activity whose options leave that open.
        """
        self.seal.check()
        self._is_used()
        if self._done or self.ending:
            return self._done
        self.ending = self._canceller.ask_to_end(self, waits=waits)
        if not self.ending:
            self._canceller.cancel_command(self)
            self.fail_cancelled()
        return self._done

    def fail_cancelled(self) -> None:
        """Complete it as cancelled."""
        self.fail(OperationCancelled(f"{self.subject} was cancelled"))


class TimedWait(DurableFuture[T_co]):
    """A wait for an event that ends when a timer fires first: in that very turn, so it takes no
    later event.
    """

    __slots__ = ("_timed_out", "_timer", "_wait")

    def __init__(
        self, wait: DurableFuture[T_co], timer: DurableFuture[None], timed_out: BaseException
    ) -> None:
        super().__init__(wait.seal, wait._canceller, wait.event_id, wait.subject, None, "")
        self._unawaited, wait._unawaited = (
            wait._unawaited,
            None,
        )  # await this one instead
        self._wait = wait
        self._timer = timer
        self._timed_out = timed_out
        wait.add_callback(self._has_come)
        timer.add_callback(self._is_late)

    def _has_come(self, wait: Future[Any]) -> None:
        if not self._done:
            self._finish(wait._value, wait.error)
            self._timer.cancel()

    def _is_late(self, timer: Future[Any]) -> None:
        if not self._done:
            self.fail(timer.error or self._timed_out)
            self._wait.cancel()

    def give_up(self, *, waits: bool) -> bool:  # noqa: ARG002 - neither a wait nor a timer has to end first
        """Cancel the wait and its timer."""
        self.seal.check()
        self._is_used()
        if not self._done:
            self.fail_cancelled()
            self._wait.cancel()
            self._timer.cancel()
        return True

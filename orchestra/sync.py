"""For programs that are not async: Django, Flask, Celery tasks, scripts, notebooks.

::

    with orchestra.sync.connect(SqliteProvider("app.db")) as sync:
        handle = sync.call(sync.client.start, "watch", Watch("http://..."))
        print(sync.call(handle.result, int))

An event loop runs in its own thread. :meth:`Connection.call` runs an ``async`` function there, and
waits for it. So no method exists twice.
"""

from __future__ import annotations

import atexit
import inspect
import os
import threading
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from types import TracebackType
from typing import Any, Final, Literal, ParamSpec, Self, TypeVar, cast

import anyio
from anyio.abc import ObjectReceiveStream
from anyio.from_thread import BlockingPortal

from orchestra.client import Client
from orchestra.client.arguments import check_choice
from orchestra.errors import InvalidArgument, RuntimeClosed, WrongEventLoop
from orchestra.runtime import Runtime
from orchestra.runtime.worker import in_engine_thread
from orchestra.store.port import Provider
from orchestra.telemetry import engine_logger

__all__ = ["Connection", "connect"]

P = ParamSpec("P")
T = TypeVar("T")

_LOOK: Final = 1.0
"""Seconds after which a waiting thread checks that the event loop still runs. Replies wake it at
once.
"""
_EXIT_SECONDS: Final = 30.0
"""How long the end of the process waits for an unclosed connection, beyond a runtime's grace."""
_THREAD: Final = "orchestra-sync"
_END: Final = object()


def connect(
    target: Provider | Runtime | Client,
    *,
    backend: Literal["asyncio", "trio"] = "asyncio",
    backend_options: dict[str, Any] | None = None,
) -> Connection:
    """Return a connection for threads without an event loop; use it ``with`` a block, or
    :meth:`~Connection.open` it.

    Args:
        target: a provider: a :class:`~orchestra.Client` of its store. Or a runtime: it runs while
            the connection is open, and its activities run in the connection's event loop. A runtime
            or client that was entered already is used, and left alone at the end.
        backend: which event loop.
        backend_options: options of that event loop, as ``anyio.run`` takes them.

    Raises:
        InvalidArgument: ``target`` or ``backend`` is another thing.
    """
    return Connection(target, backend=backend, backend_options=backend_options)


class Connection:
    """Lets threads call ``async`` functions. Any number of threads may use it at once.

    If the process ends without closing it, the connection closes then.
    """

    def __init__(
        self,
        target: Provider | Runtime | Client,
        *,
        backend: Literal["asyncio", "trio"] = "asyncio",
        backend_options: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(target, (Provider, Runtime, Client)):
            raise InvalidArgument(
                f"{target!r} is neither a provider nor a runtime; give for example "
                "SqliteProvider('app.db')"
            )
        check_choice(backend, "backend", ("asyncio", "trio"))
        self._backend = backend
        self._backend_options = backend_options
        self._runtime = target if isinstance(target, Runtime) else None
        self._client = (
            target.client
            if isinstance(target, Runtime)
            else target
            if isinstance(target, Client)
            else Client(target)
        )
        self._entered: Runtime | Client | None = None
        self._guard = threading.Lock()
        self._state: Literal["new", "open", "closed"] = "new"
        self._process = os.getpid()
        self._portal: BlockingPortal
        self._thread: threading.Thread

    # --- life ---

    def open(self) -> Self:
        """Start the event loop, and enter the client or runtime.

        Raises:
            StoreError: the store cannot be used.
            RuntimeClosed: the connection was opened before, or the runtime was left already.
        """
        with self._guard:
            if self._state != "new":
                raise RuntimeClosed("a connection can be opened once; make a new one")
            self._process = os.getpid()
            self._portal, self._thread = _start_loop(self._backend, self._backend_options)
            try:
                entering: Runtime | Client = self._runtime or self._client
                if not _is_entered(entering):
                    self._wait(self._portal.start_task_soon(entering.__aenter__))
                    self._entered = entering
            except BaseException:
                self._state = "closed"
                self._stop()
                raise
            self._state = "open"
            atexit.register(self._close_at_exit)
        return self

    def close(self) -> None:
        """Leave the client or runtime, and end the event loop. Calls that wait in other threads
        raise ``RuntimeClosed``.

        Harmless if it is closed, and in a forked child, where it does not run.

        Raises:
            BaseException: the failure of the runtime.
            WrongEventLoop: it was called in the connection's own event loop.
        """
        if self._process != os.getpid():
            return
        self._require_another_thread()
        with self._guard:
            if self._state != "open":
                return
            self._state = "closed"
            atexit.unregister(self._close_at_exit)
            try:
                self._leave(None)
            finally:
                self._stop()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _leave(self, seconds: float | None) -> None:
        entered, self._entered = self._entered, None
        if entered is None or not self._thread.is_alive():
            return
        leaving = self._portal.start_task_soon(entered.__aexit__, None, None, None)
        if seconds is None:
            self._wait(leaving)
        else:
            wait([leaving], timeout=seconds)

    def _stop(self) -> None:
        # Waiting calls would keep the loop from ending. Their callers learn that the connection is
        # closed.
        with suppress(RuntimeError, CancelledError):
            self._portal.start_task_soon(self._portal.stop, True)
        self._thread.join()

    def _close_at_exit(self) -> None:
        """Leave in order, in bounded time. The thread itself does not keep the process alive."""
        if self._process == os.getpid() and self._state == "open":
            self._state = "closed"
            grace = self._runtime._grace.total_seconds() if self._runtime is not None else 0
            with suppress(Exception):
                self._leave(grace + _EXIT_SECONDS)
                self._portal.start_task_soon(self._portal.stop, True)
                self._thread.join(_EXIT_SECONDS)

    # --- use ---

    @property
    def client(self) -> Client:
        """The client. Pass its methods to :meth:`call`."""
        return self._client

    @property
    def runtime(self) -> Runtime | None:
        """The runtime, if the connection has one."""
        return self._runtime

    def call(self, function: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run an ``async`` function in the event loop, wait, and return its result or raise its
        exception.

        Ctrl-C, or another exception in the waiting thread, cancels the function.

        Raises:
            RuntimeClosed: the connection is not open, or was closed meanwhile; or the process was
                forked from the one that has opened it.
            WrongEventLoop: the caller blocks what it waits for: the event loop of the connection or
                runtime, or an orchestration.
            InvalidArgument: ``function`` is a coroutine, and no function.
        """
        self._require_open()
        _require_function(function, "call")
        running = _Running(function, args, kwargs)
        try:
            return self._wait(self._start(running.run))
        except BaseException:
            if not running.has_ended:  # Ctrl-C may come before its future is known here
                with suppress(RuntimeClosed):
                    self._start(_nowait, running.cancel)
            raise

    def iterate(
        self, function: Callable[P, AsyncIterable[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> Iterator[T]:
        """Yield the items of an asynchronous iterable, one at a time, on demand.

        It lives in one task of the event loop, which ends with the iterator: at the last item, at
        ``close()``, or when the iterator is dropped.

        Raises:
            RuntimeClosed, WrongEventLoop, InvalidArgument: as :meth:`call` does, at the first item
                as well.
        """
        self._require_open()
        _require_function(function, "iterate")
        return self._iterate(function, args, kwargs)

    def _iterate(
        self,
        function: Callable[..., AsyncIterable[T]],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Generator[T]:
        self._require_open()
        send, receive = anyio.create_memory_object_stream[Future[Any]](1)
        try:
            feeder = self._start(_feed, function, args, kwargs, receive)
        except RuntimeClosed:
            send.close()
            receive.close()
            raise
        is_asked = False
        try:
            while True:
                self._require_open()
                reply: Future[Any] = Future()
                is_asked = True
                self._start(_nowait, send.send_nowait, reply)
                item = self._wait(reply, feeder)
                is_asked = False
                if item is _END:
                    return
                yield item
        finally:
            if is_asked:  # it waits for an item; otherwise it is asked to end, and may clean up
                feeder.cancel()
            try:
                self._require_open()
                self._start(_nowait, send.close)
                if not is_asked:
                    self._wait(feeder)
            except (RuntimeClosed, WrongEventLoop):
                send.close()  # the loop is gone

    def _start(self, function: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Future[Any]:
        try:
            return self._portal.start_task_soon(function, *args)
        except RuntimeError as error:
            raise RuntimeClosed(_CLOSED) from error

    def _wait(self, future: Future[T], feeder: Future[Any] | None = None) -> T:
        waited_for = [future] if feeder is None else [future, feeder]
        try:
            while not wait(waited_for, timeout=_LOOK, return_when="FIRST_COMPLETED").done:
                if not self._thread_runs:
                    raise RuntimeClosed(
                        "the event loop of the connection has ended; make a new connection"
                    )
            if not future.done():  # the answering task has ended instead
                assert feeder is not None
                feeder.result()
                raise RuntimeClosed(_CLOSED)
            return future.result()
        except CancelledError as error:
            raise RuntimeClosed(_CLOSED) from error
        except BaseException:
            future.cancel()  # harmless where the exception is the function's own
            raise

    @property
    def _thread_runs(self) -> bool:
        return self._thread.is_alive()

    def _require_open(self) -> None:
        if self._process != os.getpid():
            raise RuntimeClosed(
                "this process was forked from the one that has opened the connection; connect "
                "anew in it"
            )
        if self._state != "open":
            raise RuntimeClosed(
                _CLOSED
                if self._state == "closed"
                else "the connection is not open; use it `with` a block"
            )
        self._require_elsewhere()

    def _require_elsewhere(self) -> None:
        self._require_another_thread()
        if self._runtime is not None and _blocks(self._runtime):
            raise WrongEventLoop(
                "this thread runs the event loop of the runtime, whose activities would wait "
                "for the call; `await` the function here, or call from another thread"
            )

    def _require_another_thread(self) -> None:
        if in_engine_thread():
            raise WrongEventLoop(
                "orchestration code would wait for itself, and is not deterministic with it; "
                "call the client in an activity"
            )
        if self._state == "open" and threading.current_thread() is self._thread:
            raise WrongEventLoop(
                "this is the event loop's own thread, which would wait for itself; `await` the "
                "function here instead"
            )


_CLOSED: Final = "the connection is closed; make a new one"


def _start_loop(
    backend: str, options: dict[str, Any] | None
) -> tuple[BlockingPortal, threading.Thread]:
    """Return the portal to an event loop in a new thread, and the thread.

    anyio's ``start_blocking_portal`` joins the thread when the interpreter ends. The thread is
    frozen by then, so the join hangs.
    """
    begun: Future[BlockingPortal] = Future()

    async def serve() -> None:
        async with BlockingPortal() as portal:
            begun.set_result(portal)
            await portal.sleep_until_stopped()

    def run() -> None:
        try:
            anyio.run(serve, backend=backend, backend_options=options)
        except BaseException as error:  # noqa: BLE001 - the starting thread raises it
            if begun.done():
                engine_logger.error("the event loop of a connection has failed", exc_info=error)
            else:
                begun.set_exception(error)

    thread = threading.Thread(target=run, name=_THREAD, daemon=True)
    thread.start()
    return begun.result(), thread


def _is_entered(target: Runtime | Client) -> bool:
    if isinstance(target, Runtime):
        return target._state == "running"
    return target._access.is_open


def _blocks(runtime: Runtime) -> bool:
    """Return whether the caller's thread runs the runtime's event loop now."""
    if runtime._state != "running" or runtime._loop.thread != threading.get_ident():
        return False
    is_running: Callable[[], bool] | None = getattr(runtime._loop.native, "is_running", None)
    return is_running is None or is_running()


def _require_function(function: object, method: str) -> None:
    if inspect.iscoroutine(function):
        name = function.__name__
        function.close()  # otherwise Python warns of a coroutine that was never awaited
        raise InvalidArgument(
            f"{name}(...) was called already; give the function and its arguments: "
            f"{method}({name}, ...)"
        )
    if not callable(function):
        raise InvalidArgument(
            f"{function!r} is no function; give one and its arguments: {method}(client.start, "
            "'name')"
        )


class _Running:
    """A function that runs in the event loop, and can be cancelled even before it begins."""

    __slots__ = ("_args", "_function", "_is_cancelled", "_kwargs", "_scope", "has_ended")

    def __init__(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self._function, self._args, self._kwargs = function, args, kwargs
        self._scope: anyio.CancelScope | None = None
        self._is_cancelled = False
        self.has_ended = False

    def cancel(self) -> None:
        """Cancel it. In the event loop."""
        self._is_cancelled = True
        if self._scope is not None:
            self._scope.cancel()

    async def run(self) -> Any:
        """Call the function, and await what it returns."""
        try:
            with anyio.CancelScope() as self._scope:
                if self._is_cancelled:
                    return None  # the caller was interrupted before it began
                result = self._function(*self._args, **self._kwargs)
                if inspect.isawaitable(result):
                    return await result
                if isinstance(result, (AsyncIterable, AsyncIterator)):
                    raise InvalidArgument(
                        f"{self._function!r} returns what is iterated; use iterate(...) in place "
                        "of call(...)"
                    )
                return result
        finally:
            self.has_ended = True


async def _nowait(function: Callable[..., None], *args: Any) -> None:
    function(*args)


async def _feed(
    function: Callable[..., AsyncIterable[Any]],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    requests: ObjectReceiveStream[Future[Any]],
) -> None:
    """Answer each request with the next item. All in one task: an iterable may hold scopes that
    belong to its task.
    """
    async with requests:
        iterable: Any = function(*args, **kwargs)
        if inspect.isawaitable(iterable):
            iterable = await iterable
        if not isinstance(iterable, AsyncIterable):
            raise InvalidArgument(
                f"{function!r} returns nothing that is iterated; use call(...) in place of "
                "iterate(...)"
            )
        iterator = aiter(cast("AsyncIterable[Any]", iterable))
        try:
            async for reply in requests:
                try:
                    item = await anext(iterator)
                except StopAsyncIteration:
                    item = _END
                except Exception as error:  # noqa: BLE001 - the asking thread raises it
                    reply.set_exception(error)
                    return
                reply.set_result(item)
        finally:
            close = getattr(iterator, "aclose", None)
            if close is not None:
                await (
                    close()
                )  # in no scope of ours: those that the iterable has open were entered before

"""Names a non-durable await in orchestration code: the user's line, and the right call."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from types import FrameType, TracebackType
from typing import Final

from orchestra.errors import ForeignAwait
from orchestra.frames import await_chain, in_package, is_own, is_user, module_root, place, users_own

__all__ = ["explained", "foreign_await", "parked_at"]

_FOREIGN: Final = frozenset(
    {"asyncio", "anyio", "trio", "sniffio", "curio", "outcome", "concurrent", "selectors"}
)

_TIMER: Final = "use `await ctx.schedule_timer(timedelta(...))`"
_TIMEOUT: Final = (
    "use `await ctx.race(work, ctx.schedule_timer(...))`, `ctx.wait_for_event(name, "
    "timeout=...)`, or a timeout of the activity"
)
_GATHER: Final = "use `await ctx.gather(...)`, `await ctx.race(...)` or `await ctx.wait(...)`"
_GROUP: Final = (
    "use `async with ctx.task_group() as group: group.create_task(...)`, or `await ctx.gather(...)`"
)
_LOCK: Final = (
    "use `async with ctx.lock():` between the branches of an instance (make the lock once)"
)
_SEMAPHORE: Final = (
    "use `async with ctx.semaphore(n):` between the branches of an instance (make the semaphore "
    "once)"
)
_CONDITION: Final = (
    "use `ctx.condition()` between the branches of an instance, or `await "
    "ctx.wait_for_event(name)` for what comes from outside"
)
_QUEUE: Final = (
    "use `await ctx.wait_for_event(name)` for what comes from outside, or a list and "
    "`ctx.condition()` between branches"
)
_THREAD: Final = (
    "make it a `def` activity, which runs in a thread: `await ctx.schedule_activity(...)`"
)
_INPUT: Final = "do I/O in an activity: `await ctx.schedule_activity(...)`"
_ELSE: Final = (
    "orchestration code may await only what ctx gives; do I/O in an activity (`await "
    "ctx.schedule_activity(...)`), wait with `ctx.schedule_timer(...)` or "
    "`ctx.wait_for_event(...)`"
)

_ADVICE: Final[Mapping[str, str]] = {
    name: advice
    for advice, names in {
        _TIMER: "sleep sleep_until sleep_forever",
        _TIMEOUT: (
            "wait_for timeout timeout_at Timeout move_on_after move_on_at fail_after fail_at "
            "CancelScope current_effective_deadline shield"
        ),
        _GATHER: "gather _GatheringFuture wait as_completed _wait_for_one",
        _GROUP: (
            "TaskGroup create_task ensure_future create_task_group open_nursery NurseryManager "
            "Nursery Task start_blocking_portal run_coroutine_threadsafe"
        ),
        _LOCK: "Lock LockAdapter StrictFIFOLock ResourceGuard",
        _SEMAPHORE: (
            "Semaphore BoundedSemaphore SemaphoreAdapter CapacityLimiter CapacityLimiterAdapter"
        ),
        _CONDITION: "Condition Event EventAdapter Barrier ParkingLot",
        _QUEUE: (
            "Queue LifoQueue PriorityQueue MemoryObjectReceiveStream MemoryObjectSendStream "
            "MemoryReceiveChannel MemorySendChannel create_memory_object_stream open_memory_channel"
        ),
        _THREAD: (
            "to_thread run_in_executor run_sync to_thread_run_sync wrap_future from_thread "
            "run_sync_in_worker_thread from_thread_run"
        ),
        _INPUT: (
            "open_connection start_server open_unix_connection StreamReader StreamWriter "
            "create_subprocess_exec create_subprocess_shell Process connect_tcp connect_unix "
            "create_tcp_listener run_process open_process open_tcp_stream open_ssl_over_tcp_stream "
            "open_unix_socket open_file AsyncFile Path getaddrinfo getnameinfo wait_readable "
            "wait_writable SocketStream SocketListener create_udp_socket open_signal_receiver "
            "aclose_forcefully TemporaryFile NamedTemporaryFile run_sync_in_process"
        ),
    }.items()
    for name in names.split()
}
"""The right call, by the name of a function, or of a class for its methods."""

_NO_LOOP: Final = ("no running event loop", "There is no current event loop")
"""Messages of asyncio's functions in C: they leave no frame to recognise them by."""
_WAITING: Final = (
    inspect.CO_COROUTINE
    | inspect.CO_ASYNC_GENERATOR
    | inspect.CO_ITERABLE_COROUTINE
    | inspect.CO_GENERATOR
)


def parked_at(coroutine: object) -> str | None:
    """Return the line of user code where a coroutine waits."""
    users = users_own(
        [frame for frame in await_chain(coroutine) if not in_package(frame, _FOREIGN)]
    )
    return place(users[-1]) if users else None


def foreign_await(coroutine: object, yielded: object) -> ForeignAwait:
    """Return the error for a coroutine with a non-durable await. ``yielded`` is the object that it
    yielded.
    """
    frames = await_chain(coroutine)
    where = parked_at(coroutine) or "orchestration code"
    called = _beyond(frames)
    if called:
        return ForeignAwait(f"{where} {_told(called)}")
    kind = type(yielded)
    advice = _ADVICE.get(kind.__name__, _ELSE)
    what = (
        "gather()"
        if kind.__name__ == "_GatheringFuture"
        else f"something that is not durable ({kind.__qualname__})"
    )
    return ForeignAwait(f"{where} awaits {what}: {advice}")


def explained(error: BaseException) -> BaseException:
    """Return the error, or a ForeignAwait if an async library complained that it does not run
    here.
    """
    if not isinstance(error, (RuntimeError, AttributeError, LookupError)):
        return error
    frames: list[FrameType] = []
    lines: dict[FrameType, int] = {}
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        frames.append(trace.tb_frame)
        lines[trace.tb_frame] = trace.tb_lineno
        trace = trace.tb_next
    if not frames or is_own(frames[-1]):
        return error
    is_foreign = in_package(frames[-1], _FOREIGN)
    is_without_frame = isinstance(error, RuntimeError) and str(error).startswith(_NO_LOOP)
    users = users_own([frame for frame in frames if not in_package(frame, _FOREIGN)])
    if not users or not (is_foreign or is_without_frame):
        return error
    told = (
        _told(_beyond(frames))
        if is_foreign or _beyond(frames)
        else f"asks for an event loop: {_ELSE}"
    )
    made = ForeignAwait(f"{place(users[-1], lines[users[-1]])} {told}")
    made.__cause__ = error
    return made


def _beyond(frames: Sequence[FrameType]) -> list[FrameType]:
    """Return the frames that the user's innermost line called, outermost first, without this
    library's.
    """
    own = users_own([frame for frame in frames if not in_package(frame, _FOREIGN)])
    last = frames.index(own[-1]) if own else -1
    return [frame for frame in frames[last + 1 :] if is_user(frame)]


def _told(called: Sequence[FrameType]) -> str:
    """Name the call, and the right one."""
    first = called[0]
    verb = "awaits" if first.f_code.co_flags & _WAITING else "calls"
    if not in_package(first, _FOREIGN):  # a package that does I/O by itself
        return (
            f"{verb} {first.f_code.co_qualname}() of {module_root(first)}, which is not durable: "
            f"{_INPUT}"
        )
    for frame in called:
        if in_package(frame, _FOREIGN):
            for owner, name in _names(frame):
                advice = _ADVICE.get(owner or name)
                if advice is not None:
                    return f"{verb} {_shown(owner, name)}: {advice}"
    return f"{verb} {_shown(*_names(first)[-1])}: {_ELSE}"


def _names(frame: FrameType) -> list[tuple[str, str]]:
    """Return the names of a frame's function: with the object's own class, and with the defining
    class.
    """
    code = frame.f_code
    owner, _, name = code.co_qualname.rpartition("<locals>.")[2].rpartition(".")
    names = [(owner.rpartition(".")[2], name)]
    if owner and code.co_varnames[:1] == ("self",):
        names.insert(0, (type(frame.f_locals.get("self")).__name__, name))
    return names


def _shown(owner: str, name: str) -> str:
    return f"{owner or name}()" if name.startswith("__") or not owner else f"{owner}.{name}()"

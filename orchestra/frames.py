"""Classify the code of a frame: the user's, a library's, or this library's own."""

from __future__ import annotations

import gc
import sys
import sysconfig
from collections.abc import Iterable
from itertools import islice
from pathlib import PurePath
from types import CodeType, FrameType
from typing import Any, Final

__all__ = [
    "await_chain",
    "in_package",
    "is_installed",
    "is_own",
    "is_user",
    "module_root",
    "place",
    "place_in",
    "users_own",
]

_OWN: Final = "orchestra"
_PLUMBING: Final = frozenset({_OWN, "contextlib"})
_STANDARD: Final = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib")})
_INSTALLED: Final = frozenset({"site-packages", "dist-packages"})
_HOLDS_A_GENERATOR: Final = frozenset({"async_generator_asend", "async_generator_athrow"})


def module_root(frame: FrameType) -> str:
    """Return the top-level package of a frame's code."""
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]


def is_own(frame: FrameType) -> bool:
    """Return whether a frame runs this library's code."""
    return module_root(frame) == _OWN


def is_user(frame: FrameType) -> bool:
    """Return whether a frame's code is neither this library's nor of context managers in
    between.
    """
    return module_root(frame) not in _PLUMBING


def is_installed(frame: FrameType) -> bool:
    """Return whether a frame runs code of Python itself or of an installed package."""
    filename = frame.f_code.co_filename
    if filename.startswith("<frozen "):
        return True
    return not _INSTALLED.isdisjoint(PurePath(filename).parts) or filename.startswith(_STANDARD)


def in_package(frame: FrameType, roots: Iterable[str]) -> bool:
    """Return whether a frame runs code of one of these top-level packages."""
    return module_root(frame) in roots


def users_own(frames: list[FrameType]) -> list[FrameType]:
    """Return the frames of the user's code, outermost first, without packages that it calls.

    The outermost one is the orchestration. Its package counts as the user's, even if it is
    installed.
    """
    frames = [frame for frame in frames if is_user(frame)]
    return [
        frame
        for frame in frames
        if module_root(frame) == module_root(frames[0]) or not is_installed(frame)
    ]


def place(frame: FrameType, line: int | None = None) -> str:
    """Return ``file:line in function`` of a frame."""
    code = frame.f_code
    return f"{code.co_filename}:{line or frame.f_lineno} in {code.co_qualname}"


def place_in(code: CodeType, instruction: int) -> str:
    """Return ``file:line in function`` of an instruction: a frame's ``f_lasti``."""
    line = next(islice(code.co_positions(), instruction // 2, None))[0]
    return f"{code.co_filename}:{line} in {code.co_qualname}"


def await_chain(coroutine: object) -> list[FrameType]:
    """Return the frames from a coroutine down to its innermost await."""
    frames: list[FrameType] = []
    awaited: Any = coroutine
    while awaited is not None:
        if (
            type(awaited).__name__ in _HOLDS_A_GENERATOR
        ):  # `async for`: Python has no attribute that leads on
            awaited = next(
                (held for held in gc.get_referents(awaited) if hasattr(held, "ag_frame")), None
            )
            continue
        frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
        if frame is not None:
            frames.append(frame)
        awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
    return frames


def _first(value: object, *names: str) -> Any:
    return next(
        (found for name in names if (found := getattr(value, name, None)) is not None), None
    )


def running_in(thread_id: int) -> FrameType | None:
    """Return the innermost frame that a thread runs now."""
    return sys._current_frames().get(thread_id)

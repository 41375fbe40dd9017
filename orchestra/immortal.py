"""Keeps a suspended coroutine from being finalised: for code that cannot be closed."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import Final

__all__ = ["keep_for_ever"]

_kept: Final[list[object]] = []


def keep_for_ever(value: object) -> None:
    """Keep an object alive until the process is gone, even through the interpreter's end.

    The interpreter closes a collected coroutine, at the latest at its own end. If the coroutine
    catches ``GeneratorExit`` in a loop, the loop never ends: without an event loop each await fails
    at once.
    """
    _kept.append(value)
    with suppress(
        AttributeError
    ):  # another implementation than CPython; it finalises nothing at its end
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))

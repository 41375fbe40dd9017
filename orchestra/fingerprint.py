"""A short text that changes when a function's code does, and not when its comments, lines or file name do."""

from __future__ import annotations

import dis
import hashlib
from collections.abc import Callable
from types import CodeType, FunctionType, MethodType
from typing import Any, Final, cast

__all__ = ["fingerprint"]

_LAYOUT: Final = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "RESUME"})
"""Instructions that depend on how code lies, not on what it does."""


def fingerprint(function: Callable[..., Any], *also: bytes) -> str:
    """Return 16 hexadecimal digits over a function's normalised code, the functions of its package that it names, and ``also``.

    Helpers count because a repair is as likely in a helper as in the orchestration itself.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    package = function.__module__.partition(".")[0]
    pending: list[Any] = [function]
    while pending:
        candidate = pending.pop(0)
        current = candidate.__func__ if isinstance(candidate, MethodType) else candidate
        if not isinstance(current, FunctionType) or id(current) in seen or current.__module__.partition(".")[0] != package:
            continue
        seen.add(id(current))
        digest.update(_normalised(current.__code__).encode())
        for defaults in (current.__defaults__ or (), tuple((current.__kwdefaults__ or {}).items())):
            digest.update(repr(defaults).encode() if _is_plain(defaults) else b"")
        pending.extend(current.__globals__.get(name) for name in _names(current.__code__))
        pending.extend(cell.cell_contents for cell in current.__closure__ or () if _filled(cell))
    for part in also:
        digest.update(part)
    return digest.hexdigest()[:16]


def _filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:  # not bound yet: a recursive inner function
        return False


def _is_plain(values: tuple[Any, ...]) -> bool:
    return all(
        _is_plain(cast("tuple[Any, ...]", value))
        if isinstance(value, tuple)
        else isinstance(value, (int, float, str, bytes, bool, type(None)))
        for value in values
    )


def _names(code: CodeType) -> list[str]:
    names = list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names.extend(_names(constant))
    return names


def _normalised(code: CodeType) -> str:
    """Return code as text without file names, lines and docstrings."""
    # Constants are written where they are used: a docstring stands among them, but nothing loads it, and it moves the others.
    steps = [
        f"{step.opname} {_constant(step.argval) if step.opcode in dis.hasconst else step.arg}"
        for step in dis.get_instructions(code)
        if step.opname not in _LAYOUT and not _is_line_number(code, step)
    ]
    names = (code.co_name, code.co_names, code.co_varnames, code.co_freevars, code.co_argcount, code.co_kwonlyargcount)
    return "|".join([*map(str, names), *steps])


def _is_line_number(code: CodeType, step: dis.Instruction) -> bool:
    # From Python 3.13 on the body of a class stores its own line as `__firstlineno__`.
    return "__firstlineno__" in code.co_names and step.opcode in dis.hasconst and step.argval == code.co_firstlineno


def _constant(constant: object) -> str:
    if isinstance(constant, CodeType):
        return _normalised(constant)
    if isinstance(constant, tuple):
        return f"({','.join(map(_constant, cast('tuple[object, ...]', constant)))})"
    if isinstance(constant, frozenset):  # its order differs from process to process
        return f"{{{','.join(sorted(map(_constant, cast('frozenset[object]', constant))))}}}"
    return repr(constant)

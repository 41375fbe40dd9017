"""Fingerprints of code: they change with a function's code, but not with its comments, lines or
file name.
"""

from __future__ import annotations

import dis
import hashlib
import typing
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, Final, cast

__all__ = ["fingerprint", "limited_fingerprint"]

_LAYOUT: Final = frozenset({"CACHE", "EXTENDED_ARG", "NOP", "PRECALL", "RESUME"})
"""Instructions that depend on the layout of code, not on what it does."""


def fingerprint(function: Callable[..., Any], *also: bytes, state: Any = None) -> str:
    """Return 16 hexadecimal digits over a function's normalised code, the names it uses of its
    package, and ``also``.

    Named functions, classes with their methods, and members of modules count. So do the classes of
    ``state``, an annotation: a repair may be in a helper. Code that is reached in other ways does
    not count.
    """
    digest = hashlib.sha256()
    seen: set[int] = set()
    package = function.__module__.partition(".")[0]
    pending: list[Any] = [function, *_classes(state)]
    while pending:
        current = _unwrapped(pending.pop(0))
        if id(current) in seen or _package(current) != package:
            continue
        seen.add(id(current))
        if isinstance(current, type):
            digest.update(current.__qualname__.encode())
            pending.extend(member for cls in current.__mro__ for member in vars(cls).values())
            continue
        if not isinstance(current, FunctionType):
            continue
        digest.update(_normalised(current.__code__).encode())
        for defaults in (current.__defaults__ or (), tuple((current.__kwdefaults__ or {}).items())):
            digest.update(repr(defaults).encode() if _is_plain(defaults) else b"")
        pending.extend(_named(current, package))
        pending.extend(cell.cell_contents for cell in current.__closure__ or () if _filled(cell))
    for part in also:
        digest.update(part)
    return digest.hexdigest()[:16]


def limited_fingerprint(code: str, max_events: int, max_bytes: int) -> str:
    """Return the fingerprint of code under limits: the same code under other limits is another
    attempt.
    """
    return f"{code}/{max_events}/{max_bytes}"


def _unwrapped(value: Any) -> Any:
    """Return the function behind a method, a property or the like; anything else as it is."""
    if isinstance(value, (MethodType, staticmethod, classmethod)):
        return cast("Any", value).__func__
    return value.fget if isinstance(value, property) else value


def _classes(annotation: Any) -> Iterator[Any]:
    """Yield the classes that an annotation names."""
    yield annotation
    for argument in typing.get_args(annotation):
        yield from _classes(argument)


def _package(value: Any) -> str:
    return str(getattr(value, "__module__", "")).partition(".")[0]


def _named(function: FunctionType, package: str) -> Iterator[Any]:
    """Yield the objects that a function's code names: globals, and members of modules of its
    package.
    """
    names = _names(function.__code__)
    for name in names:
        value = function.__globals__.get(name)
        if isinstance(value, ModuleType) and value.__name__.partition(".")[0] == package:
            yield from (getattr(value, member, None) for member in names)
        else:
            yield value


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
    # Constants are written where they are used. A docstring is a constant too, but nothing loads
    # it, and it shifts the others.
    steps = [
        f"{step.opname} {_constant(step.argval) if step.opcode in dis.hasconst else step.arg}"
        for step in dis.get_instructions(code)
        if step.opname not in _LAYOUT and not _is_line_number(code, step)
    ]
    names = (
        code.co_name,
        code.co_names,
        code.co_varnames,
        code.co_freevars,
        code.co_argcount,
        code.co_kwonlyargcount,
    )
    return "|".join([*map(str, names), *steps])


def _is_line_number(code: CodeType, step: dis.Instruction) -> bool:
    # From Python 3.13 on the body of a class stores its own line as `__firstlineno__`.
    return (
        "__firstlineno__" in code.co_names
        and step.opcode in dis.hasconst
        and step.argval == code.co_firstlineno
    )


def _constant(constant: object) -> str:
    if isinstance(constant, CodeType):
        return _normalised(constant)
    if isinstance(constant, tuple):
        return f"({','.join(map(_constant, cast('tuple[object, ...]', constant)))})"
    if isinstance(constant, frozenset):  # its order differs from process to process
        return f"{{{','.join(sorted(map(_constant, cast('frozenset[object]', constant))))}}}"
    return repr(constant)

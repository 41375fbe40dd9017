"""Exceptions that can be pickled and copied, with any ``__init__``.

Python rebuilds an exception by calling its class with ``args``. That fails for a class whose
``__init__`` takes keyword-only arguments, and an exception that cannot be rebuilt breaks a process
pool for good. A :class:`Portable` exception is rebuilt without its ``__init__``, from its
attributes. Subclasses of users need to do nothing.
"""

from __future__ import annotations

import copy
import pickle
import traceback
from contextlib import suppress
from typing import Any, Final, cast

__all__ = ["Portable", "Unpicklable"]

_CHAIN: Final = "__chain__"
_LONGEST_CHAIN: Final = 50
_HEAP_TYPE: Final = 1 << 9
"""``Py_TPFLAGS_HEAPTYPE``: a class that was made by a ``class`` statement."""


class Portable:
    """Makes an exception class picklable and copyable.

    The pickle holds its attributes, and the chain of its causes and contexts. An exception in the
    chain that cannot be pickled or rebuilt becomes an :class:`Unpicklable`.
    """

    __slots__ = ()

    def __reduce_ex__(self, protocol: Any) -> Any:
        cls = type(self)
        for owner in cls.__mro__:
            if "__reduce__" in vars(owner):
                if owner.__flags__ & _HEAP_TYPE:
                    return self.__reduce__()  # the class of a user that knows better
                break
        rebuild = cls, *_arguments_and_state(self)
        error = cast("BaseException", self)
        if error.__cause__ is not None or error.__context__ is not None:
            rebuild[2][_CHAIN] = _Chain(error)
        return _made, rebuild[:2], rebuild[2] or None

    def __setstate__(self, state: dict[str, Any] | None) -> None:
        chain = None if state is None else state.pop(_CHAIN, None)
        cast("Any", super()).__setstate__(state)
        if chain is not None:
            chain.restore(self)


class Unpicklable(Portable, Exception):
    """Replaces an exception in the chain of a pickled error that could not be pickled or
    rebuilt.

    ``type`` is the qualified name of its class, ``message`` its text, ``traceback`` its traceback
    as text.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:  # noqa: A002
        super().__init__(f"{type}: {message}" if message else type)
        self.type = type
        self.message = message
        self.traceback = traceback


def _arguments_and_state(error: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the arguments of the built-in base, and all attributes."""
    _, args, *rest = error.__reduce__()
    state = dict(rest[0]) if rest and rest[0] else {}
    own = error.__getstate__()
    if isinstance(own, tuple):  # a class with slots: the dictionary, and the slots
        for part in cast("tuple[dict[str, Any] | None, ...]", own):
            state.update(part or {})
    elif own is not None and type(error).__getstate__ is not BaseException.__getstate__:
        state = dict(own)
    return args, state


def _made(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return an exception with only its built-in base initialised."""
    base: Any = cls
    while base.__flags__ & _HEAP_TYPE:
        base = base.__base__
    error = base.__new__(cls, *args)
    base.__init__(error, *args)
    return error


def _rebuilt(
    cls: type[BaseException], args: tuple[Any, ...], state: dict[str, Any]
) -> BaseException:
    error = _made(cls, args)
    error.__setstate__(state)
    return error


class _Chain:
    """The causes and contexts of one exception, of these, and so on: a flat list, so that a long
    chain nests nothing.

    Each entry is an exception, the places of its cause and context in the list, and whether the
    context is suppressed. The first entry is the pickled exception itself.
    """

    __slots__ = ("links",)

    def __init__(
        self, first: BaseException, links: list[tuple[Any, int, int, bool]] | None = None
    ) -> None:
        self.links = _links(first) if links is None else links

    def restore(self, first: Any) -> None:
        errors = [first, *(error for error, _, _, _ in self.links[1:])]
        for error, (_, cause, context, suppressed) in zip(errors, self.links, strict=True):
            error.__cause__ = errors[cause] if cause > 0 else None
            error.__context__ = errors[context] if context > 0 else None
            error.__suppress_context__ = suppressed

    def __copy__(self) -> _Chain:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> _Chain:
        return _Chain(
            cast("Any", None),
            [
                (None if place == 0 else _copied(link[0], memo), *link[1:])
                for place, link in enumerate(self.links)
            ],
        )

    def __reduce__(self) -> Any:
        return _thawed, (
            [
                (None if place == 0 else _frozen(link[0]), *link[1:])
                for place, link in enumerate(self.links)
            ],
        )


def _links(first: BaseException) -> list[tuple[Any, int, int, bool]]:
    errors = [first]
    places = {id(first): 0}
    neighbours: list[tuple[BaseException | None, BaseException | None]] = []
    for error in errors:  # it grows meanwhile
        neighbours.append((error.__cause__, error.__context__))
        for other in neighbours[-1]:
            if other is not None and id(other) not in places and len(errors) < _LONGEST_CHAIN:
                places[id(other)] = len(errors)
                errors.append(other)
    return [
        (error, places.get(id(cause), -1), places.get(id(context), -1), error.__suppress_context__)
        for error, (cause, context) in zip(errors, neighbours, strict=True)
    ]


def _copied(error: BaseException, memo: dict[int, Any]) -> BaseException:
    try:
        if isinstance(error, Portable):  # without its chain, which is in the list
            args, state = copy.deepcopy(_arguments_and_state(error), memo)
            return _rebuilt(type(error), args, state)
        return copy.deepcopy(error, memo)
    except Exception:  # noqa: BLE001 - it cannot be copied; the chain holds the original
        return error


def _frozen(error: BaseException) -> tuple[bytes | None, str, str, str]:
    """Return an exception's own pickle, if there is one, and a replacement for readers that cannot
    load it.
    """
    cls = type(error)
    try:
        parts = (cls, *_arguments_and_state(error)) if isinstance(error, Portable) else error
        data = pickle.dumps(parts)
    except Exception:  # noqa: BLE001 - what cannot be pickled raises anything
        data = None
    name = (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a faulty __str__ of other code
        message = ""
    return data, name, message, "".join(traceback.format_tb(error.__traceback__))


def _thawed(frozen: list[tuple[Any, int, int, bool]]) -> _Chain:
    links = [(None if link[0] is None else _error(*link[0]), *link[1:]) for link in frozen]
    return _Chain(cast("Any", None), links)


def _error(data: bytes | None, name: str, message: str, text: str) -> BaseException:
    if data is not None:
        # Part of a pickle that is being read already: this trusts nothing new.
        with suppress(
            Exception
        ):  # its class is not known here, or takes other arguments than it keeps
            found = pickle.loads(data)  # noqa: S301
            return found if isinstance(found, BaseException) else _rebuilt(*found)
    return Unpicklable(name, message, text)

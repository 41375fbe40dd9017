"""The steps of running activities: their results stand in a stream of the activity, until it has
ended.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Final, get_type_hints

from orchestra.codec import Decoder, Payload, decoder, pack_text, repacked, unpack
from orchestra.engine.messages import ActivityKey
from orchestra.errors import InvalidArgument
from orchestra.ids import check_name
from orchestra.store.port import Directory
from orchestra.store.streams import journal_of

__all__ = ["Journal", "read_journal"]

_KEY: Final = b'{"step":'


def read_journal(directory: Directory, key: ActivityKey) -> dict[str, Payload]:
    """Return the results of an activity's steps, by their names. It reads the store."""
    steps: dict[str, Payload] = {}
    name, after = journal_of(key.execution, key.event_id), 0
    while (page := directory.stream(key.instance_id, name, after)) is not None and page.items:
        for item in page.items:
            step = unpack(item.payload.data)
            steps[step["step"]] = repacked(step["result"])
        after = page.items[-1].offset
    return steps


class Journal:
    """The steps of one attempt. ``known`` are those of earlier attempts.

    Any thread of the attempt may use it.
    """

    def __init__(self, key: ActivityKey, known: dict[str, Payload], limit: int) -> None:
        self._key = key
        self._known = known
        self._limit = limit
        self._asked: set[str] = set()
        self._guard = threading.Lock()
        self.stream: str = journal_of(key.execution, key.event_id)

    def ask(self, name: str) -> Payload | None:
        """Return the stored result of a step; ``None``: it has none.

        Raises:
            InvalidArgument: the name is none, or another step of the attempt has it.
        """
        check_name(name, "a step")
        with self._guard:
            if name in self._asked:
                raise InvalidArgument(
                    f"this attempt has had a step {name!r} already; each step of an activity needs "
                    "a name of its own, such as f'page-{number}'"
                )
            self._asked.add(name)
        return self._known.get(name)

    def decode(self, name: str, result: Payload, function: Callable[[], Any]) -> Any:
        """Return a stored result."""
        return _reader(function).decode(result, subject=self._subject(name))

    def encode(self, name: str, value: Any, function: Callable[[], Any]) -> tuple[Payload, Payload]:
        """Return a result, and the item that stores it."""
        result = _reader(function).encode(value, subject=self._subject(name), limit=self._limit)
        data = b"".join((_KEY, pack_text(name).encode(), b',"result":', result.data, b"}"))
        return result, Payload(data)

    def _subject(self, name: str) -> str:
        return f"result of step {name!r} of {self._key.instance_id!r}"


def _reader(function: Callable[[], Any]) -> Decoder[Any]:
    inner: Any = function
    while isinstance(inner, partial):
        inner = inner.func
    try:
        annotation = get_type_hints(inner).get("return", Any)
    except (NameError, TypeError):  # no function, or it names a class of a running function
        annotation = Any
    return decoder(annotation)

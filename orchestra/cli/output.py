"""What the command writes: tables and colours for people, JSON for programs.

Data goes to stdout, all else to stderr. Text of users is escaped, so that it cannot move the cursor
(I15).
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestra.cli.rendering import printable
from orchestra.client.info import InstanceStatus
from orchestra.client.jsonable import jsonable
from orchestra.codec import dump_json, pack_lines

__all__ = [
    "STATUS_STYLES",
    "Column",
    "Format",
    "Output",
    "age",
    "console_for_people",
    "instant",
    "span",
    "table_of",
    "text",
    "text_of_lines",
]

T = TypeVar("T")

_WIDE: Final = 4_096
"""The width where no terminal bounds it: a pipe gets each value whole."""

_LOUD: Final = re.compile(
    "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\U000e0000-\U000e007f]"
)

STATUS_STYLES: Final = {
    InstanceStatus.PENDING: "cyan",
    InstanceStatus.RUNNING: "green",
    InstanceStatus.HELD: "bold yellow",
    InstanceStatus.COMPLETED: "dim",
    InstanceStatus.FAILED: "bold red",
    InstanceStatus.CANCELLED: "magenta",
    InstanceStatus.TERMINATED: "magenta",
    InstanceStatus.UNKNOWN: "yellow",
}


class Format(StrEnum):
    """How data is written."""

    TABLE = "table"
    JSON = "json"
    JSONL = "jsonl"


@dataclass(frozen=True, slots=True)
class Column(Generic[T]):
    """A column of a table: its head, and the text of a record."""

    head: str
    value: Callable[[T], Text | str]
    right: bool = False


class Output:
    """Where a command writes its result."""

    def __init__(self, form: Format) -> None:
        self.format: Format = form

    @property
    def is_for_people(self) -> bool:
        """Whether tables are wanted, and not JSON."""
        return self.format is Format.TABLE

    def records(self, records: Sequence[T], columns: Sequence[Column[T]], empty: str) -> None:
        """Write a list: a table, a JSON array, or a line of JSON for each record."""
        if not self.is_for_people:
            self.values(records)
            return
        if not records:
            self.say(empty)
            return
        self.draw(table_of(records, columns))

    def values(self, values: Iterable[Any]) -> None:
        """Write values as JSON: an array, or a line for each."""
        if self.format is Format.JSONL:
            for one in values:
                self.line(one)
        else:
            self.raw(_inert(pack_lines([jsonable(one) for one in values])))

    def value(self, value: Any, draw: Callable[[], Any]) -> None:
        """Write one value as JSON; for people, what ``draw`` makes of it."""
        if self.is_for_people:
            drawn = draw()
            if drawn is not None:
                self.draw(drawn)
        else:
            self.json(value)

    def json(self, value: Any) -> None:
        """Write one value as JSON, for people as well."""
        if self.format is Format.JSONL:
            self.line(value)
        else:
            self.raw(_inert(pack_lines(jsonable(value))))

    def line(self, value: Any) -> None:
        """Write a value as one line of JSON, now."""
        self.raw(_inert(dump_json(jsonable(value)) + b"\n"))

    @staticmethod
    def raw(data: bytes) -> None:
        """Write bytes."""
        with _reader_may_leave():
            sys.stdout.flush()
            sys.stdout.buffer.write(data)
            sys.stdout.flush()

    @staticmethod
    def draw(*drawn: Any) -> None:
        """Draw for people: with colours on a terminal, and whole in a pipe."""
        console = console_for_people()
        with console.capture() as captured:
            for one in drawn:
                console.print(one)
        lines = captured.get().splitlines()
        with _reader_may_leave():
            for line in lines:
                sys.stdout.write(f"{line if console.is_terminal else line.rstrip()}\n")
            sys.stdout.flush()

    @staticmethod
    def say(message: str) -> None:
        """Tell the operator something that is no data, on stderr."""
        lines = "\n".join(printable(line) for line in message.split("\n"))
        sys.stderr.write(f"{shown(lines, sys.stderr.encoding)}\n")


def table_of(records: Iterable[T], columns: Sequence[Column[T]]) -> Table:
    """Return a table for people."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(
            text(column.head),  # it may be a label's key
            justify="right" if column.right else "left",
            overflow="fold",
            no_wrap=False,
        )
    for record in records:
        table.add_row(*(text(column.value(record)) for column in columns))
    return table


@contextmanager
def _reader_may_leave() -> Generator[None]:
    """Tolerate that the reader has closed the pipe: it has seen enough."""
    try:
        yield
    except BrokenPipeError:
        # Nothing may be flushed into it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def console_for_people() -> Console:
    """Return the terminal, or the pipe that stands for it."""
    is_terminal = sys.stdout.isatty()
    return Console(
        file=sys.stdout,
        highlight=False,
        markup=False,
        emoji=False,
        width=None if is_terminal else _WIDE,
    )


def shown(message: str, encoding: str | None) -> str:
    """Return a text with escapes for characters that an encoding does not have."""
    known = encoding or "utf-8"
    return message.encode(known, "backslashreplace").decode(known)


def _inert(data: bytes) -> bytes:
    """Return the same JSON, with escapes for what a terminal may obey: bidi controls, C1 controls,
    DEL. Those below a blank are escaped already.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    return _LOUD.sub(_escape, data.decode()).encode()


def _escape(found: re.Match[str]) -> str:
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def text(value: Text | str) -> Text:
    """Return a text that moves no cursor, also where the terminal knows only ASCII."""
    plain = value.plain if isinstance(value, Text) else value
    safe = shown(printable(plain), sys.stdout.encoding)
    if isinstance(value, Text):
        return value if safe == plain else Text(safe, style=value.style)
    return Text(safe)


def text_of_lines(lines: str) -> Text:
    """Return lines that are escaped already, without the end of the last."""
    return Text(shown(lines.removesuffix("\n"), sys.stdout.encoding))


def instant(at: datetime | None) -> str:
    """Return an instant for people."""
    return "" if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def age(at: datetime | None, now: datetime) -> str:
    """Return how long ago an instant was."""
    return "" if at is None else span(now - at)


def span(duration: timedelta) -> str:
    """Return a duration in its two largest units."""
    seconds = duration.total_seconds()
    if seconds < 0:
        return f"-{span(-duration)}"
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    whole = int(seconds)
    units = ((whole // 86_400, "d"), (whole // 3_600 % 24, "h"), (whole // 60 % 60, "m"))
    named = [f"{count}{unit}" for count, unit in (*units, (whole % 60, "s")) if count]
    return " ".join(named[:2])

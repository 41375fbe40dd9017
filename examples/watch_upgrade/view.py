"""The view of the demo: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text
from watches import OLD

from orchestra import InstanceInfo

WIDE = 110


class View(Protocol):
    """Shows headlines, smaller notes, and the instances as the store has them."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None: ...
    def headline(self, text: str) -> None: ...
    def note(self, text: str) -> None: ...
    def show(self, instances: Sequence[InstanceInfo]) -> None: ...


# --- the cells ---


def attempt(info: InstanceInfo) -> int:
    """Return the number of the current attempt; 1 if the instance waits for no activity."""
    return max((pending.attempt for pending in info.pending_activities), default=1)


def http_status(info: InstanceInfo, *, wide: bool) -> str:
    """Return the last answer: from the error of the last attempt, or from the custom status."""
    for pending in info.pending_activities:
        error = re.search(r"HTTP (\d{3})", pending.last_error or "")
        if error:
            return error[1]
    shown: dict[str, Any] = info.custom_status or {}
    parts = [str(shown.get("http", "-"))]
    if "ms" in shown:
        average = f", average {shown['average_ms']} ms" if wide else ""
        parts.append(f"in {shown['ms']} ms{average}")
    return " ".join(parts)


def waiting_on(info: InstanceInfo, now: datetime | None = None) -> str:
    """Return what the instance waits for; with ``now``, also for how long it has or will."""
    for pending in info.pending_activities:
        begins = pending.next_attempt_at
        if begins is not None and begins > (now or info.updated_at):
            return "retry" + (f" in {seconds(begins, now)}" if now else "")
        return pending.name + (f" for {seconds(now, begins or pending.since)}" if now else "")
    for waiting in info.waiting_on:
        if waiting.until is not None:
            return "timer" + (f", {seconds(waiting.until, now)} left" if now else "")
    return "-"


def seconds(later: datetime, earlier: datetime) -> str:
    """Return the time between two moments, as text."""
    return f"{max(0.0, (later - earlier).total_seconds()):.1f} s"


# --- without a terminal ---


class PlainView:
    """Prints one line for each change of state."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._printed: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def headline(self, text: str) -> None:
        """Say what happens now."""
        self._print(f"== {text}")

    def note(self, text: str) -> None:
        """Say what has just been seen."""
        self._print(f"-- {text}")

    def show(self, instances: Sequence[InstanceInfo]) -> None:
        """Print the instances that have changed."""
        for info in instances:
            tries = f"try {attempt(info)}" if attempt(info) > 1 else ""
            cells = (
                f"{info.instance_id}",
                f"lap {info.execution_id:<2}",
                f"{info.version} (next {info.target_version})",
                f"{info.status:<9}",
                f"{waiting_on(info):<8}",
                f"{tries:<5}",
                f"HTTP {http_status(info, wide=True)}",
            )
            line = "  ".join(cells).rstrip()
            if self._printed.get(info.instance_id) != line:
                self._printed[info.instance_id] = line
                self._print(f"   {line}")

    def _print(self, text: str) -> None:
        print(f"{time.monotonic() - self._began:5.1f} s {text}", flush=True)


# --- on a terminal ---


class LiveView:
    """Redraws a table in place: the headline, the instances, and the last notes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._headline = ""
        self._notes: deque[str] = deque(maxlen=7)
        self._instances: Sequence[InstanceInfo] = ()
        self._live = Live(console=console, get_renderable=self._draw, refresh_per_second=10)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def headline(self, text: str) -> None:
        """Say what happens now."""
        self._headline = text
        self.note(text)

    def note(self, text: str) -> None:
        """Say what has just been seen."""
        self._notes.append(f"{time.monotonic() - self._began:5.1f} s  {text}")

    def show(self, instances: Sequence[InstanceInfo]) -> None:
        """Show the instances as they are now."""
        self._instances = instances

    def _draw(self) -> Group:
        notes = Text("\n".join(self._notes), style="dim", no_wrap=True, overflow="ellipsis")
        headline = Text(self._headline, style="bold", no_wrap=True, overflow="ellipsis")
        return Group(headline, Text(), self._table(), Text(), notes)

    def _table(self) -> Table:
        wide = self._console.width >= WIDE
        table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
        columns = {
            "instance": 8,
            "version": 7,
            "next": 5,
            "lap": 3,
            "status": 9,
            "HTTP": 31 if wide else 13,
            "try": 3,
        }
        columns |= {"waiting on": 17, "changed": 9} if wide else {"waiting on": 11, "since": 5}
        for heading, width in columns.items():
            justify = "right" if heading in {"lap", "try"} else "left"
            table.add_column(heading, width=width, justify=justify, no_wrap=True)
        now = datetime.now(UTC)
        for info in self._instances:
            table.add_row(*self._cells(info, now, wide=wide))
        return table

    @staticmethod
    def _cells(info: InstanceInfo, now: datetime, *, wide: bool) -> list[Text]:
        http = http_status(info, wide=wide)
        tries = attempt(info)
        waiting = waiting_on(info, now)
        return [
            Text(info.instance_id),
            Text(info.version, style="cyan" if info.version == OLD else "green"),
            Text(
                info.target_version, style="dim" if info.target_version == info.version else "green"
            ),
            Text(str(info.execution_id)),
            Text(info.status, style="" if info.status == "running" else "bold"),
            Text(http, style="red" if http.startswith("5") else ""),
            Text(str(tries) if tries > 1 else "", style="bold red"),
            Text(waiting if wide else re.sub(" for| in| left|,", "", waiting)),
            Text(seconds(now, info.updated_at) + (" ago" if wide else ""), style="dim"),
        ]

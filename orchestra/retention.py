"""How long histories, executions and ended instances are kept."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Literal

from orchestra.errors import InvalidArgument
from orchestra.options import POSITIVE, check_count, check_duration, check_kind

__all__ = ["Retention", "StreamRetention"]

_LONGEST: Final = timedelta(days=365_000)


@dataclass(frozen=True, slots=True)
class StreamRetention:
    """How much of each stream of an instance is kept; see ``ctx.publish``.

    Each bound holds by itself. The write that appends cuts the oldest items once the stream is an
    eighth over a bound. So at least as much is kept as the bounds say, and never more than an
    eighth above them. The newest item always stays. A stream to which nothing is published keeps
    its items, whatever their age. The node that publishes applies its own bounds.

    Args:
        items: how many items are kept. ``None``: all.
        bytes: how many bytes of their values. ``None``: all.
        keep_for: items that were published longer ago are cut. ``None``: none is too old.

    Raises:
        InvalidArgument: a number less than 1, or a time that is not positive.
    """

    items: int | None = 10_000
    bytes: int | None = 64 * 1024 * 1024
    keep_for: timedelta | None = None

    def __post_init__(self) -> None:
        check_count(self.items, "StreamRetention.items", optional=True)
        check_count(self.bytes, "StreamRetention.bytes", optional=True)
        check_duration(
            self.keep_for, "StreamRetention.keep_for", least=POSITIVE, most=_LONGEST, optional=True
        )


_STREAMS: Final = StreamRetention()


@dataclass(frozen=True, slots=True)
class Retention:
    """Which laps and ended instances of an orchestration are kept. The current execution always
    is.

    Each bound holds by itself. The write of a boundary deletes laps, the oldest first, so a waiting
    instance keeps its laps.

    Args:
        histories: the events of at least this many closed laps are kept. Several are deleted
            together, so it may be up to twice as many, but never 500 more. ``None``: all.
        executions: the same for the rows of executions: version, state, times, output.
        keep_for: laps that ended longer ago are deleted, with events and rows, except the newest
            closed one: at the latest at the first boundary after an eighth more of this time.
            ``None``: no lap is too old.
        finished: how long after its end an instance is deleted, with all its rows. Its id is then
            free, and the same start makes a new instance. ``None``: never; ``client.purge`` deletes
            by filter.
        children: what becomes of the ended children of a lap whose row is deleted, and of theirs.
            ``"with_lap"``: they are deleted soon after it, whatever their own names' ``finished``
            says; open ones stay until they have ended. ``"keep"``: they stay as they are.
        streams: how much of each stream of an instance is kept.

    Raises:
        InvalidArgument: fewer than one history, fewer executions than histories, a time that is not
            positive, another word for ``children``, or ``streams`` is no ``StreamRetention``.
    """

    histories: int | None = 10
    executions: int | None = 1000
    keep_for: timedelta | None = None
    finished: timedelta | None = None
    children: Literal["with_lap", "keep"] = "with_lap"
    streams: StreamRetention = _STREAMS

    def __post_init__(self) -> None:
        check_count(self.histories, "Retention.histories", optional=True)
        check_count(self.executions, "Retention.executions", optional=True)
        if self.executions is not None and (
            self.histories is None or self.histories > self.executions
        ):
            raise InvalidArgument(
                f"{self.histories} histories cannot be kept of {self.executions} executions; keep "
                "at least as many executions"
            )
        check_duration(
            self.keep_for, "Retention.keep_for", least=POSITIVE, most=_LONGEST, optional=True
        )
        check_duration(
            self.finished, "Retention.finished", least=POSITIVE, most=_LONGEST, optional=True
        )
        if self.children not in {"with_lap", "keep"}:
            raise InvalidArgument(
                f"Retention.children is {self.children!r}; it takes 'with_lap' or 'keep'"
            )
        check_kind(self.streams, "Retention.streams", StreamRetention)

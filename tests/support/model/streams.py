"""Streams in the model: all items of all times, of which a part is kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from orchestra.store.changes import Publish
from orchestra.store.streams import Bounds, Page, Published, StreamItemRow, StreamPage, StreamRow
from orchestra.store.tasks import ActivityRow


@dataclass(frozen=True, slots=True)
class ModelStream:
    """A stream: the life in which it began, and all that was ever published; ``cut`` is gone."""

    incarnation: str
    items: tuple[StreamItemRow, ...] = ()
    cut: int = 0
    numbers: tuple[int, ...] = ()
    """The numbers of the items within their attempts."""

    @property
    def kept(self) -> tuple[StreamItemRow, ...]:
        return self.items[self.cut :]


def publish(
    streams: Mapping[str, ModelStream],
    incarnation: str,
    published: Sequence[Published],
    bounds: Bounds,
) -> dict[str, ModelStream]:
    """Return the streams after one change."""
    changed = dict(streams)
    for one in published:
        stream = changed.get(one.stream, ModelStream(incarnation))
        item = StreamItemRow(
            len(stream.items) + 1, one.payload, one.at, one.execution, one.event_id, one.attempt
        )
        changed[one.stream] = replace(
            stream, items=(*stream.items, item), numbers=(*stream.numbers, one.number)
        )
    for name in {one.stream for one in published if not one.stream.startswith("orchestra:")}:
        changed[name] = _cut(changed[name], bounds)
    return changed


def _cut(stream: ModelStream, bounds: Bounds) -> ModelStream:
    now, kept = stream.items[-1].at, stream.kept
    sizes = [len(item.payload.data) for item in kept]
    over = [
        bounds.items is not None and len(kept) > bounds.items + bounds.items // 8,
        bounds.bytes is not None and sum(sizes) > bounds.bytes + bounds.bytes // 8,
        bounds.age is not None and kept[0].at < now - bounds.age - bounds.age // 8,
    ]
    if not any(over):
        return stream
    cut = stream.cut
    for place, item in enumerate(kept[:-1][:4_000]):
        if (
            (bounds.items is not None and len(kept) - place > bounds.items)
            or (bounds.bytes is not None and sum(sizes[place:]) > bounds.bytes)
            or (bounds.age is not None and item.at < now - bounds.age)
        ):
            cut = item.offset
    return replace(stream, cut=cut)


def row_of(name: str, stream: ModelStream) -> StreamRow:
    """Return a stream as readers see it."""
    size = sum(len(item.payload.data) for item in stream.kept)
    return StreamRow(name, stream.incarnation, stream.cut + 1, len(stream.items), size)


def page_of(
    streams: Mapping[str, ModelStream], name: str, after: int, page: Page, *, ended: bool
) -> StreamPage:
    """Return a page of a stream."""
    stream = streams.get(name)
    if stream is None:
        return StreamPage(ended, None, ())
    found = [item for item in stream.kept if item.offset > after][: page.items]
    while found[1:] and sum(len(item.payload.data) for item in found) > page.bytes:
        found.pop()
    return StreamPage(ended, row_of(name, stream), tuple(found))


def last_number(streams: Mapping[str, ModelStream], change: Publish) -> int:
    """Return the number of the last kept item of an attempt."""
    wanted = change.execution, change.event_id, change.attempt
    return max(
        (
            number
            for stream in streams.values()
            for item, number in zip(stream.kept, stream.numbers[stream.cut :], strict=True)
            if (item.execution, item.event_id, item.attempt) == wanted
        ),
        default=0,
    )


def without_journals(
    streams: Mapping[str, ModelStream],
    before: Mapping[tuple[int, int], ActivityRow],
    after: Mapping[tuple[int, int], ActivityRow],
    completed: Collection[tuple[int, int]],
) -> Mapping[str, ModelStream]:
    """Return the streams without the journals of activities whose rows have gone.

    ``completed``: these were removed, also where the same write put a row in their place.
    """
    gone = {
        f"orchestra:journal/{execution}/{event_id}"
        for (execution, event_id), row in before.items()
        if ((execution, event_id) not in after or (execution, event_id) in completed)
        and row.heartbeat is not None
    }
    return {name: stream for name, stream in streams.items() if name not in gone}

"""Check the streams of an instance: offsets without gap or double, and no journal without an
activity.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from orchestra.store.port import Directory
from orchestra.store.streams import JOURNAL, StreamRow, journal_of

__all__ = ["find_left_journals", "find_stream_faults"]


def find_left_journals(
    directory: Directory, instance_id: str, execution: int, pending: Iterable[int]
) -> Iterator[str]:
    """Yield the journals of activities for which the execution does not wait: nothing runs, and no
    attempt will read their steps.
    """
    open_ones = {journal_of(execution, event_id) for event_id in pending}
    for stream in directory.streams(instance_id):
        if stream.name.startswith(JOURNAL) and stream.name not in open_ones:
            yield f"stream {stream.name!r} holds the steps of an activity that has ended"


def find_stream_faults(directory: Directory, instance_id: str, *, quiescent: bool) -> Iterator[str]:
    """Yield what is wrong with the streams of an instance.

    While something runs, items come and go between two reads. So the sums are compared at rest
    only.
    """
    for stream in directory.streams(instance_id):
        yield from _faults(directory, instance_id, stream, quiescent=quiescent)


def _faults(
    directory: Directory, instance_id: str, stream: StreamRow, *, quiescent: bool
) -> Iterator[str]:
    name, after, size = stream.name, stream.first_offset - 1, 0
    while after < stream.last_offset:
        page = directory.stream(instance_id, name, after)
        if page is None or page.stream is None:
            if quiescent:
                yield f"stream {name!r} went away although nothing runs"
            return
        first = max(after + 1, page.stream.first_offset)
        found = [item.offset for item in page.items]
        if found != list(range(first, first + len(found))) or not found:
            yield (
                f"stream {name!r} has the offsets {found[:5]}... where {first} follows, and "
                f"{page.stream.last_offset} is the last one"
            )
            return
        size += sum(len(item.payload.data) for item in page.items)
        after = found[-1]
    if quiescent and after != stream.last_offset:
        yield f"stream {name!r} has items up to {after}, and tells {stream.last_offset}"
    if quiescent and size != stream.bytes:
        yield f"stream {name!r} has {size} bytes, and tells {stream.bytes}"

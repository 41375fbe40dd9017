"""Rows that lack what they belong to, for the tests of the doctor on each database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from orchestra.codec import Payload
from orchestra.store.kinds import THIS_LIBRARY
from orchestra.store.outcomes import Granted
from orchestra.store.port import Provider
from orchestra.store.streams import Published, journal_of
from tests.support.contract.requests import a_request
from tests.support.contract.schedules import a_run, a_schedule_write, a_slot
from tests.support.contract.shorthand import a_park, a_write, begin, expect, one, read
from tests.support.contract.streams import a_value, by_owner

STRAYS = (
    "stream 's' of gone: the instance is not there",
    "items of stream 't' of i: the stream is not there",
    "stream 's' of i: items between its first and its last one are missing",
    "orchestra:journal/1/1 of i: no attempt of the activity will read these steps",
    "request r1 to gone: the instance is not there",
    "slots of schedule s: the schedule is not there",
)
"""What the finding lists of them."""

TABLES = ("instance", "stream", "stream_item", "schedule")

REMOVALS = (
    "DELETE FROM {instance} WHERE instance_id = 'gone'",
    "DELETE FROM {stream_item} WHERE stream = 's' AND item_offset = 2",
    "DELETE FROM {stream} WHERE instance_id = 'i' AND stream = 't'",
    "DELETE FROM {schedule}",
)


def fill(provider: Provider) -> None:
    """Make streams, a journal, a request and slots, all of them sound: a node owns the activity."""
    provider.store.raise_level(THIS_LIBRARY.target(3))
    for instance_id in ("i", "gone"):
        row = begin(provider, instance_id)
        values = (a_value("x"), a_value("y"), a_value("z"), a_value("x", "t"))
        published = values if instance_id == "i" else values[:1]
        expect(one(provider, a_write(row, published=published)), Granted)
    one(provider, replace(a_request(), instance_id="gone"))
    step = Published(journal_of(1, 1), Payload(b"1"), 7, 1, 1, 1, 1)
    expect(one(provider, by_owner(read(provider).row, items=(step,))), Granted)
    one(provider, a_schedule_write(0))
    one(provider, a_schedule_write(1, acts=(a_run(10),), slots=(a_slot(10),)))


def stray(provider: Provider, run: Callable[[str], object]) -> None:
    """Take away what they belong to. ``run`` gets statements with ``{table}``."""
    expect(one(provider, a_park(read(provider).row)), Granted)
    for statement in REMOVALS:
        run(statement)

"""Streams: what instances publish, under which offsets, and how much of it is kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from orchestra.codec import EMPTY, Packed, Payload
from orchestra.store.changes import IfEnded, Publish, Report, Steps
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.hints import Listener
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.outcomes import Granted, Refused, Reported, Started
from orchestra.store.port import Provider
from orchestra.store.streams import Bounds, Page, Published, StreamRow, journal_of
from orchestra.store.tasks import ActivityRow
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    SECOND,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)
from tests.support.contract.tasks import hand_out, handed_out, take

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE stream; --"
_NONE = Bounds(None, None, None)


def a_value(text: object, stream: str = "s", at: int = 7) -> Published:
    return Published(stream, Payload(f'"{text}"'.encode()), at, 1)


def publish(provider: Provider, *values: Published, bounds: Bounds = _NONE, key: str = "i") -> None:
    row = read(provider, key).row
    write = a_write(row, published=values, stream_bounds=bounds)
    expect(one(provider, write), Granted)


def offsets(provider: Provider, stream: str = "s", after: int = 0, key: str = "i") -> list[int]:
    page = provider.directory.stream(key, stream, after)
    assert page is not None
    return [item.offset for item in page.items]


class StreamTests(ContractBase):
    """Appended by the writes of steps, read a page at a time (rule 34, scenario 76)."""

    def test_what_writes_publish_has_dense_offsets_in_each_stream(self, provider: Provider) -> None:
        row = begin(provider)
        values = (a_value("a"), a_value("b", TEXT), a_value("c"), a_value("d"))
        expect(one(provider, a_write(row, published=values)), Granted)
        publish(provider, a_value("e"), a_value("f", TEXT))
        page = provider.directory.stream("i", "s")
        assert page is not None
        assert [item.offset for item in page.items] == [1, 2, 3, 4]
        assert [item.payload.data for item in page.items] == [b'"a"', b'"c"', b'"d"', b'"e"']
        assert (page.ended, page.stream) == (False, StreamRow("s", row.incarnation, 1, 4, 12))
        assert offsets(provider, TEXT) == [1, 2]
        assert [one.name for one in provider.directory.streams("i")] == [TEXT, "s"]
        item = page.items[0]
        assert (item.at, item.execution, item.event_id, item.attempt) == (7, 1, None, None)

    def test_a_refused_write_publishes_nothing(self, provider: Provider) -> None:
        row = begin(provider)
        late = replace(row, revision=row.revision - 1)
        assert one(provider, a_write(late, published=(a_value("late"),))) == Refused()
        assert provider.directory.streams("i") == []
        publish(provider, a_value("first"))
        assert offsets(provider) == [1], "no offset was lost"

    def test_writes_publish_in_every_kind_of_group(self, provider: Provider) -> None:
        """By the statements for plain groups, and where others change with it."""
        begin(provider)
        begin(provider, "j")
        rows = [read(provider, key).row for key in ("i", "j")]
        provider.store.commit([a_write(row, published=(a_value("x"),)) for row in rows])
        row = read(provider).row
        provider.store.commit([an_append("i"), a_write(row, published=(a_value("y"),))])
        twice = read(provider).row
        again = replace(twice, revision=twice.revision + 1)
        provider.store.commit(
            [
                a_write(twice, published=(a_value("1"), a_value("2"))),
                a_write(again, published=(a_value("3"),)),
            ]
        )
        assert offsets(provider) == [1, 2, 3, 4, 5]
        assert offsets(provider, key="j") == [1]

    def test_streams_cross_boundaries_and_restarts_and_go_with_the_instance(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        publish(provider, a_value("lap 1"))
        row = read(provider).row
        closed = ExecutionDelta(1, closed=Closing(9, ExecutionEnd.CONTINUED_AS_NEW, None, None))
        write = a_write(
            row,
            a_state(row, execution=2, opened=False),
            executions=(closed, ExecutionDelta(2, create=an_execution(2))),
            published=(a_value("boundary"),),
        )
        expect(one(provider, write), Granted)
        expect(one(provider, an_end(read(provider).row, published=(a_value("last"),))), Granted)
        page = provider.directory.stream("i", "s")
        assert page is not None
        assert page.ended
        assert len(page.items) == 3
        start = replace(a_start("i", "b", "r2"), if_ended=IfEnded.RESTART)
        assert expect(one(provider, start), Started).restarted
        claim(provider)
        publish(provider, a_value("second life"))
        page = provider.directory.stream("i", "s", 3)
        assert page is not None
        assert [item.offset for item in page.items] == [4], "they go on, as the laps do"
        assert page.stream == StreamRow("s", row.incarnation, 1, 4, sum(map(len, _LAPS)))
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert provider.admin.delete("i", "b", by="me", reason="")
        assert provider.directory.stream("i", "s") is None
        assert provider.directory.streams("i") == []
        begin(provider)
        assert offsets(provider) == [], "nothing of the deleted instance is left (I9)"

    def test_the_cut_moves_in_the_write_that_appends(self, provider: Provider) -> None:
        begin(provider)
        bounds = Bounds(8, None, None)
        for number in range(9):
            publish(provider, a_value(number), bounds=bounds)
        assert offsets(provider) == list(range(1, 10)), "an eighth over it is left"
        publish(provider, a_value(9), bounds=bounds)
        assert offsets(provider) == list(range(3, 11))
        assert provider.directory.streams("i")[0].first_offset == 3
        publish(provider, *(a_value(number) for number in range(100)), bounds=bounds)
        assert offsets(provider) == list(range(103, 111))
        assert offsets(provider, after=50) == list(range(103, 111))

    def test_a_stream_is_cut_by_its_bytes_and_by_its_age(self, provider: Provider) -> None:
        begin(provider)
        bounds = Bounds(None, 30, None)
        publish(provider, *(a_value("x" * 8) for _ in range(3)), bounds=bounds)
        assert offsets(provider) == [1, 2, 3]
        publish(provider, a_value("x" * 8), bounds=bounds)
        assert (offsets(provider), provider.directory.streams("i")[0].bytes) == ([2, 3, 4], 30)
        publish(provider, a_value("x" * 80), bounds=bounds)
        assert offsets(provider) == [5], "the newest stays, however large it is"
        aged = Bounds(None, None, 8 * SECOND)
        for at in (10, 11, 12, 20):
            publish(provider, a_value(at, "aged", at * SECOND), bounds=aged)
        assert offsets(provider, "aged") == [3, 4]
        publish(provider, a_value("x", "aged", 100 * SECOND), bounds=aged)
        assert offsets(provider, "aged") == [5]

    def test_a_page_ends_with_its_items_or_its_bytes(self, provider: Provider) -> None:
        begin(provider)
        publish(provider, *(a_value("x" * 8) for _ in range(10)))

        def read_page(after: int, items: int, size: int) -> list[int]:
            page = provider.directory.stream("i", "s", after, Page(items, size))
            assert page is not None
            return [item.offset for item in page.items]

        assert read_page(0, 3, 1_000) == [1, 2, 3]
        assert read_page(3, 100, 25) == [4, 5]
        assert read_page(5, 100, 1) == [6], "one in any case"
        assert read_page(10, 100, 1_000) == []

    def test_a_stream_that_was_never_written_has_no_items(self, provider: Provider) -> None:
        begin(provider)
        page = provider.directory.stream("i", "other")
        assert page is not None
        assert (page.stream, page.items, page.ended) == (None, (), False)
        assert provider.directory.stream("nobody", "s") is None

    def test_readers_here_are_told_of_what_is_published(
        self, connect: Open, clock: ManualClock
    ) -> None:
        provider = connect()
        told: list[object] = []
        begin(provider)
        provider.stream_hints.add(told.append)
        publish(provider, a_value("a"))
        if provider.description.startswith("model"):  # it has no hints: readers poll
            return
        assert {"i"} in told
        told.clear()
        expect(one(provider, a_write(read(provider).row)), Granted)
        assert {"i"} not in told, "a write that publishes nothing is no news"
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert {"i"} in told, "its end is"
        provider.stream_hints.remove(told.append)
        assert not provider.stream_hints.is_listening


def items_of(attempt: int, *numbers: int) -> tuple[Published, ...]:
    return tuple(
        Published("s", Payload(b"%d" % number), 7, 1, 1, attempt, number) for number in numbers
    )


def by_owner(row: InstanceRow, *numbers: int, attempt: int = 1, **fields: Any) -> Publish:
    head = (row.instance_id, row.incarnation, row.execution, 1, attempt, row.owner or "n1", None)
    return replace(Publish(*head, items_of(attempt, *numbers)), **fields)


def a_step(row: InstanceRow, number: int, *, revision: int | None = None) -> Publish:
    """Return the first step of an activity."""
    step = replace(items_of(1, 1)[0], stream=journal_of(1, number), event_id=number)
    activity = ActivityRow(1, number, 1, None, 3, Packed(b"[]"), heartbeat=EMPTY)
    steps = Steps(row.revision if revision is None else revision, activity)
    return by_owner(row, 1, event_id=number, items=(step,), steps=steps)


def _noting(told: list[str]) -> Listener:
    def listener(instance_ids: Collection[str] | None) -> None:
        told.extend(instance_ids or ())  # none: another process has written

    return listener


class ItemsOfActivitiesTests(ContractBase):
    """Under the fence of the instance's owner, or of the task."""

    def test_items_of_an_attempt_are_tagged_and_stand_before_the_write_of_their_group(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        write = a_write(row, published=(a_value("turn"),))
        outcomes = provider.store.commit([write, by_owner(row, 1, 2)]).outcomes
        assert [type(outcome) for outcome in outcomes] == [Granted, Granted]
        page = provider.directory.stream("i", "s")
        assert page is not None
        assert [(item.payload.data, item.event_id, item.attempt) for item in page.items] == [
            (b"1", 1, 1),
            (b"2", 1, 1),
            (b'"turn"', None, None),
        ]

    def test_readers_are_told_of_items_of_activities_and_not_of_steps(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        told: list[str] = []
        listener = _noting(told)
        provider.stream_hints.add(listener)
        expect(one(provider, a_step(row, 1)), Granted)
        assert told == []
        expect(one(provider, by_owner(row, 1, event_id=2)), Granted)
        assert told == ["i"]
        provider.stream_hints.remove(listener)

    def test_the_last_items_stand_with_the_end_of_their_instance(self, provider: Provider) -> None:
        row = begin(provider)
        provider.store.commit([an_end(row), by_owner(row, 1, 2)])
        assert offsets(provider) == [1, 2]
        assert one(provider, by_owner(row, 3)) == Refused(), "it has ended"

    def test_an_attempt_of_a_former_owner_or_lap_or_life_is_refused(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        for stale in (
            by_owner(row, 1, node="n2"),
            by_owner(row, 1, incarnation="other"),
            by_owner(row, 1, execution=2),
            by_owner(row, 1, revision=0),
            replace(by_owner(row, 1), instance_id="nobody"),
        ):
            assert one(provider, stale) == Refused()
        known = ActivityRow(1, 1, 2, None, 1, Packed(b"[]"))
        expect(one(provider, a_write(row, activities=(known,))), Granted)
        assert one(provider, by_owner(row, 1, attempt=1)) == Refused(), "the second one runs"
        expect(one(provider, by_owner(row, 1, attempt=2)), Granted)
        expect(one(provider, a_park(read(provider).row)), Granted)
        assert one(provider, by_owner(row, 2, attempt=2)) == Refused(), "it was released (I6)"
        assert offsets(provider) == [1]

    def test_a_task_publishes_under_its_fence(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out())
        (task,) = take(provider)
        head = ("i", row.incarnation, 1, 1, 1, "n2")
        expect(one(provider, Publish(*head, task.revision, items_of(1, 1))), Granted)
        assert one(provider, Publish(*head, task.revision - 1, items_of(1, 2))) == Refused()
        other = (*head[:-1], "n3")
        assert one(provider, Publish(*other, task.revision, items_of(1, 2))) == Refused()
        end = Report("i", row.incarnation, 1, 1, task.revision, "n2", Payload(b"1"))
        outcomes = provider.store.commit(
            [end, Publish(*head, task.revision, items_of(1, 2))]
        ).outcomes
        assert isinstance(outcomes[1], Granted), "its items stand before its end"
        assert one(provider, Publish(*head, task.revision, items_of(1, 3))) == Refused()
        assert offsets(provider) == [1, 2]

    def test_a_journal_is_never_cut_and_goes_with_the_row_of_its_activity(
        self, provider: Provider
    ) -> None:
        """By the completion, by the end of the lap, and with nothing else."""
        row = begin(provider)
        rows = tuple(
            ActivityRow(1, number, 1, None, 1, Packed(b"[]"), heartbeat=Payload(b"null"))
            for number in (1, 2)
        )
        expect(one(provider, a_write(row, activities=rows)), Granted)
        for number in (1, 2):
            steps = tuple(
                replace(item, stream=f"orchestra:journal/1/{number}", event_id=number)
                for item in items_of(1, *range(1, 9))
            )
            publish = by_owner(row, 1, event_id=number, items=steps, bounds=Bounds(2, 2, 1))
            expect(one(provider, publish), Granted)
        publish_value = a_write(read(provider).row, published=(a_value("x"),))
        expect(one(provider, publish_value), Granted)

        def names() -> list[str]:
            return [stream.name for stream in provider.directory.streams("i")]

        assert names() == ["orchestra:journal/1/1", "orchestra:journal/1/2", "s"]
        assert offsets(provider, "orchestra:journal/1/1") == list(range(1, 9))
        expect(one(provider, a_write(read(provider).row, completed=(1,))), Granted)
        assert names() == ["orchestra:journal/1/2", "s"]
        assert offsets(provider, "orchestra:journal/1/1") == []
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert names() == ["s"]

    def test_the_first_step_makes_the_row_with_which_the_journal_goes(
        self, provider: Provider
    ) -> None:
        """In the write that stores it: nothing can come in between (I9)."""
        row = begin(provider)
        known = ActivityRow(1, 2, 1, None, 1, Packed(b"[]"))
        expect(one(provider, a_write(row, activities=(known,))), Granted)
        row = read(provider).row
        assert one(provider, a_step(row, 1, revision=row.revision - 1)) == Refused(), (
            "the activity may have ended since"
        )
        for number in (1, 2):
            expect(one(provider, a_step(row, number)), Granted)
            expect(one(provider, a_step(row, number)), Granted)
        rows = {one.event_id: one for one in read(provider).activities}
        assert {number: (one.heartbeat, one.revision) for number, one in rows.items()} == {
            1: (EMPTY, 0),
            2: (EMPTY, 0),
        }
        assert rows[1].started_at == 3, "as the owner knows it"
        late = a_step(row, 1)
        outcomes = provider.store.commit([a_write(row, completed=(1, 2)), a_step(row, 3)]).outcomes
        assert [type(outcome) for outcome in outcomes] == [Granted, Granted]
        assert [one.event_id for one in read(provider).activities] == [3]
        assert one(provider, late) == Refused(), "its activity has ended"
        assert [stream.name for stream in provider.directory.streams("i")] == [journal_of(1, 3)]
        expect(one(provider, an_end(read(provider).row)), Granted)
        assert provider.directory.streams("i") == []

    def test_the_first_step_of_a_task_marks_its_row(self, provider: Provider) -> None:
        row = hand_out(provider, replace(handed_out(), heartbeat=None))
        (task,) = take(provider)
        head = ("i", row.incarnation, 1, 1, 1, "n2", task.revision)
        steps = tuple(replace(item, stream=journal_of(1, 1)) for item in items_of(1, 1))
        expect(one(provider, Publish(*head, steps, steps=Steps())), Granted)
        (activity,) = read(provider).activities
        assert (activity.heartbeat, activity.revision) == (EMPTY, task.revision)
        end = Report("i", row.incarnation, 1, 1, task.revision, "n2", Payload(b"1"))
        expect(one(provider, end), Reported)
        (snapshot,) = claim(provider)
        expect(one(provider, a_write(snapshot.row, completed=(1,))), Granted)
        assert provider.directory.streams("i") == []

    def test_items_whose_reply_was_lost_are_not_stored_twice(self, provider: Provider) -> None:
        """Rule 9: it is found out by writing again."""
        row = begin(provider)
        expect(one(provider, by_owner(row, 1, 2)), Granted)
        expect(one(provider, by_owner(row, 1, 2)), Granted)
        assert offsets(provider) == [1, 2]
        expect(one(provider, by_owner(row, 2, 3)), Granted)
        assert offsets(provider) == [1, 2, 3]
        expect(one(provider, an_end(row)), Granted)
        expect(one(provider, by_owner(row, 3)), Granted)
        assert one(provider, by_owner(row, 4)) == Refused()


_LAPS = ('"lap 1"', '"boundary"', '"last"', '"second life"')

"""What readers of the directory see."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestra.codec import Payload
from orchestra.store.changes import Append
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.kinds import ExecutionEnd, Status
from orchestra.store.outcomes import Appended, Granted, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery, Standing
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    FOREIGN_KIND,
    KIND,
    OTHER_KIND,
    SECOND,
    a_hold,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_end,
    an_event,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)


class DirectoryTests(ContractBase):
    """Records, lists and pages."""

    def test_unread_events_are_listed_in_the_order_of_their_arrival(
        self, provider: Provider
    ) -> None:
        expect(one(provider, a_start("i")), Started)
        expect(one(provider, a_start("other")), Started)
        for number in range(5):
            expect(one(provider, an_append("i", f"m{number}", f"n{number % 2}")), Appended)
        expect(one(provider, an_append("other", "elsewhere")), Appended)
        listed = provider.directory.messages("i")
        assert [(one.sequence, one.message_id, one.name) for one in listed] == [
            (number + 1, f"m{number}", f"n{number % 2}") for number in range(5)
        ]
        assert [one.sequence for one in provider.directory.messages("i", after=2, limit=2)] == [
            3,
            4,
        ]
        assert provider.directory.messages("nobody") == []

    def test_everything_comes_back_as_it_was_stored(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        text = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE instance"
        labels = {text: text, "team": "blue"}
        start = replace(
            a_start(text), labels=labels, created_by=text, request_id=text, incarnation=text
        )
        expect(one(provider, start), Started)
        created_at = clock.now()
        clock.advance(timedelta(seconds=1))
        (snapshot,) = claim(provider)
        append = Append(text, text, text, Payload(b"\x00\xff", encoding=7), sender=text)
        sent = expect(one(provider, append), Appended)
        state = a_state(snapshot.row, summary=b"\x00summary", history_events=3, history_bytes=4)
        events = (replace(an_event(1), at=2**62, envelope=b"\x00\xff"), an_event(2))
        custom = Payload(b"custom", encoding=3)
        write = a_write(
            snapshot.row,
            state,
            executions=(ExecutionDelta(1, events=events),),
            custom_status=custom,
        )
        expect(one(provider, write), Granted)
        record = read(provider, text)
        assert (record.labels, record.created_by, record.summary, record.custom_status) == (
            labels,
            text,
            b"\x00summary",
            custom,
        )
        assert (record.created_at, record.updated_at) == (created_at, clock.now())
        assert (record.row.history_events, record.row.history_bytes, record.row.incarnation) == (
            3,
            4,
            text,
        )
        assert (
            provider.store.history(text, 1) == list(events) == provider.directory.history(text, 1)
        )
        (news,) = provider.store.news("n1")
        assert news.messages == (sent.message,)
        expect(one(provider, a_write(record.row)), Granted)
        assert read(provider, text).custom_status == custom, "what a write does not mention stays"

    def test_single_events_are_read_without_their_payloads(self, provider: Provider) -> None:
        row = begin(provider)
        events = tuple(an_event(number) for number in range(1, 8))
        delta = ExecutionDelta(1, events=events, event_count=7, byte_count=70)
        expect(one(provider, a_write(row, executions=(delta,))), Granted)
        envelopes = provider.directory.envelopes
        assert envelopes("i", 1, [5, 2, 99]) == [
            replace(events[number], payload=None) for number in (1, 4)
        ]
        assert envelopes("i", 1, range(1, 1001)) == [
            replace(event, payload=None) for event in events
        ]
        assert envelopes("i", 1, []) == envelopes("i", 2, [1]) == envelopes("nobody", 1, [1]) == []

    def test_lists_are_filtered(self, provider: Provider, clock: ManualClock) -> None:
        starts = [
            replace(a_start("a_1"), labels={"team": "blue", "tier": "1"}),
            replace(a_start("a%2", kind=OTHER_KIND), labels={"team": "blue"}),
            replace(a_start("ab3", kind=FOREIGN_KIND), labels={"team": "red"}),
            a_start("b\U0010ffff"),
        ]
        for start in starts:
            expect(one(provider, start), Started)
            clock.advance(timedelta(seconds=1))
        first = clock.now() - 4 * SECOND
        (snapshot,) = claim(provider, limit=1)
        expect(one(provider, an_end(snapshot.row, Status.FAILED)), Granted)

        def found(**conditions: Any) -> list[str]:
            return [
                record.row.instance_id
                for record in provider.directory.list(InstanceQuery(**conditions))
            ]

        assert found() == ["b\U0010ffff", "ab3", "a%2", "a_1"]
        assert found(name="other") == ["ab3"]
        assert found(name="watch", version="1.1.0") == ["a%2"]
        assert found(queue="elsewhere") == ["ab3"]
        assert found(queue="default", version="1.1.0") == ["a%2"]
        assert found(statuses=(Status.FAILED, Status.COMPLETED)) == ["a_1"]
        assert found(statuses=()) == []
        assert found(id_prefix="a") == ["ab3", "a%2", "a_1"]
        assert found(id_prefix="a%") == ["a%2"]
        assert found(id_prefix="a_") == ["a_1"]
        assert found(id_prefix="b\U0010ffff") == ["b\U0010ffff"]
        assert found(labels={"team": "blue"}) == ["a%2", "a_1"]
        assert found(labels={"team": "blue", "tier": "1"}) == ["a_1"]
        assert found(created_from=first + SECOND, created_until=first + 3 * SECOND) == [
            "ab3",
            "a%2",
        ]
        assert found(held=True) == []
        assert found(held=True, unserved=(FOREIGN_KIND,)) == ["ab3"]
        assert found(held=True, unserved=(KIND, FOREIGN_KIND)) == ["b\U0010ffff", "ab3"], (
            "what has ended is not held"
        )
        assert found(held=False, unserved=(FOREIGN_KIND,)) == ["b\U0010ffff", "a%2", "a_1"]

    def test_open_instances_are_listed_by_how_they_stand(self, provider: Provider) -> None:
        """Not begun, going on, or held: by a stored hold, by crashes, or because nobody has the
        version.
        """
        provider.store.commit([a_start(name) for name in ("running", "later", "held", "ended")])
        rows = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider)}
        boundary = ExecutionDelta(1, closed=Closing(9, ExecutionEnd.CONTINUED_AS_NEW, None, None))
        later = a_state(rows["later"], execution=2, opened=False, owner=None)
        changes = [
            a_park(rows["running"]),
            a_write(
                rows["later"],
                later,
                executions=(boundary, ExecutionDelta(2, create=an_execution(2))),
            ),
            a_write(rows["held"], a_state(rows["held"], owner=None, opened=False), hold=a_hold()),
            an_end(rows["ended"]),
        ]
        for change in changes:
            expect(one(provider, change), Granted)
        provider.store.commit(
            [a_start("pending"), a_start("unserved", kind=FOREIGN_KIND), a_start("crashing")]
        )
        (row,) = [
            snapshot.row for snapshot in claim(provider) if snapshot.row.instance_id == "crashing"
        ]
        crashed = a_state(row, opened=False, owner=None, takeovers=3)
        expect(one(provider, a_write(row, crashed)), Granted)

        def found(*standings: Standing, **conditions: Any) -> set[str]:
            query = InstanceQuery(standings=standings, unserved=(FOREIGN_KIND,), **conditions)
            return {record.row.instance_id for record in provider.directory.list(query)}

        everybody = Status.OPEN, Status.COMPLETED
        for statuses, ended in (
            ((Status.OPEN,), set[str]()),
            (everybody, {"ended"}),
            (None, {"ended"}),
        ):
            assert found(Standing.PENDING, statuses=statuses) == {"pending"} | ended
            assert found(Standing.RUNNING, statuses=statuses) == {"running", "later"} | ended
            assert (
                found(Standing.HELD, statuses=statuses) == {"held", "unserved", "crashing"} | ended
            )
            assert (
                found(Standing.PENDING, Standing.RUNNING, statuses=statuses)
                == {"pending", "running", "later"} | ended
            )
            assert found(statuses=statuses) == ended
        assert found(Standing.HELD, Standing.PENDING, held=True) == {"held", "unserved", "crashing"}
        assert found(Standing.HELD, held=False, statuses=(Status.OPEN,)) == set()
        assert found(*Standing) == found() | {
            "pending",
            "running",
            "later",
            "held",
            "unserved",
            "crashing",
        }

    def test_a_list_is_read_page_by_page(self, provider: Provider) -> None:
        names = [f"i{number:02d}" for number in range(25)]
        provider.store.commit([a_start(name) for name in names])
        after: tuple[int, str] | None = None
        pages: list[list[str]] = []
        while page := provider.directory.list(InstanceQuery(limit=10, after=after)):
            pages.append([record.row.instance_id for record in page])
            after = (page[-1].created_at, page[-1].row.instance_id)
        assert [len(page) for page in pages] == [10, 10, 5]
        assert [name for page in pages for name in page] == names[::-1]

    def test_a_listed_record_is_the_one_that_is_got(self, provider: Provider) -> None:
        row = begin(provider)
        expect(one(provider, an_append("i")), Appended)
        expect(
            one(
                provider,
                a_write(row, a_state(row, owner=None), hold=a_hold(), custom_status=Payload(b"1")),
            ),
            Granted,
        )
        assert provider.directory.list(InstanceQuery(held=True)) == [
            replace(read(provider), unread_by_name={})
        ]

    def test_readers_see_which_of_some_instances_go_on(self, provider: Provider) -> None:
        assert provider.directory.going_among([]) == set()
        provider.store.commit(
            [
                a_start(instance_id)
                for instance_id in ("parked", "ended", "deleted", "terminated", "held", "other")
            ]
        )
        rows = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider)}
        provider.store.commit(
            [a_park(rows["parked"]), an_end(rows["ended"]), an_end(rows["deleted"])]
        )
        expect(one(provider, an_end(rows["terminated"], Status.TERMINATED)), Granted)
        assert provider.admin.delete("deleted", "a", by="me", reason="")
        provider.store.commit([a_start("waiting")])
        expect(
            one(provider, a_write(rows["held"], a_state(rows["held"], owner=None), hold=a_hold())),
            Granted,
        )
        asked = ["parked", "ended", "held", "waiting", "deleted", "terminated", "nobody", "parked"]
        assert provider.directory.going_among(asked) == {"parked", "waiting"}

    def test_readers_work_in_many_threads_while_the_writer_writes(self, provider: Provider) -> None:
        begin(provider)
        failures: list[BaseException] = []

        def read_often() -> None:
            try:
                for _ in range(20):
                    read(provider)
                    provider.directory.list(InstanceQuery())
                    provider.directory.catalogue()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=read_often) for _ in range(6)]
        for thread in threads:
            thread.start()
        for number in range(20):
            expect(one(provider, an_append("i", f"m{number}")), Appended)
        for thread in threads:
            thread.join()
        assert failures == []

"""Lists and counts by what holds instances, where they lead, and what they wait for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from orchestra.codec import pack_value
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.outcomes import Granted, Started
from orchestra.store.port import Provider
from orchestra.store.queries import (
    InstanceQuery,
    Order,
    Standing,
    Target,
    WaitCondition,
)
from orchestra.store.routes import Route
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
    an_end,
    begin,
    claim,
    expect,
    one,
    read,
)
from tests.support.contract.tasks import ROUTE, SLOW, hand_out, handed_out, take

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE instance; --"


def found(provider: Provider, **conditions: Any) -> list[str]:
    return [
        record.row.instance_id for record in provider.directory.list(InstanceQuery(**conditions))
    ]


def counted(
    provider: Provider, *group_by: str, limit: int = 1000, **conditions: Any
) -> Mapping[Any, int]:
    counts = provider.directory.count(InstanceQuery(**conditions), group_by, limit)
    return {
        group.values[0] if len(group.values) == 1 else group.values: group.count
        for group in counts.groups
    }


def waiting(*entries: Sequence[Any], **more: Any) -> bytes:
    shown = [[*entry, None, number, None] for number, entry in enumerate(entries, 1)]
    return pack_value({"w": shown, "n": {}, **more})


class SelectionTests(ContractBase):
    """Filters that answer why an instance does not move, and counts by group."""

    def test_an_instance_is_found_by_the_kind_of_its_hold(self, provider: Provider) -> None:
        provider.store.commit([a_start(name) for name in ("state", "error", "goes on", "crashing")])
        rows = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider)}
        error = replace(a_hold(), kind=HoldKind.ERROR, detail=TEXT + "\x00")
        crashed = a_state(rows["crashing"], owner=None, takeovers=3)
        changes = [
            a_write(rows["state"], a_state(rows["state"], owner=None), hold=a_hold()),
            a_write(rows["error"], a_state(rows["error"], owner=None), hold=error),
            a_park(rows["goes on"]),
            a_write(rows["crashing"], crashed),
            a_start("missing", kind=FOREIGN_KIND),
            a_start("ended"),
        ]
        provider.store.commit(changes)
        (ended,) = [
            snapshot.row for snapshot in claim(provider) if snapshot.row.instance_id == "ended"
        ]
        expect(one(provider, an_end(ended)), Granted)

        def of(*holds: HoldKind, **conditions: Any) -> set[str]:
            return set(found(provider, holds=holds, unserved=(FOREIGN_KIND,), **conditions))

        assert of(HoldKind.STATE) == {"state"}
        assert of(HoldKind.ERROR) == {"error"}
        assert of(HoldKind.STATE, HoldKind.ERROR) == {"state", "error"}
        assert of(HoldKind.VERSION_MISSING) == {"missing"}
        assert of(HoldKind.CRASHING) == {"crashing"}
        assert of(HoldKind.OPERATOR) == of(HoldKind.ACTIVITY_MISSING) == of() == set()
        assert of(*HoldKind) == {"state", "error", "missing", "crashing"}
        assert of(HoldKind.STATE, name="watch", version="1.1.0") == set()
        assert counted(provider, "held", unserved=(FOREIGN_KIND,)) == {
            HoldKind.STATE: 1,
            HoldKind.ERROR: 1,
            HoldKind.VERSION_MISSING: 1,
            HoldKind.CRASHING: 1,
            None: 2,
        }
        held = {(KIND, HoldKind.STATE): 1, (KIND, HoldKind.ERROR): 1}
        assert provider.directory.census(0).holds == held
        assert provider.directory.census(0, "other").holds == {}
        row = read(provider, "state").row
        expect(one(provider, a_write(row, a_state(row), owner=None)), Granted)
        assert of(HoldKind.STATE) == set(), "a hold that has ended is found no more"

    def test_a_count_without_groups_stops_at_a_number(self, provider: Provider) -> None:
        provider.store.commit([a_start(name) for name in ("a", "b", "c")])

        def total(*group_by: str, **conditions: Any) -> int:
            return provider.directory.count(InstanceQuery(**conditions), group_by).total

        assert [total(most=most) for most in (1, 2, 3, 4)] == [1, 2, 3, 3]
        assert total(most=2, name="watch", id_prefix="c") == 1
        assert total(most=2, name="nobody") == 0
        assert total("name", most=1) == 3, "groups are whole"

    def test_what_waits_for_an_activity_without_a_node_is_found_as_held(
        self, provider: Provider
    ) -> None:
        hand_out(
            provider,
            handed_out(2, SLOW, started_at=9),
            handed_out(3, SLOW.narrowed("f1"), started_at=5),
            instance_id="slow",
        )
        hand_out(provider, handed_out(2, ROUTE), instance_id="served")
        hand_out(provider, handed_out(2, None), instance_id="own")
        directory = provider.directory
        assert list(directory.waiting_routes()) == [ROUTE, SLOW, SLOW.narrowed("f1")]
        unserved = (SLOW, SLOW.narrowed("f1"), Route("nobody", "nothing"))
        (record,) = directory.list(InstanceQuery(held=True, unserved_routes=unserved))
        assert (record.row.instance_id, record.unserved) == ("slow", SLOW.narrowed("f1"))
        assert record.activities == ()
        (record,) = directory.list(InstanceQuery(held=True, unserved_routes=(SLOW,)))
        assert record.unserved == SLOW
        assert found(provider, holds=(HoldKind.ACTIVITY_MISSING,), unserved_routes=unserved) == [
            "slow"
        ]
        assert set(found(provider, held=False, unserved_routes=unserved)) == {"served", "own"}
        assert found(provider, standings=(Standing.HELD,), unserved_routes=unserved) == ["slow"]
        assert counted(provider, "held", unserved_routes=unserved) == {
            HoldKind.ACTIVITY_MISSING: 1,
            None: 2,
        }
        assert found(provider, held=True) == [], "the routes of the query decide"
        assert len(take(provider, routes=(SLOW, SLOW.narrowed("f1")))) == 2
        assert list(directory.waiting_routes()) == [ROUTE]
        assert found(provider, held=True, unserved_routes=unserved) == [], "a node has taken it"

    def test_instances_are_found_by_where_they_lead(self, provider: Provider) -> None:
        names = ("old", "pinned", "pinned here", "ended")
        provider.store.commit([a_start(name) for name in names])
        provider.store.commit(
            [a_start("new", kind=OTHER_KIND), a_start("other", kind=FOREIGN_KIND)]
        )
        (ended,) = [
            snapshot.row for snapshot in claim(provider) if snapshot.row.instance_id == "ended"
        ]
        expect(one(provider, an_end(ended)), Granted)
        assert provider.admin.set_pin("pinned", "3.0.0", by="me", reason=TEXT)
        assert provider.admin.set_pin("pinned here", "1.0.0", by="me", reason="")

        def leading(target: Target, **conditions: Any) -> set[str]:
            return set(found(provider, targets=(target,), **conditions))

        assert leading(Target((KIND, OTHER_KIND), "1.1.0")) == {"old", "new"}
        assert leading(Target((), "3.0.0")) == {"pinned"}
        assert leading(Target((), TEXT)) == set()
        assert leading(Target((KIND,), "1.0.0")) == {"old", "pinned here"}
        assert leading(Target((KIND,))) == {"old", "pinned"}, "those that drift"
        assert leading(Target((KIND,), wanted=False)) == {"pinned here", "new", "other", "ended"}
        assert leading(Target(()), pinned=True) == {"pinned"}
        both = Target((KIND,)), Target((KIND,), "3.0.0")
        assert set(found(provider, targets=both)) == {"old", "pinned"}
        assert set(found(provider, pinned=True)) == {"pinned", "pinned here"}
        assert set(found(provider, pinned=False)) == {"old", "new", "other", "ended"}
        provider.admin.set_pin("pinned", "3.0.0", by="me", reason="", until=50)
        assert leading(Target((KIND,), "3.0.0"), now=49, pinned=True) == {"pinned"}
        assert set(found(provider, pinned=True, now=50)) == {"pinned here"}
        assert leading(Target((KIND,), "1.1.0"), now=50) == {"old", "pinned"}, "it has run out"
        provider.admin.set_pin("pinned", None, by="me", reason="")
        assert leading(Target((KIND,))) == {"old", "pinned"}

    def test_instances_are_found_by_what_they_wait_for(self, provider: Provider) -> None:
        summaries = {
            "activity": waiting(["activity", "probe", 10], ["timer", "", 5], b=[[1, 2]]),
            "event": waiting(["event", TEXT, 20]),
            "another": waiting(["activity", "send \\u0000", 30]),
            "error": pack_value({"w": [["activity", "p", 40, None, 1, [2, None, "\x00bad"]]]}),
            "nothing": waiting(),
            "strange": b"\x00summary",
            "ended": waiting(["activity", "probe", 10]),
        }
        provider.store.commit([a_start(name) for name in (*summaries, "not begun")])
        for snapshot in claim(provider):
            row = snapshot.row
            if row.instance_id in summaries:
                summary = summaries[row.instance_id]
                state = a_state(row, owner=None, wake_at=None, summary=summary)
                expect(one(provider, a_write(row, state)), Granted)
        ended = read(provider, "ended").row
        end = replace(
            an_end(ended, owner=None),
            state=a_state(ended, status=Status.COMPLETED, owner=None, summary=summaries["ended"]),
        )
        expect(one(provider, end), Granted)

        def on(kind: str | None = None, name: str | None = None, since: int | None = None) -> Any:
            return set(found(provider, waiting=WaitCondition(kind, name, since)))

        assert on("activity") == {"activity", "another", "error"}
        assert on("activity", "probe") == on(None, "probe") == {"activity"}
        assert on("timer") == {"activity"}
        assert on("timer", "probe") == set(), "one command has both"
        assert on("activity", "probe", 5) == set(), "the timer has waited so long, not the activity"
        assert on("activity", "probe", 10) == {"activity"}
        assert on("event", TEXT) == {"event"}
        assert on("event", "' OR 1=1 --") == set()
        assert on(since=20) == {"activity", "event"}
        assert on() == {"activity", "event", "another", "error"}

    def test_boundaries_that_are_due_are_found(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        provider.store.commit([a_start(name) for name in ("early", "late", "never", "ended")])
        dues = {"early": 10, "late": 20, "never": None, "ended": 1}
        rows = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider)}
        for name, due in dues.items():
            state = a_state(rows[name], owner=None, boundary_due=due)
            expect(one(provider, a_write(rows[name], state)), Granted)
        expect(one(provider, an_end(read(provider, "ended").row)), Granted)
        assert set(found(provider, overdue=True, now=9)) == set()
        assert set(found(provider, overdue=True, now=10)) == {"early"}
        assert set(found(provider, overdue=True, now=99)) == {"early", "late"}
        assert set(found(provider, overdue=False, now=10)) == {"late", "never", "ended"}
        assert counted(provider, overdue=True, now=99) == {(): 2}

    def test_a_list_has_an_order_and_pages_in_it(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        for name in ("b", "d", "a", "c"):
            expect(one(provider, a_start(name)), Started)
            clock.advance(timedelta(seconds=1))
        provider.store.commit([a_start("same1"), a_start("same2")])
        clock.advance(timedelta(seconds=1))
        row = next(one.row for one in claim(provider) if one.row.instance_id == "d")
        expect(one(provider, a_park(row)), Granted)
        orders = {
            Order.NEWEST: ["same2", "same1", "c", "a", "d", "b"],
            Order.OLDEST: ["b", "d", "a", "c", "same1", "same2"],
            Order.LATEST_CHANGE: ["d", "same2", "same1", "c", "a", "b"],
            Order.EARLIEST_CHANGE: ["b", "a", "c", "same1", "same2", "d"],
            Order.ID: ["a", "b", "c", "d", "same1", "same2"],
        }
        for order, expected in orders.items():
            assert found(provider, order=order) == expected
            seen: list[str] = []
            query = InstanceQuery(order=order, limit=2)
            while page := provider.directory.list(query):
                seen += [record.row.instance_id for record in page]
                last = page[-1]
                changed = order in (Order.LATEST_CHANGE, Order.EARLIEST_CHANGE)
                instant = last.updated_at if changed else last.created_at
                query = replace(query, after=(instant, last.row.instance_id))
            assert seen == expected
        started = read(provider, "b").created_at
        assert found(provider, updated_from=started + 5 * SECOND) == ["d"]
        assert found(provider, updated_until=started + 2 * SECOND) == ["b"]

    def test_instances_are_counted_by_group(self, provider: Provider, clock: ManualClock) -> None:
        starts = [
            replace(a_start("a"), labels={"plan": "pro", TEXT: TEXT}),
            replace(a_start("b", kind=OTHER_KIND), labels={"plan": "pro"}),
            replace(a_start("c", kind=FOREIGN_KIND), labels={"plan": "free"}),
            a_start("d"),
            a_start("e"),
        ]
        directory = provider.directory
        assert directory.count(InstanceQuery()).total == 0
        assert directory.count(InstanceQuery(), ("name",)).groups == ()
        provider.store.commit(starts)
        rows = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider)}
        provider.store.commit([a_park(rows["a"]), an_end(rows["d"], Status.FAILED)])
        assert counted(provider) == {(): 5}
        assert counted(provider, "name") == {"watch": 4, "other": 1}
        assert counted(provider, "name", "version") == {
            ("watch", "1.0.0"): 3,
            ("watch", "1.1.0"): 1,
            ("other", "2.0.0"): 1,
        }
        assert counted(provider, "queue") == {"default": 4, "elsewhere": 1}
        assert counted(provider, "status", unserved=(FOREIGN_KIND,)) == {
            (Status.OPEN, Standing.RUNNING): 1,
            (Status.OPEN, Standing.PENDING): 2,
            (Status.OPEN, Standing.HELD): 1,
            (Status.FAILED, None): 1,
        }
        assert counted(provider, "label:plan") == {"pro": 2, "free": 1, None: 2}
        assert counted(provider, f"label:{TEXT}") == {TEXT: 1, None: 4}
        assert counted(provider, "label:' OR 1=1", name="watch") == {None: 4}
        assert counted(provider, "version", "label:plan", labels={"plan": "pro"}) == {
            ("1.0.0", "pro"): 1,
            ("1.1.0", "pro"): 1,
        }
        largest = directory.count(InstanceQuery(limit=1, after=(0, "x")), ("name",), limit=1)
        assert [(group.values, group.count) for group in largest.groups] == [(("watch",), 4)]
        assert largest.total == 5, "the sum is of all groups, and pages do not matter"

    def test_the_few_of_a_name_or_a_status_are_found_as_a_set(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        provider.store.commit(
            [a_start(f"i{number}", kind=KIND if number % 2 else OTHER_KIND) for number in range(8)]
        )
        clock.advance(timedelta(seconds=1))
        rows = {snapshot.row.instance_id: snapshot.row for snapshot in claim(provider, limit=4)}
        ends = iter((Status.FAILED, Status.COMPLETED))
        for number, row in enumerate(rows.values()):
            change = a_park(row) if number % 2 else an_end(row, next(ends))
            expect(one(provider, change), Granted)
        everything = (Status.OPEN, Status.COMPLETED, Status.FAILED)
        for conditions in (
            {},
            {"name": "watch"},
            {"name": "watch", "version": "1.1.0"},
            {"name": "other", "queue": "default"},
            {"statuses": (Status.FAILED,)},
            {"statuses": (Status.OPEN,), "name": "watch"},
            {"statuses": (Status.COMPLETED, Status.FAILED), "other_statuses": True},
            {"statuses": everything, "id_prefix": "i", "labels": {}},
            {"statuses": (Status.OPEN,), "standings": (Standing.PENDING,), "name": "watch"},
        ):
            for order in Order:
                asked: dict[str, Any] = {**conditions, "order": order, "limit": 5}
                assert found(provider, few=True, **asked) == found(provider, **asked)
            assert counted(provider, few=True, **conditions) == counted(provider, **conditions)
            by_status = counted(provider, "status", **conditions)
            assert counted(provider, "status", few=True, **conditions) == by_status
        pending = {"statuses": (Status.OPEN,), "standings": (Standing.PENDING,)}
        assert counted(provider, **pending) == {(): 4}

    def test_a_search_that_ends_goes_on_where_it_ended(self, provider: Provider) -> None:
        provider.store.commit(
            [replace(a_start(f"i{number}"), labels={"n": str(number)}) for number in range(5)]
        )
        directory = provider.directory
        for order in Order:
            query = InstanceQuery(name="watch", order=order)
            seen: list[str] = []
            for _ in range(9):
                end = directory.search_end(query, 2)
                page = directory.list(replace(query, until=end))
                seen += [record.row.instance_id for record in page]
                if end is None:
                    break
                assert len(page) == 2
                query = replace(query, after=end)
            assert seen == found(provider, order=order)
        for conditions in (
            {},
            {"few": True, "name": "watch"},
            {"held": True},
            {"labels": {"n": "3"}},
            {"statuses": (Status.FAILED,)},
        ):
            assert directory.search_end(InstanceQuery(**conditions), 2) is None, "by an index"
        assert found(provider, labels={"n": "3"}, name="watch") == ["i3"]
        assert counted(provider, labels={"n": "3"}, name="watch") == {(): 1}

    def test_a_thousand_kinds_may_be_asked_for_at_once(self, provider: Provider) -> None:
        begin(provider)
        many = tuple(KIND._replace(version=f"1.{number}.0") for number in range(1, 2_000))
        assert found(provider, unserved=many, held=True) == []
        assert found(provider, unserved=(*many, KIND), held=True) == ["i"]
        assert found(provider, targets=(Target((*many, KIND), "9.0.0"),)) == ["i"]

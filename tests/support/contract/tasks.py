"""Activities that are handed out: taken by one node, reported once, lost with their node (rules 1,
7, 10, 12 and 14).
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Final

from orchestra.codec import Payload
from orchestra.store.changes import Claim, Report, Stop, Write
from orchestra.store.executions import ExecutionDelta, Opening
from orchestra.store.instances import InstanceRow
from orchestra.store.outcomes import Claimed, Granted, Refused, Reported
from orchestra.store.port import Provider
from orchestra.store.routes import Route
from orchestra.store.tasks import LOST, ActivityRow, Task
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    KIND,
    POLICY,
    TRACEPARENT,
    a_node,
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

ROUTE: Final = Route("default", "probe")
SLOW: Final = Route("slow", "probe")


def handed_out(
    number: int = 1, route: Route | None = ROUTE, started_at: int = 4, attempt: int = 1
) -> ActivityRow:
    return ActivityRow(1, number, attempt, None, started_at, b"[1]", Payload(b"7"), route)


def hand_out(
    provider: Provider, *rows: ActivityRow, instance_id: str = "i", owner: str | None = None
) -> InstanceRow:
    """Start an instance that hands activities out and is parked, or stays with its owner."""
    row = begin(provider, instance_id)
    opened = ExecutionDelta(
        1,
        opened=Opening(1, "1.0.0", "f1", 1, POLICY),
        events=tuple(an_event(activity.event_id) for activity in rows),
        traceparent=TRACEPARENT,
    )
    state = a_state(row, owner=owner, wake_at=None)
    expect(one(provider, a_write(row, state, executions=(opened,), activities=rows)), Granted)
    return read(provider, instance_id).row


def take(
    provider: Provider, node: str = "n2", routes: tuple[Route, ...] = (ROUTE,), slots: int = 5
) -> tuple[Task, ...]:
    return expect(one(provider, Claim(node, (), 0, routes, slots)), Claimed).tasks


def a_stop(provider: Provider, *numbers: int, instance_id: str = "i") -> Write:
    """Return a write of the owner that puts the stop mark on activities."""
    row = read(provider, instance_id).row
    return a_write(row, stops=tuple(Stop(number, b"withdrawn") for number in numbers))


def a_report(
    task: Task, node: str = "n2", *, failure: bytes | None = None, heartbeat: Payload | None = None
) -> Report:
    """Return the report of an end, or of a heartbeat where one is given."""
    result = Payload(b'"done"') if failure is None and heartbeat is None else None
    key = task.instance_id, task.incarnation, task.execution, task.event_id
    return Report(*key, task.revision, node, result, failure, heartbeat)


class TaskTests(ContractBase):
    """Handing out, taking, reporting, losing."""

    def test_what_is_handed_out_is_taken_with_all_that_is_needed_to_run_it(
        self, connect: Open
    ) -> None:
        provider, other = connect(), connect()
        row = hand_out(provider, handed_out())
        assert other.store.next_wake([], [ROUTE]) == 4
        (task,) = take(other)
        assert task == Task(
            "i",
            row.incarnation,
            1,
            1,
            task.revision,
            1,
            "watch",
            "1.0.0",
            an_event(1),
            Payload(b"7"),
            TRACEPARENT,
        )
        assert provider.store.taken("n2") == [task]
        assert provider.store.next_wake([], [ROUTE]) is None
        (shown,) = read(provider).activities
        assert (shown.route, shown.owner, shown.has_ended) == (ROUTE, "n2", False)

    def test_it_is_taken_by_its_route_alone(self, provider: Provider) -> None:
        hand_out(provider, handed_out(1), handed_out(2, SLOW), handed_out(3, None))
        assert take(provider, routes=()) == ()
        assert take(provider, routes=(Route("slow", "other"), Route("default", "slow"))) == ()
        assert provider.store.next_wake([KIND], [Route("slow", "other")]) is None
        assert [task.event_id for task in take(provider, routes=(SLOW,))] == [2]
        assert [task.event_id for task in take(provider, routes=(SLOW, ROUTE))] == [1]

    def test_no_more_is_taken_than_there_are_places_and_each_route_gets_its_turn(
        self, provider: Provider
    ) -> None:
        hand_out(
            provider,
            *(handed_out(number, ROUTE, 100 - number) for number in range(1, 6)),
            handed_out(6, SLOW, 200),
        )
        outcome = expect(one(provider, Claim("n2", (KIND,), 5, (ROUTE, SLOW), 3)), Claimed)
        assert ([task.event_id for task in outcome.tasks], outcome.more) == ([4, 5, 6], True)
        outcome = expect(one(provider, Claim("n2", (KIND,), 5, (ROUTE, SLOW), 4)), Claimed)
        assert ([task.event_id for task in outcome.tasks], outcome.more) == ([1, 2, 3], False)
        assert expect(one(provider, Claim("n2", (KIND,), 0, (ROUTE,), 0)), Claimed) == Claimed(
            (), more=False
        )

    def test_of_many_that_ask_at_once_each_gets_others(self, connect: Open) -> None:
        providers = [connect() for _ in range(4)]
        hand_out(providers[0], *(handed_out(number) for number in range(1, 13)))

        def take_three(number: int) -> tuple[Task, ...]:
            return take(providers[number], f"n{number}", slots=3)

        with ThreadPoolExecutor(4) as pool:
            taken = list(pool.map(take_three, range(4)))
        found = [task.event_id for tasks in taken for task in tasks]
        rest = [task.event_id for task in take(providers[0], slots=12)]
        assert sorted(found + rest) == list(range(1, 13)), "one was taken twice, or by nobody"
        assert all(taken), "somebody was told nothing while there was work"

    def test_its_end_wakes_the_instance_and_waits_in_its_row(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out())
        (task,) = take(provider)
        arrival = expect(one(provider, a_report(task)), Reported).arrival
        assert arrival is not None
        assert (arrival.sequence, arrival.owner, arrival.fresh) == (row.inbox_seq + 1, None, True)
        (ended,) = read(provider).activities
        assert arrival.activity == ended
        assert (ended.owner, ended.result, ended.failure) == (None, Payload(b'"done"'), None)
        (snapshot,) = claim(provider, "n3")
        assert snapshot.activities == (ended,)
        assert provider.store.taken("n2") == []
        assert take(provider) == (), "it was taken again after its end"

    def test_a_report_and_a_claim_in_one_group_give_the_instance_to_who_claims(
        self, provider: Provider
    ) -> None:
        hand_out(provider, handed_out())
        (task,) = take(provider)
        _, claimed = provider.store.commit([Claim("n2", (KIND,), 5), a_report(task)]).outcomes[::-1]
        (snapshot,) = expect(claimed, Claimed).snapshots
        assert snapshot.activities[0].result == Payload(b'"done"')

    def test_the_owner_of_the_instance_hears_of_it(self, connect: Open) -> None:
        provider, other = connect(), connect()
        row = hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        first, second = take(other)
        assert provider.store.news("n1") == []
        expect(one(other, a_report(first, failure=b"why")), Reported)
        expect(one(other, a_report(second)), Reported)
        (news,) = provider.store.news("n1")
        assert news.inbox_seq == row.inbox_seq + 2
        assert [(one.event_id, one.failure, one.result) for one in news.activities] == [
            (1, b"why", None),
            (2, None, Payload(b'"done"')),
        ]
        assert news.messages == ()
        expect(
            one(provider, a_write(row, a_state(row, seen_seq=news.inbox_seq), completed=(1, 2))),
            Granted,
        )
        assert provider.store.news("n1") == []
        assert read(provider).activities == ()

    def test_a_park_that_meets_a_report_is_no_park(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        expect(one(provider, a_report(task)), Reported)
        expect(one(provider, a_write(row, a_state(row, owner=None, wake_at=None))), Granted)
        assert len(claim(provider, "n3")) == 1

    def test_a_heartbeat_is_stored_and_wakes_nobody(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out())
        (task,) = take(provider)
        assert one(provider, a_report(task, heartbeat=Payload(b"8"))) == Reported()
        assert one(provider, a_report(task, heartbeat=Payload(b"9"))) == Reported()
        assert read(provider).row.inbox_seq == row.inbox_seq
        assert read(provider).activities[0].heartbeat == Payload(b"9")
        outcomes = provider.store.commit(
            [a_report(task, heartbeat=Payload(b"10")), a_report(task, failure=b"x")]
        ).outcomes
        expect(outcomes[0], Reported)
        expect(outcomes[1], Reported)
        assert (read(provider).activities[0].heartbeat, read(provider).activities[0].failure) == (
            Payload(b"10"),
            b"x",
        )
        assert one(provider, a_report(task, heartbeat=Payload(b"11"))) == Refused(), "it has ended"

    def test_the_same_report_twice_has_one_effect(self, provider: Provider) -> None:
        """Scenario 36."""
        hand_out(provider, handed_out())
        (task,) = take(provider)
        first, second = provider.store.commit([a_report(task), a_report(task)]).outcomes
        expect(first, Reported)
        assert second == Refused()
        assert one(provider, a_report(task)) == Refused()
        assert read(provider).row.inbox_seq == 1

    def test_whoever_has_not_got_it_reports_nothing(self, provider: Provider) -> None:
        """I6."""
        row = hand_out(provider, handed_out())
        (task,) = take(provider)
        for stranger in (
            a_report(task, "n3"),
            a_report(replace(task, revision=task.revision - 1)),
            a_report(replace(task, incarnation="another life")),
            a_report(replace(task, event_id=2)),
            a_report(replace(task, execution=2)),
            a_report(replace(task, instance_id="nobody")),
        ):
            assert one(provider, stranger) == Refused()
        assert read(provider).row == row
        expect(one(provider, a_report(task)), Reported)

    def test_what_its_owner_settles_before_the_report_is_settled(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        completing = a_write(row, completed=(1,))
        outcomes = provider.store.commit(
            [a_report(task), completing]
        ).outcomes  # the owners come first, whatever the order
        assert outcomes[0] == Refused()
        expect(outcomes[1], Granted)
        assert one(provider, a_report(task)) == Refused()
        assert read(provider).activities == ()

    def test_a_boundary_forgets_what_was_handed_out(self, provider: Provider) -> None:
        """Scenarios 12 and 13."""
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        closed = an_end(row).executions[0]
        over = ExecutionDelta(2, create=an_execution(2))
        expect(
            one(
                provider,
                a_write(row, a_state(row, execution=2, opened=False), executions=(closed, over)),
            ),
            Granted,
        )
        assert provider.store.taken("n2") == []
        assert one(provider, a_report(task)) == Refused()
        assert read(provider).row.inbox_seq == 0

    def test_the_end_of_the_instance_forgets_what_was_handed_out(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        (task,) = take(provider, slots=1)
        refused, ended = provider.store.commit([a_report(task), an_end(row)]).outcomes
        assert refused == Refused()
        expect(ended, Granted)
        assert take(provider) == ()
        assert provider.store.taken("n2") == []

    def test_what_is_handed_out_anew_is_nobody_s(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        expect(one(provider, a_write(row, activities=(handed_out(attempt=2),))), Granted)
        assert one(provider, a_report(task)) == Refused()
        (again,) = take(provider, "n2")
        assert (again.attempt, again.revision > task.revision) == (2, True)
        assert one(provider, a_report(task)) == Refused()
        expect(one(provider, a_report(again)), Reported)

    def test_what_is_written_without_a_route_is_there_for_nobody(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        expect(
            one(provider, a_write(row, activities=(handed_out(route=None, attempt=2),))), Granted
        )
        assert one(provider, a_report(task)) == Refused()
        assert take(provider) == ()
        assert read(provider).activities[0].owner is None

    def test_a_node_that_leaves_gives_back_what_it_has_taken(self, provider: Provider) -> None:
        hand_out(provider, handed_out())
        provider.store.join(a_node("n2"))
        (task,) = take(provider)
        provider.store.leave("n2")
        (again,) = take(provider, "n3")
        assert (again.attempt, again.event_id) == (1, 1)
        assert one(provider, a_report(task)) == Refused()

    def test_what_a_dead_node_had_is_lost_and_the_instance_hears_of_it(
        self, connect: Open, clock: ManualClock
    ) -> None:
        """Rules 12 and 14: the node that ran it is gone, or was never known."""
        provider, other = connect(), connect()
        provider.store.join(a_node("n1"))
        provider.store.join(a_node("n2"))
        row = hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        (task,) = take(other, "n2", slots=1)
        take(other, "a ghost", slots=1)
        assert provider.store.sweep() == 1, "the living one has lost nothing"
        assert provider.store.bury("n2", renewals=0)
        clock.advance(timedelta(seconds=1))
        assert provider.store.sweep() == 1
        assert provider.store.sweep() == 0
        (news,) = provider.store.news("n1")
        assert [(one.event_id, one.failure, one.owner) for one in news.activities] == [
            (1, LOST, None),
            (2, LOST, None),
        ]
        assert news.inbox_seq == row.inbox_seq + 2
        assert read(provider).row.takeovers == 0
        assert one(other, a_report(task)) == Refused()

    def test_a_message_and_a_report_have_numbers_of_their_own(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        provider.store.commit([an_append("i", "m1"), a_report(task), an_append("i", "m2")])
        (news,) = provider.store.news("n1")
        assert [message.message_id for message in news.messages] == ["m1", "m2"]
        assert (news.inbox_seq, len(news.activities)) == (row.inbox_seq + 3, 1)

    def test_a_deleted_instance_leaves_nothing_to_take_or_report(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        expect(one(provider, an_end(row)), Granted)
        assert provider.admin.delete("i", row.incarnation, by="me", reason="")
        expect(one(provider, a_start("i", "another life")), object)
        assert one(provider, a_report(task)) == Refused()
        assert read(provider).row.inbox_seq == 0

    def test_the_load_of_a_node_is_known_since_its_last_renewal(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        assert provider.store.catalogue().nodes[0].load == 0
        provider.store.renew("n1", 5)
        (node,) = provider.store.catalogue().nodes
        assert (node.load, node.record.slots, node.record.queues) == (5, 8, ("default", "slow"))

    # --- tries that go on running where their instance was ------------------------------------

    def test_a_try_that_goes_on_running_is_its_node_s_in_the_write_that_lets_its_instance_go(
        self, provider: Provider
    ) -> None:
        provider.store.join(a_node("n1"))
        hand_out(provider, replace(handed_out(), owner="n1"))
        assert provider.store.next_wake([], [ROUTE]) is None
        assert take(provider) == (), "nobody else takes it"
        (task,) = provider.store.taken("n1")
        assert (task.event_id, task.attempt, task.revision) == (1, 1, 0)
        arrival = expect(one(provider, a_report(task, "n1")), Reported).arrival
        assert arrival is not None
        assert arrival.owner is None
        assert one(provider, a_report(task, "n1")) == Refused(), "its end is told once"
        (snapshot,) = claim(provider, "n2")
        assert snapshot.activities[0].result == Payload(b'"done"')
        assert provider.store.taken("n1") == []

    def test_each_write_of_a_row_raises_the_fence_of_its_try_by_one(
        self, provider: Provider
    ) -> None:
        provider.store.join(a_node("n1"))
        row = hand_out(provider, handed_out(route=None), owner="n1")
        expect(
            one(provider, a_write(row, a_state(row), activities=(handed_out(route=None),))), Granted
        )
        row = read(provider).row
        running = replace(handed_out(), owner="n1")
        expect(
            one(provider, a_write(row, a_state(row, owner=None), activities=(running,))), Granted
        )
        (task,) = provider.store.taken("n1")
        assert task.revision == 2

    def test_a_try_that_goes_on_running_is_lost_with_its_node(self, provider: Provider) -> None:
        hand_out(provider, replace(handed_out(), owner="nobody"))
        assert provider.store.sweep() == 1
        (snapshot,) = claim(provider, "n2")
        assert snapshot.activities[0].failure == LOST

    def test_instances_are_claimed_in_the_order_in_which_their_activities_have_ended(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        for instance_id in "abc":
            hand_out(provider, handed_out(), instance_id=instance_id)
        tasks = {task.instance_id: task for task in take(provider)}
        for instance_id in "cab":
            clock.advance(timedelta(seconds=1))
            expect(one(provider, a_report(tasks[instance_id])), Reported)
        assert [claim(provider, "n2", limit=1)[0].row.instance_id for _ in range(3)] == [
            "c",
            "a",
            "b",
        ]

    def test_an_instance_that_was_due_before_its_activity_ended_keeps_its_place(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        due = clock.now() + 5
        expect(one(provider, a_park(row, wake_at=due)), Granted)
        (task,) = take(provider)
        clock.advance(timedelta(seconds=1))
        expect(one(provider, a_report(task)), Reported)
        assert read(provider).row.wake_at == due

    # --- what is to end -----------------------------------------------------------------------

    def test_what_nobody_has_taken_ends_in_the_write_that_stops_it(
        self, provider: Provider
    ) -> None:
        row = hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        granted = expect(one(provider, a_stop(provider, 1, 2)), Granted)
        first, second = (arrival for _, arrival in granted.arrivals)
        assert (first.sequence, second.sequence, first.owner) == (
            row.inbox_seq + 1,
            row.inbox_seq + 2,
            "n1",
        )
        shown = read(provider).activities
        assert (first.activity, second.activity) == shown
        assert [(row.failure, row.stopping, row.owner) for row in shown] == [
            (b"withdrawn", True, None)
        ] * 2
        assert take(provider) == (), "it was taken after its end"
        assert provider.store.next_wake([], [ROUTE]) is None
        (news,) = provider.store.news("n1")
        assert news.activities == shown

    def test_an_instance_that_leaves_with_the_write_is_ready_for_what_the_write_has_ended(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        stops = (Stop(1, b"withdrawn"),)
        granted = expect(
            one(provider, a_write(row, a_state(row, owner=None), stops=stops)), Granted
        )
        assert granted.arrivals[0][1].owner is None
        assert read(provider).row.wake_at == clock.now()
        (snapshot,) = claim(provider, "n3")
        assert snapshot.activities[0].failure == b"withdrawn"

    def test_what_a_node_has_taken_goes_on_under_its_fence_and_is_seen_to_be_stopped(
        self, connect: Open
    ) -> None:
        provider, other = connect(), connect()
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(other)
        assert expect(one(provider, a_stop(provider, 1)), Granted).arrivals == ()
        assert read(provider).row.inbox_seq == row.inbox_seq
        assert other.store.taken("n2") == [replace(task, stopping=True)]
        assert one(other, a_report(task, heartbeat=Payload(b"8"))) == Reported(stopping=True)
        assert one(other, a_report(task, "n3", heartbeat=Payload(b"9"))) == Refused()
        arrival = expect(one(other, a_report(task, failure=b"as it was told")), Reported).arrival
        assert arrival is not None
        assert arrival.activity is not None
        assert (arrival.activity.failure, arrival.activity.stopping) == (b"as it was told", True)
        assert take(other) == ()

    def test_of_a_stop_and_a_claim_in_one_group_the_stop_comes_first(
        self, provider: Provider
    ) -> None:
        hand_out(provider, handed_out(), owner="n1")
        claimed, _ = provider.store.commit(
            [Claim("n2", (), 0, (ROUTE,), 5), a_stop(provider, 1)]
        ).outcomes
        assert expect(claimed, Claimed).tasks == ()
        assert read(provider).activities[0].failure == b"withdrawn"

    def test_of_a_stop_and_claims_at_the_same_time_one_wins(self, connect: Open) -> None:
        """Whoever takes it runs it and reports; what is withdrawn is run by nobody."""
        providers = [connect() for _ in range(3)]
        instances = [f"i{number}" for number in range(8)]
        for instance_id in instances:
            hand_out(
                providers[0], handed_out(1), handed_out(2), instance_id=instance_id, owner="n1"
            )
        stops = [a_stop(providers[0], 2, 1, instance_id=instance_id) for instance_id in instances]

        def stop() -> int:
            return sum(
                len(expect(outcome, Granted).arrivals)
                for outcome in providers[0].store.commit(stops).outcomes
            )

        def take_some(number: int) -> list[Task]:
            return [
                task for _ in range(4) for task in take(providers[number], f"n{number}", slots=3)
            ]

        with ThreadPoolExecutor(3) as pool:
            taking = [pool.submit(take_some, number) for number in (1, 2)]
            withdrawn = pool.submit(stop).result()
            tasks = [task for one in taking for task in one.result()]
        assert len(tasks) + withdrawn == 2 * len(instances)
        for instance_id in instances:
            for row in read(providers[0], instance_id).activities:
                assert row.stopping
                has = [
                    task
                    for task in tasks
                    if (task.instance_id, task.event_id) == (instance_id, row.event_id)
                ]
                assert (row.owner is None, row.has_ended, len(has)) in {
                    (True, True, 0),
                    (False, False, 1),
                }

    def test_what_has_ended_is_not_stopped(self, provider: Provider) -> None:
        hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        (task,) = take(provider, slots=1)
        expect(one(provider, a_report(task)), Reported)
        seen = read(provider).activities[0]
        stopped, refused = provider.store.commit([a_stop(provider, 1, 7), a_report(task)]).outcomes
        assert expect(stopped, Granted).arrivals == ()
        assert refused == Refused()
        assert read(provider).activities[0] == seen

    def test_what_is_stored_and_not_handed_out_is_not_stopped(self, provider: Provider) -> None:
        hand_out(provider, handed_out(route=None), owner="n1")
        assert expect(one(provider, a_stop(provider, 1)), Granted).arrivals == ()
        (shown,) = read(provider).activities
        assert (shown.stopping, shown.has_ended) == (False, False)

    def test_a_write_that_is_refused_stops_nothing(self, provider: Provider) -> None:
        """I6."""
        hand_out(provider, handed_out(), owner="n1")
        write = a_stop(provider, 1)
        for stranger in (replace(write, revision=write.revision - 1), replace(write, owner="n2")):
            assert one(provider, stranger) == Refused()
        assert not read(provider).activities[0].stopping
        assert len(take(provider)) == 1

    def test_a_stop_and_a_report_in_one_group_tell_one_end(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        reported, stopped = provider.store.commit([a_report(task), a_stop(provider, 1)]).outcomes
        assert expect(stopped, Granted).arrivals == ()
        outcome = expect(reported, Reported)
        assert (outcome.stopping, read(provider).row.inbox_seq) == (True, row.inbox_seq + 1)
        (shown,) = read(provider).activities
        assert (shown.result, shown.stopping) == (Payload(b'"done"'), True)

    def test_a_second_stop_changes_nothing(self, provider: Provider) -> None:
        hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        take(provider, slots=1)
        expect(one(provider, a_stop(provider, 1, 2)), Granted)
        seen = read(provider).activities
        assert expect(one(provider, a_stop(provider, 1, 2)), Granted).arrivals == ()
        assert read(provider).activities == seen

    def test_what_is_stopped_ends_with_its_node(self, connect: Open) -> None:
        """Rule 12: whoever waits for it does not wait for ever."""
        provider, other = connect(), connect()
        provider.store.join(a_node("n1"))
        provider.store.join(a_node("n2"))
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(other)
        expect(one(provider, a_stop(provider, 1)), Granted)
        assert provider.store.bury("n2", renewals=0)
        assert provider.store.sweep() == 1
        (news,) = provider.store.news("n1")
        assert [(one.failure, one.stopping) for one in news.activities] == [(LOST, True)]
        assert news.inbox_seq == row.inbox_seq + 1
        assert one(other, a_report(task)) == Refused()
        assert take(other, "n3") == ()

    def test_a_node_that_leaves_hands_back_the_others_and_ends_what_is_stopped(
        self, connect: Open
    ) -> None:
        provider, other = connect(), connect()
        provider.store.join(a_node("n1"))
        other.store.join(a_node("n2"))
        row = hand_out(provider, handed_out(1), handed_out(2), owner="n1")
        hand_out(provider, handed_out(1), instance_id="other")
        assert len(take(other)) == 3
        expect(one(provider, a_stop(provider, 1)), Granted)
        other.store.leave("n2")
        (news,) = provider.store.news("n1")
        assert [(one.event_id, one.failure) for one in news.activities] == [(1, LOST)]
        assert news.inbox_seq == row.inbox_seq + 1
        assert [(task.instance_id, task.event_id) for task in take(provider, "n3")] == [
            ("i", 2),
            ("other", 1),
        ]

    def test_a_boundary_forgets_what_is_stopped(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        (task,) = take(provider)
        expect(one(provider, a_stop(provider, 1)), Granted)
        row = read(provider).row
        over = ExecutionDelta(2, create=an_execution(2))
        state = a_state(row, execution=2, opened=False)
        expect(
            one(provider, a_write(row, state, executions=(an_end(row).executions[0], over))),
            Granted,
        )
        assert provider.store.taken("n2") == []
        assert one(provider, a_report(task)) == Refused()

    def test_a_try_that_goes_on_running_may_be_stopped_already(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        hand_out(provider, replace(handed_out(), owner="n1", stopping=True))
        (task,) = provider.store.taken("n1")
        assert task.stopping
        provider.store.leave("n1")
        (snapshot,) = claim(provider, "n2")
        assert (snapshot.activities[0].failure, snapshot.activities[0].stopping) == (LOST, True)

    def test_what_is_handed_out_anew_is_stopped_no_more(self, provider: Provider) -> None:
        row = hand_out(provider, handed_out(), owner="n1")
        expect(one(provider, a_stop(provider, 1)), Granted)
        row = read(provider).row
        expect(one(provider, a_write(row, activities=(handed_out(attempt=2),))), Granted)
        (task,) = take(provider)
        assert (task.attempt, task.stopping) == (2, False)

    # --- places in threads, and others --------------------------------------------------------

    def test_no_more_is_taken_of_what_needs_a_thread_than_there_are_threads(
        self, provider: Provider
    ) -> None:
        blocking = [handed_out(number, ROUTE, number) for number in range(1, 6)]
        hand_out(
            provider, *blocking, *(handed_out(number, SLOW, number) for number in range(6, 11))
        )

        def taken(slots: int, threads: int) -> list[int]:
            outcome = expect(
                one(provider, Claim("n2", (), 0, (ROUTE, SLOW), slots, (ROUTE,), threads)), Claimed
            )
            return [task.event_id for task in outcome.tasks]

        assert taken(5, 2) == [1, 2, 6, 7, 8]
        assert taken(1, 0) == [9]
        assert taken(2, 9) == [3, 10]
        assert taken(9, 1) == [4]
        assert taken(9, 9) == [5]

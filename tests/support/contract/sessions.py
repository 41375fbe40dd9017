"""Sessions: which ones wait for a node, and what is lost with the node of one."""

from __future__ import annotations

import pytest

from orchestra.codec import UserText
from orchestra.store.changes import Resume, Suspend
from orchestra.store.port import Provider
from orchestra.store.routes import Route, node_queue, session_route
from orchestra.store.tasks import LOST
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import a_node, one, read
from tests.support.contract.tasks import a_stop, hand_out, handed_out, take

WAITING = session_route("default", ["fetch", "build"])
OTHER = session_route("gpu", ["train"]).of_format(2)


def of(node: str, name: str = "fetch") -> Route:
    return Route(node_queue(node), name)


class SessionTests(ContractBase):
    """Waiting sessions in the catalogue, and activities whose only node is gone."""

    def test_the_catalogue_names_each_route_by_which_sessions_wait(
        self, provider: Provider
    ) -> None:
        assert provider.store.catalogue().sessions == ()
        provider.store.join(a_node("n2"))
        rows = [handed_out(1, WAITING), handed_out(2, WAITING), handed_out(3, OTHER)]
        hand_out(provider, *rows, handed_out(4), handed_out(5, of("n2")))
        assert provider.store.catalogue().sessions == (WAITING, OTHER)
        assert provider.directory.catalogue().sessions == (WAITING, OTHER)
        taken = take(provider, routes=(WAITING,), slots=1)
        assert [task.event_id for task in taken] == [1]
        assert provider.store.catalogue().sessions == (WAITING, OTHER)
        take(provider, routes=(WAITING, OTHER))
        assert provider.store.catalogue().sessions == ()

    def test_what_waits_for_a_node_that_lives_waits_on(self, provider: Provider) -> None:
        provider.store.join(a_node("n2"))
        hand_out(provider, handed_out(1, of("n2")))
        assert provider.store.sweep() == 0
        assert [task.event_id for task in take(provider, "n2", (of("n2"),))] == [1]
        assert provider.store.sweep() == 0

    @pytest.mark.parametrize("way", ["left", "buried", "unknown"])
    def test_what_waits_for_a_node_that_is_gone_is_lost_and_wakes_its_instance(
        self, connect: Open, way: str
    ) -> None:
        provider, other = connect(), connect()
        if way != "unknown":
            provider.store.join(a_node("n2"))
        hand_out(provider, handed_out(1, of("n2")), handed_out(2, of("n2", "build")), handed_out(3))
        if way == "left":
            provider.store.leave("n2")
        elif way == "buried":
            assert other.store.bury("n2", 0)
        before = read(other).row
        assert other.store.sweep() == 2
        first, second, third = read(other).activities
        for row in (first, second):
            assert (row.failure, row.owner, row.has_ended) == (LOST, None, True)
        assert (third.failure, third.is_waiting) == (None, True)
        after = read(other).row
        assert after.inbox_seq > before.inbox_seq
        assert after.wake_at is not None
        assert other.store.sweep() == 0
        assert take(other, "n3", (of("n2"), of("n2", "build"))) == ()

    def test_what_its_node_had_taken_is_lost_once_it_has_left(self, provider: Provider) -> None:
        provider.store.join(a_node("n2"))
        hand_out(provider, handed_out(1, of("n2")))
        assert len(take(provider, "n2", (of("n2"),))) == 1
        provider.store.leave("n2")
        (row,) = read(provider).activities
        assert row.owner is None
        assert provider.store.sweep() == 1
        (row,) = read(provider).activities
        assert row.failure == LOST

    def test_what_was_stopped_before_is_not_lost_again(self, provider: Provider) -> None:
        provider.store.join(a_node("n1"))
        hand_out(provider, handed_out(1, of("n2")), owner="n1")
        one(provider, a_stop(provider, 1))
        assert provider.store.sweep() == 0
        (row,) = read(provider).activities
        assert row.failure == b"withdrawn"

    def test_what_an_operator_holds_is_lost_once_it_is_released(self, provider: Provider) -> None:
        hand_out(provider, handed_out(1, of("n2")))
        one(provider, Suspend("i", "ops", UserText("a look")))
        assert provider.store.sweep() == 0
        one(provider, Resume("i", "ops"))
        assert provider.store.sweep() == 1
        assert read(provider).activities[0].failure == LOST

    def test_no_more_are_lost_at_once_than_asked_for(self, provider: Provider) -> None:
        hand_out(provider, *(handed_out(number, of("n2")) for number in range(1, 4)))
        assert provider.store.sweep(limit=2) == 2
        assert provider.store.sweep(limit=2) == 1
        assert provider.store.sweep(limit=2) == 0

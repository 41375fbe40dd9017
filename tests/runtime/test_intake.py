"""What clients hand over is bounded: who brings more waits in the client, and nothing is lost on
any way out.
"""

from __future__ import annotations

import threading
from datetime import timedelta

import anyio
import pytest

from orchestra import Client, InstanceNotFound, Runtime
from orchestra.client.intake import Intake
from orchestra.errors import RuntimeClosed, StoreFull
from orchestra.runtime import runtime as runtime_module
from orchestra.store.changes import Append
from tests.support.kit import Gate, bounded, idle, info_when, registry, until, when_set

pytestmark = pytest.mark.anyio

ROOMY = 10**9


# --- the bound itself ---------------------------------------------------------------------------


async def enter(intake, size, order=None, number=None):
    if not intake.enter(size):
        await intake.wait(size)
    if order is not None:
        order.append(number)


async def queue(group, intake, size, order, number):
    """Have one more wait, behind those who wait already."""
    before = intake.waiting
    group.start_soon(enter, intake, size, order, number)
    await until(lambda: intake.waiting == before + 1)


@bounded
async def test_who_waits_is_let_in_in_the_order_of_coming_and_never_more_than_there_is_room_for():
    intake, order = Intake(2, 100), []
    assert intake.enter(40)
    assert intake.enter(60)
    async with anyio.create_task_group() as group:
        for number, size in enumerate((50, 60, 10)):
            await queue(group, intake, size, order, number)
        assert not intake.enter(0)
        intake.leave(40)
        await anyio.wait_all_tasks_blocked()
        assert (order, intake.outstanding) == ([], (1, 60)), (
            "the first needs more, and nobody passes it"
        )
        intake.leave(60)
        await anyio.wait_all_tasks_blocked()
        assert (order, intake.outstanding) == ([0], (1, 50)), "the next would be 10 bytes too much"
        intake.leave(50)
        await anyio.wait_all_tasks_blocked()
        assert (sorted(order), intake.outstanding) == ([0, 1, 2], (2, 70))
        intake.leave(60)
        intake.leave(10)
    assert (intake.outstanding, intake.waiting) == ((0, 0), 0)


@bounded
async def test_a_change_larger_than_the_bound_goes_alone():
    intake, order = Intake(10, 100), []
    assert intake.enter(1)
    async with anyio.create_task_group() as group:
        await queue(group, intake, 1_000, order, 0)
        await queue(group, intake, 1, order, 1)
        intake.leave(1)
        await anyio.wait_all_tasks_blocked()
        assert order == [0]
        intake.leave(1_000)
    assert order == [0, 1]


@bounded
async def test_a_cancelled_wait_takes_no_room_and_makes_way_for_those_behind_it():
    intake, order = Intake(10, 100), []
    assert intake.enter(60)
    async with anyio.create_task_group() as group, anyio.create_task_group() as doomed:
        await queue(doomed, intake, 90, order, 0)
        await queue(group, intake, 40, order, 1)
        doomed.cancel_scope.cancel()
    assert (order, intake.outstanding, intake.waiting) == ([1], (2, 100), 0)


@bounded
async def test_who_is_cancelled_just_when_called_gives_the_room_to_the_next():
    intake, order = Intake(1, 100), []
    assert intake.enter(1)
    async with anyio.create_task_group() as group, anyio.create_task_group() as doomed:
        await queue(doomed, intake, 2, order, 0)
        await queue(group, intake, 3, order, 1)
        doomed.cancel_scope.cancel()
        intake.leave(1)
        assert intake.outstanding == (1, 2), (
            "it is called before it could say that it has been cancelled"
        )
    assert (order, intake.waiting, intake.outstanding) == ([1], 0, (1, 3))


@bounded
async def test_at_the_end_everybody_who_waits_is_sent_away():
    intake, refused = Intake(1, 100), []

    async def wait():
        with pytest.raises(RuntimeClosed, match="nothing was written"):
            await intake.wait(1)
        refused.append(1)

    assert intake.enter(1)
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(wait)
        await until(lambda: intake.waiting == 3)
        intake.close()
    intake.leave(1)
    assert (refused, intake.outstanding) == ([1, 1, 1], (0, 0))


# --- in a runtime and in a client that stands alone -----------------------------------------------


class Commits:
    """The commits of a provider: counts clients' events among them, and holds them or makes them
    fail on demand.
    """

    def __init__(self, provider):
        self._commit = provider.store.commit
        provider.store.commit = self
        self.gate = None
        self.error = None
        self.sent = []

    def __call__(self, changes):
        sent = [change.message_id for change in changes if isinstance(change, Append)]
        if sent and self.gate is not None:
            self.gate()
        if sent and self.error is not None:
            raise self.error
        self.sent += sent
        return self._commit(changes)


class Senders:
    """Sends events to an instance, one task each; remembers what each was told."""

    def __init__(self, group, client, intake):
        self._group = group
        self._client = client
        self._intake = intake
        self.told = {}
        self.scopes = {}

    async def send(self, name, payload=None):
        """Send one more; return once it is on its way, or waits."""
        changes, waiting = self._intake.outstanding[0], self._intake.waiting
        self._group.start_soon(self._send, name, payload)
        await until(
            lambda: (
                name in self.told
                or changes + waiting < self._intake.outstanding[0] + self._intake.waiting
            )
        )

    async def _send(self, name, payload):
        with anyio.CancelScope() as self.scopes[name]:
            try:
                await self._client.raise_event("one", "never read", payload, message_id=name)
                self.told[name] = "stored"
            except Exception as error:
                self.told[name] = type(error)
        self.told.setdefault(name, "cancelled")


@pytest.fixture(params=["runtime", "alone"])
def side(request):
    """Whether the client is a runtime's or stands alone."""
    return request.param


class Opened:
    """A client over a store with an instance ``one``, its intake, and the commits below it."""

    def __init__(self, store, side, intake):
        self.provider = store()
        self.commits = Commits(self.provider)
        self._store, self._side, self._bound = store, side, intake
        self.intake = intake

    async def __aenter__(self):
        async with Runtime(self._store(), registry(idle)) as node:
            handle = await node.client.start("idle", instance_id="one")
            await info_when(handle, lambda info: info.waiting_on and info.owner is None)
        if self._side == "alone":
            self.inner = Client(self.provider)
            self.client = await self.inner.__aenter__()
            self.client._access.own._intake = self.intake
        else:
            self.inner = Runtime(self.provider, registry(idle), poll=timedelta(hours=1))
            self.client = (await self.inner.__aenter__()).client
            self.inner._intake = self.intake
        return self

    async def __aexit__(self, *error):
        await self.inner.__aexit__(*error)


@bounded
async def test_clients_wait_while_the_bound_is_reached_and_are_served_in_their_order(store, side):
    async with Opened(store, side, Intake(3, ROOMY)) as opened, anyio.create_task_group() as group:
        opened.commits.gate = gate = Gate()
        senders = Senders(group, opened.client, opened.intake)
        names = [f"m{number}" for number in range(10)]
        for name in names:
            await senders.send(name)
        await when_set(gate.entered)
        assert (opened.intake.outstanding[0], opened.intake.waiting, senders.told) == (3, 7, {})
        gate.open()
        await until(lambda: len(senders.told) == 10)
        assert set(senders.told.values()) == {"stored"}
        # Who is let in at once goes on in the event loop's order.
        assert sorted(opened.commits.sent) == names
        assert all(
            abs(opened.commits.sent.index(name) - number) < 3 for number, name in enumerate(names)
        )
        assert (opened.intake.outstanding, opened.intake.waiting) == ((0, 0), 0)
        assert (await opened.client.get_instance_info("one")).unread_messages == 10


@bounded
async def test_clients_wait_while_their_bytes_reach_the_bound(store, side):
    async with (
        Opened(store, side, Intake(1_000, 100_000)) as opened,
        anyio.create_task_group() as group,
    ):
        opened.commits.gate = gate = Gate()
        senders = Senders(group, opened.client, opened.intake)
        for number in range(5):
            await senders.send(f"m{number}", "x" * 40_000)
        await when_set(gate.entered)
        assert (opened.intake.outstanding[0], opened.intake.waiting) == (2, 3)
        gate.open()
        await until(lambda: len(senders.told) == 5)
        assert (set(senders.told.values()), opened.intake.outstanding) == ({"stored"}, (0, 0))


@bounded
async def test_who_is_cancelled_while_it_waits_has_sent_nothing_and_holds_up_nobody(store, side):
    async with Opened(store, side, Intake(1, ROOMY)) as opened, anyio.create_task_group() as group:
        opened.commits.gate = gate = Gate()
        senders = Senders(group, opened.client, opened.intake)
        for name in ("first", "second", "third", "fourth"):
            await senders.send(name)
        senders.scopes["second"].cancel()
        senders.scopes["fourth"].cancel()
        await until(lambda: len(senders.told) == 2)
        gate.open()
        await until(lambda: len(senders.told) == 4)
        assert senders.told == {
            "first": "stored",
            "second": "cancelled",
            "third": "stored",
            "fourth": "cancelled",
        }
        assert opened.commits.sent == ["first", "third"]
        assert opened.intake.outstanding == (0, 0)


@bounded
async def test_a_refusal_and_a_failure_of_the_store_give_the_room_back(store, side):
    async with Opened(store, side, Intake(2, ROOMY)) as opened, anyio.create_task_group() as group:
        senders = Senders(group, opened.client, opened.intake)
        opened.commits.error = StoreFull("planned")
        for number in range(8):
            await senders.send(f"m{number}")
        await until(lambda: len(senders.told) == 8)
        assert (set(senders.told.values()), opened.intake.outstanding) == ({StoreFull}, (0, 0))
        opened.commits.error = None
        async with anyio.create_task_group() as refused:

            async def refuse():
                with pytest.raises(InstanceNotFound):
                    await until_stored(lambda: opened.client.raise_event("nobody", "go"))

            for _ in range(8):
                refused.start_soon(refuse)
        assert (opened.intake.outstanding, opened.intake.waiting) == ((0, 0), 0)
        await until_stored(lambda: opened.client.raise_event("one", "go", message_id="after"))
        assert opened.commits.sent[-1] == "after"


async def until_stored(send):
    """Send until the engine has noticed that the store takes writes again."""
    while True:
        try:
            return await send()
        except StoreFull:
            await anyio.sleep(0.01)


@bounded
async def test_what_was_handed_over_keeps_its_room_though_its_sender_gave_up(store):
    """Else callers with a deadline, who ask again, would pile up changes in a runtime whose store
    is slow.
    """
    async with (
        Opened(store, "runtime", Intake(1, ROOMY)) as opened,
        anyio.create_task_group() as group,
    ):
        opened.commits.gate = gate = Gate()
        senders = Senders(group, opened.client, opened.intake)
        await senders.send("given up")
        await when_set(gate.entered)
        senders.scopes["given up"].cancel()
        await until(lambda: senders.told == {"given up": "cancelled"})
        await senders.send("next")
        assert (opened.intake.outstanding[0], opened.intake.waiting) == (1, 1)
        gate.open()
        await until(lambda: senders.told.get("next") == "stored")
        assert opened.commits.sent == ["given up", "next"]
        assert opened.intake.outstanding == (0, 0)


@bounded
async def test_a_stop_refuses_those_who_wait_and_writes_nothing_of_theirs(store, monkeypatch):
    monkeypatch.setattr(runtime_module, "_RELEASE_SECONDS", 0.1)
    async with anyio.create_task_group() as group:
        async with Opened(store, "runtime", Intake(1, ROOMY)) as opened:
            opened.commits.gate = gate = Gate()
            senders = Senders(group, opened.client, opened.intake)
            for name in ("under way", "waits", "waits too"):
                await senders.send(name)
            await when_set(gate.entered)
        await until(lambda: len(senders.told) == 3)
    assert set(senders.told.values()) == {RuntimeClosed}
    gate.open()  # its commit was under way, and nobody could know
    await until(
        lambda: not any(thread.name == "orchestra-engine" for thread in threading.enumerate())
    )
    assert opened.commits.sent == ["under way"]


@bounded
async def test_a_stop_serves_those_who_wait_as_long_as_the_engine_runs(store):
    async with anyio.create_task_group() as group:
        async with Opened(store, "runtime", Intake(1, ROOMY)) as opened:
            opened.commits.gate = gate = Gate()
            senders = Senders(group, opened.client, opened.intake)
            for name in ("under way", "waits"):
                await senders.send(name)
            await when_set(gate.entered)
            group.start_soon(opened.inner._stop)
            gate.open()
            await until(lambda: len(senders.told) == 2)
        assert senders.told["under way"] == "stored"
        assert senders.told["waits"] in ("stored", RuntimeClosed)
        assert ("waits" in opened.commits.sent) == (senders.told["waits"] == "stored"), (
            "nobody is told a lie"
        )


@bounded
async def test_a_fault_of_the_engine_refuses_those_who_wait(store):
    told = {}

    async def run():
        async with (
            Opened(store, "runtime", Intake(1, ROOMY)) as opened,
            anyio.create_task_group() as group,
        ):
            opened.commits.gate = gate = Gate()
            senders = Senders(group, opened.client, opened.intake)
            senders.told = told
            for name in ("under way", "waits", "waits too"):
                await senders.send(name)
            await when_set(gate.entered)
            opened.inner._thread._engine.apply = broken
            gate.open()
            with anyio.CancelScope(shield=True):  # the fault cancels the host's block
                await until(lambda: len(told) == 3)

    with pytest.raises(ZeroDivisionError):
        await run()
    assert set(told.values()) == {RuntimeClosed}


def broken(outcomes):
    raise ZeroDivisionError("planned")

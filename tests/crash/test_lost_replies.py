"""The reply to the commit of an operator's act is lost, and the same act is sent again: one effect
(scenarios 39 and 65).

The store commits, and the client is told that the outcome is unknown.
"""

from datetime import timedelta

import pytest

from orchestra import Client, OrchestrationRegistry, Runtime
from orchestra.clock import new_id
from orchestra.errors import AlreadyCompleted, InstanceNotHeld, OutcomeUnknown
from orchestra.testing import check_store
from tests.support.crashes.processes import until
from tests.support.crashes.stores import Served, provider_of

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.timeout(60),
    pytest.mark.parametrize("anyio_backend", ["asyncio"]),
]


async def collect(ctx, got: list[str]) -> list[str]:
    got = [*got, await ctx.wait_for_event("next", str)]
    if len(got) < 3:
        ctx.continue_as_new(got)
    return got


REGISTRY = OrchestrationRegistry.builder().register("collect", collect).build()


class Replies:
    """Loses the reply to the next write of a client."""

    def __init__(self, provider):
        self._armed = False
        provider.store.commit = self._losing(provider.store.commit)
        provider.admin.set_pin = self._losing(provider.admin.set_pin)

    def lose_next(self):
        self._armed = True

    def _losing(self, write):
        def write_and_lose(*arguments, **options):
            outcome = write(*arguments, **options)
            if self._armed:
                self._armed = False
                raise OutcomeUnknown("the reply was lost")
            return outcome

        return write_and_lose


class Setting:
    """A worker, and a client whose replies may be lost."""

    def __init__(self, client, replies):
        self.client = client
        self._replies = replies

    async def twice(self, ask, *, meanwhile=None):
        """Ask, lose the reply, and ask again. Return the second reply."""
        self._replies.lose_next()
        with pytest.raises(OutcomeUnknown):
            await ask()
        if meanwhile is not None:
            await meanwhile()
        return await ask()

    async def read_two(self):
        events = [("next", "a"), ("next", "b")]
        handle = await self.client.start("collect", [], instance_id="c", events=events)
        await self.reaches(3)
        return handle

    async def reaches(self, execution):
        directory = self.client._provider.directory

        def has_reached():
            row = directory.get("c").row
            return (row.execution, row.opened) == (execution, True)

        await until(has_reached, f"execution {execution} has begun")

    async def audit(self):
        page = await self.client.list_operations(subject="c")
        return [entry.action for entry in page.items]


@pytest.fixture(params=["file", pytest.param("server", marks=pytest.mark.slow)])
async def setting(request, tmp_path):
    if request.param == "file":
        store = tmp_path / "store.db"
    else:
        store = Served(tmp_path, request.getfixturevalue("dsn"), f"test_{new_id()}")
    provider, poll = provider_of(store), timedelta(milliseconds=50)
    replies = Replies(provider)
    async with Runtime(provider_of(store), REGISTRY, poll=poll), Client(provider) as client:
        yield Setting(client, replies)
    check_store(provider_of(store), REGISTRY).raise_if_violated()


async def test_a_rewind_whose_reply_was_lost_is_done_once(setting):
    client, handle = setting.client, await setting.read_two()
    done = await setting.twice(lambda: client.rewind("c", 2, request_id="back"))
    assert done.execution_id == 4
    await setting.reaches(5)
    await handle.raise_event("next", "c")
    assert await handle.result() == ["a", "b", "c"]
    statuses = [row.status for row in await client.list_executions("c")]
    assert statuses.count("rewound") == 1
    assert await setting.audit() == ["rewind"]


async def test_a_rewind_of_an_ended_instance_whose_reply_was_lost_begins_one_life(setting):
    client, handle = setting.client, await setting.read_two()
    await handle.raise_event("next", "c")
    assert await handle.result() == ["a", "b", "c"]

    async def end_again():
        await until(
            lambda: client._provider.directory.get("c").row.execution == 5, "the last lap begins"
        )
        assert await handle.result() == ["a", "b", "c"]

    done = await setting.twice(
        lambda: client.rewind("c", 2, request_id="back"), meanwhile=end_again
    )
    assert done.execution_id == 4
    assert len(await client.list_executions("c")) == 5
    assert await setting.audit() == ["rewind"]


async def test_a_hold_its_release_and_a_pin_whose_replies_were_lost_are_done_once(setting):
    client, handle = setting.client, await setting.read_two()
    await setting.twice(lambda: client.hold("c", reason="look"))
    await handle.raise_event("next", "c")
    info = await handle.info()
    assert (info.hold.kind, info.unread_messages) == ("operator", 1)
    await setting.twice(lambda: client.pin("c", "1.0.0"))
    assert (await handle.info()).pin.version == "1.0.0"
    # The first try has released it, and it may have ended since.
    with pytest.raises((InstanceNotHeld, AlreadyCompleted)):
        await setting.twice(lambda: client.release("c"))
    assert await handle.result() == ["a", "b", "c"]
    acts = await setting.audit()
    assert (acts.count("hold"), acts.count("release")) == (1, 1)


async def test_a_restart_whose_reply_was_lost_begins_one_life(setting):
    client, handle = setting.client, await setting.read_two()
    await handle.raise_event("next", "c")
    assert await handle.result() == ["a", "b", "c"]

    async def end_again():
        await until(
            lambda: client._provider.directory.get("c").row.execution == 4, "it begins again"
        )
        assert await handle.result() == ["x", "y", "z"]

    await setting.twice(
        lambda: client.start(
            "collect",
            ["x", "y"],
            instance_id="c",
            request_id="again",
            if_ended="restart",
            events=[("next", "z")],
        ),
        meanwhile=end_again,
    )
    assert await handle.result() == ["x", "y", "z"]
    assert len(await client.list_executions("c")) == 4


async def test_a_start_that_gave_the_last_event_and_whose_reply_was_lost_begins_no_further_life(
    setting,
):
    client, handle = setting.client, await setting.read_two()

    async def end():
        assert await handle.result() == ["a", "b", "c"]

    await setting.twice(
        lambda: client.start(
            "collect",
            [],
            instance_id="c",
            request_id="give",
            if_running="return",
            if_ended="restart",
            events=[("next", "c")],
        ),
        meanwhile=end,
    )
    assert await handle.result() == ["a", "b", "c"]
    assert len(await client.list_executions("c")) == 3

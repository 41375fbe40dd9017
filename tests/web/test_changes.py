"""Pages learn of changes: one watcher for all of them, coalesced, at the cost of a few reads."""

from contextlib import aclosing
from datetime import timedelta

import anyio
import pytest

from orchestra import InvalidArgument, Schedule, Start
from orchestra.schedules import Every
from orchestra.web.dashboard.live import Watcher
from tests.support.dashboard import Watch1

pytestmark = pytest.mark.anyio

QUICK = {"pace": 0.0, "soon": 0.02, "later": 0.02}
PATIENCE = 30


class Told:
    """What a page was told so far."""

    def __init__(self):
        self.all = []
        self._news = anyio.Event()

    def add(self, changed):
        self.all.append(changed)
        self._news.set()
        self._news = anyio.Event()

    async def receive(self):
        while not self.all:
            await self._news.wait()
        return self.all.pop(0)


async def started(watcher, *topics):
    """Return what follows some topics, and what it is told."""
    told = Told()

    async def follow():
        async with aclosing(watcher.follow(topics)) as follower:
            async for changed in follower:
                told.add(changed)

    return follow, told


async def seen(watcher, *topics):
    """Wait until the watcher knows what these topics look like."""
    with anyio.fail_after(PATIENCE):
        while not set(topics) <= set(watcher._seen) or any(
            watcher._seen[topic].value is None for topic in topics
        ):
            await anyio.sleep(0.005)


async def test_a_page_is_told_of_its_topics_alone(env):
    for name in ("a", "b"):
        await env.client.start("watch", Watch1("u"), instance_id=name)
    await env.run_until_idle()
    watcher = Watcher(env.client, **QUICK)
    follow, told = await started(watcher, "instance:a")
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await seen(watcher, "instance:a")
            await env.client.hold("b", reason="another")
            await env.client.hold("a", reason="this")
            assert await told.receive() == ["instance:a"]
            group.cancel_scope.cancel()
    assert told.all == []
    assert watcher._followers == []
    assert watcher._seen == {}


async def test_many_pages_share_the_reads_of_one_watcher(env):
    await env.client.start("watch", Watch1("u"), instance_id="a")
    await env.run_until_idle()
    watcher = Watcher(env.client, pace=0.0, soon=60, later=60)
    reads = 0
    plain = watcher._reader

    def counting(topic):
        read, pause = plain(topic)

        async def counted():
            nonlocal reads
            reads += 1
            return await read()

        return counted, pause

    watcher._reader = counting
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            pages = [await started(watcher, "instance:a") for _ in range(20)]
            for follow, _ in pages:
                group.start_soon(follow)
            await seen(watcher, "instance:a")
            await anyio.wait_all_tasks_blocked()
            assert reads == 1
            await env.client.hold("a", reason="r")
            for _, told in pages:
                assert await told.receive() == ["instance:a"]
            assert reads <= 3
            group.cancel_scope.cancel()


async def test_the_pages_go_on_when_the_leading_one_is_closed(env):
    await env.client.start("watch", Watch1("u"), instance_id="a")
    await env.run_until_idle()
    watcher = Watcher(env.client, **QUICK)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            first, _ = await started(watcher, "instance:a")
            second, told = await started(watcher, "instance:a")
            scope = anyio.CancelScope()

            async def leading():
                with scope:
                    await first()

            group.start_soon(leading)
            await seen(watcher, "instance:a")
            group.start_soon(second)
            await anyio.wait_all_tasks_blocked()
            scope.cancel()
            await env.client.hold("a", reason="r")
            assert await told.receive() == ["instance:a"]
            group.cancel_scope.cancel()


async def test_each_page_has_topics_that_notice_what_it_shows(env):
    client = env.client
    await client.start("watch", Watch1("u"), instance_id="a")
    await client.schedules.create(Schedule("s", Every(timedelta(hours=1)), Start("cart", 0)))
    await env.run_until_idle()
    topics = (
        "overview",
        "held",
        "audit",
        "versions",
        "list:name=watch&order_by=id",
        "schedules",
        "schedule:s",
    )
    watcher = Watcher(client, **QUICK)
    follow, told = await started(watcher, *topics)
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await seen(watcher, *topics)
            await client.hold("a", reason="r")
            await client.schedules.pause("s", "calm")
            found = set()
            while found != set(topics):
                found |= set(await told.receive())
            group.cancel_scope.cancel()


async def test_what_is_deleted_changes_too_and_what_never_was_does_not(env):
    await env.client.start("watch", Watch1("u"), instance_id="a")
    await env.run_until_idle()
    watcher = Watcher(env.client, **QUICK)
    follow, told = await started(watcher, "instance:a", "instance:nobody", "schedule:nobody")
    with anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as group:
            group.start_soon(follow)
            await seen(watcher, "instance:a")
            await env.client.terminate("a")
            assert await told.receive() == ["instance:a"]
            await env.client.delete("a")
            assert await told.receive() == ["instance:a"]
            group.cancel_scope.cancel()


@pytest.mark.parametrize("topic", ["", "luck", "instance:", "list:held=nonsense"])
async def test_there_are_no_other_topics(env, topic):
    with pytest.raises(InvalidArgument):
        Watcher(env.client).check(topic)


async def test_changes_are_refused_for_no_topics_and_for_wrong_ones(http):
    for query in ("", "?topic=luck", "?" + "&".join(["topic=nodes"] * 9)):
        assert (await http.get(f"/changes{query}")).status_code == 422


async def test_looking_moves_no_virtual_time(env):
    await env.client.start("watch", Watch1("u"), instance_id="a")
    await env.run_until_idle()
    before = await env.client.now()
    watcher = Watcher(env.client, **QUICK)
    follow, _ = await started(watcher, "instance:a", "overview")
    async with anyio.create_task_group() as group:
        group.start_soon(follow)
        await seen(watcher, "instance:a", "overview")
        group.cancel_scope.cancel()
    assert await env.client.now() == before

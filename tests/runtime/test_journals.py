"""Activities with a journal: the next attempt goes on after the last stored step."""

from dataclasses import dataclass

import pytest

from orchestra import ActivityFailed, InvalidArgument, activity, activity_context
from orchestra.providers.memory import Database
from orchestra.testing import crash_everywhere
from tests.support.kit import QUICK, bounded, runtime, virtual

pytestmark = pytest.mark.anyio


@dataclass
class Page:
    number: int
    words: list[str]


class Model:
    """A service that is paid by the call."""

    def __init__(self):
        self.calls = []

    def activity(self, failing=1, **options):
        model = self

        async def fetch(number) -> Page:
            model.calls.append(number)
            return Page(number, ["a"] * number)

        @activity(name="crawl", journal=True, retry=QUICK, **options)
        async def crawl(upto: int) -> int:
            context, words = activity_context(), 0
            for number in range(1, upto + 1):

                async def step(number=number) -> Page:
                    return await fetch(number)

                page = await context.step(f"page-{number}", step)
                assert isinstance(page, Page)
                words += len(page.words)
                if context.attempt <= failing and number == upto - 1:
                    raise ValueError("the connection is lost")
            return words

        return crawl


async def crawling(ctx, upto):
    return await ctx.schedule_activity("crawl", upto)


def journals_of(provider, instance_id):
    return [one for one in provider.directory.streams(instance_id) if "journal" in one.name]


class TestSteps:
    async def test_a_later_attempt_runs_no_step_again(self):
        model = Model()
        async with virtual(Database(), crawling, activities=[model.activity(failing=2)]) as env:
            handle = await env.client.start("crawling", 4)
            assert await handle.result() == 10
            assert model.calls == [1, 2, 3, 4], "each was paid once, in three attempts"
            assert await handle.list_streams() == ()
            assert journals_of(env.provider, handle.instance_id) == [], "they go with the end"

    @bounded
    async def test_another_node_goes_on_after_the_last_step(self, tmp_path):
        """Handed out: its steps stand under the fence of its task."""
        path, model = tmp_path / "store.db", Model()
        crawl = model.activity(failing=1, queue="far")

        async def far(ctx, upto):
            return await ctx.schedule_activity(crawl, upto)

        async with (
            runtime(path, far) as owner,
            runtime(path, activities=[crawl], queues=["far"]) as worker,
        ):
            handle = await owner.client.start("far", 4)
            assert await handle.result() == 10
            assert model.calls == [1, 2, 3, 4]
            assert journals_of(worker._provider, handle.instance_id) == []

    async def test_a_final_failure_deletes_them_as_well(self):
        model = Model()

        async def gives_up(ctx, upto):
            try:
                await ctx.schedule_activity("crawl", upto)
            except ActivityFailed:
                await ctx.wait_for_event("go")

        database = Database()
        async with virtual(database, gives_up, activities=[model.activity(failing=9)]) as env:
            handle = await env.client.start("gives_up", 3)
            await env.run_until_idle()
            assert journals_of(env.provider, handle.instance_id) == []
            assert model.calls == [1, 2]

    async def test_no_stored_step_is_paid_twice_wherever_the_process_dies(self):
        async def scenario():
            model = Model()
            async with virtual(Database(), crawling, activities=[model.activity()]) as env:
                handle = await env.client.start("crawling", 3, instance_id="c")
                await env.run_until(handle)
                assert await handle.result() == 6
                # A death between a step and its commit runs that one step again, and no other.
                assert len(model.calls) <= 4
                assert journals_of(env.provider, "c") == []

        await crash_everywhere(scenario)

    @pytest.mark.parametrize("where", ["thread", "inline"])
    @bounded
    async def test_a_def_activity_gets_results_without_await(self, tmp_path, where):
        calls = []

        @activity(journal=True, retry=QUICK)
        def adds(upto: int) -> int:
            context, total = activity_context(), 0
            for number in range(upto):

                def step(number=number) -> int:
                    calls.append(number)
                    return number

                total += context.step(f"add-{number}", step)
            if context.attempt < 3:
                raise ValueError("again")
            return total

        async def sums(ctx, upto):
            return await ctx.schedule_activity(adds, upto)

        make = (
            virtual(Database(), sums, activities=[adds])
            if where == "inline"
            else runtime(tmp_path / "store.db", sums, activities=[adds])
        )
        async with make as node:
            handle = await node.client.start("sums", 4)
            assert await handle.result() == 6
            assert calls == [0, 1, 2, 3]

    async def test_names_are_checked(self):
        caught = []

        async def one() -> int:
            return 1

        @activity(journal=True)
        async def wrong() -> None:
            context = activity_context()
            await context.step("a", one)
            for name in ("a", ""):
                with pytest.raises(InvalidArgument):
                    await context.step(name, one)
            with pytest.raises(InvalidArgument, match="library's own"):
                await context.publish("orchestra:journal/1/2", 1)
            caught.append(1)

        @activity
        async def without() -> None:
            with pytest.raises(InvalidArgument, match="journal=True"):
                await activity_context().step("a", one)
            caught.append(2)

        async def calls(ctx, value):
            await ctx.schedule_activity(wrong)
            await ctx.schedule_activity(without)

        async with virtual(Database(), calls, activities=[wrong, without]) as env:
            await (await env.client.start("calls", None)).result()
            assert caught == [1, 2]

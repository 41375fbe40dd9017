"""Labels that code and operators change, and that cross boundaries."""

import pytest

from orchestra import InstanceNotFound, InvalidArgument, Runtime
from tests.support.kit import bounded, info_when, registry, virtual

pytestmark = pytest.mark.anyio

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE label; --"


async def loop(ctx, lap: int) -> None:
    ctx.set_labels({"lap": str(lap), TEXT: TEXT if lap else None, "even": None if lap % 2 else ""})
    ctx.set_labels({"twice": "a"})
    ctx.set_labels({"twice": "b"})
    name = await ctx.wait_for_event("next")
    if name == "stay":
        ctx.set_labels({"stayed": "yes"})
        await ctx.wait_for_event("next")
    if name == "end":
        ctx.set_labels({"ended": "yes"})
        return
    ctx.set_labels({"crossed": str(lap)})
    ctx.continue_as_new(lap + 1)


@bounded
async def test_code_sets_labels_that_cross_boundaries(store):
    async with Runtime(store(), registry(loop)) as runtime:
        client = runtime.client
        handle = await client.start("loop", 0, instance_id="i", labels={"team": "blue", "lap": "x"})
        info = await info_when(handle, lambda info: info.waiting_on)
        first = {"team": "blue", "lap": "0", "even": "", "twice": "b"}
        assert info.labels == first
        await handle.raise_event("next", "lap")
        info = await info_when(handle, lambda info: info.execution_id == 2 and info.waiting_on)
        assert info.labels == {"team": "blue", "lap": "1", TEXT: TEXT, "twice": "b", "crossed": "0"}
        (found,) = (await client.list_instances(labels={TEXT: TEXT, "lap": "1"})).items
        assert found.labels == info.labels
        await handle.raise_event("next", "end")
        info = await client.wait_for_completion("i")
        assert info.labels["ended"] == "yes"
        counts = await client.count_instances(group_by="label:ended")
        assert counts.groups[0].values == {"label:ended": "yes"}


@bounded
async def test_a_replay_does_not_set_what_an_operator_has_changed_since(store):
    provider = store()
    async with Runtime(provider, registry(loop)) as runtime:
        handle = await runtime.client.start("loop", 0, instance_id="i")
        await info_when(handle, lambda info: info.waiting_on)
        changed = await runtime.client.set_labels("i", {"lap": "mine", "twice": None}, by="ann")
        assert changed == {"lap": "mine", "even": ""}
    async with Runtime(store(), registry(loop)) as runtime:
        client = runtime.client
        await client.raise_event("i", "next", "stay")
        info = await info_when(client.handle("i"), lambda info: "stayed" in info.labels)
        assert info.labels == {"lap": "mine", "even": "", "stayed": "yes"}
        (entry,) = (await client.list_operations(action="set labels")).items
        assert (entry.by, entry.subject) == ("ann", "i")
        assert entry.details["labels"] == {"lap": "mine", "twice": None}


@bounded
async def test_the_limits_of_labels_are_typed_errors(store):
    async with Runtime(store(), registry(loop)) as runtime:
        client = runtime.client
        handle = await client.start("loop", 0, instance_id="i")
        await info_when(handle, lambda info: info.waiting_on)
        many = {f"k{number}": "v" for number in range(65)}
        bad = [
            many,
            {"": "v"},
            {"k" * 1025: "v"},
            {"k": "v" * 1025},
            {"k": "\0"},
            {"k": 5},
            {5: "v"},
            ["k"],
            None,
        ]
        for labels in bad:
            with pytest.raises(InvalidArgument):
                await client.set_labels("i", labels)
        with pytest.raises(InvalidArgument, match="64"):
            await client.start("loop", 0, labels=many)
        with pytest.raises(InstanceNotFound):
            await client.set_labels("nobody", {"a": "b"})
        assert len(await client.set_labels("i", dict(list(many.items())[:50]))) > 50
        with pytest.raises(InvalidArgument, match="more than 64"):
            await client.set_labels("i", dict(list(many.items())[50:]))
        with pytest.raises(InvalidArgument):
            await client.set_labels("i", {}, reason=5)


async def too_many(ctx, count: int) -> str:
    try:
        for number in range(count):
            ctx.set_labels({f"k{number}": "v"})
    except InvalidArgument:
        await ctx.wait_for_event("next")
        return "refused"
    for bad in ({"": "v"}, {"k": "\0"}, None, {"k": 5}):
        try:
            ctx.set_labels(bad)
        except InvalidArgument:
            continue
        return "taken"
    return "ok"


async def test_code_learns_of_a_limit_and_replay_raises_where_it_did(database):
    async with virtual(database, too_many) as env:
        assert await (await env.client.start("too_many", 64)).result() == "ok"
        handle = await env.client.start("too_many", 65, instance_id="i")
        await env.run_until_idle()
        assert len((await handle.info()).labels) == 64
    async with virtual(database, too_many) as env:
        await env.client.raise_event("i", "next")
        assert await env.client.handle("i").result() == "refused"

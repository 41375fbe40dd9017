"""What cannot be an id, a name or a duration is refused at the caller, alike on every store, and no
store is asked.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

import pytest

from orchestra import (
    Activity,
    InstanceFailed,
    InstanceNotFound,
    InstanceStatus,
    InvalidArgument,
    InvalidVersion,
    Latest,
    RegistrationError,
    Runtime,
    SqliteProvider,
    activity,
)
from orchestra.client import Handle
from tests.support.kit import bounded, echo, idle, info_when, registry

pytestmark = pytest.mark.anyio

NUL, HALF, LONG = "a\0b", "half a \ud83d pair", "x" * 1025
NO_NAMES = [NUL, HALF, LONG, "", 5, None]
NO_TEXTS = [NUL, HALF, LONG, 5]


NOW = datetime.fromisoformat("2026-01-01T00:00:00Z")

BY_ID = {
    "get_instance_info": lambda client, bad: client.get_instance_info(bad),
    "list_executions": lambda client, bad: client.list_executions(bad),
    "get_history": lambda client, bad: client.get_history(bad),
    "get_history of one": lambda client, bad: client.get_history(bad, 1),
    "wait_for_completion": lambda client, bad: client.wait_for_completion(bad, timedelta(0)),
    "raise_event": lambda client, bad: client.raise_event(bad, "go"),
    "cancel": lambda client, bad: client.cancel(bad),
    "terminate": lambda client, bad: client.terminate(bad),
    "delete": lambda client, bad: client.delete(bad),
    "release": lambda client, bad: client.release(bad),
    "pin": lambda client, bad: client.pin(bad, "1.0.0"),
    "unpin": lambda client, bad: client.unpin(bad),
    "a handle's info": lambda client, bad: Handle(client, bad).info(),
    "a handle's result": lambda client, bad: Handle(client, bad).result(),
    "a handle's event": lambda client, bad: Handle(client, bad).raise_event("go"),
}
BY_NAME = {
    "start": lambda client, bad: client.start(bad),
    "start in a queue": lambda client, bad: client.start("idle", queue=bad),
    "set_version_policy": lambda client, bad: client.set_version_policy(bad, Latest()),
    "get_version_policy": lambda client, bad: client.get_version_policy(bad),
    "list_version_policies": lambda client, bad: client.list_version_policies(bad),
    "raise_event": lambda client, bad: client.raise_event("one", bad),
    "start with a label": lambda client, bad: client.start("idle", labels={bad: "a"}),
    "list by a label": lambda client, bad: client.list_instances(labels={bad: "a"}),
}
BY_TEXT = {
    "start with an id": lambda client, bad: client.start("idle", instance_id=bad),
    "start with a request": lambda client, bad: client.start("idle", request_id=bad),
    "start with a label's value": lambda client, bad: client.start("idle", labels={"a": bad}),
    "raise_event with an id": lambda client, bad: client.raise_event("one", "go", message_id=bad),
    "list by name": lambda client, bad: client.list_instances(name=bad),
    "list by version": lambda client, bad: client.list_instances(version=bad),
    "list by queue": lambda client, bad: client.list_instances(queue=bad),
    "list by prefix": lambda client, bad: client.list_instances(id_prefix=bad),
    "list by parent": lambda client, bad: client.list_instances(parent=bad),
    "list by a label's value": lambda client, bad: client.list_instances(labels={"a": bad}),
    "list a page": lambda client, bad: client.list_instances(page=bad if bad == 5 else f"7:{bad}"),
    "purge by name": lambda client, bad: client.purge(completed_before=NOW, name=bad),
    "purge by prefix": lambda client, bad: client.purge(completed_before=NOW, id_prefix=bad),
    "purge by a label's value": lambda client, bad: client.purge(
        completed_before=NOW, labels={"a": bad}
    ),
    "purge for a reason": lambda client, bad: client.purge(completed_before=NOW, reason=bad),
}
CALLS = [
    (calls[call], call, bad)
    for calls, bads in ((BY_ID, NO_NAMES), (BY_NAME, NO_NAMES), (BY_TEXT, NO_TEXTS))
    for call in calls
    for bad in bads
]


@bounded
async def test_what_no_instance_and_no_name_can_be_is_refused_alike_by_every_call_and_store(store):
    async with Runtime(store(), registry(idle)) as node:
        handle = await node.client.start("idle", instance_id="one")
        for call, name, bad in CALLS:
            try:
                await call(node.client, bad)
            except InvalidArgument:
                continue
            pytest.fail(f"{name} takes {bad!r}")
        for bad in NO_NAMES:
            with pytest.raises(InvalidArgument):
                node.client.handle(bad)
        assert [info.instance_id for info in (await node.client.list_instances()).items] == ["one"]
        await handle.raise_event("go", 1)
        assert await handle.result() == 1


OTHERS = {
    "a wait of a number": (
        lambda client: client.wait_for_completion("one", 5),
        "timeout takes a timedelta, not 5; write",
    ),
    "a result within a number": (
        lambda client: client.handle("one").result(timeout=5),
        "timeout takes a timedelta, not 5",
    ),
    "labels that are no mapping": (
        lambda client: client.start("idle", labels="a"),
        "labels takes a mapping",
    ),
    "a limit that is no number": (
        lambda client: client.list_instances(limit="a"),
        "a limit takes a whole number, not 'a'",
    ),
    "a limit of a fraction": (
        lambda client: client.list_executions("one", limit=1.5),
        "a limit takes a whole number",
    ),
    "a number that is none": (
        lambda client: client.list_executions("one", after="a"),
        "after takes a whole number",
    ),
    "an execution that is none": (
        lambda client: client.get_history("one", "1"),
        "execution_id takes a whole number",
    ),
    "a moment that is none": (
        lambda client: client.list_instances(created_from=5),
        "created_from takes an aware datetime",
    ),
    "an end that is none": (
        lambda client: client.list_instances(created_until="now"),
        "created_until takes an aware",
    ),
    "a purge before a number": (
        lambda client: client.purge(completed_before=5),
        "completed_before takes an aware datetime",
    ),
}


@bounded
async def test_what_is_of_another_type_is_refused_by_name(tmp_path):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), registry(idle)) as node:
        await node.client.start("idle", instance_id="one")
        for call, said in OTHERS.values():
            with pytest.raises(InvalidArgument, match=re.escape(said)):
                await call(node.client)
        with pytest.raises(InvalidVersion):
            await node.client.start("idle", version="")
        # An id that can be one, and that nobody has.
        with pytest.raises(InstanceNotFound):
            await node.client.get_instance_info("two")
        assert (await node.client.list_instances(id_prefix="")).items != ()


ASKED = {
    "an event without a name": (
        lambda ctx: ctx.wait_for_event(""),
        "an event's name must not be empty",
    ),
    "an event of a number": (
        lambda ctx: ctx.wait_for_event(5),
        "an event's name must be text, not int",
    ),
    "an event with NUL": (lambda ctx: ctx.wait_for_event(NUL), "an event's name must not hold NUL"),
    "an event with half a pair": (lambda ctx: ctx.wait_for_event(HALF), "half a surrogate pair"),
    "a long event": (
        lambda ctx: ctx.wait_for_event(LONG),
        "an event's name must have at most 1024 characters",
    ),
    "an activity with NUL": (
        lambda ctx: ctx.schedule_activity(NUL),
        "an activity's name must not hold NUL",
    ),
    "an activity without a name": (
        lambda ctx: ctx.schedule_activity(""),
        "an activity's name must not be empty",
    ),
    "a child with NUL": (
        lambda ctx: ctx.start_child(NUL),
        "an orchestration's name must not hold NUL",
    ),
    "a child's id with half a pair": (
        lambda ctx: ctx.start_child("idle", instance_id=HALF),
        "an instance id must not hold",
    ),
    "a detached name with NUL": (
        lambda ctx: ctx.start_detached(NUL),
        "an orchestration's name must not hold NUL",
    ),
    "a detached id with NUL": (
        lambda ctx: ctx.start_detached("idle", instance_id=NUL),
        "an instance id must not hold NUL",
    ),
}


@bounded
async def test_code_that_asks_for_what_nobody_could_give_is_told_at_once(store):
    async def asks(ctx, case: str):
        ASKED[case][0](ctx)

    async with Runtime(store(), registry(asks, failures=(Exception,))) as node:
        for case, (_, said) in ASKED.items():
            with pytest.raises(InstanceFailed, match=f"InvalidArgument: .*{re.escape(said)}"):
                await (await node.client.start("asks", case)).result()


@pytest.mark.parametrize("bad", NO_NAMES)
def test_what_cannot_be_a_name_cannot_be_registered(tmp_path, bad):
    with pytest.raises(RegistrationError, match="an orchestration's name"):
        registry((bad, "1.0.0", idle))
    if bad is not None:
        with pytest.raises(InvalidArgument, match="an activity's name"):
            activity(name=bad)(echo)
    with pytest.raises(InvalidArgument, match="an activity's name"):
        Activity.named(bad)
    with pytest.raises(InvalidArgument, match="a queue"):
        Runtime(SqliteProvider(tmp_path / "store.db"), registry(), queues=[bad])


# --- what is said of what went wrong ------------------------------------------------------------


@bounded
async def test_a_detached_start_of_a_name_that_nobody_has_names_no_version(store):
    async def starts(ctx, _):
        ctx.start_detached("neverdeployed", instance_id="far")
        ctx.start_detached("neverdeployed", instance_id="exact", version="0.0.0-0")

    async with Runtime(store(), registry(starts)) as node:
        await (await node.client.start("starts")).result()
        far = await info_when(
            node.client.handle("far"), lambda info: info.status is InstanceStatus.HELD
        )
        assert far.held_reason == "no living node has registered 'neverdeployed'"
        exact = await info_when(
            node.client.handle("exact"), lambda info: info.status is InstanceStatus.HELD
        )
        assert exact.held_reason == "no living node has registered 'neverdeployed' 0.0.0-0"


@bounded
async def test_a_failure_says_what_was_raised_with_its_type(tmp_path):
    async def fails(ctx, _):
        raise KeyError("userkey")

    async with Runtime(
        SqliteProvider(tmp_path / "store.db"), registry(fails, failures=(LookupError,))
    ) as node:
        handle = await node.client.start("fails", instance_id="one")
        with pytest.raises(InstanceFailed, match=r"^instance 'one' failed: KeyError: 'userkey'$"):
            await handle.result()


@bounded
async def test_the_next_version_may_be_given_by_position(tmp_path):
    async def old(ctx, _):
        ctx.continue_as_new("state", "2.0.0")

    async def new(ctx, state):
        return [ctx.version, state]

    entries = ("loop", "1.0.0", old), ("loop", "2.0.0", new)
    async with Runtime(SqliteProvider(tmp_path / "store.db"), registry(*entries)) as node:
        assert await (await node.client.start("loop", version="1.0.0")).result() == [
            "2.0.0",
            "state",
        ]


@bounded
async def test_arguments_that_do_not_fit_an_activity_are_refused_with_its_name(tmp_path):
    @activity
    async def probe(url: str) -> None: ...

    async def asks(ctx, _):
        await ctx.schedule_activity(probe, "a", "b")

    async with Runtime(
        SqliteProvider(tmp_path / "store.db"), registry(asks, failures=(TypeError,)), [probe]
    ) as node:
        with pytest.raises(
            InstanceFailed,
            match="TypeError: arguments of activity 'probe' in 'asks': too many positional",
        ):
            await (await node.client.start("asks")).result()

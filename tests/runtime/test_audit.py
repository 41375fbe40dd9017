"""Each act of an operator is recorded, with who did it and why."""

from datetime import timedelta

import pytest

from orchestra import InvalidArgument, Latest, Runtime, SqliteProvider
from tests.support.kit import bounded, idle, info_when, registry

pytestmark = pytest.mark.anyio


async def breaks(ctx, _state: None) -> None:
    raise KeyError("x")


@bounded
async def test_what_operators_did_is_listed_with_author_and_reason(store):
    async with Runtime(store(), registry(idle, breaks)) as runtime:
        client = runtime.client
        first = await client.start("idle", instance_id="first")
        await client.raise_event("first", "noise", 1, message_id="m1")
        await info_when(first, lambda info: info.waiting_on)
        assert await client.drop_messages("first", "noise", reason="too loud") == 1
        await client.pin("first", "1.0.0", reason="tied")
        await client.unpin("first", reason="untied")
        await client.cancel("first", "enough")
        await client.wait_for_completion("first")
        await client.delete("first", reason="gone")
        held = await client.start("breaks", instance_id="held")
        await info_when(held, lambda info: info.held_reason)
        await client.release("held")
        await info_when(held, lambda info: info.held_reason)
        await client.terminate("held", "at once")
        again = await client.rerun("held", instance_id="again")
        await info_when(again, lambda info: info.held_reason)
        await client.terminate("again")
        await client.set_version_policy("idle", Latest(), by="ann", reason="newest")

        operations = (await client.list_operations()).items
        assert [(one.action, one.subject) for one in reversed(operations)] == [
            ("drop messages", "first"),
            ("pin", "first"),
            ("unpin", "first"),
            ("cancel", "first"),
            ("delete", "first"),
            ("release", "held"),
            ("terminate", "held"),
            ("rerun", "held"),
            ("terminate", "again"),
            ("set policy", "idle"),
        ]
        reasons = {one.action: one.details.get("reason") for one in operations}
        assert reasons["drop messages"] == "too loud"
        assert reasons["cancel"] == "enough"
        assert operations[0].by == "ann"
        assert operations[1].by == runtime.node_id
        assert operations[0].at - operations[-1].at < timedelta(minutes=5)
        (dropped,) = (await client.list_operations(action="drop messages")).items
        assert (dropped.details["count"], dropped.details["first"]) == (1, ["m1"])
        assert len((await client.list_operations(subject="held")).items) == 3
        assert len((await client.list_operations(by="ann")).items) == 1
        page = await client.list_operations(limit=4)
        seen = [*page.items]
        while page.next_page is not None:
            page = await client.list_operations(limit=4, page=page.next_page)
            seen += page.items
        assert tuple(seen) == operations


@pytest.mark.parametrize(
    "arguments",
    [{"limit": 0}, {"page": "x"}, {"page": 5}, {"subject": ""}, {"by": "a\0"}, {"action": 5}],
)
@bounded
async def test_a_question_that_makes_no_sense_is_refused(tmp_path, arguments):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), registry(idle)) as runtime:
        with pytest.raises(InvalidArgument):
            await runtime.client.list_operations(**arguments)

"""The demo store has something of everything that the dashboard shows, is in order, and is the same
each time.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from ops.look.demo import build
from orchestra import Client, SqliteProvider
from orchestra.testing import ManualClock, check_store

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.timeout(300)]

END = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def counts(client, *keys):
    found = await client.count_instances(group_by=keys)
    return {tuple(group.values.values()): group.count for group in found.groups}


async def seen(path):
    """Return what can be seen of a store."""
    provider = SqliteProvider(path, clock=ManualClock(round(END.timestamp() * 1e6)))
    async with Client(provider) as client:
        page = await client.list_instances(limit=1_000)
        schedules = (await client.schedules.list()).items
        operations = (await client.list_operations(limit=1_000)).items
        return {
            "names": await counts(client, "name", "version", "status"),
            "held": await counts(client, "held"),
            "overdue": (await client.count_instances(overdue=True)).total,
            "laps": sorted((one.name, one.execution_id) for one in page.items),
            "pinned": [one.instance_id for one in page.items if one.pin],
            "waits": {wait.kind for one in page.items for wait in one.waiting_on},
            "streams": len(await client.list_streams("talk-00")),
            "unread": len(await client.list_messages("talk-01")),
            "verdicts": {one.id: one.verdict for one in schedules},
            "outcomes": {slot.outcome for one in schedules for slot in one.last_slots},
            "operations": sorted((one.action, one.by) for one in operations if "@" in one.by),
        }


async def test_the_demo_store_has_everything_and_is_the_same_each_time(tmp_path):
    first, second = tmp_path / "a.db", tmp_path / "b.db"
    for path in (first, second):
        await build(path, instances=10, days=14, end=END)
    found = await seen(first)
    assert await seen(second) == found
    statuses = {status for _, _, status in found["names"]}
    assert statuses == {
        "pending", "running", "held", "completed", "failed", "cancelled", "terminated",
    }  # fmt: skip
    assert {kind for (kind,) in found["held"] if kind} >= {
        "activity_missing", "crashing", "error", "limit", "migration", "nondeterminism", "operator",
        "state", "version_missing",
    }  # fmt: skip
    assert found["overdue"] > 0
    assert found["pinned"]
    assert found["waits"] >= {"activity", "event", "request", "timer"}
    assert found["streams"] == 1
    assert found["unread"] == 2
    assert {"healthy", "skipping", "paused", "never_ran"} <= set(found["verdicts"].values())
    assert {"fired", "skipped_overlap"} <= found["outcomes"]
    assert {"hold", "pin", "rewind", "release"} <= {action for action, _ in found["operations"]}
    check_store(SqliteProvider(first), quiescent=False).raise_if_violated()


async def test_a_demo_store_replaces_no_file(tmp_path):
    path = tmp_path / "app.db"
    path.touch()
    with pytest.raises(FileExistsError):
        await build(path)
    with pytest.raises(ValueError, match="14"):
        await build(tmp_path / "b.db", days=2)

"""Exported histories are replayed against code, and a copy of a store is rehearsed with it."""

import json
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.clock import new_id
from orchestra.errors import HistoryCorrupt, InvalidArgument, NewerLibraryNeeded, StoreError
from orchestra.providers.postgres import PostgresProvider
from orchestra.testing import ReplayDiffers, TestRuntime, rehearse, replay_history
from tests.testing.programs import (
    LOOPS,
    charge,
    grows,
    grows_and_breaks,
    grows_otherwise,
    ship,
)

pytestmark = pytest.mark.anyio

START = datetime(2026, 3, 1, tzinfo=UTC)


def of(*versions):
    builder = OrchestrationRegistry.builder()
    for version, function in versions:
        builder.register("grows", function, version=version)
    return builder.build()


async def exported():
    async with TestRuntime(LOOPS, [charge, ship]) as env:
        env.fake(charge, lambda order, amount: amount)
        await env.client.start("grows", 1, instance_id="g")
        await env.advance(timedelta(days=2))
        return await env.client.export_history("g")


async def test_a_history_replays_on_the_code_that_has_written_it():
    replayed = replay_history(LOOPS, await exported())
    assert (replayed.executions, replayed.drifts) == (3, ())


async def test_other_code_differs_at_an_event():
    with pytest.raises(
        ReplayDiffers, match=r"lap 1 of 'g' does not replay on grows 1\.0\.0"
    ) as caught:
        replay_history(of(("1.0.0", grows_otherwise)), await exported())
    error = caught.value
    assert (error.instance_id, error.execution_id, error.version) == ("g", 1, "1.0.0")
    assert error.event_id is not None


async def test_a_version_that_is_not_registered_is_named():
    with pytest.raises(ReplayDiffers, match=r"grows 1\.0\.0, which the registry does not have"):
        replay_history(of(("2.0.0", grows)), await exported())


async def test_one_lap_may_be_exported_and_files_and_text_are_read(tmp_path):
    async with TestRuntime(LOOPS, [charge, ship]) as env:
        env.fake(charge, lambda order, amount: amount)
        await env.client.start("grows", 1, instance_id="g")
        await env.advance(timedelta(days=2))
        data = await env.client.export_history("g", execution_id=2)
    file = tmp_path / "history.json"
    file.write_text(data)
    for form in (data, data.encode(), file):
        assert replay_history(LOOPS, form).executions == 1
    assert [each["execution"] for each in json.loads(data)["executions"]] == [2]


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b'{"orchestra_history": 99}', "no json"])
async def test_what_is_no_export_is_refused(data):
    with pytest.raises(HistoryCorrupt):
        replay_history(LOOPS, data)


async def test_an_event_of_a_newer_library_says_nothing_of_the_code():
    export = json.loads(await exported())
    export["executions"][0]["events"][1]["kind"] = 10_000
    with pytest.raises(NewerLibraryNeeded, match="event 2 has an unknown event"):
        replay_history(LOOPS, json.dumps(export))


@pytest.mark.parametrize("field", ["id", "at", "format", "envelope", "payload"])
async def test_a_damaged_event_says_nothing_of_the_code(field):
    export = json.loads(await exported())
    export["executions"][0]["events"][0][field] = [3]
    with pytest.raises(HistoryCorrupt):
        replay_history(LOOPS, json.dumps(export))
    del export["executions"][0]["events"][0]
    with pytest.raises(HistoryCorrupt):
        replay_history(LOOPS, json.dumps(export))


async def test_an_export_without_events_is_no_replay_that_has_gone_well():
    export = json.loads(await exported()) | {"executions": []}
    with pytest.raises(HistoryCorrupt, match="holds no events"):
        replay_history(LOOPS, json.dumps(export))


# --- rehearsals -------------------------------------------------------------------------------


async def a_store(path, count=3, make_provider=SqliteProvider):
    """Make a store of production, with loops in their first laps."""

    async def charge_really(order: str, amount: int) -> int:
        return amount

    from orchestra import activity

    really = activity(name="charge")(charge_really)
    async with Runtime(make_provider(path), LOOPS, [really]) as runtime:
        for number in range(count):
            await runtime.client.start("grows", number, instance_id=f"g-{number}")
        handle = await runtime.client.start("grows", 7, instance_id="last")
        while (
            not (await handle.info()).waiting_on
            or (await handle.info()).waiting_on[0].kind != "timer"
        ):
            pass


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def test_a_deploy_is_rehearsed_for_a_month_on_a_copy_and_the_store_stays_as_it_is(tmp_path):
    path = tmp_path / "production.db"
    await a_store(path)
    before = path.read_bytes()
    rehearsal = await rehearse(path, of(("1.0.0", grows), ("2.0.0", grows)), start=START)
    assert rehearsal.ok, str(rehearsal)
    assert [(move.before, move.after, move.instances) for move in rehearsal.moves] == [
        ("1.0.0", "2.0.0", 4)
    ]
    assert path.read_bytes() == before
    assert "4 moved from 1.0.0 to 2.0.0" in str(rehearsal)


async def test_code_that_breaks_is_found_with_the_instances_that_it_would_hold(tmp_path):
    path = tmp_path / "production.db"
    await a_store(path, count=1)
    rehearsal = await rehearse(path, of(("1.0.0", grows), ("2.0.0", grows_and_breaks)))
    assert not rehearsal.ok
    assert sorted(finding.instance_id for finding in rehearsal.held) == ["g-0", "last"]
    assert "no lap after" in rehearsal.held[0].reason
    assert rehearsal.held[0].version == "2.0.0"


async def test_a_version_that_the_new_registry_lacks_holds_what_runs_on_it(tmp_path):
    path = tmp_path / "production.db"
    await a_store(path, count=1)
    rehearsal = await rehearse(path, of(("2.0.0", grows)))
    assert {finding.instance_id for finding in rehearsal.held} == {"g-0", "last"}


async def test_an_activity_that_nothing_stands_in_for_is_counted(tmp_path):
    path = tmp_path / "production.db"
    await a_store(path, count=1)
    rehearsal = await rehearse(path, of(("1.0.0", grows), ("2.0.0", grows_otherwise)))
    assert rehearsal.waiting == {"ship": 2}
    faked = await rehearse(
        path, of(("1.0.0", grows), ("2.0.0", grows_otherwise)), fakes={ship: lambda order: "sent"}
    )
    assert faked.ok
    assert faked.waiting == {}


async def test_a_rehearsal_needs_a_store(tmp_path):
    with pytest.raises(StoreError):
        await rehearse(tmp_path / "nothing.db", LOOPS)


async def test_a_copy_on_postgres_is_rehearsed_by_its_provider(dsn):
    schema = f"test_{new_id()}"
    await a_store(schema, count=1, make_provider=partial(PostgresProvider, dsn))
    rehearsal = await rehearse(
        lambda clock: PostgresProvider(dsn, schema, clock=clock),
        of(("1.0.0", grows), ("2.0.0", grows)),
    )
    assert rehearsal.ok, str(rehearsal)
    assert [(move.after, move.instances) for move in rehearsal.moves] == [("2.0.0", 2)]


async def test_a_provider_that_goes_by_another_clock_is_no_rehearsal_that_has_gone_well(tmp_path):
    path = tmp_path / "production.db"
    await a_store(path, count=1)
    with pytest.raises(InvalidArgument, match="hand it on: lambda clock"):
        await rehearse(lambda _: SqliteProvider(path), of(("1.0.0", grows), ("2.0.0", grows)))

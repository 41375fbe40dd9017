"""This library goes on with what each release before it has written."""

import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from orchestra import Client, OrchestrationRegistry, Runtime, SqliteProvider
from orchestra.testing import check_store, replay_history
from tests.support import recorded
from tests.support.kit import bounded
from tests.support.recorded.programs import ACTIVITIES, PROGRAMS

pytestmark = pytest.mark.anyio

RELEASES = sorted(Path(recorded.__file__).parent.glob("*.sql"))
OPEN = {"everything-open", "careful-open", "laps-open"}


@pytest.fixture(params=RELEASES, ids=lambda dump: dump.stem)
def written(request, path):
    """A store that a release wrote."""
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(request.param.read_text(encoding="utf-8"))
    return path


def programs():
    builder = OrchestrationRegistry.builder()
    for name, function in PROGRAMS.items():
        builder.register(name, function)
    return builder.build()


def test_there_is_a_store_of_each_release_before_this_one():
    assert [dump.stem for dump in RELEASES] == ["0.1"]


def test_its_histories_are_sound_and_replay_on_the_code_that_wrote_them(written):
    report = check_store(SqliteProvider(written), programs())
    report.raise_if_violated()
    assert report.instances == 10
    assert report.replayed == report.histories == report.executions == 17
    assert (report.drift, report.unknown) == ((), ())


@pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="recorded on Python 3.11, which compiles otherwise"
)
async def test_the_same_code_has_the_same_fingerprint_as_in_that_release(written):
    """Else an upgrade of the library would look like changed code everywhere."""
    async with Runtime(SqliteProvider(written), programs(), ACTIVITIES, strict=True) as runtime:
        report = await runtime.client.version_report()
        assert {version.name: version.live for version in report} == {
            "everything": 1,
            "careful": 1,
            "laps": 1,
            "child": 0,
        }
        assert not any(version.fingerprint_changed for version in report)


async def test_its_histories_can_be_exported_and_replayed(written):
    async with Client(SqliteProvider(written)) as client:
        for info in (await client.list_instances()).items:
            exported = await client.export_history(info.instance_id)
            assert replay_history(programs(), exported).drifts == ()
            assert {
                event["format"]
                for execution in json.loads(exported)["executions"]
                for event in execution["events"]
            } == {1}


@bounded
async def test_its_open_instances_go_on_and_what_has_ended_stays_as_it_was(written):
    async with Client(SqliteProvider(written)) as client:
        ended = {
            info.instance_id: info
            for info in (await client.list_instances()).items
            if info.instance_id not in OPEN
        }
        assert len(ended) == 7
        assert sum(version.live for version in await client.version_report()) == 3
    async with Runtime(SqliteProvider(written), programs(), ACTIVITIES) as runtime:
        client = runtime.client
        await client.raise_event("everything-open", "tell", "red")
        await client.raise_event("laps-open", "go", 1)
        await client.raise_event("laps-open", "go", 2)
        await client.cancel("careful-open", "enough")
        ends = {key: await client.wait_for_completion(key) for key in OPEN}
        assert {key: info.status.value for key, info in ends.items()} == {
            "everything-open": "completed",
            "careful-open": "cancelled",
            "laps-open": "completed",
        }
        output = ends["everything-open"].output
        assert (output["first"], output["numbers"], output["told"]) == (7, [0, 1, 2, 3], "red")
        assert output["child"] == "red 15"
        for before in ended.values():
            after = await client.get_instance_info(before.instance_id)
            assert (after.status, after.output, after.error) == (
                before.status,
                before.output,
                before.error,
            )
        assert sum(version.live for version in await client.version_report()) == 0
    check_store(SqliteProvider(written), programs()).raise_if_violated()

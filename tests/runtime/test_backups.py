"""A backup that is taken while running opens and goes on, and the original does not notice."""

import contextlib
import shutil
import sqlite3
import subprocess
from datetime import timedelta

import anyio
import anyio.to_thread
import pytest

from orchestra import Runtime, SqliteProvider, activity
from orchestra.clock import SystemClock
from orchestra.errors import InvalidArgument, StoreCorrupt, StoreError, StoreUnavailable
from orchestra.providers.sqlite import back_up
from orchestra.testing import check_store
from tests.support.kit import bounded, info_when, registry

pytestmark = pytest.mark.anyio

LEASE = timedelta(milliseconds=300)


@activity
async def work(number: int) -> int:
    await anyio.sleep(0.001)
    return number + 1


async def loop(ctx, lap: int) -> int:
    """Laps until it is told to stop; counts them."""
    stop = ctx.wait_for_event("stop")
    if (await ctx.race(stop, ctx.schedule_activity(work, lap))).index == 0:
        return lap
    ctx.continue_as_new(lap + 1)


async def parked(ctx, _: None) -> str:
    return await ctx.wait_for_event("stop", str)


KNOWN = registry(loop, parked)
LOOPS = [f"loop-{number}" for number in range(8)]


def node_of(path, lease=timedelta(minutes=1)):
    return Runtime(SqliteProvider(path), KNOWN, [work], lease=lease)


async def begin(node):
    for name in LOOPS:
        await node.client.start("loop", 0, instance_id=name, labels={"group": "loops"})
    await node.client.start("parked", instance_id="parked")
    for name in LOOPS:
        await info_when(node.client.handle(name), lambda info: info.execution_id > 3)


async def goes_on(node):
    """See every loop pass a boundary; return where they are then."""
    reached = {}
    for name in LOOPS:
        handle = node.client.handle(name)
        now = await handle.info()
        reached[name] = (
            await info_when(handle, lambda info, now=now: info.execution_id > now.execution_id)
        ).execution_id
    return reached


async def end(node):
    for name in LOOPS:
        await node.client.raise_event(name, "stop")
        assert await node.client.handle(name).result(int) >= 3
    await node.client.raise_event("parked", "stop", "told")
    assert await node.client.handle("parked").result(str) == "told"


def in_file(path, statement):
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(statement).fetchall()


def with_the_backup_interface(source, target):
    reader, copy = sqlite3.connect(f"file:{source}?mode=ro", uri=True), sqlite3.connect(target)
    reader.backup(copy)
    reader.close()
    copy.close()


def with_vacuum_into(source, target):
    reader = sqlite3.connect(f"file:{source}?mode=ro", uri=True)
    reader.execute("VACUUM INTO ?", (str(target),))
    reader.close()


@bounded
async def test_a_backup_of_a_running_store_goes_on_at_once_while_the_original_runs(path, tmp_path):
    copy = tmp_path / "copies" / "copy.db"
    copy.parent.mkdir()
    async with node_of(path) as node:
        await begin(node)
        backup = await anyio.to_thread.run_sync(back_up, path, copy, SystemClock())
        assert (backup.instances, backup.open, backup.size) == (9, 9, copy.stat().st_size)
        assert [entry.name for entry in copy.parent.iterdir()] == ["copy.db"], (
            "one file, whoever carries it away"
        )
        before = {name: (await node.client.get_instance_info(name)).execution_id for name in LOOPS}
        # A lease is a minute here: had the copy's nodes to be waited for, this would not end in
        # time.
        async with node_of(copy) as other:
            reached = await goes_on(other)
            assert all(number > 3 for number in reached.values())
            assert await other.client.get_history("loop-0")
            assert [
                info.labels for info in (await other.client.list_instances(name="loop")).items
            ] == [{"group": "loops"}] * 8
            await end(other)
        after = await goes_on(node)
        assert all(after[name] > before[name] for name in LOOPS)
        await end(node)
    for file in (path, copy):
        report = check_store(SqliteProvider(file), KNOWN)
        assert report.violations == ()
        assert report.instances == 9


@bounded
async def test_a_backup_is_a_store_of_its_own(path, tmp_path):
    copy = tmp_path / "copy.db"
    async with node_of(path) as node:
        await begin(node)
        (original,) = in_file(path, "SELECT value FROM meta WHERE key = 'store_id'")
        back_up(path, copy, SystemClock())
        meta = dict(in_file(copy, "SELECT key, value FROM meta"))
        assert meta["store_id"] != original[0]
        assert meta["copied_from"] == original[0]
        assert in_file(copy, "SELECT count(*) FROM node UNION SELECT count(*) FROM capability") == [
            (0,)
        ]
        assert in_file(copy, "SELECT count(*) FROM instance WHERE owner IS NOT NULL") == [(0,)]
        assert in_file(path, "SELECT value FROM meta WHERE key = 'store_id'") == [original], (
            "the original is as it was"
        )
        assert in_file(path, "SELECT count(*) FROM node WHERE dead = 0") == [(1,)]
        await end(node)


@pytest.mark.slow
@bounded
@pytest.mark.parametrize("copying", [with_the_backup_interface, with_vacuum_into])
async def test_a_copy_by_sqlites_own_means_goes_on_within_a_lease_and_harms_nobody(
    path, tmp_path, copying
):
    """It still names the original's nodes as living, and as owners; beside it, in the same
    directory, lie their locks.
    """
    copy = tmp_path / "copy.db"
    async with node_of(path, LEASE) as node:
        await begin(node)
        await anyio.to_thread.run_sync(copying, path, copy)
        assert in_file(copy, "SELECT count(*) FROM node WHERE dead = 0") == [(1,)]
        async with node_of(copy, LEASE) as other:
            await goes_on(other)
            await end(other)
        await goes_on(node)
        assert in_file(path, "SELECT node_id, dead FROM node") == [(node.node_id, 0)]
        await end(node)
    assert check_store(SqliteProvider(copy), KNOWN).violations == ()


@bounded
async def test_a_plain_copy_of_a_store_that_nobody_has_open_goes_on(path, tmp_path):
    async with node_of(path) as node:
        await begin(node)
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    async with node_of(copy) as other:
        await goes_on(other)
        await end(other)


@bounded
async def test_a_plain_copy_of_a_running_store_lacks_what_is_in_its_log_and_is_no_backup(
    path, tmp_path
):
    """Why the guide's ``operating.md`` says so: what was acknowledged is missing, or the file is no store
    yet.
    """
    copy = tmp_path / "copy.db"
    async with node_of(path) as node:
        await info_when(await node.client.start("parked"), lambda info: info.waiting_on)
        # By another process: a file that this one opened and closed would lose the locks that
        # SQLite has on it (rule 26).
        subprocess.run(["cp", path, copy], check=True)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            in_file(copy, "SELECT count(*) FROM instance")


@bounded
async def test_a_backup_of_a_store_at_rest_leaves_nothing_beside_it(path, tmp_path):
    async with node_of(path) as node:
        await begin(node)
    before = sorted(entry.name for entry in tmp_path.iterdir())
    copy = tmp_path / "copy.db"
    assert back_up(path, copy, SystemClock()).instances == 9
    assert sorted(entry.name for entry in tmp_path.iterdir()) == sorted([*before, "copy.db"])
    async with node_of(copy) as other:
        await goes_on(other)


@bounded
async def test_a_backup_overwrites_nothing_and_a_failed_one_leaves_nothing(path, tmp_path):
    async with node_of(path) as node:
        await begin(node)
    target = tmp_path / "copies" / "copy.db"
    with pytest.raises(InvalidArgument, match="does not exist"):
        back_up(path, target, SystemClock())
    target.parent.mkdir()
    for occupied in (target, target.with_name("copy.db-wal")):
        occupied.write_bytes(b"precious")
        with pytest.raises(InvalidArgument, match="overwrites nothing"):
            back_up(path, target, SystemClock())
        assert occupied.read_bytes() == b"precious"
        occupied.unlink()
    with pytest.raises(StoreUnavailable):
        back_up(tmp_path / "nowhere.db", target, SystemClock())
    foreign = tmp_path / "foreign.db"
    connection = sqlite3.connect(foreign)
    connection.execute("CREATE TABLE guest (name TEXT)")
    connection.close()
    with pytest.raises(StoreCorrupt):
        back_up(foreign, target, SystemClock())
    damaged = tmp_path / "damaged.db"
    shutil.copy(path, damaged)
    (root,) = in_file(damaged, "SELECT rootpage FROM sqlite_schema WHERE name = 'execution'")[0]
    (page,) = in_file(damaged, "PRAGMA page_size")[0]
    with damaged.open("r+b") as file:
        file.seek((root - 1) * page)
        file.write(b"\xff" * page)
    with pytest.raises(StoreError):
        back_up(damaged, target, SystemClock())
    assert list(target.parent.iterdir()) == []

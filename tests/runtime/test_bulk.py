"""One act on many instances: dry first, idempotent, recorded."""

import subprocess
import sys

import anyio
import anyio.to_thread
import pytest

from orchestra import (
    Bulk,
    Client,
    Failure,
    HoldKind,
    InstanceStatus,
    InvalidArgument,
    InvalidVersion,
    Runtime,
    Selection,
    SqliteProvider,
    StoreUnavailable,
    WaitingFor,
)
from orchestra.client import bulk as bulk_module
from tests.support.kit import bounded, info_when, registry, until

pytestmark = pytest.mark.anyio

TEXT = "naïve ☃ 'quoted\" \\ %_ \U0001f600 </script> ; DROP TABLE instance; --"


async def loops(ctx, laps: int) -> int:
    if laps < 0:
        raise KeyError(laps)
    if laps == 99:
        raise Failure("declared")
    await ctx.wait_for_event("next")
    ctx.continue_as_new(laps + 1)


REGISTRY = registry(loops)
NEWER = registry(("loops", "1.0.0", loops), ("loops", "2.0.0", loops))
WAITING = Selection(name="loops", status=InstanceStatus.RUNNING)


async def start(client, count, first=0, prefix="i"):
    for number in range(count):
        await client.start("loops", first, instance_id=f"{prefix}{number:03}")

    async def all_wait():
        found = await client.list_instances(
            Selection(id_prefix=prefix, waiting_on=WaitingFor("event", "next")), limit=1000
        )
        return len(found.items) == count

    await until(all_wait)


async def acts(client, action):
    """Return how often an act was done to each instance."""
    found, page = {}, None
    while True:
        listed = await client.list_operations(action=action, page=page)
        for one in listed.items:
            found[one.subject] = found.get(one.subject, 0) + 1
        page = listed.next_page
        if page is None:
            return found


def numbers(report):
    return report.matched, report.changed, report.skipped, report.failed


@bounded
async def test_a_bulk_act_is_dry_unless_it_is_told_otherwise(store):
    async with Runtime(store(), REGISTRY) as runtime:
        client = runtime.client
        await start(client, 3)
        report = await client.bulk(Bulk.TERMINATE, WAITING)
        assert (report.dry_run, numbers(report)) == (True, (3, 0, 0, 0))
        assert report.sample == ("i000", "i001", "i002")
        assert (await client.count_instances(WAITING)).total == 3
        assert await acts(client, "terminate") == {}


@bounded
async def test_each_act_is_done_once_recorded_and_skipped_when_it_is_run_again(store):
    async with Runtime(store(), REGISTRY) as runtime:
        client = runtime.client
        await start(client, 4)
        every = Selection(name="loops")

        async def run(act, selection=every, **options):
            done = [
                await client.bulk(act, selection, dry_run=False, reason=TEXT, by="ann", **options)
                for _ in range(2)
            ]
            assert [numbers(report) for report in done] == [(4, 4, 0, 0), (4, 0, 4, 0)], act
            assert done[0].failures == done[1].failures == ()
            if act is not Bulk.RERUN:
                assert await acts(client, str(act)) == dict.fromkeys(done[0].sample, 1), act
            (entry,) = (await client.list_operations(action=str(act), limit=1)).items
            assert (entry.by, entry.details["reason"]) == ("ann", TEXT)

        await run(Bulk.PIN, version="1.0.0")
        assert (await client.count_instances(pinned=True)).total == 4
        await run(Bulk.UNPIN)
        assert (await client.count_instances(pinned=True)).total == 0
        await run(Bulk.HOLD)
        assert (await client.count_instances(held=HoldKind.OPERATOR)).total == 4
        assert (await client.count_instances(held=True)).total == 4
        await run(Bulk.RELEASE)
        assert (await client.count_instances(held=True)).total == 0
        await run(Bulk.NUDGE)
        await run(Bulk.REWIND, request_id="job 1")
        assert (await client.get_instance_info("i000")).execution_id == 2
        await run(Bulk.CANCEL)
        for number in range(4):
            info = await client.wait_for_completion(f"i{number:03}")
            assert info.status is InstanceStatus.CANCELLED
        olds = Selection(status=InstanceStatus.CANCELLED)
        await run(Bulk.RERUN, olds, request_id="job 2")
        assert (await client.count_instances(every)).total == 8
        report = await client.bulk(Bulk.RERUN, olds, dry_run=False, request_id="job 3")
        assert numbers(report) == (4, 4, 0, 0), "another job"
        assert len(await acts(client, "rerun")) == 4
        report = await client.bulk(Bulk.DELETE, olds, dry_run=False, reason="gone")
        assert numbers(report) == (4, 4, 0, 0)
        assert (await client.count_instances(olds)).total == 0
        assert len(await acts(client, "delete")) == 4
        report = await client.bulk(Bulk.TERMINATE, every, dry_run=False, reason="enough")
        assert numbers(report) == (8, 8, 0, 0)
        report = await client.bulk(Bulk.TERMINATE, every, dry_run=False, reason="enough")
        assert numbers(report) == (8, 0, 8, 0)
        assert len(await acts(client, "terminate")) == 8


@bounded
async def test_a_rewind_takes_back_what_has_moved_to_a_version(store):
    async with Runtime(store(), REGISTRY) as runtime:
        await start(runtime.client, 3)
    async with Runtime(store(), NEWER) as runtime:
        client = runtime.client
        for number in range(2):
            for lap in range(2):
                await client.raise_event(f"i{number:03}", "next")
                handle = client.handle(f"i{number:03}")
                await info_when(
                    handle,
                    lambda info, lap=lap: info.execution_id == lap + 2 and info.waiting_on,
                )
        moved = Selection(name="loops", version="2.0.0")
        assert (await client.count_instances(moved)).total == 2
        back = {"dry_run": False, "version": "1.0.0", "reason": "2.0.0 is bad"}
        assert numbers(await client.bulk(Bulk.REWIND, moved, **back)) == (2, 2, 0, 0)
        info = await info_when(
            client.handle("i000"), lambda info: info.input == 2 and info.waiting_on
        )
        # It went back to the state of lap 2, and the event that it had read there moved it again.
        assert (info.version, info.execution_id, info.pinned_version) == ("1.0.0", 5, "1.0.0")
        every = Selection(name="loops")
        assert numbers(await client.bulk(Bulk.REWIND, every, **back)) == (3, 0, 3, 0)
        report = await client.bulk(
            Bulk.REWIND, every, dry_run=False, version="3.0.0", request_id="x"
        )
        assert numbers(report) == (3, 0, 0, 3)
        assert isinstance(report.failures[0].error, InvalidArgument)
        assert "ran version 3.0.0" in str(report.failures[0].error)


@bounded
async def test_a_job_that_was_cut_off_is_run_again_and_does_nothing_twice(store, monkeypatch):
    monkeypatch.setattr(bulk_module, "_PAGE", 5)
    monkeypatch.setattr(bulk_module, "_AT_ONCE", 2)
    async with Runtime(store(), REGISTRY) as runtime:
        client = runtime.client
        await start(client, 17)
        for act, options in (
            (Bulk.PIN, {"version": "1.0.0"}),
            (Bulk.HOLD, {}),
            (Bulk.REWIND, {"request_id": "job"}),
            (Bulk.RERUN, {"request_id": "job"}),
        ):
            seen = []
            selection = Selection(id_prefix="i")

            class Cut(Exception): ...

            def cut(report, seen=seen):
                seen.append(report)
                if len(seen) == 2:
                    raise Cut

            with pytest.raises(Cut):
                await client.bulk(act, selection, dry_run=False, progress=cut, **options)
            with anyio.move_on_after(0.01):
                await client.bulk(act, selection, dry_run=False, **options)
            report = await client.bulk(act, selection, dry_run=False, **options)
            assert (report.matched, report.changed + report.skipped) == (17, 17)
            assert report.skipped >= 10
            assert seen[-1].matched == 10
            done = await acts(client, str(act))
            assert done == {f"i{number:03}": 1 for number in range(17)}, act


JOB = """
import sys
import anyio
from orchestra import Bulk, Client, Selection, SqliteProvider

async def main():
    async with Client(SqliteProvider(sys.argv[1])) as client:
        await client.bulk(
            Bulk.HOLD, Selection(), dry_run=False, by="ann",
            progress=lambda report: print(report.matched, flush=True),
        )

anyio.run(main)
"""


@pytest.mark.slow
async def test_a_job_that_is_killed_is_run_again_and_does_nothing_twice(tmp_path):
    path = tmp_path / "store.db"
    async with Runtime(SqliteProvider(path), REGISTRY) as runtime:
        for number in range(250):
            await runtime.client.start("loops", 0, instance_id=f"i{number:03}")
        job = subprocess.Popen([sys.executable, "-c", JOB, path], stdout=subprocess.PIPE)
        assert job.stdout is not None
        assert await anyio.to_thread.run_sync(job.stdout.readline) == b"100\n"
        job.kill()
        await anyio.to_thread.run_sync(job.communicate)
        report = await runtime.client.bulk(Bulk.HOLD, Selection(), dry_run=False, by="ann")
        assert (report.matched, report.changed + report.skipped) == (250, 250)
        assert report.skipped >= 100
        done = await acts(runtime.client, "hold")
        assert done == {f"i{number:03}": 1 for number in range(250)}
        assert (await runtime.client.count_instances(held=HoldKind.OPERATOR)).total == 250


@bounded
async def test_two_jobs_at_once_share_the_work_and_do_nothing_twice(store):
    async with Runtime(store(), REGISTRY) as runtime, Client(store()) as other:
        client = runtime.client
        await start(client, 30)
        for act, options in (
            (Bulk.PIN, {"version": "1.0.0"}),
            (Bulk.UNPIN, {}),
            (Bulk.HOLD, {}),
            (Bulk.RELEASE, {}),
            (Bulk.CANCEL, {}),
        ):
            reports = []

            async def run(one, act=act, options=options, reports=reports):
                reports.append(
                    await one.bulk(act, Selection(id_prefix="i"), dry_run=False, **options)
                )

            async with anyio.create_task_group() as group:
                group.start_soon(run, client)
                group.start_soon(run, other)
            assert sum(report.changed for report in reports) == 30, act
            assert sum(report.failed for report in reports) == 0
            assert set((await acts(client, str(act))).values()) == {1}, act


@bounded
async def test_another_instance_under_the_id_is_left_alone(store, monkeypatch):
    async with Runtime(store(), REGISTRY) as runtime:
        client = runtime.client
        await start(client, 1)
        page = client._bulks._page

        async def late(make, after):
            found = await page(make, after)
            await client.terminate("i000")
            await client.delete("i000")
            await start(client, 1)
            return found

        for act in (Bulk.TERMINATE, Bulk.CANCEL, Bulk.HOLD, Bulk.PIN, Bulk.NUDGE):
            monkeypatch.setattr(client._bulks, "_page", late)
            version = "9.0.0" if act is Bulk.PIN else None
            report = await client.bulk(act, WAITING, dry_run=False, version=version)
            assert numbers(report) == (1, 0, 1, 0), act
            info = await client.get_instance_info("i000")
            assert info.status is InstanceStatus.RUNNING
            assert (info.pinned_version, info.cancel_requested) == (None, False)


@bounded
async def test_what_fails_is_reported_and_the_rest_is_done(store):
    async with Runtime(store(), REGISTRY) as runtime:
        client = runtime.client
        await start(client, 2)
        ended = await client.start("loops", 99, instance_id="ended")
        await client.wait_for_completion(ended.instance_id)
        report = await client.bulk(Bulk.DELETE, Selection(name="loops"), dry_run=False)
        assert numbers(report) == (3, 1, 0, 2)
        assert {one.instance_id for one in report.failures} == {"i000", "i001"}
        assert "terminate it first" in str(report.failures[0].error)


@bounded
async def test_a_store_that_goes_away_cuts_the_job_off(tmp_path, monkeypatch):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), REGISTRY) as runtime:
        client = runtime.client
        await start(client, 3)

        def gone(*_arguments, **_options):
            raise StoreUnavailable("gone")

        with monkeypatch.context() as patch:
            patch.setattr(client._provider.admin, "set_pin", gone)
            with pytest.raises(StoreUnavailable):
                await client.bulk(Bulk.PIN, WAITING, dry_run=False, version="1.0.0")
        report = await client.bulk(Bulk.PIN, WAITING, dry_run=False, version="1.0.0")
        assert numbers(report) == (3, 3, 0, 0)


BAD = [
    (("explode", Selection()), {}, InvalidArgument),
    ((Bulk.CANCEL, "watch"), {}, InvalidArgument),
    ((Bulk.CANCEL, Selection(held="x")), {}, InvalidArgument),
    ((Bulk.PIN, Selection()), {}, InvalidArgument),
    ((Bulk.PIN, Selection()), {"version": "one"}, InvalidVersion),
    ((Bulk.CANCEL, Selection()), {"version": "1.0.0"}, InvalidArgument),
    ((Bulk.RERUN, Selection()), {"dry_run": False}, InvalidArgument),
    ((Bulk.REWIND, Selection()), {"dry_run": False}, InvalidArgument),
    ((Bulk.CANCEL, Selection()), {"dry_run": None}, InvalidArgument),
    ((Bulk.CANCEL, Selection()), {"reason": "a\0"}, InvalidArgument),
    ((Bulk.CANCEL, Selection()), {"by": 5}, InvalidArgument),
    ((Bulk.CANCEL, Selection()), {"request_id": ""}, InvalidArgument),
]


@pytest.mark.parametrize(("arguments", "options", "error"), BAD)
@bounded
async def test_a_job_that_makes_no_sense_is_refused(tmp_path, arguments, options, error):
    async with Runtime(SqliteProvider(tmp_path / "store.db"), REGISTRY) as runtime:
        with pytest.raises(error):
            await runtime.client.bulk(*arguments, **options)

"""Deleting what has ended, by filter."""

from datetime import UTC, datetime, timedelta

import pytest

from orchestra import (
    Failure,
    InstanceNotFound,
    InstanceStatus,
    InvalidArgument,
    OrchestrationRegistry,
    Runtime,
    SqliteProvider,
)

pytestmark = pytest.mark.anyio


async def ends(ctx, how: str) -> str:
    if how == "waits":
        await ctx.wait_for_event("never")
    if how == "fails":
        raise Failure(how)
    return how


REGISTRY = OrchestrationRegistry.builder().register("ends", ends).register("other", ends).build()


@pytest.mark.slow
async def test_a_purge_deletes_what_ended_before_and_fits_and_nothing_else(path):
    async with Runtime(SqliteProvider(path), REGISTRY) as runtime:
        client = runtime.client
        for handle in [
            await client.start("ends", "ends", instance_id=f"ended-{number}")
            for number in range(120)
        ]:
            await handle.result()
        await client.start("ends", "fails", instance_id="failed")
        await client.wait_for_completion("failed")
        await client.start("other", "ends", instance_id="other")
        await client.wait_for_completion("other")
        await client.start("ends", "waits", instance_id="open")
        moment = datetime.now(UTC) + timedelta(seconds=1)
        conditions = {
            "completed_before": moment,
            "name": "ends",
            "status": InstanceStatus.COMPLETED,
        }

        assert (await client.purge(completed_before=moment - timedelta(hours=1))).count == 0
        dry = await client.purge(**conditions)
        assert (dry.dry_run, dry.count, len(dry.instance_ids)) == (True, 120, 100)
        assert len((await client.list_instances(limit=200)).items) == 123, (
            "a dry run deletes nothing"
        )

        assert (await client.purge(**conditions, dry_run=False)).count == 120
        assert {info.instance_id for info in (await client.list_instances(limit=200)).items} == {
            "failed",
            "other",
            "open",
        }
        with pytest.raises(InstanceNotFound):
            await client.get_instance_info("ended-7")

        assert (await client.purge(completed_before=moment, dry_run=False)).count == 2
        assert [info.instance_id for info in (await client.list_instances()).items] == ["open"]


async def test_a_naive_moment_is_refused(path):
    async with Runtime(SqliteProvider(path), REGISTRY) as runtime:
        with pytest.raises(ValueError, match="time zone"):
            await runtime.client.purge(completed_before=datetime(2026, 1, 1))  # noqa: DTZ001


async def test_statuses_that_are_no_ends_purge_nothing(path):
    async with Runtime(SqliteProvider(path), REGISTRY) as runtime:
        await runtime.client.start("ends", "waits")
        await (await runtime.client.start("ends", "ends")).result()
        report = await runtime.client.purge(
            completed_before=datetime.now(UTC) + timedelta(days=1),
            status=InstanceStatus.RUNNING,
            dry_run=False,
        )
        assert report.count == 0
        assert len((await runtime.client.list_instances()).items) == 2


async def test_an_empty_choice_of_statuses_purges_nothing_and_a_wrong_one_is_refused(path):
    async with Runtime(SqliteProvider(path), REGISTRY) as runtime:
        await (await runtime.client.start("ends", "ends")).result()
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        assert (
            await runtime.client.purge(completed_before=tomorrow, status=[], dry_run=False)
        ).count == 0
        with pytest.raises(InvalidArgument, match="is no status"):
            await runtime.client.purge(completed_before=tomorrow, status="ended", dry_run=False)
        assert (
            await runtime.client.purge(completed_before=tomorrow, status="completed", dry_run=False)
        ).count == 1


async def test_a_purge_with_a_limit_deletes_so_many_and_the_next_one_goes_on(path):
    async with Runtime(SqliteProvider(path), REGISTRY) as runtime:
        client = runtime.client
        for number in range(60):
            await (await client.start("ends", "ends", instance_id=f"ended-{number:02}")).result()
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        dry = await client.purge(completed_before=tomorrow, limit=35)
        assert dry.count == 35
        done = await client.purge(completed_before=tomorrow, limit=35, dry_run=False)
        assert (done.count, done.instance_ids) == (35, dry.instance_ids)
        assert len((await client.list_instances()).items) == 25
        assert (await client.purge(completed_before=tomorrow, limit=35, dry_run=False)).count == 25
        with pytest.raises(InvalidArgument):
            await client.purge(completed_before=tomorrow, limit=0)


async def test_a_purge_counts_only_what_it_has_deleted_itself(path):
    provider = SqliteProvider(path)
    async with Runtime(provider, REGISTRY) as runtime:
        for number in range(3):
            await (
                await runtime.client.start("ends", "ends", instance_id=f"ended-{number}")
            ).result()
        standing = provider.admin.delete_all

        def after_somebody_else(instances, **said):
            provider.admin.delete(*instances[0], **said)
            return standing(instances, **said)

        provider.admin.delete_all = after_somebody_else
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        report = await runtime.client.purge(completed_before=tomorrow, dry_run=False)
        assert (report.count, set(report.instance_ids)) == (2, {"ended-0", "ended-1"})

"""The examples' orchestrations over days and laps, on virtual time. The other tests of this folder
start the programs themselves.
"""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime, timedelta
from functools import partial

import anyio.from_thread
import anyio.to_thread
import pytest

from orchestra import (
    InstanceCancelled,
    InstanceStatus,
    NonRetryable,
    activity,
)
from orchestra.testing import (
    NEVER,
    ScenarioFails,
    TestRuntime,
    after,
    check_determinism,
    crash_everywhere,
    replay_history,
)
from tests.support.example_modules import example

pytestmark = pytest.mark.anyio

family = example("family.py")
queues = example("queues.py")
disk = example("long_lived_script.py")
script = example("sync_script.py")
orders = example("wsgi_service.py")
upgrade = example("watch_upgrade/watches.py")

MARCH = datetime(2026, 3, 1, tzinfo=UTC)
SECOND, MINUTE, HOUR, DAY = (
    timedelta(seconds=1),
    timedelta(minutes=1),
    timedelta(hours=1),
    timedelta(days=1),
)


class Threaded:
    """What ``orchestra.sync.connect`` returns, for code in a thread beside a test runtime."""

    def __init__(self, env: TestRuntime) -> None:
        self.client = env.client

    def call(self, function, *args, **options):
        return anyio.from_thread.run(partial(function, *args, **options))


# --- family.py --------------------------------------------------------------------------------


async def a_round(env, shops=tuple(family.SHOPS)):
    handle = await env.client.start("round_of_quotes", list(shops), instance_id="round")
    return handle, await handle.result(family.Price | None)


async def test_a_round_of_quotes_takes_the_best_price_and_gives_up_the_slow_shop_after_a_second():
    async with TestRuntime(family.registry, [family.ask], start=MARCH) as env:
        handle, best = await a_round(env)
        assert best == family.Price("mall", 400)
        assert env.now == MARCH + SECOND
        assert {child.instance_id: child.status for child in (await handle.info()).children} == {
            "round/corner": InstanceStatus.COMPLETED,
            "round/mall": InstanceStatus.COMPLETED,
            "round/closed": InstanceStatus.FAILED,
            "round/asleep": InstanceStatus.CANCELLED,
        }
        laps = {
            shop: (await env.client.get_instance_info(f"round/{shop}")).execution_id
            for shop in family.SHOPS
        }
        assert laps == {"corner": 2, "mall": 3, "closed": 1, "asleep": 101}
        assert await env.client.handle("round/audit").result() == 2


async def test_a_round_without_an_answer_has_no_price_and_is_audited_all_the_same():
    async with TestRuntime(family.registry, [family.ask]) as env:
        env.fake(family.quote, [NonRetryable("there is nobody"), after(HOUR, family.Price("b", 1))])
        _, best = await a_round(env, ["a", "b"])
        assert best is None
        assert await env.client.handle("round/audit").result() == 0


async def test_a_cancelled_round_cancels_the_shops_that_are_still_asked():
    async with TestRuntime(family.registry, [family.ask]) as env:
        env.fake(family.ask, lambda shop, asked: None)
        handle = await env.client.start("round_of_quotes", ["a", "b"], instance_id="round")
        await env.advance(timedelta(milliseconds=100))
        await handle.cancel("closing time")
        with pytest.raises(InstanceCancelled):
            await handle.result()
        await env.run_until_idle()
        for shop in ("a", "b"):
            info = await env.client.get_instance_info(f"round/{shop}")
            assert (info.status, info.execution_id) == (InstanceStatus.CANCELLED, 11)


async def test_a_round_survives_a_crash_at_each_of_its_commits():
    async def scenario(env):
        _, best = await a_round(env, ["corner", "closed"])
        assert best == family.Price("corner", 600)
        assert await env.client.handle("round/audit").result() == 1

    report = await crash_everywhere(scenario, family.registry, [family.ask])
    assert report.commits >= 10


# --- queues.py --------------------------------------------------------------------------------


async def test_frames_are_rendered_at_once_and_one_that_hangs_is_rendered_once_more():
    async with TestRuntime(queues.registry, [queues.publish, queues.render], start=MARCH) as env:
        renders = env.fake(
            queues.render,
            [
                *(after(MINUTE, f"s-{frame}.png") for frame in range(5)),
                NEVER,
                after(MINUTE, "s-5.png"),
            ],
        )
        published = env.fake(queues.publish, len)
        handle = await env.client.start("film", "s")
        assert await handle.result() == 6
        assert [call.attempt for call in renders.calls] == [1] * 6 + [2]
        assert timedelta(minutes=11) <= env.now - MARCH < timedelta(minutes=12)
        assert published.calls[0].args == ([f"s-{frame}.png" for frame in range(6)],)


async def test_the_renderer_itself_sends_heartbeats_to_its_end():
    async with TestRuntime(queues.registry, [queues.publish, queues.render]) as env:
        assert await (await env.client.start("film", "sunrise")).result() == 6


# --- long_lived_script.py, on_trio.py -----------------------------------------------------------


async def test_a_disk_is_watched_each_second_of_a_minute_over_crashes():
    async with TestRuntime(disk.registry, [disk.free_percent], start=MARCH) as env:
        asked = env.fake(disk.free_percent, lambda directory: 42.5)
        handle = await env.client.start("watch_disk", disk.Disk("/data"), instance_id=disk.INSTANCE)
        for _ in range(3):
            await env.advance(20 * SECOND)
            await env.crash()
        info = await handle.info()
        assert (info.execution_id, info.input["checks"]) == (61, 60)
        assert info.custom_status == {"free_percent": 42.5, "checks": 61}
        assert {call.args for call in asked.calls} == {("/data",)}


async def test_a_full_disk_is_a_warning(caplog):
    async with TestRuntime(disk.registry, [disk.free_percent]) as env:
        env.fake(disk.free_percent, [50.0, 9.9, 10.0, NEVER])
        handle = await env.client.start("watch_disk", disk.Disk("."))
        with caplog.at_level("INFO", "orchestra"):
            await env.run_until(handle, execution=4)
    looked = [record.levelname for record in caplog.records if "looked" in record.getMessage()]
    assert looked == ["INFO", "WARNING", "INFO"]


async def test_the_script_may_start_again_with_the_same_instance():
    async with TestRuntime(disk.registry, [disk.free_percent]) as env:
        env.fake(disk.free_percent, lambda directory: 50.0)
        for _ in range(2):
            handle = await env.client.start(
                "watch_disk",
                disk.Disk("."),
                instance_id=disk.INSTANCE,
                if_running="return",
                if_ended="restart",
            )
            await env.advance(5 * SECOND)
        assert (await handle.info()).execution_id == 11


async def test_a_port_is_watched_and_its_state_is_shown():
    pytest.importorskip("trio")
    port = example("on_trio.py")
    async with TestRuntime(port.registry, [port.answers]) as env:
        env.fake(port.answers, [True, False, True])
        handle = await env.client.start("watch_port", port.Port("localhost", 22))
        await env.run_until_idle()
        shown = [(await handle.info()).custom_status["open"]]
        for _ in range(2):
            await env.advance(SECOND)
            shown.append((await handle.info()).custom_status["open"])
        assert shown == [True, False, True]


# --- wsgi_service.py, sync_script.py ------------------------------------------------------------


async def ask(env, method, path, body=None):
    """Ask the WSGI application in a thread, as its server does."""
    data = b"" if body is None else json.dumps(body).encode()
    statuses = []
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "CONTENT_LENGTH": str(len(data)),
        "wsgi.input": io.BytesIO(data),
    }
    answer = await anyio.to_thread.run_sync(
        lambda: orders.Application(Threaded(env))(
            environ, lambda status, headers: statuses.append(int(status.split()[0]))
        )
    )
    return statuses[0], json.loads(b"".join(answer))


async def test_an_order_waits_months_for_its_payment_over_crashes():
    async with TestRuntime(orders.REGISTRY, [orders.ship]) as env:
        assert await ask(env, "POST", "/orders/o-1", {"items": 2}) == (201, {"order": "o-1"})
        for _ in range(3):
            await env.advance(30 * DAY)
            await env.crash()
            _, answer = await ask(env, "GET", "/orders/o-1")
            assert (answer["status"], answer["note"]) == ("running", "waits for its payment")
        assert (await ask(env, "POST", "/orders/o-1/paid"))[0] == 202
        assert (await ask(env, "POST", "/orders/o-1/paid"))[0] == 202
        await env.run_until("o-1")
        _, answer = await ask(env, "GET", "/orders/o-1")
        assert (answer["status"], answer["output"]) == ("completed", "2 items are on their way")
        assert (await ask(env, "GET", "/orders/o-2"))[0] == 404
        assert (await ask(env, "POST", "/orders/o-2", {"item": 1}))[0] == 400


async def test_the_script_lists_what_is_open_and_sends_an_event(capsys):
    async with TestRuntime(orders.REGISTRY, [orders.ship]) as env:
        for name in ("o-1", "o-2"):
            await env.client.start("order", orders.Order(1), instance_id=name)
        await anyio.to_thread.run_sync(script.tell, Threaded(env), "o-1", "paid")
        await env.run_until("o-1")
        capsys.readouterr()
        await anyio.to_thread.run_sync(script.show, Threaded(env))
        assert capsys.readouterr().out == "o-2  order 1.0.0  running\n"


def an_order_with(make_ship):
    """Return a scenario of one order. ``make_ship`` makes its activity, over the parcels sent."""

    async def scenario():
        parcels = []
        ship = activity(name="ship")(make_ship(parcels))
        async with TestRuntime(orders.REGISTRY, [ship]) as env:
            handle = await env.client.start("order", orders.Order(2), instance_id="o-1")
            await env.advance(30 * DAY)
            await handle.raise_event("paid", message_id="o-1/paid")
            assert await handle.result() == "2 items are on their way"
            assert len(parcels) == 1, f"{len(parcels)} parcels are on their way"

    return scenario


async def test_crash_everywhere_finds_a_planted_activity_that_ships_twice():
    def ships_whenever_it_is_called(parcels):
        def ship(items: int) -> str:
            parcels.append(items)
            return orders.ship.function(items)

        return ship

    with pytest.raises(
        ScenarioFails,
        match=r"dies before commit 5 of 5 \(write of o-1\): AssertionError: 2 parcels are on their",
    ) as caught:
        await crash_everywhere(an_order_with(ships_whenever_it_is_called))
    assert (caught.value.commit, caught.value.after) == (5, False)


async def test_one_that_knows_what_it_has_shipped_passes():
    def ships_once(parcels):
        def ship(items: int) -> str:
            if not parcels:  # the carrier knows the order by its number
                parcels.append(items)
            return orders.ship.function(items)

        return ship

    report = await crash_everywhere(an_order_with(ships_once))
    assert (report.commits, report.runs) == (5, 10)


async def test_orders_as_they_stand_survive_a_crash_at_each_commit():
    async def scenario(env):
        handle = await env.client.start("order", orders.Order(2), instance_id="o-1")
        await env.advance(30 * DAY)
        await handle.raise_event("paid", message_id="o-1/paid")
        assert await handle.result() == "2 items are on their way"

    await crash_everywhere(scenario, orders.REGISTRY, [orders.ship])


# --- watch_upgrade ------------------------------------------------------------------------------


def watched(**state):
    return upgrade.Watch("http://example.org", MINUTE, **state)


async def test_a_watch_moves_to_the_new_version_at_a_boundary_and_back_to_nothing_old():
    old = upgrade.build_registry([upgrade.OLD])
    both = upgrade.build_registry(upgrade.VERSIONS)
    async with TestRuntime(old, [upgrade.probe], start=MARCH) as env:
        env.fake(upgrade.probe, lambda url: upgrade.Reply(200, 7))
        handle = await env.client.start("watch", watched(), instance_id="w")
        await env.advance(HOUR)
        await env.crash()
        await env.upgrade(both)
        assert (await handle.info()).version == upgrade.OLD
        await env.advance(HOUR)
        info = await handle.info()
        assert (info.version, info.execution_id) == (upgrade.NEW, 121)
        assert info.custom_status == {"http": 200, "ms": 7, "average_ms": 7}
        assert (info.input["checks"], info.input["timed_checks"]) == (120, 59)
        await handle.raise_event("stop")
        assert await handle.result() == "stopped after 121 checks"
        versions = [lap.version for lap in await env.client.list_executions("w")]
        assert versions == sorted(versions)


@pytest.mark.slow
async def test_an_outage_of_a_night_is_retried_until_the_server_answers():
    async with TestRuntime(
        upgrade.build_registry([upgrade.NEW]), [upgrade.probe], start=MARCH
    ) as env:

        def answer(url):
            if MARCH + HOUR <= env.now < MARCH + 2 * HOUR:
                raise upgrade.ServerFailing("HTTP 503")
            return upgrade.Reply(200, 7)

        probes = env.fake(upgrade.probe, answer)
        handle = await env.client.start("watch", watched())
        await env.advance(3 * HOUR)
        info = await handle.info()
        assert (info.status, info.held_reason) == (InstanceStatus.RUNNING, None)
        assert 119 <= info.input["checks"] <= 121
        assert max(call.attempt for call in probes.calls) > 1_000


async def test_a_state_of_the_old_version_goes_on_with_the_new_one():
    async with TestRuntime(upgrade.build_registry([upgrade.NEW]), [upgrade.probe]) as env:
        env.fake(upgrade.probe, lambda url: upgrade.Reply(200, 5))
        handle = await env.seed(
            "watch", upgrade.OLD, {"url": "http://old", "pause": "PT1M", "checks": 41}
        )
        await env.run_until(handle, execution=3)
        state = (await handle.info()).input
        assert (state["checks"], state["timed_checks"], state["total_ms"]) == (43, 2, 10)


@pytest.mark.slow
async def test_both_versions_of_the_watch_are_deterministic_and_replay():
    async def scenario(env):
        env.fake(upgrade.probe, lambda url: upgrade.Reply(200, 7))
        handle = await env.client.start("watch", watched(), instance_id="w")
        await env.advance(3 * MINUTE)
        await handle.raise_event("stop")
        await handle.result()

    for version in upgrade.VERSIONS:
        known = upgrade.build_registry([version])
        assert (await check_determinism(known, scenario, hash_seeds=[1])).executions == 4
        async with TestRuntime(known) as env:
            await scenario(env)
            exported = await env.client.export_history("w")
        assert replay_history(upgrade.build_registry(upgrade.VERSIONS), exported).executions == 4


# --- fastapi_service, postgres_workers ----------------------------------------------------------


@pytest.fixture
def service():
    pytest.importorskip("httpx")
    return example("fastapi_service/watches.py")


async def test_the_service_counts_failures_in_a_row_and_takes_a_new_configuration(service):
    async with TestRuntime(service.build_registry(), [service.probe], start=MARCH) as env:
        probes = env.fake(service.probe, [200, 500, *[OSError("no route")] * 3, 404, 200])
        handle = await env.client.start("watch", service.Watch("http://a", 3600.0))
        failures = []
        for lap in range(1, 5):
            await env.run_until(handle, execution=lap)
            await env.advance(MINUTE)
            failures.append((await handle.info()).custom_status["failures"])
        assert failures == [0, 1, 2, 0]
        await handle.raise_event("config", {"url": "http://b", "pause_seconds": 60})
        await env.run_until_idle()
        assert probes.calls[-1].args == ("http://b",)
        assert (await handle.info()).input["pause_seconds"] == 60
        await handle.raise_event("stop")
        assert await handle.result() == "stopped after 5 checks"


async def test_the_service_moves_its_watches_to_the_next_version(service):
    async with TestRuntime(service.build_registry(["1.0.0"]), [service.probe]) as env:
        env.fake(service.probe, lambda url: 200)
        handle = await env.client.start("watch", service.Watch("http://a", 86_400.0))
        await env.advance(7 * DAY)
        await env.upgrade(service.build_registry())
        await env.advance(7 * DAY)
        info = await handle.info()
        assert (info.version, info.input["checks"]) == ("1.1.0", 14)
        assert info.custom_status["failures"] == 0


async def test_a_crash_at_each_commit_leaves_the_service_and_its_configuration_as_it_is(service):
    async def scenario(env):
        env.fake(service.probe, lambda url: 200)
        handle = await env.client.start("watch", service.Watch("http://a", 60.0), instance_id="w")
        await env.advance(MINUTE)
        await handle.raise_event("config", {"url": "http://b"}, message_id="m")
        await env.run_until(handle, execution=4)
        assert (await handle.info()).input["url"] == "http://b"
        await handle.raise_event("stop", message_id="s")
        assert (await handle.result()).startswith("stopped after")

    await crash_everywhere(scenario, service.build_registry(), [service.probe])


async def test_workers_check_at_once_when_they_are_told_to():
    pytest.importorskip("httpx")
    pytest.importorskip("psycopg")
    workers = example("postgres_workers/watches.py")
    async with TestRuntime(workers.registry, [workers.probe], start=MARCH) as env:
        env.fake(workers.probe, [(200, 1), (200, 2), *[OSError("no route")] * 5, (200, 3)])
        handle = await env.client.start("watch", workers.Watch("http://a", 3600.0))
        await env.run_until_idle()
        assert (await handle.info()).custom_status["probed_by"] == 1
        await handle.raise_event("check")
        await env.run_until(handle, execution=2)
        assert env.now == MARCH
        await env.advance(HOUR + MINUTE)
        assert (await handle.info()).custom_status == {"http": None, "probed_by": None, "checks": 3}
        await handle.raise_event("check")
        await env.run_until_idle()
        await handle.raise_event("stop")
        assert await handle.result() == "stopped after 4 checks"

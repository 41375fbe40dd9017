"""A store whose server goes on from an earlier moment: acknowledged commits are gone, and revisions
are used anew.
"""

from __future__ import annotations

import subprocess

import psycopg
import pytest

from orchestra.errors import StoreReplaced
from orchestra.operations.rewind import Rewinding, rewind
from orchestra.providers.postgres import PostgresProvider
from orchestra.store.kinds import CONTROL_LEVEL, THIS_LIBRARY, Status
from orchestra.store.outcomes import Granted
from orchestra.testing.postgres import NoPostgres, postgres_server
from tests.support.harness import HOLD, World, check_rest, performed, registry

pytestmark = pytest.mark.slow  # a server of its own for each


async def hears_twice(ctx, _):
    first = await ctx.wait_for_event("go")
    second = await ctx.wait_for_event("go")
    return [first, second]


async def works(ctx, _):
    return await ctx.schedule_activity("work")


@pytest.fixture
def server():
    """A server of this test's own."""
    serving = postgres_server()
    try:
        made = serving.__enter__()
    except NoPostgres as missing:
        pytest.skip(str(missing))
    if not made.is_own:
        pytest.skip("this server cannot be stopped")
    yield made
    serving.__exit__(None, None, None)


def back_up(server):
    """Copy the server's files as they are now: what a standby has that hears nothing more from here
    on.
    """
    server.stop()
    copy("data", "standby", server)
    server.start()


def fail_over(server):
    """Have the standby take over."""
    server.stop()
    copy("standby", "data", server)
    subprocess.run(
        [
            "cp",
            "-p",
            server._data / "data" / "PG_VERSION",
            server._data / "data" / "standby.signal",
        ],
        check=True,
    )
    server.start()
    with psycopg.connect(server.dsn, autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote()").fetchone() == (True,)


def copy(source, target, server):
    subprocess.run(["rm", "-rf", server._data / target], check=True)
    subprocess.run(["cp", "-a", server._data / source, server._data / target], check=True)


@pytest.fixture
def world(server):
    made = World(lambda clock: PostgresProvider(server.dsn, clock=clock, notify=False))
    yield made
    made.close()


def reconnect(world):
    """Let the pause pass after which a server that did not answer is asked again."""
    world.provider._connector._next = 0.0


def test_a_warm_execution_does_not_outlive_the_commits_that_it_comes_from(world, server):
    """Revisions of lost commits are given anew: they tell nothing of what is warm (rule 3)."""
    node = world.node(registry(hears_twice))
    old_id = node.node_id
    instance_id = world.start()
    world.run(1.1)
    back_up(server)
    reconnect(world)
    world.send(instance_id, value="lost")
    world.run(1.1)
    assert world.kinds(instance_id)[-2:] == ["EVENT_RECEIVED", "EVENT_AWAITED"]
    warm = node.engine._ownership._cache._cached[instance_id]
    assert node.node_id == old_id, "a restart alone loses nothing"

    fail_over(server)
    reconnect(world)
    with psycopg.connect(server.dsn, autocommit=True) as other:
        # So that the next claim gives the very revision that the warm execution would fit.
        (fresh,) = other.execute(
            "UPDATE orchestra.instance SET revision = %s WHERE instance_id = %s RETURNING revision",
            (warm[1], instance_id),
        ).fetchone()
    assert fresh == warm[1]
    assert world.kinds(instance_id) == ["EXECUTION_STARTED", "EVENT_AWAITED"]
    with pytest.raises(StoreReplaced):
        world.send(instance_id, value="first")
    world.run(1.1)
    assert node.node_id != old_id, "it has joined anew"
    world.send(instance_id, value="first")
    world.run(1.1)
    world.send(instance_id, value="second")
    world.run(1.1)
    assert world.output(instance_id) == ["first", "second"]
    check_rest(world, [node.registry])


def test_what_the_node_owned_by_the_word_of_the_new_server_is_taken_up_at_once(world, server):
    node = world.node(registry(works), {"work": HOLD})
    instance_id = world.start()
    world.run(1.1)
    before = node.the_running()
    back_up(server)
    fail_over(server)
    reconnect(world)
    world.run(5)
    assert node.aborted == [before.key]
    assert world.record(instance_id).row.owner == node.node_id
    assert world.record(instance_id).row.takeovers == 0, "nobody has crashed"
    node.finish(value="done")
    world.run(1.1)
    assert world.output(instance_id) == "done"
    check_rest(world, [node.registry])


def test_a_client_without_a_node_goes_on_after_a_failover(world, server):
    world.node(registry(hears_twice)).leave()
    change = world.start_change(version="1.0.0")
    world.store.commit([change])
    back_up(server)
    reconnect(world)
    fail_over(server)
    reconnect(world)
    assert isinstance(world.terminate(change.instance_id), Granted)
    assert world.status(change.instance_id) is Status.TERMINATED


def test_the_first_write_after_a_failover_is_written_at_the_levels_that_the_store_has(
    world, server
):
    """A rewind reads the levels, and its write may be the first one on its connection."""
    world.node(registry(hears_twice)).leave()
    change = world.start_change(version="1.0.0")
    world.store.commit([change])
    assert world.store.catalogue().levels.write >= CONTROL_LEVEL
    back_up(server)
    reconnect(world)
    assert world.status(change.instance_id) is Status.OPEN
    world.terminate(change.instance_id)
    fail_over(server)
    reconnect(world)
    asked = Rewinding(
        instance_id=change.instance_id,
        execution=1,
        version=None,
        pins=False,
        children="abandon",
        by="ops",
        reason="a test",
        request_id="back",
        incarnation=world.id("incarnation"),
    )
    assert performed(world, rewind(asked, THIS_LIBRARY)).execution == 2


def test_where_the_server_does_not_tell_its_history_nothing_is_concluded(
    world, server, monkeypatch
):
    monkeypatch.setattr(
        "orchestra.providers.postgres.connection.READ_BRANCH", "SELECT no_such_function()"
    )
    world.provider._branch = None
    node = world.node(registry(works), {"work": HOLD})
    node_id = node.node_id
    world.start()
    world.run(1.1)
    server.restart()
    reconnect(world)
    world.run(5)
    node.finish(value="done")
    world.run(1.1)
    assert node.node_id == node_id
    assert node.aborted == []


def test_a_node_whose_store_was_replaced_gives_up_its_old_id_and_nobody_has_to_wait_for_its_lease(
    any_world,
):
    node = any_world.node(registry(works), {"work": HOLD})
    instance_id = any_world.start()
    any_world.run(1.1)
    old_id, running = node.node_id, node.the_running().key
    token = node.submit(any_world.append_change(instance_id))
    node.store.replies.append(StoreReplaced("another history"))
    any_world.run(1.1)
    assert node.aborted == [running]
    assert node.node_id != old_id
    assert [row.record.node_id for row in any_world.store.catalogue().nodes] == [node.node_id]
    assert not isinstance(node.replies[token], Exception), (
        "what a client has asked for is asked anew"
    )
    record = any_world.record(instance_id)
    assert (record.row.owner, record.row.takeovers) == (node.node_id, 0)
    node.finish(value="done")
    any_world.run(1.1)
    assert any_world.output(instance_id) == "done"
    check_rest(any_world, [node.registry])

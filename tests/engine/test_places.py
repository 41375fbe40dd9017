"""Places of threads and of tasks are counted apart: a node takes what it can begin now, and no
more.
"""

from __future__ import annotations

import pytest

from orchestra.activities import Activity, as_activity
from orchestra.engine.engine import EngineOptions
from orchestra.store.kinds import Status
from tests.support.harness import HOLD, check_rest, registry, several


def blocks(value: int) -> int: ...
async def works(value: int) -> int: ...


REGISTERED = {"blocks": as_activity(blocks), "works": as_activity(works)}


async def fans_out(ctx, wanted):
    return await ctx.gather(
        *(
            ctx.schedule_activity(Activity.named("blocks", int), number)
            for number in range(wanted[0])
        ),
        *(
            ctx.schedule_activity(Activity.named("works", int), number)
            for number in range(wanted[1])
        ),
    )


async def other(ctx, _): ...


def worker(world, *, threads, slots):
    return world.node(
        several(other=other),
        {"blocks": HOLD, "works": HOLD},
        registered=REGISTERED,
        slots=slots,
        options=EngineOptions(threads=threads),
    )


def names(node):
    return sorted(run.name for run in node.running.values())


def finish_one(node, name):
    node.finish(next(run for run in node.running.values() if run.name == name), 1)


def test_two_workers_share_what_needs_threads_by_their_threads(any_world):
    boss = any_world.node(registry(fans_out))
    first, second = (worker(any_world, threads=2, slots=100) for _ in range(2))
    instance_id = any_world.start(state=(7, 0))
    any_world.run(2)
    assert [len(first.running), len(second.running)] == [2, 2]
    finish_one(second, "blocks")
    any_world.run(0.1)
    assert [len(first.running), len(second.running)] == [2, 2], (
        "each takes the next one as a thread becomes free"
    )
    for _ in range(6):
        for node in (first, second):
            for run in list(node.running.values()):
                node.finish(run, 1)
        any_world.run(1)
    assert any_world.status(instance_id) is Status.COMPLETED
    assert boss.engine.running == 0
    check_rest(any_world)


def test_who_has_no_thread_free_takes_what_needs_none(any_world):
    any_world.node(registry(fans_out))
    node = worker(any_world, threads=1, slots=3)
    any_world.start(state=(4, 4))
    any_world.run(2)
    assert names(node) == ["blocks", "works", "works"]
    assert node.cycle.idle_seconds() > 0, "it would turn at full speed over what it cannot begin"
    finish_one(node, "works")
    any_world.run(0.1)
    assert names(node) == ["blocks", "works", "works"]
    finish_one(node, "blocks")
    any_world.run(0.1)
    assert names(node) == ["blocks", "works", "works"]


def test_who_has_no_place_at_all_takes_nothing_that_needs_a_thread(any_world):
    any_world.node(registry(fans_out))
    node = worker(any_world, threads=5, slots=2)
    any_world.start(state=(4, 0))
    any_world.run(2)
    assert names(node) == ["blocks", "blocks"]


@pytest.mark.parametrize(("wanted", "name"), [((3, 0), "blocks"), ((0, 3), "works")])
def test_an_owner_without_a_fitting_place_hands_out(any_world, wanted, name):
    world = any_world
    options = EngineOptions(threads=1)
    owner = world.node(
        registry(fans_out),
        dict.fromkeys(REGISTERED, HOLD),
        registered=REGISTERED,
        slots=2,
        options=options,
    )
    helper = worker(world, threads=1, slots=2)
    world.run(1.5)
    world.start(state=wanted)
    world.run(3)
    assert [len(owner.running), len(helper.running)] == ([1, 1] if name == "blocks" else [2, 1])


def test_what_gave_up_its_place_keeps_its_thread(world):
    node = world.node(
        registry(fans_out),
        dict.fromkeys(REGISTERED, HOLD),
        registered=REGISTERED,
        options=EngineOptions(max_owned=1, threads=3),
    )
    for _ in range(3):
        world.start(state=(1, 0))
    world.run(1)
    assert node.engine._count_free_places().threads == 0
    finish_one(node, "blocks")
    world.run(1)
    assert node.engine._count_free_places().threads == 1
    for run in list(node.running.values()):
        node.finish(run, 1)
    world.run(1)
    assert node.engine._count_free_places().threads == 3
    assert len(node.ended) == 3

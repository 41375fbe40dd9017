"""Families of instances whose code does not return now and then, under whatever else goes wrong,
over many seeds (I11).
"""

import random
from contextlib import suppress
from datetime import timedelta

import pytest

from orchestra.engine.blocked_turns import TurnAbandoned
from orchestra.errors import ChildFailed, StoreBusy
from orchestra.retention import Retention
from orchestra.store.changes import Cancel
from orchestra.store.kinds import Status
from orchestra.store.queries import InstanceQuery
from orchestra.testing.checker import check_store
from tests.support.harness import EVERYTHING, HOLD, several

STEPS = 100
"""How long the disorder lasts; then all is quiet, and every code returns."""


class Disorder:
    """Nodes whose code gets stuck at random, and everybody who disturbs them."""

    def __init__(self, world, seed):
        self.world = world
        self.random = random.Random(seed)
        self.is_quiet = False
        self.current = None
        self.late = []
        self.nodes = []
        self.registry = several(parent=self.parent, kid=self.kid)
        self.started = []

    # --- what runs ---

    def stuck(self):
        node = self.current
        if (
            node is not None
            and node.engine.running_code is not None
            and not self.is_quiet
            and self.random.random() < 0.3
        ):
            assert node.engine.abandon(node.engine.running_code)
            self.current = None  # the rest of this step runs on the abandoned thread

    async def kid(self, ctx, number):
        self.stuck()
        value = await ctx.schedule_activity("work", number)
        self.stuck()
        if number > 0:
            ctx.continue_as_new(number - 1)
        return value

    async def parent(self, ctx, laps):
        closes = ["abandon", "cancel", "terminate"]
        children = [
            ctx.start_child("kid", number, on_parent_close=close)
            for number, close in enumerate(closes)
        ]
        self.stuck()
        work = ctx.schedule_activity("work", laps)
        await ctx.race(ctx.wait_for_event("go"), ctx.schedule_timer(timedelta(seconds=2)))
        self.stuck()
        if laps % 2 == 0:
            with suppress(ChildFailed):
                await children[0]
        await work
        self.stuck()
        if laps > 0:
            ctx.continue_as_new(laps - 1)
        return "done"

    # --- who works ---

    def join(self):
        node = self.world.node(
            self.registry,
            {"work": HOLD},
            lease=2.0,
            poll=0.5,
            retention=Retention(histories=2, executions=3)
            if self.random.random() < 0.5
            else EVERYTHING,
        )
        self.nodes.append(node)
        return node

    def work(self, node):
        for _ in range(1_000):
            if not node.alive or not node.is_busy:
                break
            self.current = node
            try:
                node.cycle_once()
            except TurnAbandoned as abandoned:
                self.late.append((node, abandoned.late))
            finally:
                self.current = None
        else:
            raise AssertionError("the node does not come to rest")

    def hand_in(self, place):
        node, returned = self.late.pop(place)
        if node.alive:
            node.engine.add_late_result(returned)
            self.work(node)
        else:
            returned.discard()

    # --- who disturbs ---

    def disturb(self):
        chance = self.random
        node = chance.choice(self.nodes)
        instances = [
            record.row.instance_id
            for record in self.world.directory.list(InstanceQuery(limit=1_000))
        ]
        away = [late.turn.instance.instance_id for _, late in self.late]
        victim = (
            chance.choice(away if away and chance.random() < 0.5 else instances)
            if instances
            else None
        )
        what = chance.randrange(16)
        if what <= 2 and self.late:
            self.hand_in(chance.randrange(len(self.late)))
        elif what <= 5 and node.running:
            of_away = [run for run in node.running.values() if run.key.instance_id in away]
            node.finish(chance.choice(of_away or list(node.running.values())), "value")
        elif what == 6:
            node.store.replies.append(
                chance.choice(["lost before", "lost after", StoreBusy("busy")])
            )
        elif what == 7 and victim:
            self.world.admin.set_pin(victim, "1.0.0", by="somebody", reason="to see")
        elif (
            what == 8
            and victim
            and chance.random() < 0.4
            and self.world.status(victim) is Status.OPEN
        ):
            if chance.random() < 0.5:
                self.world.terminate(victim)
            else:
                node.submit(self.world.termination(victim))
        elif what == 9 and victim and chance.random() < 0.4:
            if chance.random() < 0.5:
                self.world.cancel(victim)
            else:
                node.submit(Cancel(victim, "enough"))
        elif what == 10 and victim:
            node.submit(self.world.append_change(victim))
        elif what == 11 and len(self.started) < 4:
            self.started.append(node.start("parent", chance.randrange(3)))
        elif what == 12 and chance.random() < 0.3:
            leave = chance.choice([node.crash, node.stop])
            leave()
            self.nodes.remove(node)
            self.join()
        elif what in {13, 14} and away:
            # All that it waits for ends while it is away, and then somebody claims it anew.
            for one in self.nodes:
                for run in [run for run in one.running.values() if run.key.instance_id == victim]:
                    one.finish(run, "value")
                self.work(one)
            self.world.admin.set_pin(victim, "1.0.0", by="somebody", reason="to see")
        elif what == 15:
            for _ in range(chance.randrange(1, 8)):  # a node that sleeps is buried by the others
                self.world.clock.skip(0.5)
                for other in self.nodes:
                    if other is not node:
                        self.work(other)
        self.world.clock.skip(chance.choice([0.0, 0.1, 1.0]))
        for one in self.nodes:
            self.work(one)

    def calm_down(self):
        """Let every code return, every activity end, and time pass."""
        self.is_quiet = True
        for node in self.nodes:
            node.store.replies.clear()
        while self.late:
            self.hand_in(0)
        for _ in range(60):
            for node in self.nodes:
                for run in list(node.running.values()):
                    node.finish(run, "value")
                self.work(node)
            self.world.clock.skip(1)
            for node in self.nodes:
                self.work(node)


@pytest.mark.parametrize("seed", range(24))
def test_whatever_happens_while_code_is_away_everything_ends(world, seed):
    disorder = Disorder(world, seed)
    disorder.join()
    disorder.join()
    disorder.started.append(disorder.nodes[0].start("parent", 2))
    for _ in range(STEPS):
        disorder.disturb()
    disorder.calm_down()
    for record in world.directory.list(InstanceQuery(limit=1_000)):
        assert record.status is not Status.OPEN, f"{record.row} does not end"
        assert not record.held
    check_store(world.provider, disorder.registry).raise_if_violated()
    for node in disorder.nodes:
        assert (
            node.engine.owned,
            node.engine.running,
            node.running,
            len(node.engine._blocked),
        ) == (0, 0, {}, 0)

"""A runtime over a store that fails all the time, before the commit and after it (scenarios 39, 40
and 42).
"""

import random
from collections import Counter, defaultdict
from datetime import timedelta

import anyio
import pytest

from orchestra import Runtime, SqliteProvider, activity
from orchestra.clock import new_id
from orchestra.errors import (
    OutcomeUnknown,
    StoreBusy,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from orchestra.testing import check_store
from tests.support.kit import QUICK, bounded, registry

pytestmark = pytest.mark.anyio

LAPS = 30
INSTANCES = 6
BEFORE = (
    StoreBusy("busy"),
    StoreFull("full"),
    StoreReadOnly("read-only"),
    StoreUnavailable("away"),
    OutcomeUnknown("lost"),
)
"""Nothing of the commit happens."""


class Faulty(SqliteProvider):
    """Every few commits something goes wrong, and sometimes up to three times in a row: the pauses
    grow with each.
    """

    def __init__(self, path, chance):
        super().__init__(path, durability="relaxed")
        self._chance = chance
        self._row = 0
        self._is_over = False
        """Whether a row has just ended. One commit succeeds then: the pauses of several rows would
        add up to minutes.
        """
        self._commit = self.store.commit
        self.store.commit = self._faulty_commit
        self.faults = Counter()

    def _faulty_commit(self, changes):
        if self._row == 0 and not self._is_over and self._chance.random() < 0.25:
            self._row = self._chance.choice((1, 1, 1, 2, 3))
        if self._row == 0:
            self._is_over = False
            return self._commit(changes)
        self._row -= 1
        self._is_over = self._row == 0
        if self._chance.random() < 0.4:
            self._commit(changes)
            self.faults["lost after the commit"] += 1
            raise OutcomeUnknown("the reply was lost")
        error = self._chance.choice(BEFORE)
        self.faults[type(error).__name__] += 1
        raise error


@pytest.mark.slow
@bounded
async def test_whatever_goes_wrong_with_commits_happens_to_nobody(path, seed):
    chance = random.Random(seed)
    runs = defaultdict(list)

    @activity(retry=QUICK)
    async def count(instance: str, lap: int) -> int:
        runs[instance].append(lap)
        return lap

    async def loop(ctx, state: list[int]):
        heard = await ctx.wait_for_event("go", int)
        state = [*state, await ctx.schedule_activity(count, ctx.instance_id, heard)]
        if len(state) < LAPS:
            ctx.continue_as_new(state)
        return state

    async def insist(ask):
        while True:
            try:
                return await ask()
            except StoreError as error:
                if not (error.retryable or isinstance(error, OutcomeUnknown)):
                    raise  # an error that tells nobody what to do
                await anyio.sleep(0.005)

    provider = Faulty(path, chance)
    code = registry(loop)

    async def drive(node, instance_id):
        client, request_id = node.client, new_id()
        await insist(
            lambda: client.start("loop", [], instance_id=instance_id, request_id=request_id)
        )
        for lap in range(LAPS):
            message_id = new_id()
            await insist(
                lambda lap=lap, same=message_id: client.raise_event(
                    instance_id, "go", lap, message_id=same
                )
            )
        assert await node.client.handle(instance_id).result() == list(range(LAPS))

    async with (
        Runtime(provider, code, [count], poll=timedelta(milliseconds=50)) as node,
        anyio.create_task_group() as group,
    ):
        for number in range(INSTANCES):
            group.start_soon(drive, node, f"loop-{number}")
    assert provider.faults
    check_store(SqliteProvider(path), code).raise_if_violated()
    # A reported result outlives the lost reply to its write; so each lap's activity ran once.
    assert dict(runs) == {f"loop-{number}": list(range(LAPS)) for number in range(INSTANCES)}

"""The life of three versions, stage by stage. Each deploy starts a node with the next code beside
the old one, and then stops the old one. The operator's client stays, and sees only the store.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
from digests import BAD, BROKEN, CLEARED, FIRST, MENDED, NAME, Digest1, address
from tables import (
    headline,
    say,
    show_counts,
    show_held,
    show_laps,
    show_policies,
    show_preflight,
    show_versions,
)

from orchestra import (
    Client,
    Exact,
    HoldKind,
    InstanceCounts,
    InstanceInfo,
    Latest,
    OperationInfo,
    OrchestrationRegistry,
    OrderBy,
    Range,
    Runtime,
    Selection,
)

if TYPE_CHECKING:
    from orchestra.providers.postgres import PostgresProvider
    from orchestra.providers.sqlite import SqliteProvider

LOOPS = 200
PHONES, INTRANET = LOOPS // 10, LOOPS // 5
PATIENCE = 60.0
POLL = timedelta(milliseconds=100)  # how soon a node hears of a policy: a second by default
ON_THE_INTERNET = 3  # the number of a loop that 3.0.0 runs
ADA = "ada"  # the operator
EVERY = Selection(name=NAME)
BY_VERSION_AND_HOLD = ("version", "held")

Store = Callable[[], "SqliteProvider | PostgresProvider"]


class Life:
    """Lives it on one store."""

    def __init__(self, store: Store, client: Client) -> None:
        self._store = store
        self._client = client
        self._node: Runtime | None = None

    async def live(self) -> None:
        """Live it to its end.

        Raises:
            TimeoutError: a stage has not come to its end.
        """
        try:
            await self._deploy(FIRST)
            await self._production()
            await self._preflights()
            await self._deploy(MENDED)
            await self._five_by_pins()
            await self._all_by_policy()
            await self._check_of_broken()
            await self._deploy(BROKEN)
            await self._broken()
            await self._back_by_policy()
            await self._back_by_rewind()
            await self._what_may_go()
            await self._deploy(CLEARED)
            await self._cleared()
        finally:
            await self._stop()

    async def _deploy(self, registry: OrchestrationRegistry) -> None:
        """Start a node with the next code beside the old one, then stop the old one. The new one
        does not start if that strands instances.
        """
        node = Runtime(self._store(), registry, poll=POLL, preflight="refuse")
        await node.__aenter__()
        await self._stop()
        self._node = node

    async def _stop(self) -> None:
        if self._node is not None:
            await self._node.__aexit__(None, None, None)
            self._node = None

    # --- the stages ---

    async def _production(self) -> None:
        headline(f"{LOOPS} loops are in production on 1.0.0")
        async with anyio.create_task_group() as group:
            for number in range(LOOPS):
                group.start_soon(self._start, number)
        await self._another_lap()
        show_counts(await self._counts())

    async def _start(self, number: int) -> None:
        state = Digest1(address(number))
        await self._client.start(NAME, state, instance_id=f"digest-{number:03}")

    async def _preflights(self) -> None:
        headline("2.0.0 is checked before it is deployed")
        report = await self._client.preflight(BAD)
        show_preflight("2.0.0", report)
        say(f"deploy: {'yes' if report.ok else 'refused'}")
        headline("2.0.0 gets a migration, and is checked again")
        report = await self._client.preflight(MENDED)
        show_preflight("2.0.0", report)
        say(f"deploy: {'yes' if report.ok else 'refused'}")
        await self._client.set_version_policy(
            NAME, Range("^1"), by=ADA, reason="2.0.0 goes to five first"
        )

    async def _five_by_pins(self) -> None:
        headline("2.0.0 is deployed under the policy ^1, and five loops are pinned to it")
        five = (await self._all())[-5:]
        for info in five:
            await self._client.pin(info.instance_id, "2.0.0", by=ADA, reason="the first five")
        await self._until_counts({("2.0.0", None): 5, ("1.0.0", None): LOOPS - 5})
        await self._another_lap()
        show_counts(await self._counts())
        await self._show_crossing(five[0].instance_id, "2.0.0")
        show_versions(await self._client.version_report(NAME))

    async def _all_by_policy(self) -> None:
        headline("the policy takes all loops to 2.0.0, and the five are unpinned")
        await self._client.set_version_policy(
            NAME, Latest(), by=ADA, reason="2.0.0 has proved itself"
        )
        for info in await self._find(Selection(name=NAME, pinned=True)):
            await self._client.unpin(info.instance_id, by=ADA)
        await self._until_counts({("2.0.0", None): LOOPS})
        await self._another_lap()
        show_counts(await self._counts())

    async def _check_of_broken(self) -> None:
        headline("3.0.0 is deployed although its check has failed")
        show_preflight("3.0.0", await self._client.preflight(BROKEN))
        say("(The check has run the migrations. It does not run the code: that has a bug as well.)")

    async def _broken(self) -> None:
        # What the old node left without a begin stays on 2.0.0 where its state does not migrate.
        running, held = Selection(name=NAME, held=False), Selection(name=NAME, held=True)
        await self._until_counts({("3.0.0",): LOOPS - PHONES - INTRANET}, running, "version")
        await self._until_counts({("error",): INTRANET, ("migration",): PHONES}, held, "held")
        show_counts(await self._counts("held"))
        for kind in (HoldKind.ERROR, HoldKind.MIGRATION):
            show_held(await self._find(Selection(name=NAME, held=kind), limit=1))

    async def _back_by_policy(self) -> None:
        headline("the policy goes back to 2.0.0: what runs goes down, what had not begun follows")
        await self._client.set_version_policy(
            NAME, Exact("2.0.0"), by=ADA, reason="3.0.0 holds digests"
        )
        await self._until_counts({("2.0.0", None): LOOPS - INTRANET, ("3.0.0", "error"): INTRANET})
        show_counts(await self._counts())
        await self._show_crossing(f"digest-{ON_THE_INTERNET:03}", "3.0.0")

    async def _back_by_rewind(self) -> None:
        headline("what 3.0.0 has begun and holds is rewound to its boundary, under 2.0.0")
        held = await self._find(Selection(name=NAME, held=HoldKind.ERROR))
        for info in held:
            await self._client.rewind(
                info.instance_id,
                info.execution_id,
                version="2.0.0",
                pin=False,
                by=ADA,
                reason="3.0.0 holds digests",
            )
        await self._until_counts({("2.0.0", None): LOOPS})
        await self._another_lap()
        show_counts(await self._counts())
        await self._show_crossing(held[0].instance_id, "3.0.0")

    async def _what_may_go(self) -> None:
        headline("which versions may go?")
        show_versions(await self._client.version_report(NAME))

    async def _cleared(self) -> None:
        headline("1.0.0 and 3.0.0 are removed")
        await self._client.set_version_policy(
            NAME, Range("^2"), by=ADA, reason="3.0.0 is gone; hot fixes of 2 are welcome"
        )
        await self._another_lap()
        show_counts(await self._counts())
        show_versions(await self._client.version_report(NAME))
        held = await self._client.count_instances(Selection(name=NAME, held=True))
        say(f"held: {held.total}, laps lost: {await self._lost_laps()}")
        headline("what the operator did")
        show_policies(await self._client.list_version_policies(NAME))
        acts = Counter(one.action for one in await self._operations())
        say(", ".join(f"{action}: {number}" for action, number in sorted(acts.items())))

    # --- looking at the store ---

    async def _show_crossing(self, instance_id: str, version: str) -> None:
        """Print the last lap before a version, the first one on it, and the first one after it."""
        say(f"{instance_id}:")
        laps = await self._client.list_executions(instance_id)
        on_it = [lap.execution_id for lap in laps if lap.version == version]
        shown = {on_it[0] - 1, on_it[0], on_it[-1] + 1}
        show_laps([lap for lap in laps if lap.execution_id in shown])

    async def _lost_laps(self) -> int:
        """Return how many laps are in no state: a rewound lap begins again, and counts once."""
        rewound = Counter(one.subject for one in await self._operations("rewind"))
        return sum(
            info.execution_id - 1 - rewound[info.instance_id] - info.input["sent"]
            for info in await self._all()
        )

    async def _operations(self, action: str | None = None) -> tuple[OperationInfo, ...]:
        page = await self._client.list_operations(action=action, by=ADA, limit=1000)
        return page.items

    async def _counts(self, *columns: str) -> InstanceCounts:
        by = columns or BY_VERSION_AND_HOLD
        return await self._client.count_instances(EVERY, group_by=by)

    async def _find(self, selection: Selection, limit: int = LOOPS) -> tuple[InstanceInfo, ...]:
        page = await self._client.list_instances(selection, order_by=OrderBy.ID, limit=limit)
        return page.items

    async def _until_counts(
        self,
        wanted: dict[tuple[str | None, ...], int],
        selection: Selection = EVERY,
        *columns: str,
    ) -> None:
        """Wait until there are so many instances of each group, by version and hold if no columns
        are given.
        """

        async def are_so() -> bool:
            by = columns or BY_VERSION_AND_HOLD
            counts = await self._client.count_instances(selection, group_by=by)
            return wanted == {
                tuple(group.values[column] for column in by): group.count for group in counts.groups
            }

        await _until(are_so, f"{wanted}")

    async def _another_lap(self) -> None:
        """Wait until each loop has passed a boundary that comes after now."""
        before = {info.instance_id: info.execution_id for info in await self._all()}

        async def have_passed() -> bool:
            return all(info.execution_id > before[info.instance_id] for info in await self._all())

        await _until(have_passed, "another lap of each loop")

    async def _all(self) -> tuple[InstanceInfo, ...]:
        return await self._find(EVERY)


async def _until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    with anyio.move_on_after(PATIENCE):
        while True:
            if await condition():
                return
            await anyio.sleep(0.05)
    raise TimeoutError(f"not within {PATIENCE:.0f} s: {what}")


async def live(store: Store) -> None:
    """Live it on a new store.

    Raises:
        SystemExit: the store is not empty.
    """
    async with Client(store()) as client:
        if (await client.count_instances()).total:
            raise SystemExit("the store has instances; give a new file, or a new schema")
        await Life(store, client).live()

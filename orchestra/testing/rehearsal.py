"""Rehearses a deploy: a copy of a store, the new registry, and a virtual month."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from orchestra.client import Client
from orchestra.client.describing import stored_error
from orchestra.clock import SystemClock, from_micros
from orchestra.codec import PLAIN
from orchestra.events import ActivityCompleted, ActivityScheduled, from_record
from orchestra.options import check_duration
from orchestra.providers.sqlite import SqliteProvider, back_up
from orchestra.registry import OrchestrationRegistry
from orchestra.store.kinds import Status
from orchestra.store.port import Directory, Provider
from orchestra.store.queries import InstanceQuery, InstanceRecord
from orchestra.testing.clock import ManualClock
from orchestra.testing.fakes import NEVER, after
from orchestra.testing.runtime import TestRuntime
from orchestra.testing.waiting import held_for_itself

__all__ = ["Finding", "Move", "Rehearsal", "rehearse"]

_PAGE: Final = 500
_MONTH: Final = timedelta(days=30)
_STAND_IN: Final = timedelta(seconds=1)
"""How long an activity takes that a recorded result stands in for: a loop without a timer must not
spin at one instant.
"""


@dataclass(frozen=True, slots=True)
class Move:
    """So many instances of a name went from one version to another."""

    name: str
    before: str
    after: str
    instances: int


@dataclass(frozen=True, slots=True)
class Finding:
    """An instance that did not go on, and why."""

    instance_id: str
    name: str
    version: str
    execution_id: int
    reason: str


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What happened to the instances of a store under new code.

    ``ok``: none is held that was not held before, and none has failed. ``waiting`` counts, by
    activity, the instances that wait for one that nothing stood in for.
    """

    instances: int
    moves: tuple[Move, ...]
    failed: tuple[Finding, ...]
    held: tuple[Finding, ...]
    ended: int
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def ok(self) -> bool:
        """Whether the deploy went well."""
        return not self.failed and not self.held

    def __str__(self) -> str:
        lines = [
            f"{self.instances:,} open instances: {len(self.failed):,} failed, "
            f"{len(self.held):,} held, {self.ended:,} ended"
        ]
        lines += [
            f"{move.name}: {move.instances:,} moved from {move.before} to {move.after}"
            for move in self.moves
        ]
        for what, findings in (("failed", self.failed), ("held", self.held)):
            lines += [
                f"{what}: {one.instance_id} ({one.name} {one.version}, lap {one.execution_id}): "
                f"{one.reason}"
                for one in findings
            ]
        lines += [
            f"activity {name!r}: {count:,} instances wait for it, and nothing stands in for it"
            for name, count in sorted(self.waiting.items())
        ]
        return "\n".join(lines)


async def rehearse(
    copy_of_a_store: str | Path | Callable[[ManualClock], Provider],
    registry: OrchestrationRegistry,
    *,
    fakes: Mapping[Any, Callable[..., Any] | Sequence[Any]] | None = None,
    duration: timedelta = _MONTH,
    start: datetime | None = None,
) -> Rehearsal:
    """Let the instances of a store go on under new code for a virtual month, and say what failed,
    what was held, and what moved. No activity really runs.

    Args:
        copy_of_a_store: the file of a store, or of a backup; it is copied, and stays as it is. Or a
            function that makes the provider of a store, with the clock that it is given; that store
            is changed.
        fakes: what stands in for activities, by function or name, as in :meth:`TestRuntime.fake`.
            An activity without a fake gives the result that it has given last, to any instance, a
            second later; one that never had a result does not end.
        duration: how much virtual time goes by.
        start: when the rehearsal begins; by default now.

    Raises:
        InvalidArgument: there is no such file, or the duration is none.
        StoreError: it is no store, or it cannot be read.
    """
    check_duration(duration, "duration")
    begin = start or from_micros(SystemClock().now())
    if not isinstance(copy_of_a_store, (str, Path)):
        return await _rehearse(copy_of_a_store, registry, fakes or {}, duration, begin)
    with tempfile.TemporaryDirectory(prefix="orchestra-rehearsal-") as folder:
        target = Path(folder) / "store.db"
        back_up(Path(copy_of_a_store), target, SystemClock())
        return await _rehearse(
            lambda clock: SqliteProvider(target, durability="relaxed", clock=clock),
            registry,
            fakes or {},
            duration,
            begin,
        )


async def _rehearse(
    make_provider: Callable[[ManualClock], Provider],
    registry: OrchestrationRegistry,
    fakes: Mapping[Any, Callable[..., Any] | Sequence[Any]],
    duration: timedelta,
    start: datetime,
) -> Rehearsal:
    env = TestRuntime(registry, start=start.astimezone(UTC), provider=make_provider)
    env.provider.open()
    try:
        before = list(_open_instances(env.provider.directory))
        results = _last_results(env.provider.directory, before)
    finally:
        env.provider.close()
    for target, outcomes in fakes.items():
        env.fake(target, outcomes)
    for name, result in results.items():
        if not env.has_fake(name):
            env.fake(name, _always(result))
    async with env:
        await env.advance(duration)
        return await _compare(env.provider.directory, env.client, before)


def _always(result: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: result


def _open_instances(directory: Directory) -> Iterator[InstanceRecord]:
    query = InstanceQuery(statuses=(Status.OPEN,), limit=_PAGE)
    after_row: tuple[int, str] | None = None
    while True:
        page = directory.list(InstanceQuery(statuses=query.statuses, limit=_PAGE, after=after_row))
        yield from page
        if len(page) < _PAGE:
            return
        after_row = page[-1].created_at, page[-1].row.instance_id


def _last_results(directory: Directory, records: Sequence[InstanceRecord]) -> dict[str, Any]:
    """Return the last result of each activity that these instances have asked for."""
    found: dict[str, tuple[int, Any]] = {}
    for record in records:
        instance_id = record.row.instance_id
        for row in directory.executions(instance_id):
            names: dict[int, str] = {}
            for stored in directory.history(instance_id, row.number):
                event = from_record(stored)
                if isinstance(event, ActivityScheduled):
                    names[event.id] = event.name
                    found.setdefault(event.name, (-1, NEVER))
                elif isinstance(event, ActivityCompleted) and event.source in names:
                    name = names[event.source]
                    if event.at >= found[name][0]:
                        found[name] = (
                            event.at,
                            after(_STAND_IN, PLAIN.decode(event.result, subject="result")),
                        )
    return {name: result for name, (_, result) in found.items()}


async def _compare(
    directory: Directory, client: Client, before: Sequence[InstanceRecord]
) -> Rehearsal:
    moves: Counter[tuple[str, str, str]] = Counter()
    waiting: Counter[str] = Counter()
    failed: list[Finding] = []
    held: list[Finding] = []
    ended = 0
    for old in before:
        new = directory.get(old.row.instance_id)
        if new is None:
            ended += 1  # it has ended, and its retention is over
            continue
        if new.execution.version != old.execution.version:
            moves[old.row.kind.name, old.execution.version, new.execution.version] += 1
        if new.status is Status.FAILED:
            error = stored_error(new.execution.error)
            failed.append(_finding(new, "it has no error" if error is None else str(error)))
        elif new.status is not Status.OPEN:
            ended += 1
        elif old.held:
            pass  # it was held before, and still is
        elif (
            reason := held_for_itself(await client.get_instance_info(new.row.instance_id))
        ) is not None:
            held.append(_finding(new, reason))
        else:
            waiting.update({row.route.activity for row in new.activities if row.route is not None})
    return Rehearsal(
        instances=len(before),
        moves=tuple(
            Move(name, old, new, count) for (name, old, new), count in sorted(moves.items())
        ),
        failed=tuple(failed),
        held=tuple(held),
        ended=ended,
        waiting=dict(waiting),
    )


def _finding(record: InstanceRecord, reason: str) -> Finding:
    row = record.row
    return Finding(row.instance_id, row.kind.name, record.execution.version, row.execution, reason)

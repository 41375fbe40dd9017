"""The version report: who still needs which version, and which may be retired.

It is made from a :class:`~orchestra.store.census.Census`, so its cost does not grow with the
instances that only wait.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Final

from orchestra.client.access import Access
from orchestra.client.arguments import check_name
from orchestra.clock import from_micros
from orchestra.operations.holds import unserved_kinds
from orchestra.resolution import is_living, opening_version, policy_of, why_unreadable
from orchestra.store.catalogue import Catalogue
from orchestra.store.census import Census, OpenCode, SeenCode
from orchestra.store.kinds import ResolvedBy, Status
from orchestra.store.routes import Kind
from orchestra.versions import Exact, UnknownPolicy, resolve, version_key

__all__ = ["SeenCodeInfo", "VersionInfo", "read_report", "read_version_report", "report_of"]

_DAY: Final = 24 * 3_600_000_000
"""How far back failures count, in microseconds."""

_Version = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SeenCodeInfo:
    """Code that nodes had for a version: when and where it was seen first and last."""

    fingerprint: str
    first_seen_at: datetime
    first_node: str
    last_seen_at: datetime
    """A node that has it now was seen as it joined; one that has left, as it left."""
    last_node: str


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """Who needs one version of an orchestration, who has it, and whether it may be retired."""

    name: str
    version: str
    """``0.0.0-0``: starts that wait for the first version of a name."""
    live: int
    """The open instances whose execution runs on it, or would begin with it now."""
    waiting: int
    """Of these, the ones that only wait: no node works on them, and they are not held."""
    held: int
    """Of these, the held ones: also where no living node has the version."""
    failed_recently: int
    """How many executions on it have failed within the last 24 hours."""
    oldest_execution_at: datetime | None
    """When the oldest open execution on it was made; ``None``: there is none."""
    latest_boundary_due: datetime | None
    """By when the last execution with a due boundary should have left it."""
    nodes: tuple[str, ...]
    """The living nodes that have it."""
    fingerprint: str | None
    """The code of the newest node that has it, or else the code that was seen last."""
    fingerprint_changed: bool
    """Whether living nodes have different code for it, or open executions began with other code."""
    is_target: bool
    """Whether starts and boundaries of the name take it now."""
    safe_to_retire: bool
    """Whether code without it strands nothing: there are no blockers."""
    blockers: tuple[str, ...]
    """What needs it, in sentences."""
    unneeded_patches: tuple[str, ...] = ()
    """Marks of ``ctx.patched`` that each open execution on it has: the code before the patch may
    go.
    """
    code: tuple[SeenCodeInfo, ...] = field(default=())
    """The code that nodes had for it, the first seen first."""


async def read_version_report(access: Access, name: str | None) -> tuple[VersionInfo, ...]:
    """Return the report; see :meth:`Client.version_report`."""
    if name is not None:
        check_name(name, "an orchestration's name")
    _, _, report = await read_report(access, name)
    return report


async def read_report(
    access: Access, name: str | None, age: float = 0
) -> tuple[Catalogue, Census, tuple[VersionInfo, ...]]:
    """Return the report with what it was made from. The catalogue may have that age in seconds."""
    catalogue = await access.catalogue(age)
    census = await access.read(lambda directory: directory.census(catalogue.now - _DAY, name))
    return catalogue, census, report_of(catalogue, census, name)


def report_of(
    catalogue: Catalogue, census: Census, name: str | None = None
) -> tuple[VersionInfo, ...]:
    """Return what each version of each name is needed for, by name and version, the lowest
    first.
    """
    return _Report(catalogue, census, name).versions()


class _Report:
    def __init__(self, catalogue: Catalogue, census: Census, name: str | None) -> None:
        self._catalogue = catalogue
        self._census = census
        self._pins = census.pins
        self._name = name
        self._unserved = set(unserved_kinds(catalogue))
        self._kinds: dict[_Version, set[Kind]] = defaultdict(set)
        self._open: Counter[Kind] = Counter()
        self._held: Counter[Kind] = Counter()
        for row in census.tally:
            if row.status is Status.OPEN:
                self._kinds[self._version_of(row.kind)].add(row.kind)
                self._open[row.kind] += row.number
                self._held[row.kind] += row.number if row.held else 0
        self._code: dict[_Version, list[OpenCode]] = defaultdict(list)
        for group in census.open_code:
            self._code[self._version_of_group(group)].append(group)
        self._seen: dict[_Version, list[SeenCode]] = defaultdict(list)
        for seen in census.seen:
            self._seen[seen.name, seen.version].append(seen)
        self._having: dict[_Version, dict[str, str]] = defaultdict(dict)
        """The nodes that have a version, the one that has run longest first, with their code."""
        for node in sorted(catalogue.nodes, key=lambda node: node.started_at):
            if is_living(node, catalogue.now):
                for has in node.record.capabilities:
                    self._having[has.name, has.version][node.record.node_id] = has.fingerprint
        self._targets = dict(self._find_targets())

    def _version_of(self, kind: Kind) -> _Version:
        return kind.name, opening_version(self._catalogue, kind)

    def _version_of_group(self, group: OpenCode) -> _Version:
        """Return the version that runs these executions, or with which they begin."""
        if group.fingerprint is not None or group.how is not ResolvedBy.POLICY:
            return group.name, group.version
        for kind in self._catalogue.kinds:
            if kind.floating and (kind.name, kind.version) == (group.name, group.version):
                return self._version_of(kind)
        return group.name, group.version

    def _find_targets(self) -> Iterator[tuple[str, str]]:
        names = {name for name, _ in self._having} | set(self._catalogue.policies)
        for name in names:
            policy, _ = policy_of(self._catalogue, name)
            if isinstance(policy, Exact):
                yield name, policy.version
            elif not isinstance(policy, UnknownPolicy):
                resolved = resolve(policy, self._catalogue.versions(name))
                if resolved is not None:
                    yield name, resolved

    def versions(self) -> tuple[VersionInfo, ...]:
        census = self._census
        known: Iterable[_Version] = {
            *self._kinds,
            *self._code,
            *self._having,
            *census.failed,
            *self._pins,
            *self._targets.items(),
        }
        return tuple(
            self._info(name, version)
            for name, version in sorted(known, key=lambda one: (one[0], version_key(one[1])))
            if self._name in {None, name}
        )

    def _info(self, name: str, version: str) -> VersionInfo:
        key, census = (name, version), self._census
        kinds, groups, having = self._kinds[key], self._code[key], self._having[key]
        live = sum(self._open[kind] for kind in kinds)
        held = sum(
            self._open[kind]
            if kind in self._unserved
            else self._held[kind] + census.crashing.get(kind, 0)
            for kind in kinds
        )
        owned = sum(census.owned.get(kind, 0) for kind in kinds)
        waiting = max(0, live - held - owned)
        dues = [census.boundaries[kind] for kind in kinds if kind in census.boundaries]
        oldest = min((group.oldest for group in groups), default=None)
        seen = sorted(self._seen[key], key=lambda one: one.last_seen)
        codes = set(having.values())
        begun = {group.fingerprint for group in groups if group.fingerprint is not None}
        blockers = tuple(self._blockers(name, version, live, waiting, held))
        return VersionInfo(
            name=name,
            version=version,
            live=live,
            waiting=waiting,
            held=held,
            failed_recently=census.failed.get(key, 0),
            oldest_execution_at=None if oldest is None else from_micros(oldest),
            latest_boundary_due=from_micros(max(dues)) if dues else None,
            nodes=tuple(having),
            fingerprint=next(reversed(having.values()))
            if having
            else seen[-1].fingerprint
            if seen
            else None,
            fingerprint_changed=len(codes) > 1 or bool(codes and begun - codes),
            is_target=self._targets.get(name) == version,
            safe_to_retire=not blockers,
            blockers=blockers,
            unneeded_patches=_in_all(groups),
            code=tuple(map(_seen_info, self._seen[key])),
        )

    def _blockers(
        self, name: str, version: str, live: int, waiting: int, held: int
    ) -> Iterator[str]:
        key = name, version
        policy, revision = policy_of(self._catalogue, name)
        if isinstance(policy, UnknownPolicy):
            yield (
                f"A newer library set the version policy of {name!r}; this one cannot say which "
                "versions it needs."
            )
        elif isinstance(policy, Exact) and policy.version == version:
            yield (
                f"The version policy of {name!r} is {policy} (revision {revision}, set by "
                f"{self._catalogue.policies[name].by!r}); set another one first."
            )
        elif self._targets.get(name) == version:
            yield f"Starts and boundaries of {name!r} take it, under {policy}."
        if live:
            yield (
                f"{_instances(live)} {'needs' if live == 1 else 'need'} it; {waiting:,} only wait, "
                f"and {held:,} are held. Each leaves it at its next boundary if the policy gives "
                "another version, or at its end."
            )
        yield from self._unserved_blockers(key)
        pins = self._pins.get(key, 0)
        if pins:
            yield f"{_instances(pins)} {'is' if pins == 1 else 'are'} pinned to it; unpin them."
        if any(group.how is ResolvedBy.EXPLICIT for group in self._code[key]):
            yield (
                "Open executions on it were asked for by name, by start(version=), a child's "
                "version, or continue_as_new(version=). Code or clients that name it would ask for "
                "it again."
            )

    def _unserved_blockers(self, key: _Version) -> Iterator[str]:
        """Yield why living nodes cannot run instances of a version."""
        unserved = [kind for kind in self._kinds[key] & self._unserved if self._open[kind]]
        reasons = {kind: why_unreadable(self._catalogue, kind) for kind in unserved}
        for reason in sorted({reason for reason in reasons.values() if reason is not None}):
            number = sum(self._open[kind] for kind in unserved if reasons[kind] == reason)
            yield f"No living node reads {_instances(number)} of it: {reason}."
        rest = [kind for kind in unserved if reasons[kind] is None]
        if rest and not self._having[key]:
            yield "No living node has it: deploy it again, so that they go on."
        elif rest:
            queues = ", ".join(sorted({repr(kind.queue) for kind in rest}))
            yield f"No living node that has it serves their queue: {queues}."


def _instances(number: int) -> str:
    return f"{number:,} open instance{'' if number == 1 else 's'}"


def _in_all(groups: Iterable[OpenCode]) -> tuple[str, ...]:
    """Return the marks that each execution of these groups has that has begun."""
    begun = [group.patches for group in groups if group.fingerprint is not None]
    if not begun:
        return ()
    common = reduce(lambda known, marks: known & set(marks), begun[1:], set(begun[0]))
    return tuple(sorted(common))


def _seen_info(seen: SeenCode) -> SeenCodeInfo:
    return SeenCodeInfo(
        seen.fingerprint,
        from_micros(seen.first_seen),
        seen.first_node,
        from_micros(seen.last_seen),
        seen.last_node,
    )

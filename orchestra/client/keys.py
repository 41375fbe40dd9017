"""Which keys the values of a store are sealed with, for people."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from orchestra.payloads import Pipeline
from orchestra.store.keys import KeyUse

__all__ = ["KeyInfo", "keys_of"]

_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class KeyInfo:
    """A key that stored values are sealed with.

    ``needed`` is how many instances and schedules have values under it that code must read: without
    the key they would be held. ``kept`` is how many more have values that people alone read: former
    laps, outputs, custom status, streams, answers. ``more``: the counts go no further, and are at
    least these. ``examples`` are some of the ids, needed ones first; a schedule's id stands behind
    ``schedule:``.

    ``known`` says whether this client has the key, and ``current`` whether it writes with it.

    Texts for people are not counted: the reasons of operators, the details and errors of holds.
    """

    key_id: str
    needed: int
    kept: int
    more: bool
    examples: tuple[str, ...]
    known: bool
    current: bool


def keys_of(uses: Iterable[KeyUse], pipeline: Pipeline | None) -> tuple[KeyInfo, ...]:
    """Return the keys that stored values need, and those of the pipeline, in the order of their
    ids.
    """
    encrypt = None if pipeline is None else pipeline.encrypt
    ring = None if encrypt is None else encrypt.keys.ring
    known = () if ring is None else tuple(ring.keys)
    owners: dict[str, dict[str, bool]] = {key_id: {} for key_id in known}
    cut: set[str] = set()
    for use in uses:
        found = owners.setdefault(use.key_id, {})
        if use.more:
            cut.add(use.key_id)
        prefix = "schedule:" if use.source.table == "schedule" else ""
        for owner, needed in use.ids:
            found[prefix + owner] = found.get(prefix + owner, False) or needed
    infos: list[KeyInfo] = []
    for key_id, found in sorted(owners.items()):
        needed = sorted(owner for owner, is_needed in found.items() if is_needed)
        kept = sorted(owner for owner, is_needed in found.items() if not is_needed)
        infos.append(
            KeyInfo(
                key_id,
                len(needed),
                len(kept),
                key_id in cut,
                tuple([*needed, *kept][:_EXAMPLES]),
                known=key_id in known,
                current=ring is not None and key_id == ring.current,
            )
        )
    return tuple(infos)

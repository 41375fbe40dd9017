"""What a seed draws before anything happens: which faults, programs and settings are on.

Each seed leaves most of the possible out (swarm testing): a world in which everything happens all
the time hides what needs a long quiet way to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Final

from orchestra.engine.engine import EngineOptions
from orchestra.retention import Retention
from orchestra.store.inbox_limits import InboxLimits
from orchestra.store.messages import InboxPage
from tests.support.simulation.programs import PROGRAMS

__all__ = ["COMMIT_FAULTS", "Plan"]

COMMIT_FAULTS: Final = (
    "lost before",
    "lost after",
    "late",
    "busy",
    "away",
    "full",
    "read-only",
    "odd",
)
"""What may become of a commit. Lost: the reply is, ``before`` or ``after`` the commit. Late: the
reply is lost, and the group is applied at some later moment (a delayed commit in a broken
connection, rule 1). Odd: refused for good, unless it is alone.
"""

_ALWAYS: Final = {"turn": 45.0, "activity": 20.0, "client": 15.0, "time": 15.0}
_SOMETIMES: Final = {
    "crash": 1.5,
    "stop": 1.0,
    "pause": 1.0,
    "outage": 0.6,
    "deploy": 0.7,
    "operator": 4.0,
    "poison": 0.5,
}


_KEEP_ALL: Final = Retention(histories=None, executions=None)
_KEEP_FEW: Final = (
    Retention(histories=2, executions=4, finished=timedelta(seconds=30)),
    Retention(histories=1, executions=1),
    Retention(
        histories=None,
        executions=None,
        keep_for=timedelta(seconds=20),
        finished=timedelta(seconds=90),
    ),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """One seed's world. Rates are probabilities; seconds are virtual."""

    acts: int
    nodes: int
    slots: int
    programs: tuple[str, ...]
    weights: Mapping[str, float]
    commit_faults: tuple[str, ...]
    fault_rate: float
    call_fault_rate: float
    interleaving: float
    freezing: float
    blocked_turns: float
    """How often code does not return when it should."""
    lease: float
    poll: float
    skewed: bool
    same_host: bool
    partial_nodes: bool
    apart: bool
    """Whether nodes have different activities, queues and numbers of places for them, so that work
    goes from one to another.
    """
    control: float
    """How often operators hold, release, rewind and nudge, among what they do."""
    again: float
    """How often a start says what is to become of an instance that has its id."""
    kills: bool
    deaf: bool
    """Whether no hint ever comes, so that all is found by polling."""
    rest: bool
    engine: EngineOptions
    retention: Retention

    @staticmethod
    def draw(random: Random, *, faults: bool = True) -> Plan:
        """Draw a plan."""
        on = {
            name: weight * random.choice((0.5, 1, 2))
            for name, weight in _SOMETIMES.items()
            if random.random() < 0.5
        }
        if not faults:
            on = {name: weight for name, weight in on.items() if name in ("deploy", "operator")}
        kinds = tuple(kind for kind in COMMIT_FAULTS if faults and random.random() < 0.5)
        blocked_turns = random.choice((0.0, 0.0, 0.1, 0.3)) if faults else 0.0
        if blocked_turns:
            on["return"] = 5.0
        names = [name for name in PROGRAMS if random.random() < 0.5] or [
            random.choice(list(PROGRAMS))
        ]
        return Plan(
            acts=random.choice((60, 120, 200, 300)),
            nodes=random.choice((1, 2, 2, 3, 3, 4)),
            slots=random.choice((1, 2, 4, 8)),
            programs=tuple(names),
            weights={**_ALWAYS, **on},
            commit_faults=kinds,
            fault_rate=random.choice((0.02, 0.08, 0.2)) if kinds else 0.0,
            call_fault_rate=random.choice((0.0, 0.0, 0.01, 0.05)) if faults else 0.0,
            interleaving=random.choice((0.0, 0.1, 0.25, 0.4)),
            freezing=random.choice((0.0, 0.0, 0.02, 0.1)) if faults else 0.0,
            blocked_turns=blocked_turns,
            lease=6.0,
            poll=random.choice((0.5, 1.0, 2.0)),
            skewed=random.random() < 0.5,
            same_host=random.random() < 0.3,
            partial_nodes=random.random() < 0.3,
            apart=random.random() < 0.5,
            control=random.choice((0.0, 0.6, 0.9)),
            again=random.choice((0.0, 0.3, 0.7)),
            kills=faults and random.random() < 0.7,
            deaf=random.random() < 0.3,
            rest=random.random() < 0.4,
            engine=EngineOptions(
                max_owned=random.choice((4_096, 4_096, 3)),
                cached=random.choice((4_096, 4_096, 1, 0)),
                group=random.choice((256, 256, 2)),
                keep_owned=random.choice((10_000_000, 10_000_000, 0)),
                inbox_page=random.choice((InboxPage(), InboxPage(1, 1_000), InboxPage(2, 0))),
                inbox_room=random.choice((InboxPage(), InboxPage(1, 1_000), InboxPage(2, 0))),
                inbox_limits=random.choice((InboxLimits(), InboxLimits(3, 1_000))),
            ),
            retention=random.choice((_KEEP_ALL, _KEEP_ALL, *_KEEP_FEW)),
        )

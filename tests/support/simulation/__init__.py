"""A deterministic simulation of several nodes over one store, for providers and for the engine
itself.

::

    for seed in range(500):
        simulate(connect_to_a_new_store(), seed)

A seed decides everything: who goes on when, what fails, which code runs where. It repeats exactly.
"""

from __future__ import annotations

from tests.support.simulation.plan import Plan
from tests.support.simulation.programs import PROGRAMS, Program
from tests.support.simulation.simulation import Connect, Result, Simulation, simulate
from tests.support.simulation.stores import memory_store, run_seed, sqlite_store

__all__ = [
    "PROGRAMS",
    "Connect",
    "Plan",
    "Program",
    "Result",
    "Simulation",
    "memory_store",
    "run_seed",
    "simulate",
    "sqlite_store",
]

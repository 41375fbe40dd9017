"""One process of a try. It prints its figures as the last line, or works until its input ends.

``python -m ops.bench.peers.child JSON``; the driver makes the argument.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ops.bench.peers import workloads
from ops.bench.peers.catalogue import ENTRIES, Sizes
from ops.bench.peers.interface import Contestant, Marks, Place


@dataclass(frozen=True)
class Order:
    """What a process does.

    Args:
        role: ``measure`` prints figures; ``worker`` works for another; ``first`` begins the chains,
            and ``heir`` takes them over.
        roots: processes whose processor time counts besides this one, with their children.
        workers: how many others work.
    """

    entry: str
    workload: str
    store: str
    role: Literal["measure", "worker", "first", "heir"] = "measure"
    sizes: Sizes = field(default_factory=Sizes)
    roots: tuple[int, ...] = ()
    workers: int = 0
    node: int = 0
    ledger: str = ""

    @classmethod
    def read(cls, text: str) -> Order:
        """Read what ``asdict`` and ``json`` wrote."""
        values = json.loads(text)
        values["sizes"] = Sizes(**values["sizes"])
        return cls(**values)


def build(order: Order) -> Contestant:
    """Import the system."""
    entry = next(one for one in ENTRIES if one.key == order.entry)
    module = importlib.import_module(f"ops.bench.peers.contestants.{entry.system[0]}")
    place = Place(
        order.store,
        "relaxed" if entry.relaxed else "full",
        order.node,
        order.sizes.chains if order.workload == "W7" else 0,
        order.workload == "W6",
    )
    marks = Marks(Path(order.ledger) if order.ledger else None)
    return getattr(module, entry.system[1])(place, marks)


async def main(order: Order) -> None:
    """Do it."""
    system = build(order)
    await system.open(work=order.role != "measure" or order.workload != "W8")
    if order.role == "measure":
        print("FIGURES " + json.dumps(await measure(system, order)), flush=True)
        await system.close()
        return
    if order.role == "first":
        names = [f"chain-{number}" for number in range(order.sizes.chains)]
        await system.begin_all("chain", names)
    print("READY", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await system.close()


async def measure(system: Contestant, order: Order) -> workloads.Figures:
    """Return the figures of a workload."""
    if order.workload == "W6":
        return await workloads.w6(system, order.sizes, [os.getpid(), *order.roots])
    if order.workload == "W8":
        return await workloads.w8(system, order.sizes, order.workers)
    return await workloads.PLAIN[order.workload](system, order.sizes)


if __name__ == "__main__":
    try:
        asyncio.run(main(Order.read(sys.argv[1])))
    except (
        BaseException
    ) as error:  # threads of a system may drown its traceback as the process ends
        print(f"FAILED {type(error).__name__}: {error}".replace("\n", " "), flush=True)
        raise

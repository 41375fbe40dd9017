"""Record a store: run the programs with the library that is installed, and dump what it wrote.

Some instances have ended, and some wait: for an event, in a lap, for a timer of a year.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

import anyio

from orchestra import OrchestrationRegistry, Runtime, SqliteProvider
from tests.support.recorded.programs import ACTIVITIES, PROGRAMS, Order


async def record(path: Path) -> None:
    """Run the programs on a new store."""
    builder = OrchestrationRegistry.builder()
    for name, function in PROGRAMS.items():
        builder.register(name, function)
    async with Runtime(SqliteProvider(path), builder.build(), ACTIVITIES) as runtime:
        client = runtime.client
        for name in PROGRAMS:
            for instance_id in (f"{name}-ended", f"{name}-open"):
                if name != "child":
                    await client.start(name, Order(instance_id), instance_id=instance_id)
        await client.raise_event("everything-ended", "tell", "blue")
        await client.cancel("careful-ended", "enough")
        await client.raise_event("laps-ended", "go", 1)
        await client.raise_event("laps-ended", "go", 2)
        for instance_id in ("everything-ended", "careful-ended", "laps-ended"):
            await client.wait_for_completion(instance_id)
        for instance_id in ("everything-open", "careful-open", "laps-open"):
            while True:
                info = await client.get_instance_info(instance_id)
                if [wait.kind for wait in info.waiting_on] == ["event"] and info.owner is None:
                    break
                await anyio.sleep(0.01)


def main() -> None:
    """Write the dump to the file that the arguments name."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "store.db"
        anyio.run(record, path)
        connection = sqlite3.connect(path)
        text = "\n".join(connection.iterdump()) + "\n"
        connection.close()
    Path(sys.argv[1]).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()

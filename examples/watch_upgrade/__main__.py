"""Watch loops that survive a hard kill and move to a new version, each at its own boundary.

    python examples/watch_upgrade            a live table; about 20 seconds
    python examples/watch_upgrade --fast     about 8 seconds
    python examples/watch_upgrade --show DATABASE

Real HTTP servers answer on loopback, a worker process probes them in loops, and this process
watches. At the end it prints the store's contents and checks them. The database stays.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from io import TextIOWrapper
from pathlib import Path

import anyio
from report import complaints, first_commit_after, print_records, read_records, version_path
from rich.console import Console
from story import FAST, NORMAL, SLOW, DemoFailed, Kill, Outage, Pace, Story
from view import LiveView, PlainView, View
from watches import NAME, NEW, OLD

from orchestra import Client, OrchestraError, SqliteProvider


async def show(database: Path) -> None:
    """Print what a database holds."""
    async with Client(SqliteProvider(database)) as client:
        page = await client.list_instances(name=NAME)
        print_records(
            await read_records(client, sorted(info.instance_id for info in page.items)), {}
        )


async def run(database: Path, pace: Pace, view: View) -> None:
    """Run the demo on a new database, print the store's contents at the end, and check them.

    Raises:
        DemoFailed: a claim of the demo is wrong.
    """
    log = database.with_name("worker.log")
    async with Client(SqliteProvider(database)) as client:
        with view:
            story = Story(client, view, pace, database, log)
            try:
                kill, outage = await story.tell()
            finally:
                story.close()
        await report(client, story, kill, outage)


async def report(client: Client, story: Story, kill: Kill, outage: Outage) -> None:
    """Print and check the store's contents."""
    records = await read_records(client, list(story.servers))
    print_records(records, kill.laps)
    print()
    for record in records:
        requests = story.servers[record.info.instance_id].requests
        tries = sum(record.tries(number) for number in record.histories)
        print(
            f"{record.info.instance_id}  {version_path(record.executions)}   {tries} tries, "
            f"{requests} requests at its server"
        )
    print(f"\nThe kill was in {kill.in_flight}.")
    print(
        f"The probe was tried again, and lap {kill.laps[SLOW]} of {SLOW} ended on {OLD} with one "
        "result."
    )
    first = first_commit_after(records, kill.at)
    if first is not None:
        since_kill, since_restart = (
            (first - kill.at).total_seconds(),
            (first - kill.restarted_at).total_seconds(),
        )
        print(
            f"First commit: {since_kill:.2f} s after the kill, {since_restart:.2f} s after the "
            "restart."
        )
    wrong = complaints(records, kill.laps, outage)
    if wrong:
        raise DemoFailed("the store does not hold what was claimed:\n  " + "\n  ".join(wrong))
    print(f"Checked: {OLD} up to the kill, {NEW} from the next lap on, no check lost.")


def new_database(path: Path | None) -> Path:
    """Return the path of the database: in a new temporary directory, or the user's choice, if it is
    free.

    Raises:
        DemoFailed: it exists.
    """
    if path is None:
        return Path(tempfile.mkdtemp(prefix="watch_upgrade-")) / "watch.db"
    if path.exists():
        raise DemoFailed(
            f"{path} exists; the demo writes over nothing, so give another path or remove it"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def choose_view(*, plain: bool) -> View:
    """Return a live table on a terminal, and plain lines elsewhere."""
    console = Console()
    if plain or not sys.stdout.isatty() or console.is_dumb_terminal:
        return PlainView()
    return LiveView(console)


def main() -> int:
    """Run the demo; return the exit code: 0 if all its claims are right."""
    parser = argparse.ArgumentParser(
        prog="watch_upgrade", description="Watch loops that survive a kill and an upgrade."
    )
    parser.add_argument("--fast", action="store_true", help="shorter waits, fewer laps")
    parser.add_argument("--plain", action="store_true", help="plain lines, as without a terminal")
    parser.add_argument(
        "--database", type=Path, help="a new file; by default in a new temporary directory"
    )
    parser.add_argument(
        "--show",
        type=Path,
        metavar="DATABASE",
        help="print what the database of an earlier run holds",
    )
    arguments = parser.parse_args()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    try:
        if arguments.show is not None:
            if not arguments.show.exists():
                raise DemoFailed(f"there is no {arguments.show}")
            anyio.run(show, arguments.show)
            return 0
        database = new_database(arguments.database)
        anyio.run(
            run, database, FAST if arguments.fast else NORMAL, choose_view(plain=arguments.plain)
        )
    except (DemoFailed, OrchestraError) as error:
        print(f"\nFAILED: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    print(f"\nThe database stays: {database}")
    print(f"The worker's log:   {database.with_name('worker.log')}")
    print(f"To read it again:   {command()} --show {database}")
    return 0


def command() -> str:
    """Return how this program was called, for the user to call it again."""
    python = Path(sys.executable)
    return (
        f"{python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python} "
        f"{Path(sys.argv[0])}"
    )


if __name__ == "__main__":
    sys.exit(main())

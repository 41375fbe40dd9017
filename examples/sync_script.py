"""A plain script without async code: it reads a store that services work on, and sends an instance
an event.

    python examples/sync_script.py DATABASE                    # lists what has not ended
    python examples/sync_script.py DATABASE INSTANCE EVENT     # sends an event, and says how the instance stands

For cron jobs, notebooks, Celery tasks. On PostgreSQL it is the same with ``PostgresProvider(dsn)``.
"""

from __future__ import annotations

import sys

import orchestra
from orchestra import InstanceStatus, SqliteProvider


def show(sync: orchestra.sync.Connection) -> None:
    """Print the instances that have not ended."""
    page: str | None = None
    while True:
        found = sync.call(
            sync.client.list_instances,
            status=[InstanceStatus.RUNNING, InstanceStatus.PENDING, InstanceStatus.HELD],
            page=page,
        )
        for info in found.items:
            print(f"{info.instance_id}  {info.name} {info.version}  {info.status}")
        page = found.next_page
        if page is None:
            return


def tell(sync: orchestra.sync.Connection, instance_id: str, event: str) -> None:
    """Send an event, and print the instance's state."""
    handle = sync.client.handle(instance_id)
    sync.call(handle.raise_event, event)
    print(f"{instance_id}  {sync.call(handle.info).status}")


def main(database: str, instance_id: str | None = None, event: str | None = None) -> None:
    """Run the command line."""
    with orchestra.sync.connect(SqliteProvider(database)) as sync:
        if instance_id is None or event is None:
            show(sync)
        else:
            tell(sync, instance_id, event)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Watch instances: yield what readers of the store can see change."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Final, Literal

from orchestra.client.access import Access
from orchestra.client.arguments import check_id, check_limit
from orchestra.client.info import InstanceInfo, InstanceStatus
from orchestra.client.instances import Instances
from orchestra.client.selecting import Selecting
from orchestra.client.selections import OrderBy, Selection

__all__ = ["InstanceChange", "watch", "watch_instances"]

_SHORTEST: Final = 0.05
_LONGEST: Final = 1.0
_OPEN: Final = (InstanceStatus.PENDING, InstanceStatus.RUNNING, InstanceStatus.HELD)


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """A change of a watched list.

    An instance has ``entered`` the list, has ``changed`` in it, or has ``left`` it: it no longer
    meets the selection, is behind the limit, or was deleted. ``info`` is ``None`` for one that has
    left.
    """

    instance_id: str
    change: Literal["entered", "changed", "left"]
    info: InstanceInfo | None


async def watch(
    access: Access, instances: Instances, instance_id: str
) -> AsyncGenerator[InstanceInfo]:
    """Yield an instance at each change; see :meth:`Client.watch`."""
    check_id(instance_id)
    last: InstanceInfo | None = None
    pause = _SHORTEST
    with access.port.watch_changes(instance_id) as changes:
        while True:
            info = await instances.info(instance_id)
            if last is not None and info.incarnation != last.incarnation:
                return  # its end came and went between two looks
            is_new = info != last
            if is_new:
                last = info
                yield info
            if info.status not in _OPEN:
                return
            pause = _SHORTEST if is_new else min(_LONGEST, pause * 1.5)
            await changes.wait(pause)


async def watch_instances(
    access: Access,
    selecting: Selecting,
    selection: Selection,
    order_by: OrderBy | str,
    limit: int,
    search_limit: int | None,
) -> AsyncGenerator[InstanceChange]:
    """Yield the changes of a list; see :meth:`Client.watch_instances`."""
    check_limit(limit)
    shown: dict[str, InstanceInfo] = {}
    pause = _SHORTEST
    with access.port.watch_changes(None) as changes:
        while True:
            page = await selecting.find(selection, order_by, limit, None, search_limit)
            found = {info.instance_id: info for info in page.items}
            news = [
                InstanceChange(instance_id, "left", None)
                for instance_id in shown
                if instance_id not in found
            ]
            news += [
                InstanceChange(instance_id, "changed" if instance_id in shown else "entered", info)
                for instance_id, info in found.items()
                if shown.get(instance_id) != info
            ]
            shown = found
            for one in news:
                yield one
            pause = _SHORTEST if news else min(_LONGEST, pause * 1.5)
            await changes.wait(pause)

"""Why an instance cannot go on now. Dashboards show it, and a changed policy moves held
instances.
"""

from __future__ import annotations

from orchestra.resolution import (
    is_living,
    serves,
    shown_kind,
    why_none_in_range,
    why_unreadable,
)
from orchestra.store.catalogue import Catalogue
from orchestra.store.instances import CRASHES_BEFORE_DELAY, shown_hold
from orchestra.store.kinds import Status
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import DEFAULT_QUEUE, Kind, Route

__all__ = ["hold_reason", "unserved_kinds", "why_unserved"]


def hold_reason(record: InstanceRecord, catalogue: Catalogue) -> str | None:
    """Return the hold of an instance, given the living nodes; ``None``: it has none, or it has
    ended.
    """
    row = record.row
    if record.status is not Status.OPEN:
        return None
    if record.held and row.hold is not None:
        return f"{shown_hold(row.hold)}: {row.hold.detail}"
    if not _is_served(row.kind, catalogue):
        # Derived when read and never stored: a stored mark would lose its release in a race (rule
        # 5).
        if (reason := why_unreadable(catalogue, row.kind)) is not None:
            return f"no living node reads it: {reason}"
        if (reason := why_none_in_range(catalogue, row.kind)) is not None:
            return reason
        where = "" if row.kind.queue == DEFAULT_QUEUE else f" and serves queue {row.kind.queue!r}"
        return f"no living node has registered {shown_kind(catalogue, row.kind)}{where}"
    if row.takeovers >= CRASHES_BEFORE_DELAY and row.owner is None:
        return f"crashing: {row.takeovers} nodes in a row were lost while they ran it"
    return _why_activity_waits(record, catalogue)


def _why_activity_waits(record: InstanceRecord, catalogue: Catalogue) -> str | None:
    """Return why no living node takes an activity of an instance. Lists know only the route."""
    routes = [] if record.unserved is None else [record.unserved]
    routes += [
        activity.route
        for activity in record.activities
        if activity.route is not None and activity.is_waiting
    ]
    reasons = (why_unserved(route, catalogue) for route in routes)
    return next((reason for reason in reasons if reason is not None), None)


def unserved_kinds(catalogue: Catalogue) -> tuple[Kind, ...]:
    """Return the kinds that no living node can run."""
    return tuple(kind for kind in catalogue.kinds if not _is_served(kind, catalogue))


def _is_served(kind: Kind, catalogue: Catalogue) -> bool:
    return any(
        is_living(node, catalogue.now) and serves(node.record, kind, catalogue)
        for node in catalogue.nodes
    )


def why_unserved(route: Route, catalogue: Catalogue) -> str | None:
    """Return why no node takes an activity of a route, and the remedy; ``None``: a node may take
    it.
    """
    routes = {
        offered
        for node in catalogue.nodes
        if is_living(node, catalogue.now)
        for offered in node.record.routes
    }
    if route in routes:
        return None
    if all(offered.format != route.format for offered in routes) and routes:
        return (
            f"activity {route.activity!r} was asked for in event format {route.format}, which no "
            "living node reads"
        )
    if route.fingerprint is not None:
        return (
            "the node that could perhaps read the arguments is gone: activity "
            f"{route.activity!r}; others could not"
        )
    reason = f"no living node has activity {route.activity!r} and serves queue {route.queue!r}"
    elsewhere = sorted(repr(offered.queue) for offered in routes if offered.name == route.name)
    if not elsewhere:
        return reason
    return (
        f"{reason}; some have it and serve {', '.join(elsewhere)}: let one of them serve "
        f"{route.queue!r} too (Runtime(queues=...)), or name a queue of theirs where it is "
        "scheduled"
    )

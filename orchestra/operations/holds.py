"""Why an instance cannot go on now. Dashboards show it, and a changed policy moves held
instances.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from orchestra.codec import UserText
from orchestra.levels import Unknown
from orchestra.resolution import (
    is_living,
    serves,
    shown_kind,
    why_none_in_range,
    why_unreadable,
)
from orchestra.store.catalogue import Catalogue
from orchestra.store.instances import CRASHES_BEFORE_DELAY, Hold, hold_in_force, hold_text
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.queries import InstanceRecord
from orchestra.store.routes import DEFAULT_QUEUE, Kind, Route

__all__ = ["hold_of", "hold_reason", "releases_when", "unserved_kinds", "why_unserved"]


def hold_of(record: InstanceRecord, catalogue: Catalogue) -> Hold | None:
    """Return what keeps an instance from going on, given the living nodes; ``None``: nothing does,
    or it has ended.

    What is derived has no author, and counts from the last write of the instance.
    """
    row = record.row
    if record.status is not Status.OPEN:
        return None
    if record.held:
        in_force = hold_in_force(row.hold, row.operator_hold, paused=row.paused)
        if in_force is not None:
            return in_force
    derived = _derived_hold(record, catalogue)
    if derived is None:
        return None
    kind, detail = derived
    return Hold(kind, UserText(detail), record.updated_at, "")


def hold_reason(record: InstanceRecord, catalogue: Catalogue) -> str | None:
    """Return the text of an instance's hold; ``None``: nothing holds it."""
    hold = hold_of(record, catalogue)
    return None if hold is None else hold_text(hold)


def _derived_hold(record: InstanceRecord, catalogue: Catalogue) -> tuple[HoldKind, str] | None:
    # Derived when read and never stored: a stored mark would lose its release in a race (rule 5).
    row = record.row
    if not _is_served(row.kind, catalogue):
        return HoldKind.VERSION_MISSING, _why_unserved_kind(row.kind, catalogue)
    if row.takeovers >= CRASHES_BEFORE_DELAY and row.owner is None:
        lost = f"{row.takeovers} nodes in a row were lost while they ran it"
        return HoldKind.CRASHING, lost
    waits = _why_activity_waits(record, catalogue)
    return None if waits is None else (HoldKind.ACTIVITY_MISSING, waits)


def _why_unserved_kind(kind: Kind, catalogue: Catalogue) -> str:
    if (reason := why_unreadable(catalogue, kind)) is not None:
        return f"no living node reads it: {reason}"
    if (reason := why_none_in_range(catalogue, kind)) is not None:
        return reason
    where = "" if kind.queue == DEFAULT_QUEUE else f" and serves queue {kind.queue!r}"
    return f"no living node has registered {shown_kind(catalogue, kind)}{where}"


_RELEASES: Final[Mapping[HoldKind, str]] = {
    HoldKind.ERROR: "once code of this version that differs is deployed: that tries it by itself; "
    "or with client.release(), client.rewind() or client.terminate()",
    HoldKind.LIMIT: "once the code of this version differs, or Runtime(limits=...) allows more: "
    "that tries it by itself; or with client.rewind() or client.terminate()",
    HoldKind.NONDETERMINISM: "once code is deployed that repeats its history: that tries it by "
    "itself; or with client.rewind() to a lap before the change, or client.terminate()",
    HoldKind.HISTORY: "with client.rewind() or client.terminate(); its history is damaged, so look "
    "for the cause with `orchestra doctor`",
    HoldKind.STATE: "once code is deployed whose type reads the value: that tries it by itself; or "
    "with client.rewind() or client.terminate()",
    HoldKind.MIGRATION: "once code is deployed whose migrations take the state: that tries it by "
    "itself; or with a version policy or client.pin() that names the version before, "
    "client.rewind() or client.terminate()",
    HoldKind.PAYLOAD: "by itself once a node has the key, or the external storage answers again; a "
    "value that was changed or moved must be put right first, then with client.release(); or with "
    "client.rewind() or client.terminate()",
    HoldKind.STORE: "with client.release(), once the store takes the write",
    HoldKind.INTERNAL: "with client.release(); this is a fault of the library, so please report it",
    HoldKind.OPERATOR: "with client.release()",
    HoldKind.VERSION_MISSING: "once a runtime lives that has this version and reads its history; "
    "or with client.pin() or a version policy, if it has not begun, client.rewind() or "
    "client.terminate()",
    HoldKind.CRASHING: "by itself, after a delay that grows to five minutes; look for what kills "
    "the process, or use client.hold() or client.terminate()",
    HoldKind.ACTIVITY_MISSING: "once a runtime lives that has the activity and serves its queue; "
    "or with client.terminate()",
}


def releases_when(kind: HoldKind | Unknown) -> str:
    """Return what ends a hold of a kind: what the operator can do."""
    if isinstance(kind, Unknown):
        return "a newer library has held it, and knows what releases it"
    return _RELEASES[kind]


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
    if route.node is not None:
        return None  # its node takes it, or it is lost with its session soon
    if (names := route.session) is not None:
        return _why_no_session(route, names, catalogue)
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


def _why_no_session(route: Route, names: Sequence[str], catalogue: Catalogue) -> str | None:
    """Return why no node takes a session of these activities; ``None``: one may, when it has
    room.
    """
    nodes = [node.record for node in catalogue.nodes if is_living(node, catalogue.now)]
    if any(node.takes_session(route) for node in nodes):
        return None
    return (
        f"no living node has all activities of a session ({', '.join(map(repr, names))}) and "
        f"serves queue {route.served_queue!r}; give them to one node: Runtime(activities=..., "
        "queues=...)"
    )

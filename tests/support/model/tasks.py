"""Activities that are handed out, in the model."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from itertools import chain, zip_longest

from orchestra.codec import EMPTY
from orchestra.store.changes import Claim, Publish, Report, Stop, Write
from orchestra.store.instances import InstanceRow
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended, Granted, Refused, Reported
from orchestra.store.routes import Route
from orchestra.store.tasks import LOST, ActivityRow, Task
from tests.support.model.streams import last_number, publish
from tests.support.model.world import ModelInstance, ModelWorld, ring


def waiting(world: ModelWorld, route: Route) -> list[tuple[ModelInstance, ActivityRow]]:
    """Return what is handed out by a route and nobody has taken, the oldest first."""
    found = [
        pair
        for pair in _handed_out(world)
        if pair[1].route == route and pair[1].owner is None and not pair[1].paused
    ]
    return sorted(
        found, key=lambda pair: pair[1].started_at
    )  # among equals in the order of their ids


def take(world: ModelWorld, claim: Claim) -> tuple[Task, ...]:
    node = claim.node
    in_turn = chain.from_iterable(
        zip_longest(*(waiting(world, route) for route in dict.fromkeys(claim.routes)))
    )
    taken: list[tuple[ModelInstance, ActivityRow]] = []
    for pair in in_turn:
        if pair is None or len(taken) >= claim.slots:
            continue
        blocking = [activity for _, activity in taken if activity.route in claim.blocking]
        if pair[1].route not in claim.blocking or len(blocking) < claim.threads:
            taken.append(pair)
    for instance, activity in taken:
        _put(
            world,
            instance.row.instance_id,
            replace(activity, owner=node, revision=activity.revision + 1),
        )
    keys = {
        (instance.row.instance_id, activity.execution, activity.event_id)
        for instance, activity in taken
    }
    return tuple(
        task
        for task in taken_by(world, node)
        if (task.instance_id, task.execution, task.event_id) in keys
    )


def taken_by(world: ModelWorld, node: str) -> list[Task]:
    return [
        _task(instance, activity)
        for instance, activity in _handed_out(world)
        if activity.owner == node
    ]


def publish_items(world: ModelWorld, change: Publish) -> Granted | Refused:
    """Add items of an attempt to streams, but those that stand already."""
    instance = world.instances.get(change.instance_id)
    if instance is None:
        return Refused()
    known = last_number(instance.streams, change)
    new = tuple(item for item in change.items if item.number > known)
    if not new:
        return Granted(0)
    row = instance.row
    activity = instance.activities.get((change.execution, change.event_id))
    life = change.incarnation, change.execution
    if instance.status is not Status.OPEN or (row.incarnation, row.execution) != life:
        return Refused()
    if change.revision is not None:
        runs = activity is not None and activity.owner == change.node
        if not runs or activity is None or activity.revision != change.revision:
            return Refused()
    elif row.owner != change.node or not _may_run(row, activity, change):
        return Refused()
    streams = publish(instance.streams, change.incarnation, new, change.bounds)
    world.instances[change.instance_id] = replace(instance, streams=streams)
    if change.steps is not None:
        kept = activity or change.steps.row
        assert kept is not None
        _put(world, change.instance_id, replace(kept, heartbeat=kept.heartbeat or EMPTY))
    return Granted(0)


def _may_run(row: InstanceRow, activity: ActivityRow | None, change: Publish) -> bool:
    if activity is None:
        return change.steps is None or change.steps.revision == row.revision
    is_here = activity.route is None and not activity.has_ended
    return is_here and activity.attempt == change.attempt


def report(world: ModelWorld, now: int, report: Report) -> Reported | Refused:
    instance = world.instances.get(report.instance_id)
    activity = (
        None if instance is None else instance.activities.get((report.execution, report.event_id))
    )
    if instance is None or activity is None or instance.row.incarnation != report.incarnation:
        return Refused()
    if (activity.owner, activity.revision) != (report.node, report.revision):
        return Refused()
    activity = replace(activity, heartbeat=report.heartbeat or activity.heartbeat)
    if not report.is_end:
        _put(world, report.instance_id, activity)
        return Reported(stopping=activity.stopping)
    ended = replace(activity, result=report.result, failure=report.failure)
    return Reported(_give_back(world, now, report.instance_id, ended), activity.stopping)


def stop(world: ModelWorld, now: int, write: Write, stop: Stop) -> Appended | None:
    """Put the stop mark on what is handed out. Return its end, where nobody has taken it."""
    activity = world.instances[write.instance_id].activities.get(
        (write.state.execution, stop.event_id)
    )
    if activity is None or activity.route is None or activity.has_ended:
        return None
    activity = replace(activity, stopping=True)
    if activity.owner is None:
        return _give_back(world, now, write.instance_id, replace(activity, failure=stop.failure))
    _put(world, write.instance_id, activity)
    return None


def suspend(world: ModelWorld, instance_id: str) -> None:
    """Take the handed-out activities of an instance from their nodes."""
    for instance, activity in _handed_out(world):
        if instance.row.instance_id == instance_id and not activity.stopping:
            revoked = replace(activity, owner=None, revision=activity.revision + 1, paused=True)
            _put(world, instance_id, revoked)


def resume(world: ModelWorld, instance_id: str) -> None:
    """Let nodes take them again."""
    for activity in world.instances[instance_id].activities.values():
        _put(world, instance_id, replace(activity, paused=False))


def release(world: ModelWorld, now: int, node: str) -> None:
    for instance, activity in _handed_out(world):
        if activity.owner != node:
            continue
        if activity.stopping:
            _give_back(world, now, instance.row.instance_id, replace(activity, failure=LOST))
        else:
            _put(
                world,
                instance.row.instance_id,
                replace(activity, owner=None, revision=activity.revision + 1),
            )


def lose(world: ModelWorld, now: int, living: Collection[str], limit: int) -> int:
    orphans = [
        (one, activity)
        for one, activity in _handed_out(world)
        if activity.owner not in (None, *living)
    ][:limit]
    orphans += [
        (one, activity)
        for one, activity in _handed_out(world)
        if activity.is_waiting and _only_node(activity) not in (None, *living)
    ][:limit]
    for instance, activity in orphans:
        _give_back(world, now, instance.row.instance_id, replace(activity, failure=LOST))
    return len(orphans)


def _only_node(activity: ActivityRow) -> str | None:
    """Return the node that alone may take an activity: that of its session."""
    queue = "" if activity.route is None else activity.route.queue
    return queue[1:] if queue[:1] == "\x1d" else None


def _handed_out(world: ModelWorld) -> list[tuple[ModelInstance, ActivityRow]]:
    return [
        (instance, instance.activities[key])
        for _, instance in sorted(world.instances.items())
        for key in sorted(instance.activities)
        if instance.activities[key].route is not None and not instance.activities[key].has_ended
    ]


def _give_back(
    world: ModelWorld, now: int, instance_id: str, activity: ActivityRow
) -> Appended | None:
    activity = replace(activity, owner=None, revision=activity.revision + 1)
    _put(world, instance_id, activity)
    instance = world.instances[instance_id]
    if instance.status is not Status.OPEN:
        return None
    row = ring(instance.row, now, ready=now)
    world.instances[instance_id] = replace(instance, row=row, updated_at=now)
    return Appended(row.inbox_seq, row.owner, fresh=True, activity=activity)


def _put(world: ModelWorld, instance_id: str, activity: ActivityRow) -> None:
    instance = world.instances[instance_id]
    activities = {**instance.activities, (activity.execution, activity.event_id): activity}
    world.instances[instance_id] = replace(instance, activities=activities)


def _task(instance: ModelInstance, activity: ActivityRow) -> Task:
    execution = instance.executions[activity.execution]
    scheduled = next(
        event for event in instance.events[activity.execution] if event.id == activity.event_id
    )
    return Task(
        instance.row.instance_id,
        instance.row.incarnation,
        activity.execution,
        activity.event_id,
        activity.revision,
        activity.attempt,
        execution.name,
        execution.version,
        scheduled,
        activity.heartbeat,
        execution.traceparent,
        activity.stopping,
    )

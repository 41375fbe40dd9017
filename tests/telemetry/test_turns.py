"""Spans and metrics of the engine, on virtual time: told once, when the write stands, and never
again.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from orchestra.engine.engine import EngineOptions
from orchestra.errors import (
    Failure,
    InstanceNotFound,
    OutcomeUnknown,
    StoreError,
    StoreUnavailable,
)
from orchestra.registry import OrchestrationRegistry
from orchestra.schedules import Event
from orchestra.store.kinds import HoldKind, Status
from orchestra.store.outcomes import Refused
from orchestra.telemetry import Recorder
from orchestra.telemetry.instruments import INSTRUMENTS
from orchestra.versions import Exact
from tests.engine.test_schedules import make, minutely
from tests.support.harness import HOLD, registry, several
from tests.support.observed import is_child, links, traceparent

CALLER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SENDER = "00-1af7651916cd43dd8448eb211c80319c-c7ad6b7169203331-01"


async def works(ctx, _):
    return await ctx.schedule_activity("work")


async def listens(ctx, _):
    return [await ctx.wait_for_event("go") for _ in range(2)]


async def loops(ctx, lap):
    await ctx.schedule_activity("work")
    if lap < 3:
        ctx.continue_as_new(lap + 1)
    return lap


@pytest.fixture
def node(world, observed):
    def make(orchestrations, activities=None, **options):
        return world.node(
            orchestrations, activities, recorder=observed.recorder(world.clock), **options
        )

    return make


def attributes(span):
    return {key.removeprefix("orchestra."): value for key, value in span.attributes.items()}


def test_each_turn_that_did_something_is_a_span_in_the_trace_of_its_execution(
    world, observed, node
):
    worker = node(registry(works), {"work": HOLD})
    instance_id = world.start()
    world.run_until_idle()
    world.run(3)  # nothing happens meanwhile, so nothing is told
    (root,) = observed.spans()
    assert root.name == "orchestration job"
    assert root.parent is None
    assert attributes(root) == {
        "orchestration.name": "job",
        "orchestration.version": "1.0.0",
        "instance.id": instance_id,
        "execution.id": 1,
        "turn.events": 2,
    }
    worker.finish(value=1)
    world.run_until_idle()
    turn = observed.span("turn")
    assert is_child(turn, root)
    assert attributes(turn)["outcome"] == "completed"
    assert world.status(instance_id) is Status.COMPLETED
    assert turn.start_time == world.clock.instant * 1000
    assert root.end_time <= turn.start_time - 3_000_000_000, "no span is open across a wait"


def test_the_trace_is_stored_with_the_execution_and_goes_to_its_activities(world, observed, node):
    worker = node(registry(works), {"work": HOLD})
    instance_id = world.start()
    world.run_until_idle()
    root = observed.span("orchestration")
    assert world.executions(instance_id)[0].traceparent == traceparent(root)
    assert worker.the_running().traceparent == traceparent(root)


def test_a_start_and_an_event_are_linked_to_by_the_turns_that_they_cause(world, observed, node):
    node(registry(listens))
    start = replace(world.start_change(), traceparent=CALLER)
    world.store.commit([start])
    world.run_until_idle()
    world.store.commit([replace(world.append_change(start.instance_id), traceparent=SENDER)])
    world.run(1)
    world.send(start.instance_id)  # by somebody without a trace
    world.run(1)
    root, first, second = observed.spans()
    assert [links(span) for span in (root, first, second)] == [
        [("origin", CALLER)],
        [("event", SENDER)],
        [],
    ]
    assert root.context.trace_id != int(CALLER[3:35], 16)
    assert is_child(first, root)
    assert is_child(second, root)


def test_an_event_that_came_before_the_first_turn_is_linked_to_by_it(world, observed, node):
    node(registry(listens))
    start = replace(world.start_change(), traceparent=CALLER)
    world.store.commit([start, replace(world.append_change(start.instance_id), traceparent=SENDER)])
    world.run_until_idle()
    assert links(observed.span("orchestration")) == [("origin", CALLER), ("event", SENDER)]


@pytest.mark.parametrize("how", ["at once", "on another node"])
def test_each_lap_is_a_trace_of_its_own_linked_to_the_one_before_and_to_the_origin(
    world, observed, node, how
):
    node(registry(loops), {"work": lambda run: 1})
    start = replace(world.start_change(state=1), traceparent=CALLER)
    world.store.commit([start])
    if how == "on another node":
        for _ in range(50):
            (worker,) = world.alive
            if worker.is_busy:
                worker.cycle_once()
            worker.stop()
            if world.status(start.instance_id) is not Status.OPEN:
                break
            node(registry(loops), {"work": lambda run: 1})
    world.run_until_idle()
    first, second, third = observed.spans("orchestration")
    assert len({span.context.trace_id for span in (first, second, third)}) == 3
    assert links(first) == [("origin", CALLER)]
    assert links(second) == [("origin", CALLER), ("previous", traceparent(first))]
    assert links(third) == [("origin", CALLER), ("previous", traceparent(second))]
    laps = world.executions(start.instance_id)
    assert [lap.traceparent for lap in laps] == [
        traceparent(span) for span in (first, second, third)
    ]
    ends = observed.spans("turn")
    assert [attributes(span)["outcome"] for span in ends] == [
        "continued_as_new",
        "continued_as_new",
        "completed",
    ]
    assert [
        is_child(span, root) for span, root in zip(ends, (first, second, third), strict=True)
    ] == [True] * 3


async def asks(ctx, state):
    return await ctx.start_child("asked", state, instance_id="kid")


async def asked(ctx, state):
    if state:
        ctx.continue_as_new(state - 1)
    return "answer"


def test_a_child_is_linked_to_the_execution_that_asked_and_its_end_to_the_lap_that_it_ended_with(
    world, observed, node
):
    node(several(asks=asks, asked=asked))
    world.start("asks", 1, instance_id="parent")
    world.run_until_idle()
    parent, first, second = (span for span in observed.spans("orchestration"))
    assert [links(span) for span in (parent, first)] == [[], [("origin", traceparent(parent))]]
    assert links(second) == [("origin", traceparent(parent)), ("previous", traceparent(first))]
    (told,) = observed.spans("turn asks")
    assert links(told) == [("child", traceparent(second))]
    assert is_child(told, parent)


async def spins(ctx, lap):
    if lap < 3:
        ctx.continue_as_new(lap + 1)
    return lap


def test_laps_that_share_a_write_have_a_span_each(world, observed, node):
    worker = node(registry(spins))
    world.start(state=1)
    world.run_until_idle()
    assert len(worker.store.writes) == 1
    first, second, third = observed.spans()
    assert [attributes(span)["execution.id"] for span in (first, second, third)] == [1, 2, 3]
    assert links(third) == [("previous", traceparent(second))]


def test_a_replay_tells_nothing_and_the_turn_behind_it_goes_on_in_the_same_trace(
    world, observed, node
):
    worker = node(registry(listens))
    instance_id = world.start()
    world.run_until_idle()
    world.send(instance_id)
    world.run(1)
    worker.stop()
    before = [span.context.span_id for span in observed.spans()]
    assert len(before) == 2
    worker = node(registry(listens))
    world.send(instance_id)
    world.run(1)
    assert worker.store.histories == [(instance_id, 1)]
    *known, last = observed.spans()
    assert [span.context.span_id for span in known] == before
    assert is_child(last, known[0])
    assert observed.values("orchestra.cache.lookups") == {
        ("job", "1.0.0", "hit"): 1,
        ("job", "1.0.0", "miss"): 1,
    }


def test_the_time_of_a_turn_is_neither_the_replay_before_it_nor_the_commit_behind_it(
    world, observed, node
):
    node(registry(listens)).store.around = lambda: world.clock.skip(0.5)
    instance_id = world.start()
    world.run_until_idle()
    world.alive[0].stop()
    worker = node(registry(listens))
    worker.store.before_history = lambda: world.clock.skip(2)
    world.send(instance_id)
    before = world.clock.instant
    world.run_until_idle()
    (turn,) = observed.spans("turn")
    assert turn.start_time == turn.end_time == (before + 2_000_000) * 1000
    assert observed.sums("orchestra.turn.duration") == {("job", "1.0.0"): (2, 0)}


@pytest.mark.parametrize(
    "damaged", ["nonsense", "", "00-0-0-01", CALLER.replace("0af7", "zzzz"), "00" + "-0" * 32]
)
def test_a_traceparent_that_cannot_be_read_is_none(world, observed, node, damaged):
    node(registry(listens))
    start = replace(world.start_change(), traceparent=damaged)
    world.store.commit(
        [start, replace(world.append_change(start.instance_id), traceparent=damaged)]
    )
    world.run_until_idle()
    assert links(observed.span("orchestration")) == []


def test_an_execution_that_is_taken_over_goes_on_in_its_trace(world, observed, node):
    first = node(registry(works), {"work": HOLD}, lease=5.0)
    instance_id = world.start()
    world.run_until_idle()
    first.crash()
    second = node(registry(works), {"work": HOLD}, lease=5.0)
    world.run(12)
    run = second.the_running()
    root = observed.span("orchestration")
    assert (run.attempt, run.traceparent) == (2, traceparent(root))
    second.finish(value=1)
    world.run_until_idle()
    assert world.status(instance_id) is Status.COMPLETED
    assert is_child(observed.span("turn"), root)
    assert observed.values("orchestra.takeovers") == {(): 1}
    assert observed.sums("orchestra.activity.attempts") == {("job", "1.0.0", "work"): (1, 2)}


def test_a_write_that_was_refused_is_not_told_of(world, observed, node):
    worker = node(registry(listens))
    instance_id = world.start()

    def pin():
        world.admin.set_pin(
            instance_id, None, by="me", reason=""
        )  # takes ownership away between the step and its commit

    worker.cycle_once()  # claims
    worker.store.before_commit = pin
    worker.cycle_once()
    refused = [
        outcome
        for group in worker.store.groups
        for _, outcome in group
        if isinstance(outcome, Refused)
    ]
    assert len(refused) == 1, "the step was made"
    assert observed.spans() == []
    assert observed.values("orchestra.starts") == {}
    world.run(2)
    root = observed.span("orchestration")
    assert world.executions(instance_id)[0].traceparent == traceparent(root)
    assert observed.values("orchestra.starts") == {("job", "1.0.0"): 1}


@pytest.mark.parametrize("fate", ["lost before", "lost after", StoreUnavailable("away")])
def test_whatever_becomes_of_a_reply_a_turn_is_told_of_once_at_most(world, observed, node, fate):
    worker = node(registry(listens))
    world.start()
    worker.cycle_once()
    worker.store.replies.append(fate)
    world.run(30)
    told = observed.spans("orchestration")
    # Whose reply was lost may stand and be told by nobody; it is never told twice.
    assert len(told) == (0 if fate == "lost after" else 1)
    if isinstance(fate, StoreError) and not isinstance(fate, OutcomeUnknown):
        assert observed.values("orchestra.store.failures") == {(): 1}


async def fails(ctx, _):
    raise Failure("nothing there")


def test_a_failed_execution_is_an_error_that_names_its_type(world, observed, node):
    node(registry(fails))
    world.start()
    world.run_until_idle()
    span = observed.span("orchestration")
    assert span.status.status_code.name == "ERROR"
    assert span.attributes["error.type"] == "orchestra.errors.Failure"
    assert "nothing there" in span.status.description
    assert observed.values("orchestra.ends") == {("job", "1.0.0", "failed"): 1}


def test_telemetry_that_breaks_takes_nothing_down_with_it(world, observed, node, caplog):
    def broken(*_, **__):
        raise RuntimeError("the exporter is ill")

    worker = node(registry(loops), {"work": lambda run: 1})
    recorder = worker.engine._recorder
    for part in (recorder._traces, recorder._metrics):
        for name in dir(part):
            if not name.startswith("_"):
                setattr(part, name, broken)
    instance_id = world.start(state=1)
    world.run_until_idle()
    assert world.output(instance_id) == 3
    assert (
        len([record for record in caplog.records if "telemetry has failed" in record.message]) == 1
    )


# --- metrics --------------------------------------------------------------------------------------


def test_starts_laps_upgrades_and_ends_are_counted_by_name_and_version(world, observed, node):
    async def old(ctx, lap):
        await ctx.schedule_timer(timedelta(seconds=1))
        ctx.continue_as_new(lap + 1)

    async def new(ctx, lap):
        await ctx.schedule_timer(timedelta(seconds=1))
        return lap

    node(registry(v1_0_0=old, v1_1_0=new))
    world.set_policy(Exact("1.0.0"))
    world.run(2)
    world.start(state=0)
    world.run(2.5)
    world.set_policy(Exact("1.1.0"))
    world.run(10)
    laps = observed.values("orchestra.laps")[("job", "1.0.0")]
    assert laps >= 2
    assert observed.values("orchestra.starts") == {("job", "1.0.0"): 1}
    assert observed.values("orchestra.upgrades") == {("job", "1.0.0", "1.1.0"): 1}
    assert observed.values("orchestra.ends") == {("job", "1.1.0", "completed"): 1}
    durations = observed.sums("orchestra.lap.duration")
    assert durations[("job", "1.0.0", "continued_as_new")][0] == laps
    assert durations[("job", "1.1.0", "completed")] == (1, pytest.approx(1.0, abs=0.01))


def test_a_timer_is_as_late_as_its_firing_was_committed_after_it_was_due(world, observed, node):
    async def naps(ctx, _):
        await ctx.schedule_timer(timedelta(seconds=5))

    worker = node(registry(naps))
    world.start()
    world.run_until_idle()
    world.clock.skip(6.5)  # the node was paused
    worker.store.before_commit = lambda: world.clock.skip(0.25)
    world.run(1)
    count, total = observed.sums("orchestra.timer.lateness")[("job", "1.0.0")]
    assert count == 1
    assert total == pytest.approx(1.75, abs=0.01)


def test_the_age_of_the_queue_is_counted_from_what_made_an_instance_ready(world, observed, node):
    node(registry(listens))
    change = world.start_change()
    world.store.commit([change])
    world.clock.skip(4)
    world.run(1)
    assert observed.sums("orchestra.queue.age")[("job", "1.0.0")] == (1, pytest.approx(4, abs=0.01))
    world.send(change.instance_id)
    world.clock.skip(2)
    world.run(1)
    assert observed.sums("orchestra.queue.age")[("job", "1.0.0")] == (2, pytest.approx(6, abs=0.02))


def test_holds_are_counted_and_what_is_held_is_looked_up_once_a_lease(world, observed, node):
    async def takes(ctx, number: int):
        return number

    worker = node(registry(takes))
    world.start(state="text")
    world.run(1)
    reason = HoldKind.STATE.value
    assert observed.values("orchestra.holds") == {("job", "1.0.0", reason): 1}
    world.run(25)
    assert observed.values("orchestra.held") == {("job", reason): 1}
    worker.stop()

    async def takes_anything(ctx, value):
        return value

    node(registry(takes_anything))
    world.run(25)
    assert observed.values("orchestra.held") == {("job", reason): 0}
    assert observed.values("orchestra.holds") == {("job", "1.0.0", reason): 1}


def test_what_is_overdue_is_counted_once_a_lease(world, observed, node):
    async def sleeps(ctx, _):
        await ctx.schedule_timer(timedelta(minutes=2))

    builder = OrchestrationRegistry.builder().register("job", sleeps)
    node(builder.set_boundary("job", due=timedelta(minutes=1)).build())
    for _ in range(3):
        world.start()
    world.run(50)
    assert not observed.values("orchestra.overdue").get(("job",))
    world.run(30)
    assert observed.values("orchestra.overdue") == {("job",): 3}
    world.run(80)
    assert observed.values("orchestra.overdue") == {("job",): 0}


def test_commits_tell_their_time_and_how_much_was_in_them(world, observed, node):
    worker = node(registry(works), {"work": HOLD})
    worker.store.around = lambda: world.clock.skip(0.004)
    for _ in range(5):
        world.start()
    world.run_until_idle()
    durations, writes = (
        observed.sums("orchestra.commit.duration"),
        observed.sums("orchestra.commit.writes"),
    )
    commits = len(worker.store.groups)
    assert durations == {(): (commits, pytest.approx(commits * 0.008))}
    assert writes == {(): (commits, len(worker.store.writes))}


def test_what_a_node_owns_goes_up_and_down_with_it(world, observed, node):
    worker = node(registry(works), {"work": HOLD}, options=EngineOptions(max_owned=3))
    for _ in range(3):
        world.start()
    world.run(3)
    assert observed.values("orchestra.owned") == {(): 3}
    worker.stop()
    assert observed.values("orchestra.owned") == {(): 0}


def test_no_metric_has_a_label_that_the_table_does_not_name_and_none_holds_an_instance(
    world, observed, node
):
    specs = {spec.name: spec for spec in INSTRUMENTS}
    node(registry(v1_0_0=loops, v1_1_0=loops), {"work": lambda run: 1})
    world.set_policy(Exact("1.0.0"))
    world.run(2)
    ids = [world.start(state=1) for _ in range(3)]
    ids.append(world.start(state=1))
    world.cancel(ids[-1])
    world.set_policy(Exact("1.1.0"))
    world.run(5)
    metrics = observed.metrics()
    assert {
        "orchestra.starts",
        "orchestra.ends",
        "orchestra.laps",
        "orchestra.turn.duration",
    } <= metrics.keys()
    for name, metric in metrics.items():
        assert (metric.unit, metric.description) == (specs[name].unit, specs[name].description)
        for point in metric.data.data_points:
            assert set(point.attributes) == set(specs[name].labels)
            assert not set(map(str, point.attributes.values())) & {
                *ids,
                *(node.node_id for node in world.nodes),
            }
    assert not any("instance" in label for spec in INSTRUMENTS for label in spec.labels)


def test_a_cancel_before_the_first_turn_is_an_end_without_a_span(world, observed, node):
    worker = node(registry(listens))
    made = world.start_change()
    world.store.commit([made])
    world.cancel(made.instance_id)
    world.run_until_idle()
    assert worker.engine.owned == 0
    assert observed.values("orchestra.ends") == {("job", "1.0.0", "cancelled"): 1}
    assert observed.spans() == []


def test_children_that_are_terminated_with_their_parent_are_counted_as_ends(world, observed, node):
    """Also one that was started in the very turn that ends its parent, and never ran."""

    async def subject(ctx, _):
        ctx.start_child("job", instance_id="opened", on_parent_close="terminate")
        await ctx.wait_for_event("go")
        ctx.start_child("job", instance_id="unopened", on_parent_close="terminate")

    node(several(subject=subject, job=listens))
    world.start("subject", instance_id="p")
    world.run(1)
    world.send("p")
    world.run(2)
    rows = {name: world.record(name).row.opened for name in ("opened", "unopened")}
    assert rows == {"opened": True, "unopened": False}
    assert observed.values("orchestra.ends") == {
        ("subject", "1.0.0", "completed"): 1,
        ("job", "1.0.0", "terminated"): 2,
    }


def test_a_node_without_a_recorder_gathers_nothing_and_leaves_the_trace_as_it_was(
    world, observed, node
):
    plain = world.node(registry(listens))
    start = replace(world.start_change(), traceparent=CALLER)
    world.store.commit([start])
    world.run_until_idle()
    assert type(plain.engine._recorder) is Recorder
    assert world.executions(start.instance_id)[0].traceparent is None
    plain.stop()
    node(registry(listens))
    world.send(start.instance_id)
    world.run(1)
    assert (
        observed.span("turn").parent is None
    )  # a trace of its own: nobody has begun one for this execution


@pytest.mark.parametrize("how", ["at once", "on another node"])
def test_a_start_that_continues_the_callers_trace_gives_it_the_first_lap_alone(
    world, observed, node, how
):
    node(registry(loops), {"work": lambda run: 1})
    plain = world.start_change(state=1)
    start = replace(
        plain, traceparent=CALLER, execution=replace(plain.execution, traceparent=CALLER)
    )
    world.store.commit([start])
    if how == "on another node":
        for _ in range(50):
            (worker,) = world.alive
            if worker.is_busy:
                worker.cycle_once()
            worker.stop()
            if world.status(start.instance_id) is not Status.OPEN:
                break
            node(registry(loops), {"work": lambda run: 1})
    world.run_until_idle()
    first, second, third = observed.spans("orchestration")
    assert (first.context.trace_id, first.parent.span_id) == (
        int(CALLER[3:35], 16),
        int(CALLER[36:52], 16),
    )
    assert links(first) == []
    assert links(second) == [("origin", CALLER), ("previous", traceparent(first))]
    assert links(third) == [("origin", CALLER), ("previous", traceparent(second))]
    assert len({span.context.trace_id for span in (first, second, third)}) == 3
    assert [span.parent for span in (second, third)] == [None, None]


def test_an_event_from_another_instance_leads_to_the_execution_that_has_sent_it(
    world, observed, node
):
    async def tells(ctx, target):
        ctx.raise_event(target, "go", 1)

    async def hears(ctx, _):
        return await ctx.wait_for_event("go")

    node(several(tells=tells, hears=hears))
    world.start("hears", instance_id="ear")
    world.run(1)
    world.start("tells", "ear", instance_id="mouth")
    world.run(1)
    sender = observed.span("orchestration tells")
    assert links(observed.span("turn hears")) == [("event", traceparent(sender))]


@pytest.mark.parametrize("at_the_end", [False, True])
def test_a_refusal_that_no_code_awaits_is_counted(world, observed, node, at_the_end):
    async def tells(ctx, _):
        ctx.raise_event("nobody", "go", 1)
        ctx.cancel("nobody")
        if not at_the_end:
            await ctx.schedule_timer(timedelta(seconds=1))

    node(registry(tells))
    world.start()
    world.run(3)
    assert observed.values("orchestra.sends.refused") == {("job", "1.0.0", "not found"): 2}


def test_a_refusal_that_the_code_awaits_is_not_counted(world, observed, node):
    async def tells(ctx, _):
        try:
            await ctx.raise_event("nobody", "go", 1)
        except InstanceNotFound:
            return "noted"

    node(registry(tells))
    instance_id = world.start()
    world.run(3)
    assert world.output(instance_id) == "noted"
    assert observed.values("orchestra.sends.refused") == {}


async def answers(ctx, _):
    request = await ctx.wait_for_request("ask", int, returns=int)
    await ctx.schedule_timer(timedelta(seconds=5))
    if request.value:
        request.reply(1)
    else:
        request.reject("no")


@pytest.mark.parametrize(("value", "outcome"), [(1, "replied"), (0, "rejected")])
def test_a_request_is_measured_from_its_sending_over_its_receipt_to_its_answer(
    world, observed, node, value, outcome
):
    node(registry(answers))
    world.run(2)
    instance_id = world.start()
    world.run_until_idle()
    append = world.append_change(instance_id, "ask", value)
    world.store.commit([replace(append, asks=True)])
    world.clock.skip(2)
    world.run(20)
    labels = ("job", "1.0.0", "ask")
    assert observed.sums("orchestra.request.wait") == {labels: (1, pytest.approx(2, abs=0.5))}
    found = observed.sums("orchestra.request.duration")
    assert found == {(*labels, outcome): (1, pytest.approx(5, abs=0.5))}


async def quick(ctx, state):
    return state


def test_a_tick_is_a_span_to_which_what_it_starts_is_linked(world, observed, node):
    node(registry(quick))
    make(world, minutely())
    world.run(61)
    tick, root = observed.span("schedule tick"), observed.span("orchestration")
    assert tick.parent is None
    assert attributes(tick) == {"schedule.id": "s", "outcome": "fired"}
    assert links(root) == [("origin", traceparent(tick))]
    assert tick.end_time >= tick.start_time


def test_a_tick_that_another_node_was_faster_with_has_no_span(world, observed, node):
    for _ in range(2):
        node(registry(quick))
    make(world, minutely())
    world.run(3 * 60 + 1)
    ticks = [span for span in observed.spans() if span.name == "schedule tick"]
    roots = [span for span in observed.spans() if span.name.startswith("orchestration")]
    assert len(ticks) == len(roots) == 3
    assert [links(root) for root in roots] == [[("origin", traceparent(tick))] for tick in ticks]


def test_an_event_of_a_schedule_is_linked_to_its_tick(world, observed, node):
    node(registry(listens))
    instance_id = world.start()
    world.run_until_idle()
    make(world, minutely(action=Event(instance_id, "go")))
    world.run(61)
    tick, turn = observed.span("schedule tick"), observed.span("turn")
    assert links(turn) == [("event", traceparent(tick))]

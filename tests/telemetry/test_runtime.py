"""Spans and metrics of a running node: from the caller over the store to the activity, on both
async backends.
"""

import logging
import threading
from datetime import timedelta

import anyio
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from orchestra import (
    ContextFilter,
    Every,
    InstanceExists,
    InstanceNotFound,
    InvalidArgument,
    Schedule,
    Start,
    activity,
    activity_context,
)
from orchestra.telemetry import Recorder
from tests.support.kit import (
    QUICK,
    Gate,
    alone,
    bounded,
    echo,
    idle,
    info_when,
    runtime,
    until,
    when_set,
)
from tests.support.observed import is_child, links, traceparent

pytestmark = pytest.mark.anyio


def make_activity(style, body, **options):
    """Return an activity called ``work``, ``async def`` or ``def``, that does the same."""
    if style == "async":

        @activity(name="work", **options)
        async def work() -> int:
            await anyio.sleep(0)
            return body()

    else:

        @activity(name="work", **options)
        def work() -> int:
            return body()

    return work


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_a_trace_leads_from_the_caller_to_what_the_activity_does(path, observed, style):
    tracer = observed.tracer_provider.get_tracer("host")

    def body():
        with tracer.start_as_current_span("query"):
            return 7

    work = make_activity(style, body)

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    with tracer.start_as_current_span("host's own"):
        async with runtime(path, once, activities=[work], **observed.providers) as node:
            with tracer.start_as_current_span("request") as request:
                handle = await node.client.start("once", instance_id="one")
            assert await handle.result() == 7
    started, root, attempt, query = (
        observed.span(name) for name in ("start", "orchestration", "activity", "query")
    )
    assert is_child(started, request)
    assert started.kind is trace.SpanKind.PRODUCER
    assert links(root) == [("origin", traceparent(started))]
    assert root.parent is None
    assert is_child(attempt, root)
    assert is_child(query, attempt)
    assert attempt.name == "activity work"
    assert dict(attempt.attributes) == {
        "orchestra.orchestration.name": "once",
        "orchestra.orchestration.version": "1.0.0",
        "orchestra.instance.id": "one",
        "orchestra.execution.id": 1,
        "orchestra.activity.name": "work",
        "orchestra.activity.attempt": 1,
        "orchestra.outcome": "completed",
    }
    assert query.start_time >= attempt.start_time - 1_000_000


@bounded
async def test_the_span_of_an_activity_in_a_session_names_the_sessions_node(path, observed):
    work = make_activity("async", lambda: 7)

    async def once(ctx, value):
        async with ctx.session(work) as session:
            return await session.schedule_activity(work)

    async with runtime(path, once, activities=[work], **observed.providers) as node:
        handle = await node.client.start("once", instance_id="one")
        assert await handle.result() == 7
    attempt = observed.span("activity")  # the only one: entering a session is none
    assert attempt.attributes["orchestra.session.node"] == node.node_id


@bounded
async def test_a_start_may_continue_the_callers_trace(path, observed):
    tracer = observed.tracer_provider.get_tracer("host")
    work = make_activity("async", lambda: 7)

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work], **observed.providers) as node:
        with tracer.start_as_current_span("request") as request:
            handle = await node.client.start("once", trace="continue")
        assert await handle.result() == 7
        with pytest.raises(InvalidArgument, match="trace must be one of"):
            await node.client.start("once", trace="other")
        again = await node.client.start(
            "once", instance_id=handle.instance_id, if_ended="restart", trace="link"
        )
        assert await again.result() == 7
    first, second = observed.spans("orchestration")
    started = observed.spans("start")[0]
    assert is_child(started, request)
    assert is_child(first, started)
    assert links(first) == []
    attempts = observed.spans("activity")
    assert is_child(attempts[0], first)
    assert second.parent is None, "a later life is the trace of its own start's choice"


@bounded
async def test_an_event_leads_from_its_sender_to_the_turn_that_takes_it(path, observed):
    tracer = observed.tracer_provider.get_tracer("host")
    async with runtime(path, idle, **observed.providers) as node:
        handle = await node.client.start("idle", instance_id="one")
        await info_when(handle, lambda info: info.waiting_on)
        with tracer.start_as_current_span("request") as request:
            await handle.raise_event("go", 3)
        assert await handle.result() == 3
    sent, turn = observed.span("event"), observed.span("turn")
    assert is_child(sent, request)
    assert dict(sent.attributes) == {"orchestra.event.name": "go", "orchestra.instance.id": "one"}
    assert links(turn) == [("event", traceparent(sent))]
    assert is_child(turn, observed.span("orchestration"))


@bounded
async def test_a_client_alone_hands_its_trace_over_the_store(path, observed):
    async with runtime(path, idle):
        pass  # its version is known
    async with (
        runtime(path, idle, **observed.providers) as node,
        alone(path, **observed.providers) as client,
    ):
        await client.start("idle", instance_id="one")
        handle = node.client.handle("one")
        await info_when(handle, lambda info: info.waiting_on)
        await client.raise_event("one", "go", 3)
        await handle.result()
    assert links(observed.span("orchestration")) == [
        ("origin", traceparent(observed.span("start")))
    ]
    assert links(observed.span("turn")) == [("event", traceparent(observed.span("event")))]


@bounded
async def test_what_a_client_is_refused_is_an_error_of_its_span(path, observed):
    async with runtime(path, idle, **observed.providers) as node:
        await node.client.start("idle", instance_id="one")
        with pytest.raises(InstanceExists):
            await node.client.start("idle", instance_id="one")
        with pytest.raises(InstanceNotFound):
            await node.client.raise_event("two", "go")
    _, refused = observed.spans("start")
    for span, error in ((refused, "InstanceExists"), (observed.span("event"), "InstanceNotFound")):
        assert span.status.status_code is trace.StatusCode.ERROR
        assert span.attributes["error.type"].endswith(error)
        assert [event.name for event in span.events] == ["exception"]


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_each_attempt_is_a_span_and_a_failed_one_tells_its_exception(path, observed, style):
    def body():
        if activity_context().attempt < 3:
            raise LookupError(f"not yet {activity_context().attempt}")
        return 1

    work = make_activity(style, body, retry=QUICK)

    async def once(ctx, value):
        return await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work], **observed.providers) as node:
        await (await node.client.start("once", instance_id="one")).result()
    attempts = observed.spans("activity")
    assert [span.attributes["orchestra.activity.attempt"] for span in attempts] == [1, 2, 3]
    assert [span.attributes["orchestra.outcome"] for span in attempts] == [
        "failed",
        "failed",
        "completed",
    ]
    assert [span.status.status_code.name for span in attempts] == ["ERROR", "ERROR", "UNSET"]
    assert [
        event.attributes["exception.message"] for span in attempts for event in span.events
    ] == ["not yet 1", "not yet 2"]
    assert all(is_child(span, observed.span("orchestration")) for span in attempts)
    assert {
        key: count for key, (count, _) in observed.sums("orchestra.activity.duration").items()
    } == {
        ("once", "1.0.0", "work", "failed"): 2,
        ("once", "1.0.0", "work", "completed"): 1,
    }
    assert observed.sums("orchestra.activity.attempts") == {("once", "1.0.0", "work"): (1, 3)}
    assert observed.values("orchestra.activities.running") == {(): 0}


@bounded
async def test_a_try_that_times_out_or_raises_is_told_of(path, observed):
    @activity(retry=QUICK, timeout=timedelta(milliseconds=5))
    async def hangs() -> None:
        await anyio.sleep_forever()

    @activity(retry=QUICK)
    async def breaks() -> None:
        raise LookupError("no such plan")

    async def both(ctx, value):
        for call in (ctx.schedule_activity(hangs), ctx.schedule_activity(breaks)):
            try:
                await call
            except Exception:
                ctx.trace_info("failed")

    async with runtime(path, both, activities=[hangs, breaks], **observed.providers) as node:
        await (await node.client.start("both")).result()
    timed_out = observed.spans("activity hangs")
    raised = observed.spans("activity breaks")
    assert {span.attributes["orchestra.outcome"] for span in timed_out} == {"timed_out"}
    assert {span.attributes["orchestra.outcome"] for span in raised} == {"failed"}
    assert {span.status.status_code.name for span in (*timed_out, *raised)} == {"ERROR"}
    assert observed.values("orchestra.activities.running") == {(): 0}


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_a_try_whose_result_nobody_takes_any_more_is_told_of_all_the_same(
    path, observed, style
):
    entered, gate = threading.Event(), Gate()

    @activity(name="work")
    async def wait_here() -> None:
        entered.set()
        await anyio.sleep_forever()

    @activity(name="work")
    def wait_in_thread() -> None:
        entered.set()
        gate()

    work = wait_here if style == "async" else wait_in_thread

    async def once(ctx, value):
        await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work], **observed.providers) as node:
        handle = await node.client.start("once", instance_id="one")
        await when_set(entered)
        await handle.terminate()
        (span,) = await until(lambda: observed.spans("activity"))
        gate.open()
    assert span.attributes["orchestra.outcome"] == "aborted"
    assert span.status.status_code is trace.StatusCode.UNSET
    assert observed.values("orchestra.ends") == {("once", "1.0.0", "terminated"): 1}
    assert observed.values("orchestra.activities.running") == {(): 0}


@bounded
async def test_the_callers_trace_reaches_an_activity_that_begins_after_a_restart_and_nothing_is_told_twice(
    path, observed
):
    @activity
    async def work() -> int:
        return 1

    async def listens(ctx, value):
        await ctx.wait_for_event("go")
        return await ctx.schedule_activity(work)

    tracer = observed.tracer_provider.get_tracer("host")
    async with runtime(path, listens, activities=[work], **observed.providers) as node:
        with tracer.start_as_current_span("request") as request:
            handle = await node.client.start("listens", instance_id="one")
        await info_when(handle, lambda info: info.waiting_on)
    before = len(observed.spans())
    async with runtime(path, listens, activities=[work], **observed.providers) as node:
        await node.client.raise_event("one", "go")
        assert await node.client.handle("one").result() == 1
    started, root = observed.span("start"), observed.span("orchestration")
    assert is_child(started, request)
    assert links(root) == [("origin", traceparent(started))]
    told = observed.spans()[before:]
    assert sorted(span.name for span in told) == [
        "activity work",
        "event go",
        "turn listens",
        "turn listens",
    ]
    assert all(is_child(span, root) for span in told if span.name != "event go")
    assert observed.values("orchestra.starts") == {("listens", "1.0.0"): 1}
    assert observed.values("orchestra.cache.lookups") == {("listens", "1.0.0", "miss"): 1}


@bounded
async def test_without_an_sdk_nothing_is_recorded_and_everything_runs(path):
    assert not trace.get_current_span().get_span_context().is_valid
    async with runtime(path, echo) as node:
        assert type(node.client._access.recorder) is Recorder
        handle = await node.client.start("echo", 5)
        assert await handle.result() == 5
        (lap,) = await node.client._access.port.call(
            lambda: node._provider.directory.executions(handle.instance_id)
        )
        assert lap.traceparent is None
    async with alone(path) as client:
        assert type(client._access.recorder) is Recorder


@bounded
async def test_spans_without_metrics_and_metrics_without_spans_work_too(path, observed, tmp_path):
    for chosen in ("tracer_provider", "meter_provider"):
        async with runtime(tmp_path / chosen, echo, **{chosen: observed.providers[chosen]}) as node:
            assert await (await node.client.start("echo", 5)).result() == 5
        assert sorted(span.name for span in observed.spans()) == [
            "orchestration echo",
            "start echo",
        ]
    assert observed.values("orchestra.starts") == {("echo", "1.0.0"): 1}


@bounded
async def test_a_trace_that_is_not_sampled_stays_so_over_the_store(path, observed):
    observed.tracer_provider.sampler = ALWAYS_OFF
    async with runtime(path, echo, **observed.providers) as node:
        handle = await node.client.start("echo", 5)
        await handle.result()
        (lap,) = await node.client._access.port.call(
            lambda: node._provider.directory.executions(handle.instance_id)
        )
    assert int(lap.traceparent[-2:], 16) & 1 == 0
    assert observed.spans() == []


@bounded
async def test_log_records_name_their_trace(path, observed):
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    handler = Keep()
    handler.addFilter(ContextFilter())
    logger = logging.getLogger("orchestra")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)

    @activity
    async def work() -> None:
        logging.getLogger("orchestra.mine").info("working")

    async def talks(ctx, value):
        ctx.trace_info("begun")
        await ctx.schedule_activity(work)
        ctx.trace_info("ended")

    try:
        async with runtime(path, talks, activities=[work], **observed.providers) as node:
            await (await node.client.start("talks")).result()
            logger.info("outside")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    root, attempt = observed.span("orchestration"), observed.span("activity")
    said = {record.getMessage(): (record.trace_id, record.span_id) for record in records}
    ids = f"{root.context.trace_id:032x}", f"{root.context.span_id:016x}"
    assert said["begun"] == said["ended"] == ids
    assert said["working"] == (ids[0], f"{attempt.context.span_id:016x}")
    assert said["outside"] == (None, None)


@bounded
async def test_a_request_is_counted_where_it_was_sent_once(path, observed):
    async def answering(ctx, _):
        request = await ctx.wait_for_request("ask", int, returns=int)
        request.reply(request.value + 1)
        await ctx.wait_for_event("go")

    async with runtime(path, answering, **observed.providers) as node:
        handle = await node.client.start("answering")
        for _ in range(2):
            assert await handle.request("ask", 1, returns=int, request_id="r") == 2
    assert observed.values("orchestra.requests") == {("ask",): 1}
    ((labels, (count, _)),) = observed.sums("orchestra.request.duration").items()
    assert (labels, count) == (("answering", "1.0.0", "ask", "replied"), 1)


@bounded
async def test_a_run_by_hand_of_a_schedule_is_below_the_callers_span(path, observed):
    async def job(ctx, _):
        return 1

    tracer = observed.tracer_provider.get_tracer("host")
    yearly = Schedule("s", Every(timedelta(days=365)), Start("job"))
    async with runtime(path, job, **observed.providers) as node:
        await node.client.schedules.create(yearly)
        with tracer.start_as_current_span("request") as request:
            slot = await node.client.schedules.trigger("s")
        assert await node.client.handle(slot.run).result() == 1
    run = observed.span("schedule run")
    assert is_child(run, request)
    assert dict(run.attributes) == {"orchestra.schedule.id": "s"}
    assert links(observed.span("orchestration")) == [("origin", traceparent(run))]

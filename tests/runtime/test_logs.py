"""What is logged: tagged, once, and in one line."""

import io
import logging
import re
from datetime import timedelta

import anyio
import pytest

from orchestra import ContextFilter, PlainFormatter, activity
from tests.support.kit import bounded, info_when, runtime

pytestmark = pytest.mark.anyio


@pytest.fixture
def logs():
    """Return the records of the logger ``orchestra`` and of the test's own, as a handler with the
    filter sees them.
    """
    records = []

    class Keep(logging.Handler):
        def emit(self, record):
            records.append(record)

    handler = Keep()
    handler.addFilter(ContextFilter())
    loggers = [logging.getLogger("orchestra"), logging.getLogger("mine")]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.DEBUG)
    yield records
    for logger in loggers:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)


def said(logs, logger="orchestra.orchestration"):
    return [record for record in logs if record.name == logger]


@bounded
async def test_what_an_orchestration_says_carries_where_it_was_said(path, logs):
    async def talks(ctx, lap: int):
        ctx.trace_debug("d")
        ctx.trace_info("100 % {sure} %s", lap=lap, of="two")
        ctx.trace_warning("w")
        ctx.trace_error("e")
        if lap == 1:
            ctx.continue_as_new(2)

    async with runtime(path, ("talks", "1.2.3", talks)) as node:
        await (await node.client.start("talks", 1, instance_id="one")).result()
    records = said(logs)
    assert [record.levelname for record in records] == ["DEBUG", "INFO", "WARNING", "ERROR"] * 2
    for number, record in enumerate(records):
        tags = (
            record.orchestration,
            record.version,
            record.instance_id,
            record.execution_id,
            record.attempt,
        )
        assert tags == ("talks", "1.2.3", "one", 1 + number // 4, None)
    assert records[1].getMessage() == "100 % {sure} %s"
    assert records[1].fields == {"lap": 1, "of": "two"}


@bounded
async def test_what_was_said_is_not_said_again_after_a_restart(path, logs):
    async def talks(ctx, value):
        ctx.trace_info("begun")
        await ctx.wait_for_event("go")
        ctx.trace_info("gone on")
        await ctx.wait_for_event("go")
        ctx.trace_info("ended")

    for turn in range(3):
        async with runtime(path, talks) as node:
            handle = await node.client.start(
                "talks", instance_id="one", if_running="return", if_ended="return"
            )
            if turn:
                await handle.raise_event("go")
            if turn < 2:
                await info_when(handle, lambda info, turn=turn: info.history_events == 2 + 2 * turn)
            else:
                await handle.result()
    assert [record.getMessage() for record in said(logs)] == ["begun", "gone on", "ended"]


@bounded
@pytest.mark.parametrize("style", ["async", "thread"])
async def test_ordinary_logging_inside_an_activity_is_tagged_too(path, logs, style):
    def speak():
        logging.getLogger("mine").info("working")

    if style == "async":

        @activity(name="work")
        async def work() -> None:
            await anyio.sleep(0)
            speak()

    else:

        @activity(name="work")
        def work() -> None:
            speak()

    async def once(ctx, value):
        await ctx.schedule_activity(work)

    async with runtime(path, once, activities=[work]) as node:
        logging.getLogger("mine").info("outside")
        await (await node.client.start("once", instance_id="one")).result()
        logging.getLogger("mine").info("outside")
    outside, inside, again = said(logs, "mine")
    assert (
        inside.orchestration,
        inside.version,
        inside.instance_id,
        inside.execution_id,
        inside.attempt,
    ) == (
        "once",
        "1.0.0",
        "one",
        1,
        1,
    )
    assert inside.fields == {"activity": "work"}
    for record in (outside, again):
        assert (record.orchestration, record.instance_id, record.attempt) == (None, None, None)


@bounded
async def test_a_turn_that_was_refused_by_the_store_says_nothing(path, logs, monkeypatch):
    from orchestra.errors import StoreUnavailable

    async def talks(ctx, value):
        await ctx.wait_for_event("go")
        ctx.trace_info("gone on")

    async with runtime(path, talks) as node:
        handle = await node.client.start("talks")
        await info_when(handle, lambda info: info.waiting_on)
        commit = node._provider.store.commit
        failures = []

        def sometimes(changes):
            if len(failures) < 2 and any(type(change).__name__ == "Write" for change in changes):
                failures.append(1)
                raise StoreUnavailable("planned")
            return commit(changes)

        monkeypatch.setattr(node._provider.store, "commit", sometimes)
        await handle.raise_event("go")
        await handle.result(timeout=timedelta(seconds=15))
    assert len(failures) == 2
    assert [record.getMessage() for record in said(logs)] == ["gone on"]


# --- the formatter ------------------------------------------------------------------------------


def formatted(message, *args, exc_info=None, stack_info=False, **extra):
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PlainFormatter())
    logger = logging.getLogger("a.test")
    logger.addHandler(handler)
    try:
        logger.warning(message, *args, exc_info=exc_info, stack_info=stack_info, extra=extra)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


TAGS = {
    "orchestration": "watch",
    "version": "1.1.0",
    "instance_id": "watch-1",
    "execution_id": 42,
    "attempt": None,
}


def test_a_line_shows_time_level_place_message_and_fields():
    line = formatted(
        "%s",
        "probed 100 %",
        **TAGS,
        fields={"status": 200, "text": "a b", "none": None, "empty": "", "s": "x"},
    )
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d\.\d\d\d WARNING watch 1\.1\.0 \[watch-1 #42\] probed 100 % "
        r"status=200 text='a b' none=None empty='' s=x\n",
        line,
    )


def test_a_line_of_an_activity_shows_its_try():
    assert "[watch-1 #42 attempt 3] working activity=probe" in formatted(
        "working", **{**TAGS, "attempt": 3}, fields={"activity": "probe"}
    )


def test_a_line_of_anything_else_shows_its_logger():
    assert re.fullmatch(r"\S+ WARNING a\.test hello\n", formatted("hello"))


FORGED = "x\n12:00:00.000 INFO    forged\r\x1b[31m\x00\u2028\x85"


@pytest.mark.parametrize(
    "place", ["message", "field", "field name", "instance", "orchestration", "exception"]
)
def test_no_text_of_a_user_can_forge_a_line(place):
    tags, fields, message, error = dict(TAGS), {}, "m", None
    match place:
        case "message":
            message = FORGED
        case "field":
            fields = {"a": FORGED, "b": [FORGED]}
        case "field name":
            fields = {FORGED: 1}
        case "instance":
            tags["instance_id"] = FORGED
        case "orchestration":
            tags["orchestration"] = FORGED
        case "exception":
            error = ValueError(FORGED)
    text = formatted("%s", message, exc_info=error, **tags, fields=fields)
    assert "forged" in text
    assert not set(text) & set("\r\x1b\x00\u2028\x85")
    first, *rest = text.splitlines()
    assert "WARNING" in first
    assert all(line.startswith("    ") for line in rest)
    assert bool(rest) == (place == "exception")


def test_a_stack_is_shown_below_its_line():
    _, *rest = formatted("m", stack_info=True).splitlines()
    assert rest[0] == "    Stack (most recent call last):"

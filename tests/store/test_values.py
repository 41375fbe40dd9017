"""Every value of users that crosses the port is reached by a codec, because of its type."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from datetime import timedelta

import anyio
import pytest

from orchestra import (
    Failure,
    InstanceCancelled,
    InstanceFailed,
    OrchestrationRegistry,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    activity,
    activity_context,
)
from orchestra.codec import Packed, Payload, UserText, pack_value
from orchestra.errors import ActivityFailed, ChildFailed, ErrorInfo
from orchestra.events import EventKind, EventRecord, error_from_bytes, error_to_bytes
from orchestra.store import (
    catalogue,
    changes,
    executions,
    instances,
    messages,
    outcomes,
    queries,
    schedules,
    snapshots,
    tasks,
)
from orchestra.store.executions import Closing, ExecutionDelta
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.tasks import LOST
from orchestra.store.values import convert_values
from orchestra.summary import with_texts

SECRET = "swordfish"
CODED = "\x07"


class Flipped:
    """A codec that makes values unreadable, and readable again when it meets them the next time."""

    def __init__(self, *, writes):
        self.writes = writes
        self.seen = []
        self.places = set()

    def payload(self, payload, place):
        return dataclasses.replace(payload, data=self.packed(payload.data, place))

    def packed(self, data, place):
        self.seen.append(data)
        self.places.add(place.name)
        if self.writes:
            return CODED.encode() + bytes(byte ^ 0x55 for byte in data) if data else data
        return bytes(byte ^ 0x55 for byte in data[1:]) if data[:1] == CODED.encode() else data

    def summary(self, data, place):
        self.places.add(place.name)
        return with_texts(data, lambda text: self.text(text, place))

    def text(self, text, place):
        self.seen.append(text)
        if self.writes:
            return CODED + "".join(chr(ord(letter) + 1) for letter in text)
        return "".join(chr(ord(letter) - 1) for letter in text[1:]) if text[:1] == CODED else text


def converted(thing, codec):
    """Convert what crosses the port, or each of several."""
    if isinstance(thing, list):
        return [converted(item, codec) for item in thing]
    if isinstance(thing, tuple) and not hasattr(thing, "_fields"):
        return tuple(converted(item, codec) for item in thing)
    if isinstance(thing, Mapping):
        return {key: converted(item, codec) for key, item in thing.items()}
    return convert_values(thing, codec)


class Coded:
    """A part of a provider whose arguments and answers pass a codec."""

    def __init__(self, part):
        self._part = part

    def __getattr__(self, name):
        method = getattr(self._part, name)

        def call(*arguments, **named):
            passed = [
                argument if callable(argument) else converted(argument, Flipped(writes=True))
                for argument in arguments
            ]
            return converted(method(*passed, **named), Flipped(writes=False))

        return call


def coded_provider(path):
    provider = SqliteProvider(path, durability="relaxed")
    provider.store = Coded(provider.store)
    provider.directory = Coded(provider.directory)
    return provider


# --- by type ----------------------------------------------------------------------------------

NO_VALUES = {
    ("EventRecord", "envelope"),  # converted where it quotes users
}


def rows_of_the_port():
    modules = (
        catalogue,
        changes,
        executions,
        instances,
        messages,
        outcomes,
        queries,
        schedules,
        snapshots,
        tasks,
    )
    for module in modules:
        for name in module.__all__:
            kind = getattr(module, name)
            if isinstance(kind, type) and dataclasses.is_dataclass(kind):
                yield kind


def parts_of(annotation):
    if isinstance(annotation, list):  # the parameters of a function
        for part in annotation:
            yield from parts_of(part)
    elif isinstance(annotation, types.UnionType) or typing.get_args(annotation):
        for part in typing.get_args(annotation):
            yield from parts_of(part)
    else:
        yield annotation


@pytest.mark.parametrize("kind", list(rows_of_the_port()), ids=lambda kind: kind.__name__)
def test_no_row_of_the_port_has_bytes_that_no_codec_reaches(kind):
    hints = typing.get_type_hints(kind)
    bare = {(kind.__name__, name) for name, hint in hints.items() if bytes in list(parts_of(hint))}
    assert bare <= NO_VALUES


def test_the_answer_of_a_function_in_a_change_is_converted():
    row = schedules.ScheduleRow(
        "s", "", 0, Packed(b"{}"), Packed(b"so far"), Payload(b"1"), 5, False, 3, None, None, 1, 0, 0,
        "ops", "q",
    )  # fmt: skip
    write = changes.ScheduleWrite("s", "", 0, row, refused=lambda reasons: row)
    coded = convert_values(write, Flipped(writes=True))
    assert coded.refused({0: "why"}) == coded.row
    assert coded.row.state != row.state
    assert coded.row.value != row.value


def test_a_write_has_all_of_its_values_converted_and_nothing_else():
    failed = EventRecord(1, EventKind.EXECUTION_FAILED.value, 5, 1, b'{"error":[]}')
    timer = EventRecord(2, EventKind.TIMER_CREATED.value, 5, 1, b'{"due":7}')
    done = EventRecord(3, EventKind.ACTIVITY_COMPLETED.value, 5, 1, b'{"source":1}', Payload(b"1"))
    closing = Closing(5, ExecutionEnd.FAILED, None, error_to_bytes(ErrorInfo("E", SECRET)))
    delta = ExecutionDelta(1, events=(failed, timer, done), closed=closing)
    codec = Flipped(writes=True)
    coded = convert_values(delta, codec)
    assert codec.seen == [failed.envelope, done.payload.data, closing.error]
    assert coded.events[1] is timer
    assert coded.events[2].envelope == done.envelope
    assert SECRET.encode() not in coded.closed.error
    assert convert_values(coded, Flipped(writes=False)) == delta


def test_what_is_empty_stays_empty_for_it_is_the_store_that_says_so():
    row = tasks.ActivityRow(1, 2, 1, None, 0, pack_value({"tries": []}), failure=LOST)
    assert convert_values(row, Flipped(writes=True)).failure == LOST


def test_what_holds_no_value_is_returned_as_it_is():
    claim = changes.Claim("n", (), 1)
    assert convert_values(claim, Flipped(writes=True)) is claim


def test_a_pair_with_a_value_has_it_converted_where_it_stands():
    message = messages.MessageRow(1, "m", "tell", Payload(b"1"), 5)
    told = outcomes.Granted(1, arrivals=(("parent", outcomes.Appended(1, None, True, message)),))
    coded = convert_values(told, Flipped(writes=True))
    assert coded.arrivals[0][0] == "parent"
    assert coded.arrivals[0][1].message.payload.data != b"1"
    assert convert_values(coded, Flipped(writes=False)) == told


def test_a_value_that_may_be_packed_or_something_else_is_refused():
    @dataclasses.dataclass
    class Doubtful:
        value: Packed | UserText

    Doubtful.__annotations__["value"] = Packed | UserText
    with pytest.raises(TypeError, match="cannot be told at run time"):
        convert_values(Doubtful(Packed(b"1")), Flipped(writes=True))


def test_an_error_reads_as_it_was_written():
    error = ErrorInfo("ValueError", SECRET, "trace", cause=ErrorInfo("KeyError", "'x'"))
    assert error_from_bytes(error_to_bytes(error)) == error


# --- a whole life -----------------------------------------------------------------------------


@activity(retry=RetryPolicy(max_attempts=2, initial_interval=timedelta(0)))
async def refuse(what):
    activity_context().heartbeat(f"about to refuse {what}")
    raise ValueError(f"no {what}")


async def child(ctx, what):
    raise Failure(f"the child has failed with {what}")


async def life(ctx, what):
    ctx.set_custom_status(f"status {what}")
    try:
        await ctx.schedule_activity(refuse, what)
    except ActivityFailed as error:
        assert what in str(error.cause)  # noqa: PT017
    try:
        await ctx.start_child("child", what)
    except ChildFailed as error:
        assert what in str(error.cause)  # noqa: PT017
    told = await ctx.wait_for_event("tell", str)
    ctx.continue_as_new(told) if told.startswith("again") else None
    raise Failure(f"failed with {told}")


async def broken(ctx, what):
    raise KeyError(what)


async def patient(ctx, what):
    await ctx.wait_for_event("never", str)


REGISTRY = (
    OrchestrationRegistry.builder()
    .register("life", life)
    .register("child", child)
    .register("broken", broken)
    .register("patient", patient)
    .build()
)


async def live(provider):
    """Have users' values pass every place where the store keeps one."""
    async with Runtime(provider, REGISTRY, [refuse]) as runtime:
        client = runtime.client
        alive = await client.start("life", SECRET, instance_id="life")
        held = await client.start("broken", SECRET, instance_id="broken")
        cancelled = await client.start("patient", SECRET, instance_id="patient")
        await client.raise_event("life", "tell", f"again {SECRET}")
        await client.raise_event("life", "tell", f"for the last time {SECRET}")
        with pytest.raises(InstanceFailed, match=f"for the last time {SECRET}"):
            await alive.result()
        await client.cancel("patient", f"because of {SECRET}")
        with pytest.raises(InstanceCancelled, match=f"because of {SECRET}"):
            await cancelled.result()
        with anyio.fail_after(20):
            while (info := await client.get_instance_info("broken")).held_reason is None:
                await anyio.sleep(0.01)
        assert SECRET in info.held_reason
        assert SECRET in info.error.message
        history = await client.get_history("life", execution_id=1)
        failed = next(event for event in history if event.kind == "activity_failed")
        assert failed.details["error"].message == f"no {SECRET}"
        assert held.instance_id == "broken"


def stored(path):
    return b"".join(file.read_bytes() for file in path.parent.iterdir() if file.is_file())


@pytest.mark.anyio
async def test_with_a_codec_no_value_of_a_whole_life_stands_readable_in_the_file(tmp_path):
    path = tmp_path / "store.db"
    await live(coded_provider(path))
    assert SECRET.encode() not in stored(path)


@pytest.mark.anyio
async def test_without_one_they_do_so_that_the_search_finds_what_it_looks_for(tmp_path):
    path = tmp_path / "store.db"
    await live(SqliteProvider(path, durability="relaxed"))
    assert stored(path).count(SECRET.encode()) > 10

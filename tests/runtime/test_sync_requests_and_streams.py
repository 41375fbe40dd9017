"""Programs without an event loop ask instances, and follow their streams."""

import threading
from datetime import timedelta

import pytest

from orchestra import (
    InstanceCompleted,
    InstanceNotFound,
    RequestRejected,
    Runtime,
    StreamTruncated,
    WaitTimeout,
)
from orchestra.retention import Retention, StreamRetention
from orchestra.sync import connect
from tests.support.kit import PATIENCE, registry

LONG = timedelta(seconds=PATIENCE)


async def counting(ctx, total: int) -> int:
    """Adds what it is asked to, tells it to a stream, and ends at a negative number."""
    request = await ctx.wait_for_request("add", int, returns=int)
    if request.value < 0:
        ctx.publish("said", "bye")
        return total
    if request.value == 0:
        request.reject("nothing to add")
    else:
        total += request.value
        ctx.publish("said", total)
        request.reply(total)
    ctx.continue_as_new(total)


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    return request.param


@pytest.fixture(params=["of the runtime", "of a client of its own"])
def sync(request, store, backend):
    code = registry(counting)
    with connect(Runtime(store(), code), backend=backend) as worker:
        if request.param == "of the runtime":
            yield worker
        else:
            with connect(store(), backend=backend) as connection:
                yield connection


def ask(sync, handle, value, **options):
    return sync.call(handle.request, "add", value, returns=int, timeout=LONG, **options)


def test_a_request_is_answered_rejected_or_left_open(sync):
    handle = sync.call(sync.client.start, "counting", 0, instance_id="c")
    assert ask(sync, handle, 2) == 2
    assert sync.call(sync.client.request, "c", "add", 3, returns=int, timeout=LONG) == 5
    with pytest.raises(RequestRejected, match="nothing to add"):
        ask(sync, handle, 0)
    with pytest.raises(WaitTimeout) as caught:
        sync.call(handle.request, "other", 1, returns=int, timeout=timedelta(0))
    # The same request again waits for the same answer, and is none of another kind.
    with pytest.raises(WaitTimeout):
        sync.call(
            handle.request,
            "other",
            1,
            returns=int,
            timeout=timedelta(0),
            request_id=caught.value.request_id,
        )
    with pytest.raises(InstanceCompleted):
        ask(sync, handle, -1)
    with pytest.raises(InstanceNotFound):
        sync.call(sync.client.request, "nobody", "add", 1, returns=int, timeout=LONG)


def test_the_same_request_from_many_threads_is_answered_once(sync):
    handle = sync.call(sync.client.start, "counting", 0)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(ask(sync, handle, 7, request_id="r")))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == [7] * 5
    assert ask(sync, handle, 1) == 8


def test_a_thread_follows_a_stream_while_another_one_asks(sync):
    handle = sync.call(sync.client.start, "counting", 0)
    heard = []

    def listen():
        items = sync.iterate(handle.read_stream, "said")
        heard.extend((item.offset, item.value) for item in items)

    listener = threading.Thread(target=listen)
    listener.start()
    for value in (1, 2, 3):
        ask(sync, handle, value)
    with pytest.raises(InstanceCompleted):
        ask(sync, handle, -1)
    listener.join(PATIENCE)
    assert not listener.is_alive(), "it ends with the instance"
    assert heard == [(1, 1), (2, 3), (3, 6), (4, "bye")]


def test_what_follows_a_stream_may_stop_in_the_middle_and_go_on_from_an_offset(sync):
    handle = sync.call(sync.client.start, "counting", 0)
    for value in (1, 2, 3):
        ask(sync, handle, value)
    items = sync.iterate(handle.read_stream, "said", int)
    first = next(items)
    items.close()
    rest = sync.iterate(handle.read_stream, "said", int, after=first.offset, follow=False)
    assert [item.value for item in rest] == [3, 6]


def test_an_iteration_behind_the_cut_raises_in_the_thread(store, backend):
    kept = Retention(streams=StreamRetention(items=1))
    code = registry(counting)
    with connect(Runtime(store(), code, retention=kept), backend=backend) as sync:
        handle = sync.call(sync.client.start, "counting", 0)
        for value in (1, 2, 3):
            ask(sync, handle, value)
        with pytest.raises(StreamTruncated) as caught:
            next(iter(sync.iterate(handle.read_stream, "said", int, follow=False)))
        begin = caught.value.first_offset - 1
        items = sync.iterate(handle.read_stream, "said", int, after=begin, follow=False)
        assert [item.value for item in items][-1] == 6

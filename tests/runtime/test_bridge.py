"""The bridge and the readers: nothing pushed is lost, doubled, or left lying without a wake-up."""

import threading
from collections import Counter

import anyio
import pytest

from orchestra.errors import RuntimeClosed
from orchestra.runtime.bridge import Bridge
from orchestra.runtime.readers import Readers
from tests.support.kit import bounded

pytestmark = pytest.mark.anyio


@pytest.fixture
def bridge():
    bridge = Bridge()
    yield bridge
    bridge.close()


@bounded
async def test_everything_that_many_threads_push_arrives_once_and_in_each_threads_order(bridge):
    threads, each = 6, 2000

    def push(name):
        for number in range(each):
            bridge.push([(name, number)])

    pushers = [threading.Thread(target=push, args=(name,)) for name in range(threads)]
    for thread in pushers:
        thread.start()
    received = []
    while len(received) < threads * each:  # a lost wake-up would hang here
        received += await bridge.receive()
    for thread in pushers:
        thread.join()
    assert set(Counter(received).values()) == {1}
    for name in range(threads):
        assert [number for who, number in received if who == name] == list(range(each))


@bounded
async def test_one_wake_up_per_entry_is_never_missed_when_each_answers_the_one_before(bridge):
    back = threading.Semaphore(0)

    def push():
        for number in range(1000):
            bridge.push([number])
            back.acquire()

    thread = threading.Thread(target=push)
    thread.start()
    received = []
    while len(received) < 1000:
        for entry in await bridge.receive():
            received.append(entry)
            back.release()
    thread.join()
    assert received == list(range(1000))


@bounded
async def test_a_cancelled_receive_loses_nothing(bridge):
    received = []

    def push():
        for number in range(300):
            bridge.push([number])

    thread = threading.Thread(target=push)
    thread.start()
    while len(received) < 300:
        with anyio.move_on_after(0):
            received += await bridge.receive()
        with anyio.move_on_after(0.001):
            received += await bridge.receive()
    thread.join()
    assert received == list(range(300))


@bounded
async def test_a_push_to_a_closed_bridge_is_harmless():
    bridge = Bridge()
    bridge.close()
    bridge.push([1])
    assert bridge.take() == [1]


@bounded
async def test_a_read_that_is_asked_for_after_the_end_is_refused_and_starts_no_thread(bridge):
    readers = Readers(bridge)
    readers.stop()
    with pytest.raises(RuntimeClosed):
        await readers.call(lambda: 1)
    readers.join()
    assert [
        thread.name for thread in threading.enumerate() if thread.name == "orchestra-reader"
    ] == []


@bounded
async def test_a_read_under_way_at_the_end_is_answered_with_the_end(bridge):
    readers = Readers(bridge)
    begun, go_on = threading.Event(), threading.Event()
    outcomes = []

    def slow():
        begun.set()
        go_on.wait(20)

    async def ask():
        with pytest.raises(RuntimeClosed):
            await readers.call(slow)
        outcomes.append("closed")

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        while not begun.is_set():
            await anyio.sleep(0.001)
        readers.stop()
    go_on.set()
    readers.join()
    assert outcomes == ["closed"]

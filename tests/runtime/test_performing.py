"""A client performs operations: it answers their steps, and leaves them to decide what an error
means.
"""

from __future__ import annotations

from types import SimpleNamespace

import anyio
import anyio.lowlevel
import pytest

from orchestra.client.performing import perform
from orchestra.errors import StoreBusy
from orchestra.operations.steps import (
    Delete,
    DeleteAll,
    Find,
    Get,
    Pause,
    ReadCatalogue,
    SetPin,
    Submit,
    SubmitAll,
)
from orchestra.store.queries import InstanceQuery
from tests.support.kit import bounded

pytestmark = pytest.mark.anyio


class FakePort:
    """Answers a change with itself, and raises the errors that are given in its place."""

    def __init__(self):
        self.looks = 0
        self.most_at_once = 0
        self._at_once = 0
        self.begun = anyio.Event()

    async def submit(self, change):
        self.begun.set()
        if change == "stuck":
            await anyio.sleep_forever()
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await anyio.lowlevel.checkpoint()
        self._at_once -= 1
        if isinstance(change, Exception):
            raise change
        return f"outcome of {change}"

    async def call(self, function):
        await anyio.lowlevel.checkpoint()
        return function()

    def written_past(self):
        self.looks += 1


PROVIDER = SimpleNamespace(
    directory=SimpleNamespace(
        get=lambda instance_id: f"record of {instance_id}",
        list=lambda query: [query],
        catalogue=lambda: "catalogue",
    ),
    admin=SimpleNamespace(
        set_pin=lambda instance_id, version, by, reason, until, unless_same: version is not None,
        delete=lambda *instance, by, reason: (*instance, by, reason),
        delete_all=lambda instances, by, reason: [*instances, by, reason],
    ),
)
QUERY = InstanceQuery(name="job")


async def answers_to(*steps, port=None):
    def ask():
        answers = []
        for step in steps:
            answers.append((yield from step))  # noqa: PERF401 - a comprehension cannot yield
        return answers

    return await perform(ask(), port or FakePort(), PROVIDER)


@bounded
async def test_each_step_is_answered_by_the_part_of_the_store_that_it_names():
    assert await answers_to(
        Get("i"),
        Find(QUERY),
        ReadCatalogue(),
        Submit("change"),
        Delete("i", "a", "me", "old"),
        DeleteAll([("i", "a")], "me", "old"),
        Pause(0),
    ) == [
        "record of i",
        [QUERY],
        "catalogue",
        "outcome of change",
        ("i", "a", "me", "old"),
        [("i", "a"), "me", "old"],
        None,
    ]


@bounded
async def test_the_engine_is_told_of_a_pin_that_was_set_past_it_and_of_none_that_was_not():
    port = FakePort()
    assert await answers_to(
        SetPin("i", "1.0.0", "me", ""), SetPin("i", None, "me", ""), port=port
    ) == [True, False]
    assert port.looks == 1


@bounded
async def test_changes_that_are_submitted_together_are_under_way_at_once_and_each_has_its_own_answer():
    port, error = FakePort(), StoreBusy("locked")
    (answers,) = await answers_to(SubmitAll(["one", error, "two"]), port=port)
    assert answers == ["outcome of one", error, "outcome of two"]
    assert port.most_at_once == 3


@bounded
async def test_an_operation_may_go_on_after_an_error_of_a_step():
    def operation():
        try:
            yield from Submit(StoreBusy("locked"))
        except StoreBusy:
            return (yield from Get("i"))

    assert await perform(operation(), FakePort(), PROVIDER) == "record of i"


@bounded
async def test_an_error_that_an_operation_does_not_handle_is_its_callers():
    error = StoreBusy("locked")
    with pytest.raises(StoreBusy) as raised:
        await answers_to(Get("i"), Submit(error))
    assert raised.value is error


@bounded
async def test_an_operation_whose_caller_is_cancelled_is_closed():
    closed, port = [], FakePort()

    def operation():
        try:
            yield from Submit("stuck")
        finally:
            closed.append(True)

    running = operation()
    async with anyio.create_task_group() as group:
        group.start_soon(perform, running, port, PROVIDER)
        await port.begun.wait()
        group.cancel_scope.cancel()
    assert closed == [True]

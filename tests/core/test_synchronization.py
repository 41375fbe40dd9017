"""Locks, semaphores and conditions between branches: in order, the same on replay, and sound under
cancels.
"""

from datetime import timedelta

import pytest

from orchestra.codec import encode
from orchestra.events import ExecutionCancelled
from tests.support.driver import Drive, fresh

BOTH = pytest.mark.parametrize("cold", [False, True])


# --- locks ---


async def writes_in_turn(ctx, _):
    lock = ctx.lock()

    async def branch(number):
        async with lock:
            await ctx.schedule_activity("open", number)
            await ctx.schedule_activity("close", number)

    await ctx.gather(*[branch(number) for number in range(3)])


@BOTH
def test_a_lock_is_held_by_one_branch_at_a_time_in_the_order_in_which_they_asked(cold):
    drive = Drive(writes_in_turn, cold=cold)
    for _number in range(3):
        assert drive.pending == ["activity open"]
        drive.done("open")
        assert drive.pending == ["activity close"]
        drive.done("close")
    assert drive.output is None


@BOTH
def test_a_branch_that_is_cancelled_while_it_waits_for_a_lock_leaves_it_to_the_others(cold):
    async def subject(ctx, _):
        lock = ctx.lock()

        async def holder():
            async with lock:
                await ctx.schedule_activity("hold")

        async def loser():
            async with lock:
                await ctx.schedule_activity("never")

        async def patient():
            async with lock:
                return await ctx.schedule_activity("last")

        async with ctx.task_group() as group:
            group.create_task(holder())
            group.create_task(give_up(loser()))
            result = group.create_task(patient())
        return await result

    async def give_up(loser):
        await context.race(context.schedule_timer(timedelta(seconds=1)), loser)

    async def with_context(ctx, _):
        nonlocal context
        context = ctx
        return await subject(ctx, _)

    context = None
    drive = Drive(with_context, cold=False)
    drive.advance(1)
    drive.done("hold")
    assert drive.pending == ["activity last"]
    drive.done("last", 7)
    assert drive.output == 7


@BOTH
@pytest.mark.parametrize("kind", ["lock", "semaphore"])
def test_a_lock_that_is_given_to_a_branch_in_the_moment_of_its_cancel_goes_on_to_the_next(
    cold, kind
):
    """The holder releases it, and cancels the one that got it, in one step."""

    async def subject(ctx, _):
        lock = ctx.lock() if kind == "lock" else ctx.semaphore(1)

        async def unlucky():
            async with lock:
                await ctx.schedule_activity("never")

        async def last():
            async with lock:
                return await ctx.schedule_activity("last")

        async with ctx.task_group() as group:
            await lock.acquire()
            victim = group.create_task(unlucky())
            result = group.create_task(last())
            await ctx.schedule_activity("hold")
            lock.release()
            victim.cancel()
        return await result

    drive = Drive(subject, cold=cold)
    drive.done("hold")
    assert drive.pending == ["activity last"]
    drive.done("last", 1)
    assert drive.output == 1


def test_a_cancel_of_the_orchestration_releases_locks_in_order():
    cleaned = []

    async def subject(ctx, _):
        lock = ctx.lock()

        async def branch(number):
            async with lock:
                try:
                    await ctx.wait_for_event("x")
                finally:
                    cleaned.append(number)

        await ctx.gather(*[branch(number) for number in range(3)])

    drive = Drive(subject)
    cleaned.clear()
    drive.cancel()
    assert isinstance(drive.ending, ExecutionCancelled)
    assert cleaned[0] == 0


@pytest.mark.parametrize("mistake", ["again", "not held", "of another"])
def test_a_mistake_with_a_lock_is_an_error_and_no_deadlock(mistake):
    async def subject(ctx, _):
        lock = ctx.lock()

        async def holds():
            async with lock:
                await ctx.wait_for_event("x")

        match mistake:
            case "again":
                async with lock, lock:
                    pass
            case "not held":
                lock.release()
            case _:
                async with ctx.task_group() as group:
                    group.create_task(holds())
                    await ctx.schedule_timer(timedelta(0))
                    assert lock.locked()
                    lock.release()

    error = Drive(subject).error
    assert "orchestra.errors.OrchestrationError" in str(error)


def test_branches_that_wait_for_each_other_end_with_an_error_that_names_their_lines():
    async def subject(ctx, _):
        first, second = ctx.lock(), ctx.lock()

        async def branch(one, other):
            async with one:
                await ctx.schedule_activity("a")
                async with other:
                    pass

        await ctx.gather(branch(first, second), branch(second, first))

    drive = Drive(subject)
    drive.done("a")
    drive.done("a")
    assert drive.error.type == "orchestra.errors.Deadlock"
    line = subject.__code__.co_firstlineno + 6
    assert f"{__file__}:{line} in " in drive.error.message


def test_code_that_catches_a_deadlock_may_go_on():
    async def subject(ctx, _):
        lock = ctx.lock()

        async def forever():
            await lock.acquire()
            await ctx.condition(lock).wait()

        try:
            await ctx.gather(forever(), forever())
        except Exception as error:
            return await ctx.schedule_activity("after", type(error).__name__)

    drive = Drive(subject)
    drive.done("after", "went on")
    assert drive.output == "went on"


# --- semaphores ---


@BOTH
def test_a_semaphore_bounds_a_fan_out(cold):
    async def subject(ctx, _):
        places = ctx.semaphore(2)

        async def branch(number):
            async with places:
                return await ctx.schedule_activity("work", number)

        return await ctx.gather(*[branch(number) for number in range(5)])

    drive = Drive(subject, cold=cold)
    for number in range(5):
        assert len(drive.pending) == min(2, 5 - number)
        drive.done("work", number)
    assert drive.output == [0, 1, 2, 3, 4]


def test_a_semaphore_has_a_whole_number_of_places_and_is_released_as_often_as_acquired():
    async def subject(ctx, _):
        errors = []
        for value in (0, 1.5, True):
            try:
                ctx.semaphore(value)
            except ValueError as error:
                errors.append(type(error).__name__)
        places = ctx.semaphore(1)
        assert (places.value, places.locked()) == (1, False)
        async with places:
            assert (places.value, places.locked()) == (0, True)
        try:
            places.release()
        except Exception as error:
            errors.append(type(error).__name__)
        return errors

    assert Drive(subject).output == ["InvalidArgument"] * 3 + ["OrchestrationError"]


# --- conditions ---


@BOTH
def test_a_queue_between_branches_is_a_list_and_a_condition(cold):
    async def subject(ctx, _):
        changed, items = ctx.condition(), []

        async def producer():
            for number in range(3):
                item = await ctx.schedule_activity("make", number)
                async with changed:
                    items.append(item)
                    changed.notify()

        async def consumer():
            found = []
            while len(found) < 3:
                async with changed:
                    await changed.wait_for(lambda: items)
                    found.append(items.pop(0))
            return found

        _, found = await ctx.gather(producer(), consumer())
        return found

    drive = Drive(subject, cold=cold)
    for number in range(3):
        drive.done("make", number)
    assert drive.output == [0, 1, 2]


@BOTH
def test_notifications_wake_those_first_that_have_waited_longest(cold):
    async def subject(ctx, _):
        changed, woken = ctx.condition(), []

        async def waiter(number):
            async with changed:
                await changed.wait()
                woken.append(number)

        async with ctx.task_group() as group:
            for number in range(4):
                group.create_task(waiter(number))
            await ctx.schedule_activity("a")
            async with changed:
                changed.notify(2)
            await ctx.schedule_activity("b")
            assert woken == [0, 1]
            async with changed:
                changed.notify_all()
        return woken

    drive = Drive(subject, cold=cold)
    drive.done("a")
    drive.done("b")
    assert drive.output == [0, 1, 2, 3]


@BOTH
def test_a_notification_for_a_branch_that_is_cancelled_goes_to_the_next_one(cold):
    async def subject(ctx, _):
        changed = ctx.condition()

        async def waiter(number):
            async with changed:
                await changed.wait()
            return number

        async with ctx.task_group() as group:
            victim = group.create_task(waiter(0))
            other = group.create_task(waiter(1))
            await ctx.schedule_activity("a")
            async with changed:
                changed.notify()
                victim.cancel()
        return await other

    drive = Drive(subject, cold=cold)
    drive.done("a")
    assert drive.output == 1


def test_a_branch_that_is_cancelled_at_a_condition_holds_the_lock_when_its_cleanup_runs():
    async def subject(ctx, _):
        lock = ctx.lock()
        changed, held = ctx.condition(lock), []

        async def waiter():
            async with changed:
                try:
                    await changed.wait()
                finally:
                    held.append(lock.locked())

        await ctx.race(ctx.schedule_activity("a"), waiter())
        return [*held, lock.locked()]

    drive = Drive(subject)
    drive.done("a")
    assert drive.output == [True, False]


def test_a_condition_is_used_with_its_lock():
    async def subject(ctx, _):
        changed, errors = ctx.condition(), []
        for use in (changed.notify, changed.notify_all):
            try:
                use()
            except Exception as error:
                errors.append(type(error).__name__)
        try:
            await changed.wait()
        except Exception as error:
            errors.append(type(error).__name__)
        return errors

    assert Drive(subject).output == ["OrchestrationError"] * 3


# --- memory ---


def test_an_execution_whose_branches_wait_for_locks_leaves_memory_in_silence():
    async def subject(ctx, _):
        lock, places = ctx.lock(), ctx.semaphore(1)
        changed = ctx.condition()

        async def branch():
            async with places, lock, changed:
                await changed.wait_for(lambda: False)

        await ctx.gather(ctx.wait_for_event("x"), branch(), branch(), branch())

    execution = fresh(subject)
    execution.start(encode(None, subject="state"), 0)
    assert len(execution.turn(0).events) == 2
    execution.evict()
    assert execution.journal.take_fresh() == ()


@pytest.mark.slow
def test_a_lock_that_thousands_wait_for_costs_as_much_as_they_are():
    async def subject(ctx, count):
        lock = ctx.lock()

        async def branch():
            async with lock:
                return 1

        async with lock, ctx.task_group() as group:
            tasks = [group.create_task(branch()) for _ in range(count)]
            await ctx.schedule_activity("a")
            lock.release()
            await ctx.wait(*tasks)
            await lock.acquire()
        return sum([await task for task in tasks])

    drive = Drive(subject, 20_000)
    drive.done("a")
    assert drive.output == 20_000

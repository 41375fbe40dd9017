"""Sessions in code: what it asks for, how it repeats, and which use is refused."""

from datetime import timedelta

import pytest

from orchestra.activities import Activity, activity
from orchestra.codec import encode, plain
from orchestra.errors import (
    ErrorInfo,
    InvalidArgument,
    OrchestrationError,
    SessionLost,
    SessionTimeout,
)
from orchestra.events import ActivityScheduled, OnCancel
from orchestra.replay import SESSION_LOST, ActivityDied
from orchestra.sessions import ENTER, OPEN, activities_of, entered_by, route_of, session_queue
from orchestra.store.routes import Route, node_queue, session_route
from tests.support.driver import Drive, prefixes, replay

NODE = "node-1"
GPU = Activity.named("train", queue="gpu")


@activity
async def fetch(url: str) -> str:
    return url


@activity
def build(path: str, level: int = 1) -> int:
    return len(path) + level


async def both(ctx, url):
    async with ctx.session(fetch, build) as session:
        path = await session.schedule_activity(fetch, url)
        return await session.schedule_activity(build, path, level=2)


def entered(function, state="x", **options):
    """Return a drive whose session a node has taken."""
    drive = Drive(function, state, **options)
    drive.done(ENTER, NODE)
    return drive


def lose(drive, *names):
    """End activities as the loss of their session's node does."""
    error = ErrorInfo(SESSION_LOST, f"node {NODE} has died, or has left")
    return drive.turn(
        [ActivityDied(drive.activity(name), drive.now, error, (), "session lost") for name in names]
    )


@pytest.mark.parametrize("cold", [False, True])
def test_it_waits_for_a_node_and_asks_for_all_else_there(cold):
    drive = Drive(both, "x", cold=cold)
    assert drive.pending == [f"activity {ENTER}"]
    (enter,) = (event for event in drive.events if isinstance(event, ActivityScheduled))
    assert (plain(enter.arguments), enter.queue, enter.on_cancel) == (
        ["fetch", "build"],
        None,
        OnCancel.ABANDON,
    )
    assert route_of(enter, "default", 1) == session_route("default", ["build", "fetch"])
    drive.done(ENTER, NODE)
    assert drive.pending == [f"activity {OPEN}", "activity fetch"]
    opened, fetched = drive.execution.pending
    assert entered_by(opened.arguments) == enter.id
    assert opened.queue == fetched.queue == node_queue(NODE)
    assert route_of(fetched, "default", 1) == Route(node_queue(NODE), "fetch")
    drive.done("fetch", "path")
    drive.done("build", 6)
    assert drive.output == 6
    assert drive.commands[-1] == f"cancel {opened.id}"
    for history in prefixes(drive.history):
        replay(both, history).evict()


def test_what_it_returns_is_read_by_the_annotations():
    drive = entered(both)
    drive.done("fetch", "path")
    pending = list(drive.execution.pending)
    assert plain(pending[-1].arguments) == ["path", 2]


def test_the_loss_of_its_node_is_raised_at_the_await_and_then_at_once():
    async def loses(ctx, url):
        async with ctx.session(fetch, build) as session:
            try:
                await session.schedule_activity(fetch, url)
            except SessionLost as lost:
                try:
                    session.schedule_activity(build, "x")
                except SessionLost as later:
                    return [lost.activity, lost.node_id, later.activity]

    drive = entered(loses)
    lose(drive, "fetch")
    assert drive.output == ["fetch", NODE, "build"]
    assert drive.commands[-1].startswith("cancel"), "the open session is given up"


@pytest.mark.parametrize("cold", [False, True])
def test_what_is_lost_while_the_code_waits_for_something_else_is_known_at_the_next_call(cold):
    async def waits(ctx, _):
        async with ctx.session(fetch) as session:
            await ctx.wait_for_event("go")
            try:
                session.schedule_activity(fetch, "x")
            except SessionLost as lost:
                return str(lost)

    drive = entered(waits, cold=cold)
    lose(drive, OPEN)
    assert drive.pending == ["event go"]
    drive.send("go")
    assert NODE in drive.output
    assert "open a new session" in drive.output


def test_the_first_loss_in_a_gather_cancels_the_others():
    async def gathers(ctx, _):
        async with ctx.session(fetch) as session:
            await ctx.gather(*(session.schedule_activity(fetch, str(n)) for n in range(3)))

    drive = entered(gathers)
    lose(drive, "fetch")
    assert drive.error.type.endswith("SessionLost")
    assert [word for word in drive.commands if word.startswith("cancel")] != []


def test_a_new_session_of_the_same_execution_has_its_own_node():
    async def again(ctx, url):
        while True:
            try:
                async with ctx.session(fetch) as session:
                    return [session.node_id, await session.schedule_activity(fetch, url)]
            except SessionLost:
                continue

    drive = entered(again)
    lose(drive, "fetch")
    assert drive.pending == [f"activity {ENTER}"]
    drive.done(ENTER, "node-2")
    drive.done("fetch", "path")
    assert drive.output == ["node-2", "path"]


def test_entering_is_bounded_by_its_timeout():
    async def bounded(ctx, _):
        try:
            async with ctx.session(fetch, timeout=timedelta(seconds=5)):
                return "in"
        except SessionTimeout as late:
            return [isinstance(late, TimeoutError), late.activities, str(late)]

    drive = Drive(bounded)
    assert drive.pending == [f"activity {ENTER}", "timer"]
    drive.advance(5)
    is_timeout, names, text = drive.output
    assert (is_timeout, names) == (True, ["fetch"])
    assert "no node has taken a session of 'fetch' within 5 s" in text
    drive = entered(bounded)
    assert drive.output == "in"


def test_a_cancelled_branch_leaves_its_session():
    async def branch(ctx):
        async with ctx.session(fetch) as session:
            await session.schedule_activity(fetch, "x")

    async def races(ctx, _):
        won = await ctx.race(branch(ctx), ctx.wait_for_event("go"))
        await ctx.wait_for_event("end")
        return won.index

    drive = entered(races)
    drive.send("go")
    assert drive.pending == ["event end"]


def test_a_boundary_inside_it_is_a_boundary():
    async def laps(ctx, count):
        async with ctx.session(fetch) as session:
            await session.schedule_activity(fetch, "x")
            ctx.continue_as_new(count + 1)

    drive = entered(laps, 1)
    drive.done("fetch", "path")
    assert plain(drive.ending.state) == 2


# --- what is refused --------------------------------------------------------------------------


def told(function, *, enters=True):
    """Return the text of the error that code gets."""

    async def tells(ctx, _):
        try:
            await function(ctx)
        except (InvalidArgument, OrchestrationError) as error:
            return str(error)

    return (entered(tells) if enters else Drive(tells)).output


def test_another_activity_is_refused_and_the_error_names_the_remedy():
    async def other(ctx):
        async with ctx.session(fetch) as session:
            session.schedule_activity(build, "x")

    text = told(other)
    assert "the session was made for 'fetch'" in text
    assert "ctx.session(..., build)" in text


def test_a_session_without_activities_is_refused():
    async def none(ctx):
        ctx.session()

    assert "ctx.session(download, transcode)" in told(none, enters=False)


def test_it_takes_nothing_outside_of_its_block():
    async def before(ctx):
        ctx.session(fetch).schedule_activity(fetch, "x")

    async def after(ctx):
        async with ctx.session(fetch) as session:
            pass
        session.schedule_activity(fetch, "x")

    assert "inside the block" in told(before, enters=False)
    assert "inside the block" in told(after)


def test_it_is_entered_once():
    async def twice(ctx):
        session = ctx.session(fetch)
        async with session:
            pass
        async with session:
            pass

    assert "can be entered once" in told(twice)


def test_its_node_is_known_inside_only():
    async def early(ctx):
        return ctx.session(fetch).node_id

    assert "no node has taken this session yet" in told(early, enters=False)


def test_it_cannot_stand_in_a_state():
    async def keeps(ctx):
        async with ctx.session(fetch) as session:
            ctx.continue_as_new(session)

    async def tells(ctx, _):
        try:
            await keeps(ctx)
        except Exception as error:
            return type(error).__name__

    assert entered(tells).output == "EncodeError"


def test_a_timeout_that_is_none_is_refused():
    async def wrong(ctx):
        ctx.session(fetch, timeout=5)

    assert "timeout of a session" in told(wrong, enters=False)


def test_names_that_no_index_holds_are_refused():
    async def long(ctx):
        ctx.session(*(f"{number}{'x' * 100}" for number in range(10)))

    async def control(ctx):
        ctx.session("a\x1db")

    assert "1,000 bytes" in told(long, enters=False)
    assert "control character" in told(control, enters=False)


def test_its_queue_is_the_one_that_its_activities_name():
    assert session_queue(None, [fetch]) is None
    assert session_queue(None, [fetch, GPU]) == "gpu"
    assert session_queue("cpu", [fetch, GPU]) == "cpu"
    with pytest.raises(InvalidArgument, match="'cpu', 'gpu'; say which one"):
        session_queue(None, [Activity.named("a", queue="cpu"), GPU])


def test_no_activity_of_a_user_has_a_name_of_the_librarys_own():
    with pytest.raises(InvalidArgument, match=r"must not begin with 'orchestra\.session\.'"):
        Activity.named(ENTER)


def test_a_route_of_a_session_says_which_nodes_take_it():
    route = session_route("gpu", ["b", "a", "b"]).of_format(2)
    assert (route.session, route.served_queue, route.format, route.node) == (
        ("a", "b"),
        "gpu",
        2,
        None,
    )
    own = Route(node_queue(NODE), "a")
    assert (own.node, own.session, own.activity) == (NODE, None, "a")
    assert Route("default", "a").node is None
    assert activities_of(encode(["a"], subject="names")) == ["a"]

"""What a node has in memory of a long inbox: the order of each name holds, whatever is in memory
and whatever is not.
"""

from hypothesis import given, settings
from hypothesis import strategies as some

from orchestra.codec import Payload, encode
from orchestra.replay import ActivityDone, Inbox
from orchestra.store.kinds import MessageKind
from orchestra.store.messages import InboxPage, MessageRow, Unread
from tests.support.driver import fresh
from tests.support.examples import examples

NAMES = ("a", "b", "c")


def a_message(sequence, name="a", size=1, kind=MessageKind.EVENT):
    return MessageRow(sequence, f"m{sequence}", name, Payload(b"x" * size), sequence, kind)


class Stored:
    """All that is unread in the store, and what a page of it is."""

    def __init__(self):
        self.last = 0
        self.unread = []

    def send(self, name, size):
        self.last += 1
        self.unread.append(a_message(self.last, name, size))
        return self.unread[-1]

    def page(self, after, up_to, page, at_least=0, name=None):
        found = [m for m in self.unread if after < m.sequence <= up_to and name in (None, m.name)]
        fitting, size = [], 0
        for message in found:
            size += len(message.payload.data)
            if len(fitting) >= at_least and (len(fitting) >= page.messages or size > page.bytes):
                return tuple(fitting), message.sequence - 1
            fitting.append(message)
        return tuple(fitting), up_to

    def read(self, inbox, names, page, awaited):
        after = inbox.read_from(names)
        share = page.share(len(after))
        inbox.read(
            {
                name: Unread(*self.page(number, self.last, share, 1, name))
                for name, number in after.items()
            },
            awaited,
        )


@settings(max_examples=examples(300), deadline=None)
@given(data=some.data())
def test_each_name_is_delivered_in_order_whatever_is_in_memory(data):
    stored, page, room = (
        Stored(),
        InboxPage(data.draw(some.integers(0, 3)), 4),
        InboxPage(data.draw(some.integers(1, 4)), 6),
    )
    for _ in range(data.draw(some.integers(0, 12))):
        stored.send(data.draw(some.sampled_from(NAMES)), data.draw(some.integers(0, 5)))
    messages, whole_to = stored.page(0, stored.last, page)
    inbox, known = Inbox(messages, whole_to=whole_to, up_to=stored.last, room=room), stored.last
    for _ in range(data.draw(some.integers(0, 40))):
        name = data.draw(some.sampled_from(NAMES))
        match data.draw(some.sampled_from(("local", "news", "take", "take"))):
            case "local":
                inbox.arrive(
                    (stored.send(name, data.draw(some.integers(0, 5))),), known + 1, known + 1
                )
                known += 1
            case "news":
                for _ in range(data.draw(some.integers(1, 6))):
                    stored.send(data.draw(some.sampled_from(NAMES)), data.draw(some.integers(0, 5)))
                # From before what is known: no write has taken note of that yet.
                found, whole_to = stored.page(data.draw(some.integers(0, known)), stored.last, page)
                new = [message for message in found if message.sequence > known]
                inbox.arrive(new, max(whole_to, known), stored.last)
                known = stored.last
            case _:
                if inbox.is_open(name):
                    stored.read(
                        inbox, (name,), room, data.draw(some.sets(some.sampled_from(NAMES)))
                    )
                    assert not inbox.is_open(name), "what was read is known"
                expected = next(
                    (message for message in stored.unread if message.name == name), None
                )
                assert inbox.head(name) == expected
                if expected is not None:
                    assert inbox.take(name) == expected
                    stored.unread.remove(expected)
        assert inbox.size == sum(
            len(m.payload.data) for queue in inbox._queues.values() for m in queue.messages
        )


def test_what_arrives_in_memory_does_not_gather_without_bound():
    inbox = Inbox(room=InboxPage(10, 1_000))
    for sequence in range(1, 1_001):
        inbox.arrive((a_message(sequence, "noise"),), sequence, sequence)
    assert len(inbox) == 10
    for sequence in range(1_001, 1_011):
        inbox.arrive((a_message(sequence, "large", 600),), sequence, sequence)
    assert inbox.size <= 1_000


def test_names_that_come_and_go_are_not_remembered_for_ever():
    inbox = Inbox(up_to=10, whole_to=0, room=InboxPage(10, 1_000))
    for sequence in range(11, 20_000):
        inbox.arrive((a_message(sequence, f"reply-{sequence}"),), sequence, sequence)
    assert len(inbox.names) < 2_000


async def takes_the_first(ctx, _):
    return [
        (await ctx.race(ctx.wait_for_event("a", int), ctx.wait_for_event("b", int)))
        for _ in range(2)
    ]


def test_a_turn_stops_before_a_name_of_which_the_store_may_have_an_earlier_message():
    """Of names that are awaited together the first message counts, whether it is in memory or
    not.
    """
    execution = fresh(takes_the_first)
    execution.start(encode(None, subject="state"), 0)
    early, late = a_message(1, "b"), a_message(5, "a")
    early, late = (
        MessageRow(m.sequence, m.message_id, m.name, encode(m.sequence, subject="m"), 0)
        for m in (early, late)
    )
    inbox = Inbox((), whole_to=0, up_to=5, room=InboxPage())
    turn = execution.turn(1, (), inbox)
    assert (set(turn.to_read), turn.consumed) == ({"a", "b"}, ())
    inbox.read({"a": Unread((late,), 5)}, execution.commands.waits.names)
    assert execution.turn(1, (), inbox).to_read == ("b",)
    inbox.read({"b": Unread((early,), 5)}, execution.commands.waits.names)
    turn = execution.turn(1, (), inbox)
    assert (turn.to_read, turn.consumed) == ((), (1, 5))
    assert turn.received == (early, late)


async def takes_either(ctx, _):
    return (await ctx.race(ctx.schedule_activity("work"), ctx.wait_for_event("stop", int))).index


def test_an_activity_that_has_ended_waits_for_an_event_that_may_have_come_before():
    execution = fresh(takes_either)
    execution.start(encode(None, subject="state"), 0)
    inbox = Inbox((), whole_to=0, up_to=1, room=InboxPage())
    (scheduled,) = execution.activities
    done = ActivityDone(scheduled, 9, 1, encode(None, subject="result"))
    turn = execution.turn(9, (done,), inbox)
    assert (turn.to_read, turn.left, turn.ending) == (("stop",), (done,), None)
    inbox.read(
        {"stop": Unread((MessageRow(1, "m", "stop", encode(1, subject="m"), 5),), 1)},
        execution.commands.waits.names,
    )
    turn = execution.turn(10, turn.left, inbox)
    assert turn.consumed == (1,), "it was sent before the activity ended"
    assert turn.ending is not None

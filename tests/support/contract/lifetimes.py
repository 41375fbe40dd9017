"""The start and the end of an instance (rules 19 and 21)."""

from __future__ import annotations

from orchestra.codec import Payload
from orchestra.store.kinds import Status
from orchestra.store.outcomes import Appended, AppendRefused, Granted, Refusal, Started, StartExists
from orchestra.store.port import Provider
from orchestra.store.tasks import ActivityRow
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    a_start,
    an_append,
    an_end,
    begin,
    expect,
    one,
    read,
)


class LifetimeTests(ContractBase):
    """An instance begins once, and when it has ended, nothing more reaches it."""

    def test_starting_twice_makes_one_instance(self, connect: Open) -> None:
        first, second = connect(), connect()
        assert first.store.commit([a_start("i"), a_start("i")]).outcomes == (
            Started(),
            StartExists(same=True),
        )
        assert one(second, a_start("i", incarnation="z")) == StartExists(same=True)
        assert one(second, a_start("i", request_id="other")) == StartExists(same=False)
        assert read(second).row.incarnation == "a"

    def test_the_end_empties_the_inbox_and_counts_what_was_unread(self, provider: Provider) -> None:
        row = begin(provider)
        provider.store.commit(
            [
                an_append("i", f"m{number}", name)
                for number, name in enumerate(["go", "go", "stop", "go"])
            ]
        )
        expect(
            one(
                provider,
                an_end(row, consumed=(2,), activities=(ActivityRow(1, 2, 1, None, 5, b"[]"),)),
            ),
            Granted,
        )
        record = read(provider)
        assert (record.unread_messages, dict(record.unread_at_end)) == (0, {"go": 2, "stop": 1})
        assert (record.status, record.row.owner, record.activities) == (Status.COMPLETED, None, ())
        assert record.execution.output == Payload(b'"done"')
        assert provider.store.owned("n1") == []

    def test_a_message_of_the_group_that_ends_the_instance_is_refused(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        refused, _ = provider.store.commit([an_append("i"), an_end(row)]).outcomes
        assert refused == AppendRefused(Refusal.CLOSED)

    def test_a_sender_whose_message_was_read_learns_so_even_after_the_end(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        provider.store.commit([an_append("i", "read"), an_append("i", "unread")])
        expect(one(provider, an_end(row, consumed=(1,))), Granted)
        assert one(provider, an_append("i", "read")) == Appended(1, None, fresh=False)
        assert one(provider, an_append("i", "unread")) == AppendRefused(Refusal.CLOSED)

"""Traces: the ``traceparent`` of whoever asked for something reaches whoever does it."""

from __future__ import annotations

from dataclasses import replace

from orchestra.store.executions import Closing, ExecutionDelta, Opening
from orchestra.store.kinds import ExecutionEnd
from orchestra.store.outcomes import Appended, Granted, Started
from orchestra.store.port import Provider
from tests.support.contract.base import ContractBase, Open
from tests.support.contract.shorthand import (
    POLICY,
    TRACEPARENT,
    a_park,
    a_start,
    a_state,
    a_write,
    an_append,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)

OTHER_TRACEPARENT = TRACEPARENT.replace("b7ad", "c8be")


class TraceTests(ContractBase):
    """What travels with starts, messages and executions."""

    def test_a_starts_trace_reaches_every_owner(self, provider: Provider) -> None:
        expect(one(provider, replace(a_start("i"), traceparent=TRACEPARENT)), Started)
        for node in ("n1", "n2"):
            (snapshot,) = claim(provider, node)
            assert (snapshot.row.traceparent, snapshot.execution.traceparent) == (TRACEPARENT, None)
            expect(one(provider, a_park(snapshot.row, wake_at=0)), Granted)

    def test_an_executions_trace_is_stored_where_it_is_opened(self, provider: Provider) -> None:
        row = begin(provider)
        opening = ExecutionDelta(
            1, opened=Opening(11, "1.0.0", "f1", 1, POLICY), traceparent=TRACEPARENT
        )
        expect(
            one(provider, a_write(row, a_state(row, owner=None, wake_at=0), executions=(opening,))),
            Granted,
        )
        (snapshot,) = claim(provider, "n2")
        assert snapshot.execution.traceparent == TRACEPARENT
        later = ExecutionDelta(1, events=())
        expect(one(provider, a_write(snapshot.row, executions=(later,))), Granted)
        assert read(provider).execution.traceparent == TRACEPARENT

    def test_an_execution_that_waits_to_be_opened_names_the_trace_before_it(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        deltas = (
            ExecutionDelta(
                1,
                opened=Opening(11, "1.0.0", "f1", 1, POLICY),
                closed=Closing(12, ExecutionEnd.CONTINUED_AS_NEW, None, None),
                traceparent=TRACEPARENT,
            ),
            ExecutionDelta(2, create=replace(an_execution(2), traceparent=TRACEPARENT)),
        )
        state = a_state(row, owner=None, wake_at=0, execution=2, opened=False)
        expect(one(provider, a_write(row, state, executions=deltas)), Granted)
        (snapshot,) = claim(provider)
        assert (snapshot.execution.number, snapshot.execution.traceparent) == (2, TRACEPARENT)
        opening = ExecutionDelta(
            2, opened=Opening(13, "1.0.0", "f1", 1, POLICY), traceparent=OTHER_TRACEPARENT
        )
        expect(
            one(
                provider,
                a_write(snapshot.row, a_state(snapshot.row, execution=2), executions=(opening,)),
            ),
            Granted,
        )
        assert [lap.traceparent for lap in provider.directory.executions("i")] == [
            TRACEPARENT,
            OTHER_TRACEPARENT,
        ]

    def test_a_whole_lap_in_one_write_has_its_own_trace(self, provider: Provider) -> None:
        row = begin(provider)
        made = replace(an_execution(2), traceparent=TRACEPARENT)
        opened = Opening(11, "1.0.0", "f1", 1, POLICY)
        deltas = (
            ExecutionDelta(
                1,
                opened=opened,
                closed=Closing(12, ExecutionEnd.CONTINUED_AS_NEW, None, None),
                traceparent=TRACEPARENT,
            ),
            ExecutionDelta(2, create=made, opened=opened, traceparent=OTHER_TRACEPARENT),
        )
        expect(one(provider, a_write(row, a_state(row, execution=2), executions=deltas)), Granted)
        assert [lap.traceparent for lap in provider.directory.executions("i")] == [
            TRACEPARENT,
            OTHER_TRACEPARENT,
        ]

    def test_a_messages_trace_reaches_its_reader(self, connect: Open) -> None:
        provider, other = connect(), connect()
        row = begin(provider)
        sent = replace(an_append("i"), traceparent=TRACEPARENT)
        appended = expect(one(other, sent), Appended)
        again = expect(one(other, replace(sent, traceparent=OTHER_TRACEPARENT)), Appended)
        (news,) = provider.store.news("n1")
        expect(one(provider, a_park(row)), Granted)
        (snapshot,) = claim(provider, "n2")
        for message in (appended.message, again.message, *news.messages, *snapshot.messages):
            assert message is not None
            assert message.traceparent == TRACEPARENT

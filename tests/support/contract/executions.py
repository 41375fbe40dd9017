"""Executions, the boundary between them, and the activities that they wait for (rule 16, I2, I3,
I4).
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestra.codec import Payload
from orchestra.errors import StoreError
from orchestra.store.executions import Closing, ExecutionDelta, Opening, Resolution
from orchestra.store.kinds import ExecutionEnd, ResolvedBy
from orchestra.store.outcomes import Granted
from orchestra.store.port import Provider
from orchestra.store.tasks import ActivityRow
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    OTHER_KIND,
    POLICY,
    a_state,
    a_write,
    an_event,
    an_execution,
    begin,
    claim,
    expect,
    one,
    read,
)


class ExecutionTests(ContractBase):
    """What is written of an execution, from its opening to the next one's."""

    def test_the_marks_of_patches_stand_in_the_row_of_their_execution(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        first = ExecutionDelta(1, events=(an_event(1),), patches=("tax",))
        granted = expect(one(provider, a_write(row, executions=(first,))), Granted)
        assert provider.directory.executions("i")[0].patches == ("tax",)
        row = replace(row, revision=row.revision + 1, seen_seq=granted.inbox_seq)
        both = ExecutionDelta(
            1,
            events=(an_event(2),),
            closed=Closing(12, ExecutionEnd.CONTINUED_AS_NEW),
            patches=("tax", "fee"),
        )
        opened = Opening(13, "1.1.0", "f2", 1, POLICY)
        following = ExecutionDelta(
            2, create=an_execution(2, "1.1.0"), opened=opened, patches=("late",)
        )
        state = a_state(row, kind=OTHER_KIND, owner=None, wake_at=0, execution=2)
        expect(one(provider, a_write(row, state, executions=(both, following))), Granted)
        (snapshot,) = claim(provider, kinds=(OTHER_KIND,))
        assert snapshot.execution.patches == ("late",)
        assert [one.patches for one in provider.directory.executions("i")] == [
            ("tax", "fee"),
            ("late",),
        ]

    def test_a_boundary_closes_one_execution_and_makes_the_next_in_one_write(
        self, provider: Provider
    ) -> None:
        row = begin(provider)
        opened = Opening(11, "1.0.0", "f1", 1, POLICY, ("-2.0.0", "1.2.0"))
        closed = Closing(12, ExecutionEnd.CONTINUED_AS_NEW, None, None)
        following = replace(
            an_execution(2, "1.1.0"),
            state=Payload(b'{"checks":1}'),
            state_version="1.0.0",
            state_shape="0123456789abcdef",
        )
        write = a_write(
            row,
            a_state(row, kind=OTHER_KIND, owner=None, wake_at=0, execution=2, opened=False),
            executions=(
                ExecutionDelta(
                    1,
                    opened=opened,
                    events=(an_event(1), an_event(2)),
                    closed=closed,
                    event_count=2,
                    byte_count=9,
                ),
                ExecutionDelta(2, create=following),
            ),
            activities=(ActivityRow(2, 1, 1, 5, 4, b"[]", Payload(b"1")),),
        )
        expect(one(provider, write), Granted)
        assert claim(provider) == ()
        (snapshot,) = claim(provider, kinds=(OTHER_KIND,))
        assert (snapshot.row.execution, snapshot.row.opened, snapshot.execution) == (
            2,
            False,
            following,
        )
        assert len(snapshot.activities) == 1
        first, second = provider.directory.executions("i")
        assert (first.opened_at, first.fingerprint, first.format, first.closed_at) == (
            11,
            "f1",
            1,
            12,
        )
        assert (first.end, first.events, first.bytes) == (ExecutionEnd.CONTINUED_AS_NEW, 2, 9)
        assert first.migrations == ("-2.0.0", "1.2.0")
        assert second == following
        assert provider.directory.executions("i", after=1) == [following]
        assert provider.directory.executions("i", limit=1) == [first]

    def test_a_write_may_run_whole_laps(self, provider: Provider) -> None:
        row = begin(provider)
        explicit = Resolution(ResolvedBy.EXPLICIT, "n1", 4)
        laps = tuple(
            ExecutionDelta(
                number,
                create=None if number == 1 else an_execution(number),
                opened=Opening(number, "1.1.0", "f2", 1, explicit, ("1.1.0",) * (number - 1)),
                events=(an_event(1), an_event(2)),
                closed=Closing(number, ExecutionEnd.CONTINUED_AS_NEW, None, None)
                if number < 4
                else None,
            )
            for number in (1, 2, 3, 4)
        )
        expect(one(provider, a_write(row, a_state(row, execution=4), executions=laps)), Granted)
        executions = provider.directory.executions("i")
        assert [execution.number for execution in executions] == [1, 2, 3, 4]
        assert {(execution.version, execution.resolution) for execution in executions} == {
            ("1.1.0", explicit)
        }
        assert [execution.closed_at for execution in executions] == [1, 2, 3, None]
        assert all(
            provider.store.history("i", number) == [an_event(1), an_event(2)]
            for number in (1, 2, 3, 4)
        )

    @pytest.mark.parametrize("again", ["open", "close", "create"])
    def test_no_execution_begins_or_ends_twice(self, provider: Provider, again: str) -> None:
        deltas = {
            "open": ExecutionDelta(1, opened=Opening(1, "1.0.0", "f1", 1, POLICY)),
            "close": ExecutionDelta(1, closed=Closing(2, ExecutionEnd.FAILED, None, b"e")),
            "create": ExecutionDelta(2, create=an_execution(2)),
        }
        row = begin(provider)
        expect(one(provider, a_write(row, executions=(deltas[again],))), Granted)
        before = read(provider)
        with pytest.raises(StoreError):
            provider.store.commit([a_write(before.row, executions=(deltas[again],))])
        assert read(provider) == before

    def test_activities_are_remembered_until_they_are_settled(self, provider: Provider) -> None:
        row = begin(provider)
        tries = [
            ActivityRow(1, number, 1, 50 + number, 4, b"[1]", Payload(b"%d" % number, 2))
            for number in (1, 2, 3)
        ]
        expect(one(provider, a_write(row, activities=tuple(tries))), Granted)
        again = replace(tries[1], attempt=2, due=None, attempts=b"[1,2]", heartbeat=None)
        row = read(provider).row
        expect(
            one(
                provider,
                a_write(
                    row, a_state(row, owner=None, wake_at=0), activities=(again,), completed=(1, 9)
                ),
            ),
            Granted,
        )
        (snapshot,) = claim(provider)
        assert snapshot.activities == (replace(again, revision=1), tries[2])
        assert read(provider).activities == (replace(again, revision=1), tries[2])

"""Libraries of different ages on one store (protocol rules 37 and 38).

``next`` is a provider of the artificial next library, which knows a kind more of each sort.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestra.codec import Payload
from orchestra.errors import LevelTooLow, LibraryTooOld
from orchestra.events import OnParentClose
from orchestra.levels import Levels, Unknown
from orchestra.store.catalogue import NodeRecord
from orchestra.store.changes import Claim, Release, Start
from orchestra.store.executions import Closing, ExecutionDelta, ExecutionRow, Resolution
from orchestra.store.instances import InstanceRow, ParentLink
from orchestra.store.kinds import (
    THIS_LIBRARY,
    ExecutionEnd,
    HoldKind,
    Library,
    MessageKind,
    ResolvedBy,
    Status,
)
from orchestra.store.messages import MessageRow
from orchestra.store.outcomes import Claimed, Granted, Started
from orchestra.store.port import Provider
from orchestra.store.queries import InstanceQuery
from orchestra.store.routes import Kind
from orchestra.testing import ManualClock
from tests.support.ages import NEXT_LEVEL, NEXT_LIBRARY, STERN_LIBRARY
from tests.support.contract.base import ContractBase
from tests.support.contract.shorthand import (
    KIND,
    POLICY,
    a_hold,
    a_node,
    a_start,
    a_state,
    a_write,
    an_end,
    an_execution,
    begin,
    claim,
    expect,
    ids,
    one,
    read,
)

OpenAs = Callable[[Library], Provider]

_RAISED = Levels(NEXT_LEVEL, 1)


def _node_of(provider: Provider, node_id: str = "n1") -> NodeRecord:
    library = provider.library
    return replace(
        a_node(node_id), formats=library.formats, reads=library.level, writes=library.writes
    )


class AgeTests(ContractBase):
    """This library and the next one, side by side and one after the other."""

    @pytest.fixture
    def open_as(self, tmp_path: Path, clock: ManualClock) -> Generator[OpenAs]:
        """Return a function that opens one more connection to the store of this test, with a
        library.
        """
        opened: list[Provider] = []

        def open_another(library: Library) -> Provider:
            provider = self.make_provider(tmp_path, clock, library)
            provider.open()
            opened.append(provider)
            return provider

        yield open_another
        for provider in opened:
            provider.close()

    @pytest.fixture
    def newer(self, open_as: OpenAs) -> Provider:
        """Return a provider of the next library on a store that is written at its level."""
        provider = open_as(NEXT_LIBRARY)
        assert provider.store.raise_level(_RAISED) == _RAISED
        return provider

    # --- levels ---

    def test_a_store_begins_at_the_base_level(self, provider: Provider) -> None:
        assert (
            provider.store.catalogue().levels
            == provider.directory.catalogue().levels
            == Levels(1, 1)
        )

    def test_a_level_is_raised_with_its_lowest_reader_once_no_node_lives_that_cannot_read_it(
        self, provider: Provider, open_as: OpenAs
    ) -> None:
        newer = open_as(STERN_LIBRARY)
        provider.store.join(_node_of(provider))
        newer.store.join(_node_of(newer, "n2"))
        assert newer.store.raise_level(Levels(NEXT_LEVEL, NEXT_LEVEL)) == Levels(1, 1), (
            "n1 could not read it"
        )
        provider.store.leave("n1")
        assert newer.store.raise_level(Levels(NEXT_LEVEL, NEXT_LEVEL)) == Levels(
            NEXT_LEVEL, NEXT_LEVEL
        )
        assert newer.store.raise_level(Levels(NEXT_LEVEL, NEXT_LEVEL)) == Levels(
            NEXT_LEVEL, NEXT_LEVEL
        ), "once more, after a lost reply"
        assert (
            newer.store.renew("n2").levels
            == newer.store.catalogue().levels
            == Levels(NEXT_LEVEL, NEXT_LEVEL)
        )

    def test_a_node_that_was_buried_does_not_hold_the_level_back(
        self, provider: Provider, open_as: OpenAs
    ) -> None:
        newer = open_as(NEXT_LIBRARY)
        provider.store.join(_node_of(provider))
        assert newer.store.raise_level(_RAISED) == Levels(1, 1)
        assert newer.store.bury("n1", 0)
        assert newer.store.raise_level(_RAISED) == _RAISED

    def test_levels_never_go_down(self, newer: Provider) -> None:
        assert newer.store.raise_level(Levels(1, 1)) == _RAISED
        assert newer.store.raise_level(Levels(NEXT_LEVEL + 1, 1)) == Levels(NEXT_LEVEL + 1, 1)

    def test_a_library_that_was_ruled_out_neither_joins_nor_opens_and_is_told_by_each_renewal(
        self, provider: Provider, open_as: OpenAs
    ) -> None:
        newer = open_as(STERN_LIBRARY)
        provider.store.join(_node_of(provider))
        assert provider.store.bury("n1", 0)  # it cannot be living, or the level would not rise
        newer.store.raise_level(Levels(NEXT_LEVEL, NEXT_LEVEL))
        assert provider.store.catalogue().levels == Levels(NEXT_LEVEL, NEXT_LEVEL)
        for attempt in (
            lambda: provider.store.join(_node_of(provider, "n3")),
            lambda: open_as(provider.library),
        ):
            with pytest.raises(LibraryTooOld, match="Upgrade the library") as caught:
                attempt()
            assert (caught.value.level, caught.value.lowest_reader) == (
                THIS_LIBRARY.level,
                NEXT_LEVEL,
            )
        assert provider.store.catalogue().nodes == (), "nothing is left of the one that was refused"

    def test_a_new_kind_is_written_in_an_older_form_until_the_level_allows_it(
        self, provider: Provider, open_as: OpenAs
    ) -> None:
        newer = open_as(NEXT_LIBRARY)
        _hold(newer, "before")
        newer.store.raise_level(_RAISED)
        _hold(newer, "after")
        kinds = {name: _kind_of_hold(read(provider, name).row) for name in ("before", "after")}
        assert kinds == {"before": HoldKind.STATE, "after": Unknown("hold", "shape")}

    def test_what_a_library_does_not_know_it_never_writes(self, provider: Provider) -> None:
        row = begin(provider)
        unknown = replace(a_hold(), kind=Unknown("hold", "shape"))
        with pytest.raises((LevelTooLow, AssertionError)):
            provider.store.commit([a_write(row, a_state(row, owner=None), hold=unknown)])
        assert not read(provider).held

    # --- what is read ---

    def test_unknown_kinds_are_shown_as_what_they_are(
        self, provider: Provider, newer: Provider
    ) -> None:
        expect(one(newer, an_end(begin(newer, "ended"), Status.CANCELLED)), Granted)
        _hold(newer, "held")
        explicit = Resolution(ResolvedBy.EXPLICIT, "n1", 1)
        execution = ExecutionRow(1, "watch", "1.0.0", explicit, Payload(b"1"), None, created_at=7)
        expect(one(newer, replace(a_start("chosen"), execution=execution)), Started)
        assert _kind_of_hold(read(provider, "held").row) == Unknown("hold", "shape")
        assert read(provider, "chosen").execution.resolution.how == Unknown("resolution", "choice")
        ended = read(provider, "ended")
        assert (ended.status, ended.execution.end) == (
            Unknown("status", 9),
            Unknown("end of an execution", 9),
        )
        assert provider.directory.executions("ended") == [ended.execution]
        listed = {
            record.row.instance_id: record for record in provider.directory.list(InstanceQuery())
        }
        assert listed["ended"] == replace(ended, activities=(), reports=())
        others = InstanceQuery(statuses=(), other_statuses=True)
        assert [record.row.instance_id for record in provider.directory.list(others)] == ["ended"]
        assert (
            newer.directory.list(others)
            == provider.directory.list(InstanceQuery(statuses=(Status.CANCELLED,)))
            == []
        )
        cancelled = newer.directory.list(InstanceQuery(statuses=(Status.CANCELLED,)))
        assert [record.row.instance_id for record in cancelled] == ["ended"]
        # And the one that wrote them reads what they mean.
        assert _kind_of_hold(read(newer, "held").row) is HoldKind.STATE
        assert read(newer, "chosen").execution.resolution.how is ResolvedBy.EXPLICIT
        assert (read(newer, "ended").status, read(newer, "ended").execution.end) == (
            Status.CANCELLED,
            ExecutionEnd.CANCELLED,
        )

    def test_one_unknown_kind_does_not_keep_others_from_being_claimed(
        self, provider: Provider, newer: Provider
    ) -> None:
        parent = begin(newer, "parent")
        _start_child(newer, parent, "child")
        expect(one(newer, a_write(parent, a_state(parent, owner=None, wake_at=0))), Granted)
        child = next(one for one in claim(newer, limit=10) if one.row.instance_id == "child").row
        expect(one(newer, an_end(child)), Granted)
        newer.store.join(_node_of(newer, "n1"))
        newer.store.leave("n1")
        for number in range(3):
            expect(one(provider, a_start(f"i{number}")), Started)
        snapshots = {snapshot.row.instance_id: snapshot for snapshot in claim(provider, "n2")}
        assert set(snapshots) == {"parent", "i0", "i1", "i2"}
        (report,) = snapshots["parent"].messages
        assert (report.kind, report.source) == (Unknown("message", 9), 5)
        assert [message.kind for message in _news(provider, "n2")] == [Unknown("message", 9)]

    def test_holds_of_an_unknown_kind_are_listed_with_the_others(
        self, provider: Provider, newer: Provider
    ) -> None:
        _hold(newer, "unknown")
        _hold(provider, "known")
        held = {row.instance_id: row.hold.kind for row in provider.store.held(["watch"]).rows}
        assert held == {"unknown": Unknown("hold", "shape"), "known": HoldKind.STATE}

    # --- what is left alone ---

    def test_kinds_of_a_higher_level_are_another_route(
        self, provider: Provider, newer: Provider
    ) -> None:
        beyond = KIND._replace(level=NEXT_LEVEL)
        expect(one(newer, a_start("beyond", kind=beyond)), Started)
        expect(one(newer, a_start("plain")), Started)
        assert set(provider.store.catalogue().kinds) == {KIND, beyond}
        assert provider.store.next_wake([beyond._replace(version="9.9.9")]) is None
        assert ids(claim(provider, kinds=(KIND,))) == ["plain"]
        (snapshot,) = claim(newer, "n2", kinds=(KIND, beyond))
        assert (snapshot.row.instance_id, snapshot.row.kind) == ("beyond", beyond)

    def test_an_instance_changes_its_route_with_a_write(self, provider: Provider) -> None:
        row = begin(provider)
        beyond = KIND._replace(level=NEXT_LEVEL)
        expect(
            one(provider, a_write(row, a_state(row, kind=beyond, owner=None, wake_at=0))), Granted
        )
        assert expect(one(provider, Claim("n1", (KIND,), 10)), Claimed).snapshots == ()
        assert read(provider).row.kind == beyond
        query = InstanceQuery(held=True, unserved=(beyond,))
        assert [record.row.instance_id for record in provider.directory.list(query)] == ["i"]
        assert provider.directory.list(replace(query, unserved=(KIND,))) == []

    def test_closing_an_execution_leaves_messages_alone_that_are_not_known(
        self, provider: Provider, newer: Provider
    ) -> None:
        parent = begin(provider, "parent")
        _start_child(provider, parent, "child")
        (child,) = claim(newer, "n2", limit=1)
        expect(one(newer, an_end(child.row)), Granted)  # after the owner has looked
        following = replace(an_execution(2), state_version="1.0.0")
        deltas = (
            ExecutionDelta(
                1, closed=Closing(9, ExecutionEnd.CONTINUED_AS_NEW, None, None), children=True
            ),
            ExecutionDelta(2, create=following),
        )
        state = a_state(parent, execution=2, opened=False, owner=None, wake_at=0)
        expect(one(provider, a_write(parent, state, executions=deltas)), Granted)
        assert read(provider, "parent").reports == (5,), (
            "a newer library knows what it is, and whose"
        )
        (snapshot,) = (one for one in claim(newer, "n2") if one.row.instance_id == "parent")
        (report,) = snapshot.messages
        closing = ExecutionDelta(
            2, closed=Closing(9, ExecutionEnd.CONTINUED_AS_NEW, None, None), children=True
        )
        third = ExecutionDelta(3, create=an_execution(3))
        state = a_state(snapshot.row, execution=3, opened=False)
        expect(one(newer, a_write(snapshot.row, state, executions=(closing, third))), Granted)
        assert (report.kind, read(provider, "parent").reports) == (MessageKind.CHILD_COMPLETED, ())

    def test_what_is_held_for_an_unknown_reason_is_claimed_by_nobody_and_released_by_who_knows(
        self, provider: Provider, newer: Provider
    ) -> None:
        _hold(newer, "i")
        assert claim(provider) == ()
        row = read(newer).row
        expect(one(newer, Release("i", row.incarnation, row.revision)), Granted)
        assert ids(claim(provider)) == ["i"]

    # --- the schema ---

    def test_what_a_newer_schema_has_more_is_harmless(
        self, provider: Provider, newer: Provider
    ) -> None:
        row = begin(provider)
        expect(one(provider, a_write(row)), Granted)
        expect(one(newer, a_start("j")), Started)
        assert {record.row.instance_id for record in provider.directory.list(InstanceQuery())} == {
            "i",
            "j",
        }

    def test_the_library_may_be_rolled_back_and_brought_forward_again(
        self, newer: Provider, open_as: OpenAs
    ) -> None:
        newer.close()
        older = open_as(THIS_LIBRARY)
        assert older.store.catalogue().levels == _RAISED
        begin(older, "i")
        older.close()
        begin(open_as(NEXT_LIBRARY), "j")


def _hold(provider: Provider, instance_id: str) -> None:
    row = begin(provider, instance_id, "n1")
    expect(one(provider, a_write(row, a_state(row, owner=None), hold=a_hold())), Granted)


def _kind_of_hold(row: InstanceRow) -> HoldKind | Unknown:
    assert row.hold is not None
    return row.hold.kind


def _start_child(provider: Provider, parent: InstanceRow, child_id: str) -> None:
    link = ParentLink(parent.instance_id, parent.incarnation, parent.execution, 5)
    execution = ExecutionRow(1, "watch", "1.0.0", POLICY, Payload(b"1"), None, created_at=7)
    kind = Kind(KIND.queue, "watch", "1.0.0", 1)
    start = Start(
        child_id,
        "c",
        str(link),
        kind,
        execution,
        parent=link,
        on_parent_close=OnParentClose.ABANDON,
    )
    expect(one(provider, start), Started)


def _news(provider: Provider, node: str) -> tuple[MessageRow, ...]:
    return tuple(message for news in provider.store.news(node) for message in news.messages)

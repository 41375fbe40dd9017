"""Version policies and their history (rule 28)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta

import pytest

from orchestra.store import policies
from orchestra.store.catalogue import PolicyRow
from orchestra.store.policies import PolicyOutcome
from orchestra.store.port import Provider
from orchestra.testing import ManualClock
from tests.support.contract.base import ContractBase, Open


def _set(
    provider: Provider,
    value: str,
    expected: int | None = None,
    *,
    name: str = "watch",
    by: str = "me",
    reason: str = "",
    only_first: bool = False,
) -> PolicyOutcome:
    return provider.admin.set_policy(
        name, value, by=by, reason=reason, only_first=only_first, expected_revision=expected
    )


class PolicyTests(ContractBase):
    """Setting policies, on a condition or without one, and what is kept of former ones."""

    def test_a_name_without_a_policy_has_no_history(self, provider: Provider) -> None:
        assert provider.directory.policies("watch") == []

    def test_each_change_is_kept_with_its_author_reason_and_time_the_newest_first(
        self, provider: Provider, clock: ManualClock
    ) -> None:
        rows: list[PolicyRow | None] = []
        for value, by, reason in (
            ("latest", "builder", "registry"),
            ("exact:1.0.0", "me", "a bug in 1.1.0"),
            ("exact:1.0.0", "you", "the same again"),
            ("range:^1", "me", "it is mended"),
        ):
            clock.advance(timedelta(seconds=1))
            outcome = _set(provider, value, by=by, reason=reason)
            assert outcome.granted
            rows.append(outcome.row)
        _set(provider, "latest", name="other")
        found = provider.directory.policies("watch")
        assert found == rows[::-1]
        assert [(row.revision, row.value, row.by, row.reason) for row in found] == [
            (4, "range:^1", "me", "it is mended"),
            (3, "exact:1.0.0", "you", "the same again"),
            (2, "exact:1.0.0", "me", "a bug in 1.1.0"),
            (1, "latest", "builder", "registry"),
        ]
        assert len({row.at for row in found}) == 4
        assert provider.store.catalogue().policies["watch"] == found[0]
        assert provider.directory.policies("watch", 2) == found[:2]
        assert [row.name for row in provider.directory.policies("other")] == ["other"]

    def test_another_connection_reads_the_history(self, connect: Open) -> None:
        first, second = connect(), connect()
        _set(first, "latest")
        _set(second, "exact:1.0.0")
        assert first.directory.policies("watch") == second.directory.policies("watch")
        assert [row.revision for row in first.directory.policies("watch")] == [2, 1]

    def test_a_first_value_leaves_the_standing_policy_alone(self, provider: Provider) -> None:
        standing = _set(provider, "exact:1.0.0").row
        refused = _set(provider, "latest", only_first=True)
        assert refused == PolicyOutcome(granted=False, row=standing)
        assert provider.directory.policies("watch") == [standing]

    def test_an_expected_revision_that_is_not_the_present_one_changes_nothing(
        self, provider: Provider
    ) -> None:
        assert _set(provider, "latest", 1) == PolicyOutcome(granted=False, row=None)
        first = _set(provider, "latest", 0)
        assert first.granted
        second = _set(provider, "exact:1.0.0", 1)
        assert second.granted
        assert second.row is not None
        assert second.row.revision == 2
        for value, expected in (
            ("exact:1.1.0", 1),
            ("exact:1.1.0", 0),
            ("exact:1.1.0", 3),
            ("latest", 0),
            ("exact:1.0.0", 0),
            ("exact:1.0.0", 3),
        ):
            refused = _set(provider, value, expected)
            assert refused == PolicyOutcome(granted=False, row=second.row), (value, expected)
        assert provider.directory.policies("watch") == [second.row, first.row]

    def test_the_same_value_at_the_next_revision_was_set_by_the_call_whose_reply_was_lost(
        self, provider: Provider
    ) -> None:
        """Rule 28."""
        for expected, value in ((0, "latest"), (1, "exact:1.0.0")):
            made = _set(provider, value, expected, reason="the first time")
            assert _set(provider, value, expected, reason="the first time") == made
            assert made.granted
        assert [row.revision for row in provider.directory.policies("watch")] == [2, 1]
        policy_operations = [entry for entry in self.read_audit(provider) if entry[2] == "watch"]
        assert len(policy_operations) == 2, "what was there already is no operation"

    def test_of_many_operators_that_expect_the_same_revision_one_is_granted(
        self, connect: Open
    ) -> None:
        providers = [connect() for _ in range(6)]
        for expected in (0, 1):
            outcomes: list[PolicyOutcome] = []
            at_once = threading.Barrier(len(providers))

            def change(
                number: int,
                expected: int = expected,
                at_once: threading.Barrier = at_once,
                outcomes: list[PolicyOutcome] = outcomes,
            ) -> None:
                at_once.wait()
                outcomes.append(_set(providers[number], f"exact:{number}.{expected}.0", expected))

            _at_once(change, len(providers))
            assert [outcome.granted for outcome in outcomes].count(True) == 1
            assert len({outcome.row for outcome in outcomes}) == 1
        assert [row.revision for row in providers[0].directory.policies("watch")] == [2, 1]

    def test_of_many_operators_that_expect_nothing_all_are_granted_each_under_its_revision(
        self, connect: Open
    ) -> None:
        providers = [connect() for _ in range(6)]
        at_once = threading.Barrier(len(providers))

        def change(number: int) -> None:
            at_once.wait()
            assert _set(providers[number], f"exact:{number}.0.0").granted

        _at_once(change, len(providers))
        rows = providers[0].directory.policies("watch")
        assert [row.revision for row in rows] == [6, 5, 4, 3, 2, 1]
        assert len({row.value for row in rows}) == 6

    def test_the_oldest_policies_are_dropped(
        self, provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(policies, "KEPT_POLICIES", 3)
        for number in range(7):
            _set(provider, f"exact:{number}.0.0")
            _set(provider, "latest", name=f"other {number}")
        rows = provider.directory.policies("watch")
        assert [row.revision for row in rows] == [7, 6, 5, 4]


def _at_once(change: Callable[[int], None], count: int) -> None:
    failures: list[BaseException] = []

    def run(number: int) -> None:
        try:
            change(number)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert failures == []

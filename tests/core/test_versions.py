"""Versions compare as semver, also as text in a database; policies choose among them; retries
wait.
"""

from datetime import timedelta
from uuid import RFC_4122, UUID

import pytest
import semver
from hypothesis import example, given
from hypothesis import strategies as st

from orchestra.clock import from_micros, micros, new_id, to_micros
from orchestra.errors import InvalidRange, InvalidVersion, LevelTooLow, RegistrationError
from orchestra.retry import NonRetryable, RetryPolicy, type_name
from orchestra.versions import (
    POLICIES,
    Exact,
    Latest,
    Range,
    UnknownPolicy,
    parse_version,
    policy_from_text,
    policy_to_text,
    resolve,
    version_key,
)

NUMBERS = st.one_of(st.integers(0, 12), st.integers(0, 10**16))
IDENTIFIERS = st.one_of(
    NUMBERS.map(str),
    st.from_regex(r"[0-9]{0,2}[a-zA-Z-][0-9a-zA-Z-]{0,3}", fullmatch=True),
)
VERSIONS = st.builds(
    lambda core, pre, build: (
        ".".join(map(str, core))
        + ("-" + ".".join(pre) if pre else "")
        + ("+" + build if build else "")
    ),
    st.tuples(NUMBERS, NUMBERS, NUMBERS),
    st.lists(IDENTIFIERS, max_size=3),
    st.sampled_from(["", "b1", "b2"]),
)


@given(VERSIONS, VERSIONS)
@example("2.0.0-rc.1", "2.0.0")
@example("1.10.0", "1.9.0")
@example("20240131120000.0.0", "9999999999.0.0")
@example("1.0.0-a", "1.0.0-a.0")
@example("1.0.0-a-b", "1.0.0-a.b")
def test_the_key_of_a_version_sorts_as_semver_does(left, right):
    """Scenario 8."""
    wanted = semver.Version.parse(left).compare(right)
    keys = version_key(left).encode(), version_key(right).encode()
    assert (keys[0] > keys[1]) - (keys[0] < keys[1]) == wanted
    assert (version_key(left) > version_key(right)) - (
        version_key(left) < version_key(right)
    ) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "1.0",
        "v1.0.0",
        "01.0.0",
        "1.0.0\n",
        " 1.0.0",
        "1.0.0-",
        "1.0.0-01",
        "1.٣.0",
        None,
        1,
    ],
)
def test_a_malformed_version_is_refused(text):
    with pytest.raises(InvalidVersion, match=r"MAJOR\.MINOR\.PATCH"):
        parse_version(text)


@pytest.mark.parametrize(
    ("policy", "available", "chosen"),
    [
        (Latest(), ["1.0.0", "1.10.0", "1.9.0"], "1.10.0"),
        (Latest(), ["1.0.0", "2.0.0-rc.1"], "1.0.0"),
        (Latest(), ["2.0.0-rc.1", "2.0.0-rc.2"], "2.0.0-rc.2"),
        (Latest(), [], None),
        (Exact("1.0.0"), ["2.0.0"], "1.0.0"),
        (Exact("1.0.0"), [], "1.0.0"),
        (Range("^1.2"), ["1.1.0", "1.2.0", "1.10.0", "1.9.0", "2.0.0"], "1.10.0"),
        (Range("~1.2"), ["1.1.0", "1.2.0", "1.2.7", "1.10.0"], "1.2.7"),
        (Range(">=1.2,<2"), ["1.1.0", "1.3.0", "2.0.0"], "1.3.0"),
        (Range("^2"), ["1.1.0", "3.0.0"], None),
        (Range("^2"), [], None),
        (Range("^1"), ["1.0.0", "2.0.0-rc.1", "1.1.0-rc.1"], "1.0.0"),
        (Range("^1"), ["1.1.0-rc.1"], None),
        (Range(">=1.1.0-rc.1,<2"), ["1.0.0", "1.1.0-rc.2", "1.2.0-rc.1"], "1.1.0-rc.2"),
        (Range("^1"), ["1.0.0+a", "1.0.0+b"], "1.0.0+b"),
    ],
)
def test_a_policy_chooses_among_what_there_is(policy, available, chosen):
    assert resolve(policy, available) == chosen
    assert resolve(policy, reversed(available)) == chosen


@given(st.lists(VERSIONS, min_size=1))
def test_latest_chooses_the_same_in_any_order(available):
    assert resolve(Latest(), available) == resolve(Latest(), sorted(available))


@pytest.mark.parametrize("policy", [Latest(), Exact("1.2.0-rc.1+b"), Range(">=1.2, <2")])
def test_a_policy_reads_back_from_its_text(policy):
    assert policy_from_text(str(policy)) == policy
    assert policy_to_text(policy, level=2) == str(policy)


def test_a_range_is_of_level_two_and_a_stored_one_that_is_none_is_not_read_as_another_policy():
    assert POLICIES.level("range") == 2
    with pytest.raises(LevelTooLow, match="version policy"):
        policy_to_text(Range("^1"), level=1)
    for text in ("range:", "range:1.x", "range:^1 || ^2", "latest:1", "exact:^1"):
        assert policy_from_text(text) == UnknownPolicy(text)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("^1.2.3", "1.2.3 1.2.4 1.99.0", "1.2.2 2.0.0 0.9.9 1.2.3-rc.1 2.0.0-rc.1"),
        ("^1.2", "1.2.0 1.3.0", "1.1.9 2.0.0"),
        ("^1", "1.0.0 1.9.9", "0.9.9 2.0.0"),
        ("^0.3.1", "0.3.1 0.3.9", "0.3.0 0.4.0 1.0.0"),
        ("^0.3", "0.3.0 0.3.9", "0.2.9 0.4.0"),
        ("^0.0.3", "0.0.3 0.0.3+b", "0.0.2 0.0.4"),
        ("^0.0", "0.0.0 0.0.9", "0.1.0"),
        ("^0", "0.0.0 0.9.0", "1.0.0"),
        ("~1.2.3", "1.2.3 1.2.9", "1.2.2 1.3.0"),
        ("~1.2", "1.2.0 1.2.9", "1.1.9 1.3.0"),
        ("~1", "1.0.0 1.9.9", "0.9.9 2.0.0"),
        ("~0.0.1", "0.0.1 0.0.9", "0.1.0"),
        (">=1.2", "1.2.0 7.0.0", "1.1.9"),
        (">1.2", "1.3.0", "1.2.9"),
        (">1.2.3", "1.2.4", "1.2.3"),
        (">1", "2.0.0", "1.9.9"),
        ("<=1.2", "1.2.9 0.0.1", "1.3.0"),
        ("<=1.2.3", "1.2.3", "1.2.4"),
        ("<1.2", "1.1.9", "1.2.0 1.2.0-rc.1"),
        ("=1.2", "1.2.0 1.2.9", "1.3.0"),
        ("=1.2.3", "1.2.3 1.2.3+build", "1.2.4"),
        ("=1.2.3-rc.1", "1.2.3-rc.1", "1.2.3 1.2.3-rc.2"),
        (" >= 1.2 , < 1.4.0 ", "1.2.0 1.3.9", "1.4.0"),
        ("^2.0.0-rc.1", "2.0.0-rc.1 2.0.0-rc.10 2.0.0 2.9.0", "2.0.0-beta 2.1.0-rc.1 3.0.0"),
        ("^1,^1.5,<1.7", "1.5.0 1.6.9", "1.4.9 1.7.0"),
    ],
)
def test_a_range_has_the_versions_that_npm_says(text, inside, outside):
    range_ = Range(text)
    assert [version for version in inside.split() if version not in range_] == []
    assert [version for version in outside.split() if version in range_] == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "1",
        "1.2.0",
        "1.x",
        "^1.x",
        "*",
        "^",
        "^01",
        "^1.2.3.4",
        "^1.2-rc.1",
        "^1.2.0-01",
        "^1.2.0+b",
        "^v1",
        ">=1,",
        ",",
        ">=1 <2",
        "1.0.0 - 2.0.0",
        "^1 || ^2",
        "!=1.0.0",
        "==1.0.0",
        "^٣",
        "^1\n",
        "^" + "9" * 5_000,
        None,
        1,
        ("^1",),
    ],
)
def test_a_text_that_is_no_range_is_refused_with_what_to_write(text):
    with pytest.raises(InvalidRange, match=r"no range .*\^1\.2.*>=1\.2,<2"):
        Range(text)


@pytest.mark.parametrize("text", [">2,<1", ">=2,<2", ">1.0.0,<=1.0.0", "^1,^2", "<1,>=1"])
def test_a_range_in_which_no_version_can_lie_is_refused(text):
    with pytest.raises(InvalidRange, match="no version can lie"):
        Range(text)


@given(VERSIONS, VERSIONS)
def test_a_caret_never_has_a_version_below_its_own_or_of_another_major_number(base, other):
    if parse_version(base).build is None and other in Range(f"^{base}"):
        assert version_key(other) >= version_key(base)
        assert parse_version(other).major == parse_version(base).major


def test_an_exact_policy_needs_a_version():
    with pytest.raises(InvalidVersion):
        Exact("one")


# --- retries ---


def test_waits_grow_by_the_factor_up_to_the_longest():
    policy = RetryPolicy(
        initial_interval=timedelta(seconds=1), factor=2, max_interval=timedelta(seconds=5), jitter=0
    )
    assert [
        policy.delay(failed, 0.9).total_seconds() for failed in (1, 2, 3, 4, 1_000, 10_000)
    ] == [1, 2, 4, 5, 5, 5]


@given(st.integers(1, 10_000), st.floats(0, 1, exclude_max=True), st.floats(0, 1), st.floats(1, 10))
def test_a_wait_lies_between_its_jittered_least_and_the_longest(failed, random, jitter, factor):
    policy = RetryPolicy(jitter=jitter, factor=factor)
    assert (
        timedelta(0)
        <= policy.delay(failed, random)
        <= policy.delay(failed, 0)
        <= timedelta(minutes=1)
    )


@pytest.mark.parametrize(
    "options",
    [
        {"max_attempts": 0},
        {"factor": 0.5},
        {"jitter": 1.1},
        {"jitter": -0.1},
        {"initial_interval": timedelta(-1)},
        {"max_interval": timedelta(-1)},
    ],
    ids=str,
)
def test_a_policy_that_makes_no_sense_is_refused(options):
    with pytest.raises(RegistrationError, match="RetryPolicy"):
        RetryPolicy(**options)


def test_a_retry_policy_reads_back_from_its_wire_form():
    policy = RetryPolicy(
        max_attempts=None,
        deadline=timedelta(hours=1),
        non_retryable=(ValueError, NonRetryable, "a.B"),
    )
    again = RetryPolicy.from_wire(policy.to_wire())
    assert again.to_wire() == policy.to_wire()
    assert again.non_retryable == ("ValueError", "orchestra.retry.NonRetryable", "a.B")
    assert type_name(KeyError) == "KeyError"


def test_instants_and_spans_keep_their_microseconds():
    assert to_micros(from_micros(1_700_000_000_123_457)) == 1_700_000_000_123_457
    assert micros(timedelta(days=1, microseconds=1)) == 86_400_000_001
    ids = [new_id() for _ in range(100)]
    assert len(set(ids)) == 100
    assert {(UUID(one).version, UUID(one).variant) for one in ids} == {(7, RFC_4122)}


def test_ids_lie_in_the_order_of_their_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would else dirty a page of each index for each new row."""
    first = 1_764_500_000_123_456_000
    moments = [first + step for step in (0, 1_000, 999_000, 1_000_000, 10**9)]
    ids: list[str] = []
    for moment in moments:
        monkeypatch.setattr("orchestra.clock.time.time_ns", lambda at=moment: at)
        ids.append(new_id())
    assert ids == sorted(ids)
    assert [int(one[:12], 16) for one in ids] == [moment // 1_000_000 for moment in moments]

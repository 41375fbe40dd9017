"""Versions compare as semver, also as text in a database; policies choose among them; retries
wait.
"""

from datetime import timedelta

import pytest
import semver
from hypothesis import example, given
from hypothesis import strategies as st

from orchestra.clock import from_micros, micros, new_id, to_micros
from orchestra.errors import InvalidVersion, RegistrationError
from orchestra.retry import NonRetryable, RetryPolicy, type_name
from orchestra.versions import Exact, Latest, parse_version, policy_from_text, resolve, version_key

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
    ],
)
def test_a_policy_chooses_among_what_there_is(policy, available, chosen):
    assert resolve(policy, available) == chosen
    assert resolve(policy, reversed(available)) == chosen


@given(st.lists(VERSIONS, min_size=1))
def test_latest_chooses_the_same_in_any_order(available):
    assert resolve(Latest(), available) == resolve(Latest(), sorted(available))


@pytest.mark.parametrize("policy", [Latest(), Exact("1.2.0-rc.1+b")])
def test_a_policy_reads_back_from_its_text(policy):
    assert policy_from_text(str(policy)) == policy


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
    assert len({new_id() for _ in range(100)}) == 100

"""What is given as an option is refused where it is given, with its name and with what to write
instead.
"""

from datetime import datetime, timedelta

import pytest

from orchestra import (
    Activity,
    Client,
    InvalidArgument,
    Limits,
    OrchestraError,
    OrchestrationRegistry,
    RegistrationError,
    Retention,
    RetryPolicy,
    Runtime,
    SqliteProvider,
    activity,
)
from orchestra.errors import InvalidFunction
from orchestra.options import (
    LONGEST,
    check_count,
    check_duration,
    check_kind,
    check_moment,
    check_ratio,
)
from orchestra.providers.postgres import PostgresProvider

NOTHING = timedelta(0)
LESS = timedelta(seconds=-1)


async def work() -> None: ...


def an_activity(**options):
    return activity(**options)(work)


def a_reference(**options):
    return Activity.named("work", **options)


def other_options(**options):
    return Activity.named("work").options(**options)


def a_runtime(**options):
    return Runtime(
        SqliteProvider("never-opened.db"), OrchestrationRegistry.builder().build(), **options
    )


def a_client(**options):
    return Client(SqliteProvider("never-opened.db"), **options)


def a_file(**options):
    return SqliteProvider("never-opened.db", **options)


def a_server(**options):
    return PostgresProvider("postgresql://nobody@nowhere/none", **options)


def named(value):
    """Return a name for a test that is the same in each process."""
    return getattr(value, "__name__", str(value)[:60])


DURATION = "takes a timedelta, not 5; write timedelta(seconds=...)"
NUMBER = "takes a whole number, not"

WRONG = [
    *(
        (make, {option: value}, InvalidFunction, (f"{option} of activity 'work' ", said))
        for make in (an_activity, a_reference, other_options)
        for option, value, said in [
            ("timeout", 5, f"{DURATION}, or None"),
            ("heartbeat_timeout", 5, f"{DURATION}, or None"),
            ("timeout", NOTHING, "is 0:00:00; it must be positive, or None"),
            ("heartbeat_timeout", LESS, "it must be positive, or None"),
            ("timeout", timedelta.max, "it must be at most"),
            ("retry", 3, "takes a RetryPolicy, not 3; write RetryPolicy(...)"),
        ]
    ),
    *(
        (
            make,
            {"retry": 0},
            InvalidFunction,
            ("retry of activity 'work' ", "takes a RetryPolicy, not 0"),
        )
        for make in (an_activity, a_reference)
    ),
    *(
        (RetryPolicy, {option: value}, RegistrationError, (f"RetryPolicy.{option} ", said))
        for option, value, said in [
            ("max_attempts", 0, "is 0; it must be at least 1, or None"),
            ("max_attempts", True, f"{NUMBER} True"),
            ("max_attempts", 2.0, f"{NUMBER} 2.0"),
            ("initial_interval", 1, "takes a timedelta, not 1; write timedelta(seconds=...)"),
            ("initial_interval", None, "takes a timedelta, not None"),
            ("initial_interval", LESS, "it must be at least 0:00:00"),
            ("max_interval", 60, "takes a timedelta, not 60"),
            ("max_interval", timedelta.max, "it must be at most"),
            ("deadline", 60, "takes a timedelta, not 60; write timedelta(seconds=...), or None"),
            ("deadline", LESS, "it must be at least 0:00:00, or None"),
            ("factor", float("nan"), "is nan; it must be 1 or more"),
            ("factor", float("inf"), "is inf; it must be 1 or more"),
            ("factor", "2", "takes a number, not '2'"),
            ("factor", True, "takes a number, not True"),
            ("jitter", float("nan"), "is nan; it must be between 0 and 1"),
            ("jitter", None, "takes a number, not None"),
            ("non_retryable", ValueError, "takes a tuple of exception classes"),
            ("non_retryable", "app.Refused", "not 'app.Refused'; write (ValueError,)"),
            ("non_retryable", (int,), "takes a tuple of exception classes"),
            ("non_retryable", (ValueError(),), "takes a tuple of exception classes"),
            ("non_retryable", ("",), "takes a tuple of exception classes"),
        ]
    ),
    *(
        (a_runtime, {option: value}, InvalidArgument, (f"{option} ", said))
        for option, value, said in [
            *((option, 5, DURATION) for option in ("lease", "grace", "poll", "blocked_after")),
            *(
                (option, NOTHING, "it must be at least 0:00:00.001")
                for option in ("lease", "poll", "blocked_after")
            ),
            ("lease", None, "takes a timedelta, not None"),
            ("grace", LESS, "it must be at least 0:00:00"),
            ("poll", timedelta.max, "it must be at most"),
            *(
                (option, value, said)
                for option in (
                    "max_concurrent_activities",
                    "max_activity_threads",
                    "max_owned",
                    "inbox_limit",
                    "inbox_bytes",
                )
                for value, said in [
                    (0, "is 0; it must be at least 1"),
                    ("a", f"{NUMBER} 'a'"),
                    (1.5, f"{NUMBER} 1.5"),
                ]
            ),
            ("warm_executions", -1, "is -1; it must be at least 0"),
            ("warm_executions", None, f"{NUMBER} None"),
            ("limits", 5, "takes a Limits, not 5; write Limits(...), or None"),
            ("limits", 0, "takes a Limits, not 0"),
            ("retention", 5, "takes a Retention, not 5; write Retention(...), or None"),
            ("retention", timedelta(days=1), "takes a Retention"),
        ]
    ),
    (a_runtime, {"queues": 5}, InvalidArgument, ("queues is 5", "give a sequence of names")),
    (a_runtime, {"activities": 5}, InvalidArgument, ("activities is 5", "such as [probe]")),
    (
        a_runtime,
        {"activities": [5]},
        InvalidFunction,
        ("5 cannot be an activity", "give a `def` or `async def`"),
    ),
    (a_runtime, {"queues": (None,)}, InvalidArgument, ("a queue ", "must be text, not NoneType")),
    (a_runtime, {"queues": ("a\0",)}, InvalidArgument, ("a queue ", "must not hold NUL")),
    *(
        (Limits, {option: value}, InvalidArgument, (f"Limits.{option} ", said))
        for option in ("suggest_events", "suggest_bytes", "max_events", "max_bytes", "max_payload")
        for value, said in [
            ("a", f"{NUMBER} 'a'"),
            (0, "it must be at least 1"),
            (None, f"{NUMBER} None"),
        ]
    ),
    *(
        (Retention, {option: value}, InvalidArgument, (f"Retention.{option} ", said))
        for option, value, said in [
            ("histories", "a", f"{NUMBER} 'a'"),
            ("histories", True, f"{NUMBER} True"),
            ("executions", 1.5, f"{NUMBER} 1.5"),
            ("executions", 0, "it must be at least 1, or None"),
            ("keep_for", 5, f"{DURATION}, or None"),
            ("finished", 5, f"{DURATION}, or None"),
            ("finished", NOTHING, "it must be positive, or None"),
        ]
    ),
    *(
        (a_client, {option: value}, InvalidArgument, (f"{option} ", said))
        for option in ("inbox_limit", "inbox_bytes", "payload_limit")
        for value, said in [("a", f"{NUMBER} 'a'"), (0, "it must be at least 1")]
    ),
    *(
        (make, {option: value}, InvalidArgument, (f"{option} ", said))
        for make, option in [
            (a_file, "busy_timeout"),
            (a_file, "tombstones"),
            (a_server, "tombstones"),
            (a_server, "connect_timeout"),
            (a_server, "statement_timeout"),
            (a_server, "lock_timeout"),
        ]
        for value, said in [
            (5, DURATION),
            (LESS, "it must be at least"),
            (timedelta.max, "it must be at most"),
        ]
    ),
    *(
        (
            a_server,
            {option: NOTHING},
            InvalidArgument,
            (f"{option} ", "is 0:00:00; it must be at least 0:00:00.001"),
        )
        for option in ("connect_timeout", "statement_timeout", "lock_timeout")
    ),
]


@pytest.mark.parametrize(("make", "options", "error", "said"), WRONG, ids=named)
def test_an_option_that_cannot_be_one_is_refused_by_name_where_it_is_given(
    make, options, error, said
):
    with pytest.raises(OrchestraError) as caught:
        make(**options)
    assert isinstance(caught.value, error)
    subject, complaint = said
    assert str(caught.value).startswith(subject)
    assert complaint in str(caught.value)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        (
            an_activity,
            {
                "timeout": timedelta(microseconds=1),
                "heartbeat_timeout": LONGEST,
                "retry": RetryPolicy(),
            },
        ),
        (
            RetryPolicy,
            {
                "max_attempts": None,
                "deadline": None,
                "initial_interval": NOTHING,
                "factor": 1,
                "jitter": 1,
            },
        ),
        (
            RetryPolicy,
            {"non_retryable": (ValueError, KeyboardInterrupt, "app.Refused"), "deadline": NOTHING},
        ),
        (
            a_runtime,
            {
                "grace": NOTHING,
                "warm_executions": 0,
                "lease": LONGEST,
                "limits": None,
                "retention": None,
            },
        ),
        (Limits, {"suggest_events": 1, "max_events": 10**9}),
        (Retention, {"histories": None, "executions": None, "finished": timedelta(days=365_000)}),
        (a_file, {"busy_timeout": NOTHING, "tombstones": NOTHING}),
        (
            a_server,
            {"statement_timeout": timedelta(milliseconds=1), "connect_timeout": timedelta(days=24)},
        ),
    ],
    ids=named,
)
def test_an_option_at_its_bound_is_taken(make, options):
    make(**options)


@pytest.mark.parametrize(
    "check",
    [
        lambda: check_duration(None, "it"),
        lambda: check_count(None, "it"),
        lambda: check_count(2**62, "it"),
        lambda: check_ratio(None, "it", least=0),
        lambda: check_kind(None, "it", Limits),
        lambda: check_moment(None, "it"),
        lambda: check_moment(datetime(2030, 1, 1), "it"),  # noqa: DTZ001 - naive is the point
        lambda: check_moment(timedelta(1), "it"),
    ],
)
def test_a_check_names_what_it_has_refused(check):
    with pytest.raises(InvalidArgument, match=r"^it "):
        check()


def test_nothing_is_an_option_only_where_it_means_something():
    check_duration(None, "it", optional=True)
    check_count(None, "it", optional=True)
    check_kind(None, "it", Limits, optional=True)
    check_moment(None, "it", optional=True)

"""What is kept of an exception: its causes and members, each bounded (scenario 57)."""

from datetime import UTC, datetime

import pytest

from orchestra.codec import pack, unpack
from orchestra.error_info import brief_attempts, class_names, error_info, is_non_retryable
from orchestra.errors import ActivityFailed, Attempt, EncodeError, ErrorInfo
from orchestra.events import error_from_wire, error_to_wire
from orchestra.retry import NonRetryable

HUGE = "x" * 4_000_000
MOST = 64_000
"""Bytes of a stored error, whatever it is made of."""


def raised(error, cause=None):
    """Return an error as it comes out of code that has raised it."""
    try:
        if cause is None:
            raise error
        raise error from cause
    except BaseException as caught:
        return caught


def while_handling(first, second):
    try:
        try:
            raise first
        except Exception:
            raise second  # noqa: B904 - the context is what is looked at
    except Exception as caught:
        return caught


def size(error):
    return len(pack({"error": error_to_wire(error)}))


def test_the_cause_is_kept_and_named_in_the_one_line():
    info = error_info(
        raised(RuntimeError("could not store the order"), ConnectionError("db-7 refused"))
    )
    assert (info.cause.type, info.cause.message, info.context) == (
        "ConnectionError",
        "db-7 refused",
        None,
    )
    assert (
        str(info)
        == "RuntimeError: could not store the order (caused by ConnectionError: db-7 refused)"
    )


def test_what_was_being_handled_is_kept_unless_it_is_suppressed():
    info = error_info(while_handling(KeyError("plan"), LookupError("no plan")))
    assert (info.cause, info.context.type) == (None, "KeyError")
    assert str(info) == "LookupError: no plan (while handling KeyError: 'plan')"
    silent = while_handling(KeyError("plan"), LookupError("no plan"))
    silent.__suppress_context__ = True
    assert error_info(silent).context is None


def test_the_members_of_a_group_are_kept_at_each_level_and_its_leaves_are_named():
    inner = ExceptionGroup("inner", [ValueError("card declined"), KeyError("sku")])
    info = error_info(
        raised(ExceptionGroup("unhandled errors in a TaskGroup", [inner, OSError("no route")]))
    )
    assert [member.type for member in info.members] == ["ExceptionGroup", "OSError"]
    assert [member.type for member in info.members[0].members] == ["ValueError", "KeyError"]
    assert "[ValueError: card declined; KeyError: 'sku'; OSError: no route]" in str(info)


def test_the_line_is_one_line_whatever_a_message_holds():
    assert (
        str(error_info(ValueError("first\n  second\r\nthird"))) == "ValueError: first second third"
    )


def test_members_that_are_not_kept_are_counted():
    info = error_info(ExceptionGroup("many", [ValueError(str(number)) for number in range(1_000)]))
    assert len(info.members) + info.omitted == 1_000
    assert "and 995 more" in str(info)


def deep_chain(levels, text):
    error = None
    for _ in range(levels):
        error = raised(RuntimeError(text), error)
    return error


def deep_group(levels, text):
    error = ValueError(text)
    for _ in range(levels):
        error = ExceptionGroup(text, [error, *(KeyError(text) for _ in range(5))])
    return raised(error)


class Unprintable(Exception):
    def __str__(self):
        raise ValueError("no text today")


class Noted(Exception):
    def __init__(self):
        super().__init__("short")
        self.add_note(HUGE)


def around_itself():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first


@pytest.mark.parametrize(
    "make",
    [
        lambda: raised(RuntimeError("syntax error in: " + HUGE)),
        lambda: raised(RuntimeError("\N{SNOWMAN}" * 1_000_000)),
        lambda: raised(RuntimeError("\udc80" * 1_000_000)),
        lambda: deep_chain(500, "x" * 100_000),
        lambda: deep_group(50, "x" * 100_000),
        lambda: raised(ExceptionGroup("wide", [ValueError("x" * 10_000) for _ in range(10_000)])),
        lambda: raised(Noted()),
        lambda: raised(Unprintable()),
        around_itself,
    ],
    ids=[
        "message",
        "wide characters",
        "surrogates",
        "chain",
        "groups",
        "members",
        "notes",
        "no text",
        "cycle",
    ],
)
def test_no_error_is_larger_than_its_bound_and_all_of_it_comes_back(make):
    info = error_info(make())
    assert size(info) < 2 * MOST  # a lone surrogate takes six characters
    assert len(str(info)) <= 2_000
    assert error_from_wire(unpack(pack(error_to_wire(info)))) == info


def test_a_shortened_message_says_how_long_it_was_however_often_it_is_shortened():
    info = error_info(RuntimeError(HUGE))
    assert info.message.endswith("... (4,000,000 characters in all)")
    assert str(info).endswith("... (4,000,000 characters in all)")


def test_the_traceback_keeps_its_frames_beside_a_huge_message():
    info = error_info(raised(RuntimeError(HUGE)))
    assert "in raised" in info.traceback


def test_of_many_attempts_all_but_the_last_are_brief():
    error = error_info(deep_chain(20, HUGE[:100_000]))
    attempts = tuple(
        Attempt(number, datetime(2026, 1, 1, tzinfo=UTC), error) for number in range(1, 21)
    )
    kept = brief_attempts(attempts)
    assert kept[-1].error == error
    assert all(size(attempt.error) < 3_000 for attempt in kept[:-1])
    assert brief_attempts(kept) == kept


def test_an_error_in_the_form_of_an_older_library_is_read():
    assert error_from_wire(["ValueError", "boom", None]) == ErrorInfo("ValueError", "boom")
    assert error_to_wire(ErrorInfo("ValueError", "boom")) == ["ValueError", "boom", None]


def test_a_failed_activity_s_error_keeps_the_error_of_the_activity_and_names_it_once():
    cause = error_info(raised(ExceptionGroup("several", [ValueError("card 4711 declined")])))
    info = error_info(raised(ActivityFailed("pay", cause, [], "not retryable", 1)))
    assert info.cause.members[0].message == "card 4711 declined"
    assert str(info).count("card 4711 declined") == 1


@pytest.mark.parametrize(
    "final", [NonRetryable("no such customer"), EncodeError("no JSON form", subject="result")]
)
def test_one_error_that_is_not_to_be_retried_counts_for_its_group(final):
    assert is_non_retryable(
        ExceptionGroup("outer", [OSError(), ExceptionGroup("inner", [ValueError(), final])])
    )
    assert not is_non_retryable(ExceptionGroup("outer", [OSError()]))
    assert not is_non_retryable(raised(RuntimeError(), final))


def test_a_policy_s_list_sees_the_classes_of_a_group_s_members():
    names = class_names(ExceptionGroup("outer", [ExceptionGroup("inner", [FileNotFoundError()])]))
    assert {"ExceptionGroup", "FileNotFoundError", "OSError", "Exception"} <= set(names)
    assert class_names(KeyError()) == ("KeyError", "LookupError", "Exception", "BaseException")

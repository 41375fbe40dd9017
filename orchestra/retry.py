"""How a failed activity is tried again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from orchestra.clock import micros
from orchestra.errors import RegistrationError
from orchestra.options import check_count, check_duration, check_ratio
from orchestra.portable import Portable

__all__ = ["NO_RETRY", "NonRetryable", "RetryPolicy", "type_name"]


def _names_exceptions(entry: object) -> bool:
    return (
        entry != ""
        if isinstance(entry, str)
        else isinstance(entry, type) and issubclass(entry, BaseException)
    )


class NonRetryable(Portable, Exception):
    """Raise it, or a subclass, in an activity if another attempt would be useless."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again.

    The wait before attempt *n + 1* is ``initial_interval * factor ** (n - 1)``, at most
    ``max_interval``, minus a random part of up to ``jitter``. The activity has failed for good
    after ``max_attempts`` attempts, or if the next one would begin later than ``deadline`` after
    the first. A timeout counts as an attempt, and so does a crash of the node that ran it.

    Args:
        max_attempts: attempts in all, with the first; ``None``: no bound.
        deadline: total time from the first attempt; ``None``: no bound.
        non_retryable: exception classes (or their qualified names) that end it at once.

    Raises:
        RegistrationError: a field is of another type, negative, or (``max_attempts``, ``factor``)
            less than 1.
    """

    max_attempts: int | None = 3
    initial_interval: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    max_interval: timedelta = timedelta(minutes=1)
    jitter: float = 0.1
    deadline: timedelta | None = None
    non_retryable: tuple[type[BaseException] | str, ...] = field(default=())
    _wire: dict[str, Any] | None = field(default=None, init=False, compare=False, repr=False)
    """The result of :meth:`to_wire`: each call of an activity is recorded with its policy."""

    def __post_init__(self) -> None:
        check_count(
            self.max_attempts, "RetryPolicy.max_attempts", optional=True, error=RegistrationError
        )
        check_duration(
            self.initial_interval, "RetryPolicy.initial_interval", error=RegistrationError
        )
        check_ratio(self.factor, "RetryPolicy.factor", least=1, error=RegistrationError)
        check_duration(self.max_interval, "RetryPolicy.max_interval", error=RegistrationError)
        check_ratio(self.jitter, "RetryPolicy.jitter", least=0, most=1, error=RegistrationError)
        check_duration(
            self.deadline, "RetryPolicy.deadline", optional=True, error=RegistrationError
        )
        if not isinstance(self.non_retryable, tuple) or not all(
            map(_names_exceptions, self.non_retryable)
        ):
            raise RegistrationError(
                "RetryPolicy.non_retryable takes a tuple of exception classes or of their "
                f"qualified names, not {self.non_retryable!r}; write (ValueError,)"
            )

    def delay(self, failed: int, random: float) -> timedelta:
        """Return the wait after ``failed`` attempts; ``random`` is in [0, 1)."""
        longest = micros(self.max_interval)
        try:
            wait = min(longest, micros(self.initial_interval) * self.factor ** (failed - 1))
        except OverflowError:
            wait = longest
        return timedelta(microseconds=int(wait * (1 - self.jitter * random)))

    def non_retryable_names(self) -> tuple[str, ...]:
        """Return the qualified names of the classes that end it at once."""
        return tuple(
            entry if isinstance(entry, str) else type_name(entry) for entry in self.non_retryable
        )

    def to_wire(self) -> Mapping[str, Any]:
        """Return the form for the history, so that a later change of code affects no running
        activity.
        """
        wire = self._wire
        if wire is None:
            wire = {
                "n": self.max_attempts,
                "i": micros(self.initial_interval),
                "f": self.factor,
                "c": micros(self.max_interval),
                "j": self.jitter,
                "d": None if self.deadline is None else micros(self.deadline),
                "x": list(self.non_retryable_names()),
            }
            object.__setattr__(self, "_wire", wire)  # frozen
        return wire

    @staticmethod
    def from_wire(wire: Mapping[str, Any]) -> RetryPolicy:
        """Return what :meth:`to_wire` wrote."""
        span: Callable[[int], timedelta] = lambda value: timedelta(microseconds=value)  # noqa: E731
        return RetryPolicy(
            max_attempts=wire["n"],
            initial_interval=span(wire["i"]),
            factor=wire["f"],
            max_interval=span(wire["c"]),
            jitter=wire["j"],
            deadline=None if wire["d"] is None else span(wire["d"]),
            non_retryable=tuple(wire["x"]),
        )


NO_RETRY = RetryPolicy(max_attempts=1)


def type_name(cls: type[BaseException]) -> str:
    """Return the name by which history knows an exception class: ``module.QualName``, bare for
    built-ins.
    """
    return (
        cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"
    )

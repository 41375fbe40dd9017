"""What stands in for activities and children in a test, and what it was called with."""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final, cast

from orchestra.activities import Activity, activity, activity_context
from orchestra.errors import InvalidArgument
from orchestra.options import check_duration
from orchestra.registry import OrchestrationDefinition, OrchestrationRegistry
from orchestra.signatures import awaits

__all__ = [
    "NEVER",
    "After",
    "Call",
    "Fake",
    "FakeExhausted",
    "FakeUnfit",
    "Given",
    "after",
    "with_children",
]


class FakeExhausted(AssertionError):
    """A fake was called more often than it has outcomes."""


class FakeUnfit(AssertionError):
    """A fake cannot stand in for its target: it takes other arguments, or gives another result."""


class _Never:
    def __repr__(self) -> str:
        return "NEVER"


NEVER: Final = _Never()
"""The outcome of a fake that does not end, until it is cancelled or times out."""


@dataclass(frozen=True, slots=True)
class After:
    """An outcome that comes later, in virtual time."""

    duration: timedelta
    outcome: Any


def after(duration: timedelta, outcome: Any = None) -> After:
    """Return an outcome of a fake that takes so much virtual time.

    Raises:
        InvalidArgument: the duration is no timedelta, or negative.
    """
    check_duration(duration, "duration")
    return After(duration, outcome)


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a fake. ``attempt`` counts an activity's attempts from 1; a child has one."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    instance_id: str
    attempt: int = 1


@dataclass(frozen=True, slots=True)
class Given:
    """What a fake has answered. ``is_drawn``: it was the next of its outcomes, and no call of a
    function.
    """

    outcome: Any
    is_drawn: bool


class Fake:
    """Answers in the place of one activity or child orchestration.

    An exception that a function raises is its outcome. An ``AssertionError`` fails the test at
    once, and so does what is no ``Exception``, such as ``pytest.fail``.

    ``calls`` are what it was called with, in order. An attempt that a crash has cut off is called
    again, as in production, and its outcome is given again.
    """

    def __init__(self, name: str, outcomes: Callable[..., Any] | Sequence[Any]) -> None:
        self.name: str = name
        self.calls: list[Call] = []
        self._function: Callable[..., Any] | None = None
        self._outcomes: deque[Any] = deque()
        self._children: dict[tuple[str, int], Given] = {}
        if isinstance(outcomes, (list, tuple, deque)):
            self._outcomes.extend(cast("Sequence[Any]", outcomes))
            self._count = len(self._outcomes)
        elif callable(outcomes) and not is_error(outcomes):
            self._function = outcomes
        else:
            raise InvalidArgument(
                f"the fake of {name!r} is {outcomes!r}; give a function, or a list of outcomes in "
                "order, such as [TimeoutError(), 503, 200]"
            )

    @property
    def remaining(self) -> int:
        """How many of its outcomes were not given yet."""
        return len(self._outcomes)

    def answer(self, call: Call) -> Given:
        """Note a call, and return its outcome.

        Raises:
            FakeExhausted: it has none left.
            FakeUnfit: its function takes other arguments, or gives something to await.
            AssertionError: its function raises that.
        """
        self.calls.append(call)
        if self._function is not None:
            return Given(self._call(self._function, call), is_drawn=False)
        if not self._outcomes:
            raise FakeExhausted(
                f"the fake of {self.name!r} has {self._count} outcomes and is called once more, by "
                f"{call.instance_id!r} with {_shown(call)}; give it one more, or a function"
            )
        return Given(self._outcomes.popleft(), is_drawn=True)

    def _call(self, function: Callable[..., Any], call: Call) -> Any:
        """Return what a function gives, or the exception that it raises."""
        try:
            outcome = function(*call.args, **call.kwargs)
        except AssertionError:
            raise
        except Exception as error:
            if isinstance(error, TypeError) and not _takes(function, call):
                raise FakeUnfit(
                    f"the fake of {self.name!r} does not take {_shown(call)}; give it the "
                    f"parameters of what it stands in for: {error}"
                ) from error
            return error
        if inspect.isawaitable(outcome):
            if inspect.iscoroutine(outcome):
                outcome.close()
            raise FakeUnfit(
                f"the fake of {self.name!r} is a plain function and gives something to await; "
                "write it as `async def`"
            )
        return outcome

    @property
    def is_async(self) -> bool:
        """Whether it is an async function, which runs as the activity would."""
        return self._function is not None and is_async(self._function)

    def stand_in(self, problems: list[BaseException]) -> Callable[..., Any]:
        """Return what runs in the place of the activity, where the fake is an async function.

        Args:
            problems: receives what makes the test fail.
        """
        function = self._function
        assert function is not None

        async def stand_in(*args: Any, **kwargs: Any) -> Any:
            running = activity_context()
            self.calls.append(Call(args, kwargs, running.instance_id, running.attempt))
            try:
                return await function(*args, **kwargs)
            except AssertionError as problem:
                problems.append(problem)
                raise

        return stand_in

    def put_back(self, given: Given) -> None:
        """Give this outcome once more: the process died before it was recorded."""
        if given.is_drawn:
            self._outcomes.appendleft(given.outcome)

    def answer_child(self, state: Any, instance_id: str, execution: int) -> Given:
        """Return the outcome of a child: the same whenever its code is replayed."""
        key = instance_id, execution
        if key not in self._children:
            self._children[key] = self.answer(Call((state,), {}, instance_id))
        return self._children[key]


def with_children(
    registry: OrchestrationRegistry, fakes: dict[str, Fake], problems: list[BaseException]
) -> OrchestrationRegistry:
    """Return a registry in which fakes stand in for orchestrations of these names.

    A name that the registry does not have gets the version 1.0.0.
    """
    if not fakes:
        return registry
    definitions = {
        name: {version: registry.get(name, version) for version in registry.versions(name)}
        for name in registry.names
    }
    for name, fake in fakes.items():
        definitions[name] = {
            version: _standing_in(name, version, fake, problems, real)
            for version, real in definitions.get(name, {"1.0.0": None}).items()
        }
    return OrchestrationRegistry(
        definitions,
        registry.policies,
        registry.retentions,
        {name: registry._migrations_of(name) for name in registry.names},
    )


def _standing_in(
    name: str,
    version: str,
    fake: Fake,
    problems: list[BaseException],
    real: OrchestrationDefinition | None,
) -> OrchestrationDefinition:
    async def stand_in(ctx: Any, state: Any) -> Any:
        try:
            outcome = fake.answer_child(state, ctx.instance_id, ctx.execution_id).outcome
        except BaseException as problem:  # noqa: BLE001 - it fails the test
            problems.append(problem)
            outcome = NEVER
        while isinstance(outcome, After):
            await ctx.schedule_timer(outcome.duration)
            outcome = outcome.outcome
        if outcome is NEVER:
            await ctx.wait_for_event("orchestra.testing.never", Any)
        if is_error(outcome):
            raise cast("BaseException", outcome)
        return outcome

    builder = OrchestrationRegistry.builder()
    builder.register(name, stand_in, version=version, failures=(Exception,))
    made = builder.build().get(name, version)
    if real is None:
        return made
    # Its input and its output are of the types that the real one has.
    return replace(made, state=real.state, result=real.result)


def is_async(function: Callable[..., Any]) -> bool:
    """Return whether a call of a fake's function must be awaited."""
    return awaits(function) or awaits(getattr(function, "__call__", None))  # noqa: B004


def is_error(outcome: Any) -> bool:
    """Return whether an outcome is raised: an exception, or a class of exceptions."""
    return isinstance(outcome, BaseException) or (
        isinstance(outcome, type) and issubclass(outcome, BaseException)
    )


def reference(name: str) -> Activity[..., Any]:
    """Return an activity that takes anything, for a fake of a name whose function is elsewhere."""

    async def unknown(*args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"activity {name!r} is faked, and has no function here")

    return activity(name=name)(unknown)


def _takes(function: Callable[..., Any], call: Call) -> bool:
    try:
        inspect.signature(function).bind(*call.args, **call.kwargs)
    except TypeError:
        return False
    except ValueError:  # it has no signature
        return True
    return True


def _shown(call: Call) -> str:
    given = [repr(part) for part in call.args]
    given += [f"{name}={part!r}" for name, part in call.kwargs.items()]
    text = f"({', '.join(given)})"
    return text if len(text) <= 200 else f"{text[:200]}..."

"""Runs a scenario of a test again and again: killed at each commit, or replayed at each turn."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.errors import InvalidArgument
from orchestra.registry import OrchestrationRegistry
from orchestra.testing.commits import CrashPlan, under_plan
from orchestra.testing.runtime import TestRuntime

__all__ = ["CrashReport", "Scenario", "ScenarioFails", "crash_everywhere", "run_scenario"]

Scenario = Callable[[], Awaitable[Any]] | Callable[[TestRuntime], Awaitable[Any]]
"""An async function. It makes its own test runtime, or takes one."""


class ScenarioFails(AssertionError):
    """A scenario fails when its process dies at a commit.

    ``commit`` counts from 1; ``after``: the process has died behind the commit, and not before it.
    """

    def __init__(self, message: str, commit: int, *, after: bool) -> None:
        super().__init__(message)
        self.commit: int = commit
        self.after: bool = after


@dataclass(frozen=True, slots=True)
class CrashReport:
    """How often a scenario was run with a crash, at so many commits. It has held each time."""

    commits: int
    runs: int


async def crash_everywhere(
    scenario: Scenario,
    registry: OrchestrationRegistry | None = None,
    activities: Sequence[object] = (),
    **options: Any,
) -> CrashReport:
    """Run a scenario once without a crash, and then twice for each of its commits: the process is
    killed before the commit is made, and behind it. A new process goes on, and the scenario with
    it; what it asserts must hold each time.

    It finds activities that are not idempotent: what no commit has recorded is done once more.

    Args:
        scenario: an async function that makes a :class:`TestRuntime`, or that takes one as its only
            parameter; then ``registry`` says of what.
        registry, activities, options: what the test runtime is made of.

    Raises:
        ScenarioFails: it fails with a crash; the message says at which commit, and the cause is
            what the scenario has raised.
        InvalidArgument: a scenario that takes a test runtime was given no registry.
    """
    with under_plan(CrashPlan()) as plan:
        await run_scenario(scenario, registry, activities, options)
    commits = list(plan.commits)
    for number in range(1, len(commits) + 1):
        for after in (False, True):
            with under_plan(CrashPlan(number, after=after)) as crashing:
                try:
                    await run_scenario(scenario, registry, activities, options)
                except Exception as error:
                    done = crashing.commits[number - 1 : number] or [commits[number - 1]]
                    when = "after" if after else "before"
                    raise ScenarioFails(
                        f"the scenario fails when the process dies {when} commit "
                        f"{number} of {len(commits)} ({', '.join(done[0])}): "
                        f"{type(error).__name__}: {error}",
                        number,
                        after=after,
                    ) from error
    return CrashReport(len(commits), 2 * len(commits))


async def run_scenario(
    scenario: Scenario,
    registry: OrchestrationRegistry | None,
    activities: Sequence[object],
    options: dict[str, Any],
) -> None:
    """Run a scenario once, with a test runtime if it takes one.

    Raises:
        InvalidArgument: it takes one, and no registry was given.
    """
    function: Callable[..., Awaitable[Any]] = scenario
    if not _takes_runtime(function):
        await function()
        return
    if registry is None:
        raise InvalidArgument(
            "the scenario takes a test runtime; give the registry that it is made of, or let the "
            "scenario make its own: async with TestRuntime(registry) as env"
        )
    async with TestRuntime(registry, activities, **options) as env:
        await function(env)


def _takes_runtime(scenario: Callable[..., Any]) -> bool:
    required = [
        parameter
        for parameter in inspect.signature(scenario).parameters.values()
        if parameter.default is inspect.Parameter.empty
        and parameter.kind
        in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    ]
    return bool(required)

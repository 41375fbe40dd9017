"""``versions``, ``policy``, ``check``, ``shapes``: before a deploy, and after it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from orchestra.cli.checks import ExitCode
from orchestra.cli.output import Column, Format, instant, text, text_of_lines
from orchestra.cli.progress import counting
from orchestra.cli.registries import check_baseline, load_registry, write_baseline
from orchestra.cli.rendering import preflight_values, version_values, versions_as_text
from orchestra.cli.work import Work, on_store, operator
from orchestra.client import Client
from orchestra.client.info import PolicyInfo
from orchestra.errors import OrchestraError
from orchestra.versions import Exact, Latest, Policy, Range

__all__ = ["check", "policy", "shapes", "versions"]

_CHECK_CODES: Final = """\
\b
exit code:
  0  fine, or only warnings and notes
  1  findings
  2  it cannot be checked
  3  the command was misused"""


@click.command()
@click.option("--name", help="Only versions of this orchestration.")
@on_store
def versions(work: Work, name: str | None) -> None:
    """Say who needs each version, who has it, and which may be retired.

    It changes nothing. Its cost does not grow with instances that only wait.
    """
    report = work.run(lambda client: client.version_report(name))
    if work.output.is_for_people:
        work.output.draw(text_of_lines(versions_as_text(report)))
    elif work.output.format is Format.JSONL:
        work.output.values(version_values(report))
    else:
        work.output.value({"versions": version_values(report)}, lambda: None)


@click.command()
@click.argument("name")
@click.option("--latest", is_flag=True, help="Set it: the newest version.")
@click.option("--exact", metavar="VERSION", help="Set it: this version.")
@click.option("--range", "ranged", metavar="RANGE", help='Set it: the newest in a range, "^1.2".')
@click.option("--history", is_flag=True, help="List the policies that it had, the newest first.")
@click.option("--expected-revision", type=int, help="Set it only if it still has this revision.")
@click.option("--allow-missing", is_flag=True, help="Also a version that no living node has.")
@click.option("--reason", default="", help="Why, for the history and the audit.")
@on_store
def policy(
    work: Work,
    name: str,
    exact: str | None,
    ranged: str | None,
    expected_revision: int | None,
    reason: str,
    *,
    latest: bool,
    history: bool,
    allow_missing: bool,
) -> None:
    """Show which version starts and boundaries of NAME take, or set it."""
    chosen: list[Policy] = [
        *([Latest()] if latest else []),
        *([] if exact is None else [Exact(exact)]),
        *([] if ranged is None else [Range(ranged)]),
    ]
    if len(chosen) + history > 1:
        raise click.UsageError("give one of --latest, --exact, --range and --history")

    async def run(client: Client) -> tuple[PolicyInfo, ...]:
        if history:
            return await client.list_version_policies(name)
        if not chosen:
            return (await client.get_version_policy(name),)
        return (
            await client.set_version_policy(
                name,
                chosen[0],
                reason=reason,
                by=operator(),
                expected_revision=expected_revision,
                allow_missing=allow_missing,
            ),
        )

    work.output.records(work.run(run), _POLICIES, f"no policy was ever set for {name}")


_POLICIES: Final[list[Column[PolicyInfo]]] = [
    Column("NAME", lambda one: one.name),
    Column("POLICY", lambda one: str(one.policy)),
    Column("REVISION", lambda one: str(one.revision), right=True),
    Column("SET", lambda one: instant(one.at)),
    Column("BY", lambda one: one.by),
    Column("REASON", lambda one: one.reason),
]


@click.command(epilog=_CHECK_CODES)
@click.argument("registry", metavar="MODULE:NAME")
@click.option("--name", help="Only instances of this orchestration.")
@click.option("--replay", is_flag=True, help="Replay open executions too.")
@on_store
def check(work: Work, registry: str, name: str | None, *, replay: bool) -> ExitCode:
    """Say what a deploy of a registry would do to the live instances of a store.

    It judges them by code that is about to be deployed: versions that open executions need and
    the code lacks, states that do not migrate to their next version, changed code and shapes, and
    what would move. It changes nothing. The registry is imported from the working directory.
    """
    assert work.address is not None  # misuse is told apart from what cannot be checked
    try:
        known = load_registry(registry)
        with counting(work.output, "judged") as judged:
            report = work.run(
                lambda client: client.preflight(known, name, replay=replay, progress=judged)
            )
    except (ModuleNotFoundError, OrchestraError) as error:
        work.output.say(f"orchestra check: {error}")
        return ExitCode.FAILURES
    if work.output.is_for_people:
        work.output.draw(text_of_lines(f"{report}\n"))
    else:
        work.output.value(preflight_values(report), lambda: None)
    return ExitCode.FINE if report.ok else ExitCode.WARNINGS


@click.command(epilog=_CHECK_CODES)
@click.argument("registry", metavar="MODULE:NAME")
@click.option("--write", "target", type=Path, metavar="FILE", help="Write the baseline.")
@click.option("--check", "baseline", type=Path, metavar="FILE", help="Check against the baseline.")
def shapes(registry: str, target: Path | None, baseline: Path | None) -> ExitCode:
    """Keep a baseline of the shapes of states, and check code against it.

    The JSON Schema of each version's input stands in a file of your repository: a released version
    never changes its shape, and a new version with an incompatible one needs a migration. It needs
    no store.
    """
    if (target is None) == (baseline is None):
        raise click.UsageError("give either --write or --check")
    try:
        known = load_registry(registry)
        if target is not None:
            write_baseline(known, target)
            return ExitCode.FINE
        assert baseline is not None
        found = check_baseline(known, baseline)
    except (OSError, OrchestraError) as error:
        click.echo(f"orchestra shapes: {error}", err=True)
        return ExitCode.FAILURES
    for one in found:
        click.echo(str(text(str(one))))
    return ExitCode.WARNINGS if found else ExitCode.FINE

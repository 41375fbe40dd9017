"""What an operator sees: small tables in plain text, from the public values of a client."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from orchestra import (
    ExecutionInfo,
    InstanceCounts,
    InstanceInfo,
    PolicyInfo,
    PreflightReport,
    VersionInfo,
)


def headline(text: str) -> None:
    print(f"\n== {text}", flush=True)


def say(text: str) -> None:
    print(text, flush=True)


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows in columns as wide as they need."""
    lines = [heads, *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip(), flush=True)


def show_preflight(version: str, report: PreflightReport) -> None:
    say(f"preflight of {version}: {report}")


def show_counts(counts: InstanceCounts) -> None:
    """Print how many instances there are of each group."""
    rows = [
        (*(value or "-" for value in group.values.values()), group.count) for group in counts.groups
    ]
    table((*counts.groups[0].values, "instances"), sorted(rows))


def show_held(examples: Sequence[InstanceInfo]) -> None:
    """Print why instances are held, one of each kind."""
    for info in examples:
        if info.hold is not None:
            say(f"{info.instance_id} on {info.version}: {info.hold.kind}: {info.hold.detail}")
            say(f"    {info.hold.releases_when}")


def show_laps(executions: Sequence[ExecutionInfo]) -> None:
    rows = [
        (
            lap.execution_id,
            lap.version,
            lap.resolved_by,
            lap.written_by,
            " ".join(lap.migrations) or "-",
            lap.status,
            lap.input["sent"],
        )
        for lap in executions
    ]
    heads = ("lap", "version", "chosen by", "state of", "migrations", "status", "sent")
    table(heads, rows)


def show_versions(report: Sequence[VersionInfo]) -> None:
    """Print who needs each version, and what keeps it from being retired."""
    rows = [
        (
            one.version,
            one.live,
            one.held,
            len(one.nodes),
            "yes" if one.is_target else "-",
            "yes" if one.safe_to_retire else "no",
        )
        for one in report
    ]
    table(("version", "live", "held", "nodes", "target", "safe to retire"), rows)
    for one in report:
        for blocker in one.blockers:
            say(f"  {one.version}: {blocker}")


def show_policies(policies: Sequence[PolicyInfo]) -> None:
    rows = [(one.revision, one.policy, one.by, one.reason) for one in reversed(policies)]
    table(("revision", "policy", "by", "reason"), rows)

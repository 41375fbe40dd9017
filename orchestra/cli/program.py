"""The command ``orchestra``: its groups, and how errors become exit codes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from orchestra.cli.checks import ExitCode
from orchestra.cli.commands import (
    acting,
    deploying,
    keys,
    labelling,
    looking,
    nodes,
    scheduling,
    sending,
    serving,
    streaming,
    upkeep,
    watching,
)
from orchestra.cli.output import Output
from orchestra.errors import InvalidArgument, OrchestraError, SchemaMismatch, StoreError
from orchestra.providers.urls import without_secrets
from orchestra.telemetry import library_version

__all__ = ["main", "root"]

_EPILOG: Final = """\
\b
exit code:
  0  done
  1  done, with findings or warnings; or nothing done, for want of --yes
  2  there is no such instance, or the act was refused or has failed
  3  the store cannot be read, or the command was misused
"""

_GROUPS: Final[tuple[tuple[str, tuple[click.Command, ...]], ...]] = (
    (
        "Look",
        (
            looking.ls,
            looking.count,
            looking.show,
            watching.watch,
            looking.history,
            streaming.streams,
            scheduling.schedules,
        ),
    ),
    ("Send", (sending.start, sending.event, sending.request, sending.messages)),
    (
        "Act",
        (
            acting.cancel,
            acting.terminate,
            acting.hold,
            acting.release,
            acting.pin,
            acting.unpin,
            acting.nudge,
            acting.rewind,
            acting.rerun,
            labelling.label,
            acting.delete,
            acting.purge,
        ),
    ),
    ("Deploy", (deploying.versions, deploying.policy, deploying.check, deploying.shapes)),
    (
        "Keep",
        (
            nodes.nodes,
            nodes.operations,
            upkeep.doctor,
            upkeep.backup,
            upkeep.grants,
            keys.keys,
            keys.sweep,
            serving.serve,
        ),
    ),
)


class _Root(click.Group):
    """A group whose help lists its commands by their purpose."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the commands, a section for each purpose."""
        width = max(len(command.name or "") for _, group in _GROUPS for command in group)
        for head, group in _GROUPS:
            with formatter.section(head):
                formatter.write_dl(
                    [
                        (f"{command.name:<{width}}", command.get_short_help_str(200))
                        for command in group
                    ]
                )


@click.group(cls=_Root, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(library_version(), message="%(prog)s %(version)s")
def root() -> None:
    """Operate a store: look at instances, act on them, deploy, and keep the store well."""


for _, _group in _GROUPS:
    for _one in _group:
        root.add_command(_one)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code."""
    try:
        result = root.main(
            None if arguments is None else list(arguments),
            prog_name="orchestra",
            standalone_mode=False,
        )
    except click.ClickException as error:
        return _misused(error)
    except (click.Abort, KeyboardInterrupt):
        return 130
    except (ModuleNotFoundError, OrchestraError) as error:
        Output.say(f"orchestra: {without_secrets(str(error))}")
        return _code_of(error)
    return result if isinstance(result, int) else ExitCode.FINE


def _code_of(error: Exception) -> ExitCode:
    misused_or_unreadable = (InvalidArgument, ModuleNotFoundError, SchemaMismatch, StoreError)
    if isinstance(error, misused_or_unreadable):
        return ExitCode.UNREADABLE
    return ExitCode.FAILURES


def _misused(error: click.ClickException) -> int:
    """Say how the command is used. A DSN among its arguments may hold a password."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    if context is not None:
        Output.say(context.get_usage())
    Output.say(f"orchestra: {without_secrets(error.format_message())}")
    return ExitCode.UNREADABLE

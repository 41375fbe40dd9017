"""``label``: the labels of an instance."""

from __future__ import annotations

from collections.abc import Mapping

import click

from orchestra.cli.completion import INSTANCE
from orchestra.cli.output import text
from orchestra.cli.work import Work, on_store, operator, resolve
from orchestra.client import Client

__all__ = ["label"]


@click.command()
@INSTANCE()
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE|KEY-...")
@click.option("--reason", default="", help="Why, for the audit.")
@on_store
def label(work: Work, instance: str, changes: tuple[str, ...], reason: str) -> None:
    """Set labels of an instance, or remove them: orchestra label shop-7 plan=pro trial-

    It goes on undisturbed. All labels that it has then are shown.
    """
    wanted = dict(map(_change, changes))

    async def change(client: Client) -> Mapping[str, str]:
        found = await resolve(client, instance)
        return await client.set_labels(found, wanted, reason=reason, by=operator())

    labels = work.run(change)
    shown = ", ".join(f"{key}={value}" for key, value in sorted(labels.items()))
    work.output.value(labels, lambda: text(shown or "no label"))


def _change(words: str) -> tuple[str, str | None]:
    key, equals, value = words.partition("=")
    if equals and key:
        return key, value
    if not equals and words.endswith("-") and len(words) > 1:
        return words[:-1], None
    raise click.UsageError(f"{words!r} changes no label; write KEY=VALUE, or KEY- to remove it")

"""What commands share: where the store is, who acts, and how results are written."""

from __future__ import annotations

import getpass
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, fields
from datetime import datetime
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import anyio
import click

from orchestra.cli.output import Format, Output
from orchestra.cli.parameters import Ago
from orchestra.cli.registries import load_pipeline
from orchestra.client import Client
from orchestra.client.selections import Selection
from orchestra.errors import InstanceNotFound, InvalidArgument
from orchestra.payloads import with_payloads
from orchestra.providers.urls import Address, FileAddress, from_url, parse_url
from orchestra.store.port import Provider

__all__ = ["SCHEMA", "Work", "on_store", "operator", "output_option", "resolve", "store_options"]

P = ParamSpec("P")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])

SCHEMA: Final = "orchestra"

_STORE: Final = (
    "The file; or sqlite:///relative.db, sqlite:////absolute.db; or a DSN, as libpq takes it: "
    "postgresql://USER@HOST/DATABASE (the password best in a password file or PGPASSWORD)."
)


@dataclass(frozen=True, slots=True)
class Work:
    """The store that a command works on, and where it writes."""

    store: str
    schema: str | None
    output: Output
    payloads: str | None = None
    """Where the pipeline is that opens sealed values."""

    @property
    def address(self) -> Address:
        """Where the store is.

        Raises:
            InvalidArgument: nowhere; or a schema is given for a file.
        """
        address = parse_url(self.store)
        if isinstance(address, FileAddress) and self.schema is not None:
            raise InvalidArgument("--schema is for a store on PostgreSQL")
        return address

    def provider(self) -> Provider:
        """Return the provider of the store, which is never made or migrated.

        Raises:
            InvalidArgument: there is no pipeline where one was named.
        """
        provider = from_url(self.store, schema=self.schema, migrate=False)
        pipeline = None if self.payloads is None else load_pipeline(self.payloads)
        return with_payloads(provider, pipeline)

    def run(self, function: Callable[[Client], Awaitable[T]]) -> T:
        """Run a function with a client of the store."""
        provider = self.provider()

        async def with_client() -> T:
            async with Client(provider) as client:
                return await function(client)

        return anyio.run(with_client)

    def look(self, function: Callable[[Client], Awaitable[T]]) -> tuple[T, datetime]:
        """Run a function with a client of the store. Return also the store's time, for ages."""

        async def with_time(client: Client) -> tuple[T, datetime]:
            return await function(client), await client.now()

        return self.run(with_time)


def operator() -> str:
    """Return who acts, for the audit: ORCHESTRA_OPERATOR, or the user of the shell."""
    chosen = os.environ.get("ORCHESTRA_OPERATOR")
    if chosen:
        return chosen
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without an entry for the user
        return f"uid {os.getuid()}"


async def resolve(client: Client, prefix: str) -> str:
    """Return the id that a text is, or that alone begins with it.

    Raises:
        InstanceNotFound: no id does.
        InvalidArgument: several do; the message names some of them.
    """
    try:
        return (await client.get_instance_info(prefix)).instance_id
    except InstanceNotFound:
        found = (await client.list_instances(id_prefix=prefix, limit=6)).items
        if not found:
            raise
    if len(found) == 1:
        return found[0].instance_id
    named = ", ".join(repr(one.instance_id) for one in found[:5])
    more = ", ..." if len(found) > 5 else ""
    raise InvalidArgument(f"several ids begin with {prefix!r}: {named}{more}; give more of it")


def store_options(function: F) -> F:
    """Add the options that name a store."""
    for option in (
        click.option(
            "--payloads",
            envvar="ORCHESTRA_PAYLOADS",
            show_envvar=True,
            metavar="MODULE:NAME",
            help="The Pipeline that opens sealed values, imported from the working directory.",
        ),
        click.option(
            "--schema",
            envvar="ORCHESTRA_SCHEMA",
            show_envvar=True,
            help=f"Where on PostgreSQL the store is; by default {SCHEMA!r}.",
        ),
        click.option(
            "--store",
            required=True,
            envvar="ORCHESTRA_STORE",
            show_envvar=True,
            metavar="STORE",
            help=_STORE,
        ),
    ):
        function = option(function)
    return function


def output_option(function: F) -> F:
    """Add the options that choose how results are written."""
    function = click.option("--json", "as_json", is_flag=True, help="Short for -o json.")(function)
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice([form.value for form in Format]),
        default=Format.TABLE.value,
        show_default=True,
        help="How the result is written.",
    )(function)


def _is_relative(value: Any) -> bool:
    if isinstance(value, Selection):
        return any(isinstance(getattr(value, one.name), Ago) for one in fields(value))
    return isinstance(value, Ago)


def _settled(value: Any, now: datetime) -> Any:
    """Return an argument with instants for what was told as a time ago, by the store's clock."""
    if isinstance(value, Selection):
        return Selection(
            **{one.name: _settled(getattr(value, one.name), now) for one in fields(value)}
        )
    return now - value.duration if isinstance(value, Ago) else value


def on_store(function: Callable[Concatenate[Work, P], T]) -> Callable[..., T]:
    """Give a command the store that its options name."""

    @wraps(function)
    def with_work(
        *arguments: Any,
        store: str,
        schema: str | None,
        payloads: str | None,
        form: str,
        as_json: bool,
        **options: Any,
    ) -> T:
        output = Output(Format.JSON if as_json else Format(form))
        work = Work(store, schema, output, payloads)
        given: list[Any] = [*arguments, *options.values()]
        if any(map(_is_relative, given)):
            now = work.run(lambda client: client.now())
            arguments = tuple(_settled(one, now) for one in arguments)
            options = {name: _settled(one, now) for name, one in options.items()}
        return function(work, *arguments, **options)

    return output_option(store_options(with_work))

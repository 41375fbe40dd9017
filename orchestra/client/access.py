"""The way to the store that all parts of one client share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread

from orchestra.client.catalogues import CatalogueCache
from orchestra.client.direct import DirectPort
from orchestra.client.performing import perform
from orchestra.client.port import Port
from orchestra.clock import Clock
from orchestra.errors import RuntimeClosed
from orchestra.operations.lookup import not_found
from orchestra.operations.steps import Operation
from orchestra.store.catalogue import Catalogue
from orchestra.store.port import Directory, Provider
from orchestra.store.queries import InstanceRecord
from orchestra.telemetry import Recorder

__all__ = ["HELD_AGE", "Access"]

T = TypeVar("T")

_CATALOGUE_AGE: Final = 1.0
HELD_AGE: Final = 0.05
"""The age of the catalogue at which it may make an instance look held: a deploy must not make a
dashboard flicker.
"""


class Access:
    """The way to the store: through a runtime's port, or through its own, which it opens and
    closes.

    The store records ``name`` as the author of the client's writes.
    """

    def __init__(self, provider: Provider, clock: Clock) -> None:
        self.provider = provider
        self.clock = clock
        self.name: str = "client"
        self.recorder: Recorder = Recorder()
        self.own: DirectPort | None = None
        self._attached: Port | None = None
        self._catalogues = CatalogueCache(self._read_catalogue, clock)

    def attach(self, port: Port, name: str) -> None:
        """Go through the port of a runtime, which opens and closes it, under the name of its
        node.
        """
        self._attached, self.name = port, name

    @property
    def port(self) -> Port:
        """The port, while there is one.

        Raises:
            RuntimeClosed: the client is not open.
        """
        port = self._attached or self.own
        if port is None:
            raise RuntimeClosed(
                "the client is not open; use `async with Client(provider) as client:`"
            )
        return port

    @property
    def is_open(self) -> bool:
        """Whether there is a port. A runtime's port may still be closed."""
        return self.is_attached or self.own is not None

    @property
    def is_attached(self) -> bool:
        """Whether the port is a runtime's."""
        return self._attached is not None

    async def open(self) -> None:
        """Open the store, and make a port.

        Raises:
            RuntimeClosed: it is open already.
            StoreError: the store cannot be used.
        """
        if self.own is not None:
            raise RuntimeClosed("this client is open already; enter it once, or make another one")
        self.own = DirectPort(
            self.provider
        )  # first, so that of two that enter at once one is refused
        try:
            await anyio.to_thread.run_sync(self.provider.open)
        except BaseException:
            self.own = None
            raise

    async def close(self) -> None:
        """Close its own port, and the store. Harmless where there is none."""
        own, self.own = self.own, None
        if own is not None:
            own.close()
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self.provider.close)

    async def read(self, function: Callable[[Directory], T]) -> T:
        """Read the directory off the event loop."""
        return await self.port.call(lambda: function(self.provider.directory))

    async def perform(self, operation: Operation[T]) -> T:
        """Perform an operation to its end, and return its result."""
        return await perform(operation, self.port, self.provider)

    async def record(self, instance_id: str) -> InstanceRecord:
        """Return an instance.

        Raises:
            InstanceNotFound: there is none with this id.
        """
        record = await self.read(lambda directory: directory.get(instance_id))
        if record is None:
            raise not_found(instance_id)
        return record

    async def catalogue(self, age: float = _CATALOGUE_AGE) -> Catalogue:
        """Return the catalogue, at most ``age`` seconds old."""
        return await self._catalogues.get(age)

    def forget_catalogue(self) -> None:
        """Read the catalogue again when it is needed next."""
        self._catalogues.forget()

    async def _read_catalogue(self) -> Catalogue:
        return await self.port.call(self.provider.directory.catalogue)

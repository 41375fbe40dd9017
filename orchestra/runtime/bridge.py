"""Carries messages from the engine's thread to the event loop, with one wake-up for each group."""

from __future__ import annotations

import contextlib
import socket
from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

import anyio

__all__ = ["Bridge"]

T = TypeVar("T")


class Bridge(Generic[T]):
    """A queue from threads to one task. A socket pair wakes the task: cheaper than a thread hop, on
    both backends.
    """

    def __init__(self) -> None:
        self._entries: deque[T] = deque()
        self._receiver, self._sender = socket.socketpair()
        self._receiver.setblocking(False)
        self._sender.setblocking(False)
        self._signalled = False

    def push(self, entries: Sequence[T]) -> None:
        """Add entries, from any thread. Two calls at once may wake the task twice, but never miss
        it.
        """
        self._entries.extend(entries)
        if not self._signalled:
            self._signalled = True
            with contextlib.suppress(
                OSError
            ):  # closed: the runtime has abandoned the engine, and no task reads
                self._sender.send(b"\0")

    async def receive(self) -> list[T]:
        """Wait for entries and return all of them."""
        await anyio.wait_readable(self._receiver)
        self._receiver.recv(64)
        # Clear the signal first: an entry that comes in between is taken now, and costs one empty
        # wake-up.
        self._signalled = False
        return self.take()

    def take(self) -> list[T]:
        """Return all entries without waiting."""
        taken: list[T] = []
        while self._entries:
            taken.append(self._entries.popleft())
        return taken

    def peek(self) -> list[T]:
        """Return the waiting entries, from any thread. A hint only: the task may take them
        meanwhile.
        """
        try:
            return list(self._entries)
        except RuntimeError:  # it was changed at the same time
            return []

    def close(self) -> None:
        """Close the sockets."""
        self._receiver.close()
        self._sender.close()

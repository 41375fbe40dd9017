"""A request as orchestration code has it in hand."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

from orchestra.codec import Decoder

__all__ = ["Request"]

T_co = TypeVar("T_co", covariant=True)
R_contra = TypeVar("R_contra", contravariant=True)


class Answering(Protocol):
    """Takes the answers of one execution's code."""

    def reply(self, request: Request[Any, Any], value: Any, returns: Decoder[Any]) -> None: ...
    def reject(self, request: Request[Any, Any], reason: str) -> None: ...
    def is_answered(self, request: Request[Any, Any]) -> bool: ...


class Request(Generic[T_co, R_contra]):
    """A request that code has received: its ``value``, and the two ways to answer it.

    An answer is stored in the write of the turn: the client gets it exactly when what the code did
    in that turn stands. The first answer wins; a later one changes nothing, and is logged. A
    request without an answer is received again in the next lap.

    Attributes:
        value: what was asked, as the type that the wait names.
        name: what it was sent under.
        request_id: the id that its sender gave it. It stays the same when it is received again.
    """

    __slots__ = ("_answering", "_returns", "name", "request_id", "sequence", "value")

    def __init__(
        self,
        answering: Answering,
        returns: Decoder[Any],
        *,
        name: str,
        request_id: str,
        sequence: int,
        value: T_co,
    ) -> None:
        self._answering = answering
        self._returns = returns
        self.name: str = name
        self.request_id: str = request_id
        self.sequence: int = sequence
        """Its number in the inbox."""
        self.value: T_co = value

    def __repr__(self) -> str:
        return f"<request {self.name!r} {self.request_id!r}>"

    @property
    def answered(self) -> bool:
        """Whether this lap's code has answered it."""
        return self._answering.is_answered(self)

    def reply(self, value: R_contra) -> None:
        """Answer it.

        Raises:
            EncodeError, PayloadTooLarge: the value cannot travel as the type that the wait names
                (``returns``). The request stays open.
        """
        self._answering.reply(self, value, self._returns)

    def reject(self, reason: str) -> None:
        """Reject it: its sender gets :class:`~orchestra.RequestRejected` with the reason.

        Raises:
            InvalidArgument: the reason is not text of 1 to 1,024 characters. The request stays
                open.
        """
        self._answering.reject(self, reason)

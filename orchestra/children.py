"""Background children: their handles, which may stand in an instance's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar, get_args

from orchestra.codec import PLAIN, Decoder, decoder

__all__ = ["ChildHandle", "Link", "handle_of", "result_of"]

R_co = TypeVar("R_co", covariant=True)


class Link(str, Generic[R_co]):
    """The command that started a child, as a text that knows how the child's result is read.

    The text alone is stored. The annotation of a handle says how the result is read: a handle of
    ``int`` has a link of ``int``, and each link that is read keeps the decoder of its type.
    """

    __slots__ = ("reads",)

    reads: Decoder[Any]

    @classmethod
    def of(cls, text: str, reads: Decoder[Any]) -> Self:
        """Return a link with the decoder of its result."""
        link = cls(text)
        link.reads = reads
        return link

    def __copy__(self) -> Self:
        return self  # a text never changes

    def __deepcopy__(self, _: dict[int, Any]) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self),)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, _: Any) -> dict[str, Any]:
        result = next(iter(get_args(source)), Any)
        reads = PLAIN if result is Any or isinstance(result, TypeVar) else decoder(result)

        def read(text: str) -> Link[Any]:
            return cls.of(text, reads)

        return {
            "type": "function-after",
            "function": {"type": "no-info", "function": read},
            "schema": {"type": "str"},
        }


@dataclass(frozen=True, slots=True)
class ChildHandle(Generic[R_co]):
    """A child that works in the background, while its parent crosses boundaries.

    ``ctx.start_background_child`` makes it. Put it into the state, annotated with the type of the
    child's result (``build: ChildHandle[int]``), and give it to ``ctx.wait_for_child`` in this lap
    or in a later one. It is valid in the life of the instance that has started the child.

    Attributes:
        instance_id: the child's id, for ``ctx.cancel``, ``ctx.raise_event`` and clients.
        orchestration: the child's orchestration.
        link: the command that started it: a text.
    """

    instance_id: str
    orchestration: str
    link: Link[R_co]

    def __post_init__(self) -> None:
        if type(self.link) is not Link:  # a plain text, in a handle that was made by hand
            object.__setattr__(self, "link", Link[Any](self.link))


def handle_of(child_id: str, name: str, link: str, reads: Decoder[Any]) -> ChildHandle[Any]:
    """Return the handle of a child that was just started."""
    return ChildHandle(child_id, name, Link[Any].of(link, reads))


def result_of(handle: ChildHandle[Any]) -> Decoder[Any]:
    """Return how the child's result is read: by the handle's annotation, else as plain JSON."""
    return getattr(handle.link, "reads", PLAIN)

"""A value that people see as a mask."""

from __future__ import annotations

from typing import Any, Final, Generic, TypeVar, cast, get_args

from pydantic_core import core_schema

__all__ = ["MASK", "SECRET", "Secret", "is_secret_node"]

T = TypeVar("T")

MASK: Final = "**********"
"""What people see in the place of a secret."""

SECRET: Final = "secret"  # noqa: S105 - the word
"""The name of the type in the wire form."""


class Secret(Generic[T]):
    """A value of ``T`` that is masked wherever people look: in ``repr()``, ``str()`` and logs, in
    infos, histories, messages and exports, on the dashboard, in the HTTP API and on the command
    line. Only code sees it: :meth:`reveal`.

    Annotate it where it travels: ``token: Secret[str]``. It comes back as a ``Secret``, also where
    nothing is annotated. It is stored in clear, unless a pipeline encrypts it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == cast("Secret[Any]", other)._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        inner = get_args(source)

        def validate(
            value: Any,
            read: core_schema.ValidatorFunctionWrapHandler,
            info: core_schema.ValidationInfo[Any],
        ) -> Any:
            if isinstance(value, Secret):
                return cast("Any", value)
            if info.mode != "json":  # in a union, any text would be taken for a secret one
                raise ValueError("it is no Secret; write Secret(value)")
            return Secret(read(value))

        return core_schema.with_info_wrap_validator_function(
            validate,
            handler(inner[0]) if inner else core_schema.any_schema(),
            metadata={SECRET: True},
            serialization=core_schema.plain_serializer_function_ser_schema(
                str, return_schema=core_schema.str_schema()
            ),
        )


def is_secret_node(schema: Any) -> bool:
    """Return whether a node of a core schema is that of a secret."""
    metadata: Any = schema.get("metadata")
    return isinstance(metadata, dict) and cast("dict[str, Any]", metadata).get(SECRET) is True

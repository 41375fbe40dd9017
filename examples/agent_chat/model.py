"""A model that costs nothing: it streams words, asks for a tool, and writes a bill of its calls.

A real one would be a call to a provider's API. Its bill shows that no finished call is paid twice.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio

PAUSE = float(os.environ.get("MODEL_PAUSE", "0.02"))
"""Seconds between two words."""


@dataclass(frozen=True)
class Line:
    """What somebody has said: the user, the agent, or a tool."""

    role: str
    text: str


@dataclass(frozen=True)
class Answer:
    """What the model says next: words for the user or, first, a tool that it wants to use."""

    text: str
    tool: str | None = None
    argument: str = ""


async def stream(lines: Sequence[Line], style: str) -> AsyncIterator[str]:
    """Yield the words of the model's answer to a chat. A call is billed once it has ended."""
    for word in _answer(lines, style).split():
        await anyio.sleep(PAUSE)
        yield word
    charge(f"{len(lines)} {lines[-1].text}")


def charge(call: str) -> None:
    """Write a call to the bill."""
    bill = os.environ.get("MODEL_BILL")
    if bill:
        with Path(bill).open("a", encoding="utf-8") as written:
            written.write(f"{call}\n")


def read(words: str) -> Answer:
    """Return what a model's words mean. ``USE tool argument`` asks for a tool."""
    use, _, rest = words.partition(" ")
    if use != "USE":
        return Answer(words)
    tool, _, argument = rest.partition(" ")
    return Answer("", tool, argument)


def _answer(lines: Sequence[Line], style: str) -> str:
    last = lines[-1]
    if last.role == "user" and last.text.startswith("refund "):
        return f"USE refund {last.text.removeprefix('refund ')}"
    if last.role == "user" and last.text.startswith("weather "):
        return f"USE weather {last.text.removeprefix('weather ')}"
    if last.role == "tool":
        return f"{style} the tool says: {last.text}"
    return f"{style} you said: {last.text}, which is line {len(lines)}"

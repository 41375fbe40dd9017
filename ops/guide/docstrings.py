"""Docstrings are written for ``help()``, with roles and `::` as Sphinx reads them. The site reads
Markdown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|meth|func|mod|data|attr|exc):`~?(?:[^`]*?<)?([^`<>]+)>?`")
BLOCK = re.compile(r"(?m)^( *)(.*?)[ ]?::$")


def as_markdown(text: str) -> str:
    """Return a docstring with its roles as code, and without `::`."""

    def named(role: re.Match[str]) -> str:
        short = role[1].rpartition(".")[2] if role[0].count("`~") else role[1]
        return f"`{short}`"

    def introduced(block: re.Match[str]) -> str:
        return f"{block[1]}{block[2]}:" if block[2] else ""

    return BLOCK.sub(introduced, ROLE.sub(named, text)).replace("``", "`")


class Roles(griffe.Extension):
    """Rewrites each docstring as it is collected."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:  # noqa: ARG002
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)

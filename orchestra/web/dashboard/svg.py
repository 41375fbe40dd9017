"""The parts that pictures are made of. Colours are classes: the style sheet decides, in light and
dark. Each picture has a text that says the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from markupsafe import Markup

__all__ = ["group", "line", "named", "picture", "rect", "stretching", "text"]

_ALTERNATIVE: Final = 2_000
"""How many characters of a text alternative are kept."""

_RECT: Final = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"{}/>')
_TEXT: Final = Markup('<text class="{}" x="{}" y="{:.1f}">{}</text>')
_LINE: Final = Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>')
_GROUP: Final = Markup("<g><title>{}</title>{}</g>")
_PICTURE: Final = Markup(
    '<svg class="picture {}" role="{}" viewBox="0 0 {:.0f} {:.0f}" width="{:.0f}" '
    'height="{:.0f}" aria-label="{}">{}</svg>'
)
_STRETCHING: Final = Markup(
    '<svg class="picture {}" role="img" width="100%" height="{:.0f}" aria-label="{}">{}'
    '<svg x="38%" width="42%" aria-hidden="true" height="{:.0f}" viewBox="0 0 {:.0f} {:.0f}" '
    'preserveAspectRatio="none">{}</svg></svg>'
)
_NAME: Final = Markup('<li title="{}">{}</li>')
_NAMED: Final = Markup('<div class="named {}"><ol aria-hidden="true">{}</ol>{}</div>')
_ROUND: Final = Markup(' rx="2"')


def rect(
    kind: str, x: float, y: float, width: float, height: float, *, is_round: bool = True
) -> Markup:
    """Return a rectangle of a class."""
    return _RECT.format(kind, x, y, width, height, _ROUND if is_round else "")


def text(words: str, x: float | str, y: float, kind: str = "") -> Markup:
    """Return a text whose baseline begins at a point; ``x`` may be a share of the picture: 100%."""
    return _TEXT.format(kind, x if isinstance(x, str) else f"{x:.1f}", y, words)


def line(kind: str, x1: float, y1: float, x2: float, y2: float) -> Markup:
    """Return a line of a class."""
    return _LINE.format(kind, x1, y1, x2, y2)


def group(title: str, *parts: Markup) -> Markup:
    """Return parts with a title, which a pointer shows."""
    return _GROUP.format(title, Markup("").join(parts))


def stretching(
    kind: str,
    size: tuple[float, float],
    words: str,
    fixed: Iterable[Markup],
    stretched: Iterable[Markup],
) -> Markup:
    """Return a picture as wide as its place. Its middle is stretched, and has a size of its own;
    the texts on both sides keep theirs.
    """
    width, height = size
    return _STRETCHING.format(
        kind, height, _said(words), Markup("").join(fixed),
        height, width, height, Markup("").join(stretched),
    )  # fmt: skip


def named(names: Iterable[str], kind: str, whole: Markup) -> Markup:
    """Return a picture of rows with their names beside it, which stay where the picture scrolls."""
    shown = Markup("").join(_NAME.format(name, name) for name in names)
    return _NAMED.format(kind, shown, whole)


def picture(kind: str, width: float, height: float, words: str, parts: Iterable[Markup]) -> Markup:
    """Return a whole picture with its text alternative."""
    drawn = Markup("").join(parts)
    role = "group" if "<a " in drawn else "img"  # an image has no links for those who cannot see it
    return _PICTURE.format(kind, role, width, height, width, height, _said(words), drawn)


def _said(words: str) -> str:
    return words if len(words) <= _ALTERNATIVE else f"{words[:_ALTERNATIVE]}…"

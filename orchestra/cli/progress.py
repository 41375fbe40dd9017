"""How far a command is: on stderr, if that is a terminal, and gone when it is done."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn

from orchestra.cli.output import Output

__all__ = ["counting", "progress_of"]


@contextmanager
def progress_of(output: Output, total: int) -> Generator[Callable[[int], None]]:
    """Show how many of a known number are done."""
    console = Console(stderr=True, markup=False)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        console=console,
        disable=not (console.is_terminal and output.is_for_people),
        transient=True,
    )
    with bar:
        task = bar.add_task("instances", total=total)
        yield lambda done: bar.update(task, completed=done)


@contextmanager
def counting(output: Output, verb: str) -> Generator[Callable[[int], None]]:
    """Show how many are done, of a number that is not known."""
    console = Console(stderr=True, markup=False)
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.completed:,} instances {task.description}"),
        console=console,
        disable=not (console.is_terminal and output.is_for_people),
        transient=True,
    )
    with bar:
        task = bar.add_task(verb, total=None)
        yield lambda done: bar.update(task, completed=done)

"""The command line for operators of a store."""

from orchestra.cli.command import main

__all__ = ["main"]

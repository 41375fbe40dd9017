"""The command line: what operators ask of a store without writing a program."""

from orchestra.cli.command import main

__all__ = ["main"]

"""The decisions of operators' commands, without a clock, I/O or an async library.

A command that one answer decides is a function. One that reads, writes and looks again is an
*operation*: a generator that yields :mod:`~orchestra.operations.steps` and is sent their answers. A
client performs it, and so may a node, or a test.
"""

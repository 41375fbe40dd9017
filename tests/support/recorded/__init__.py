"""Stores that released libraries have written, and the programs that they ran.

``0.1.sql`` is a dump of the store that the release wrote: its schema, its rows, its formats. A newer
library must go on with it. ``programs`` must not change: it is the code under which the instances
began. ``record`` made the dump, with the release's own code::

    git archive REVISION orchestra | tar -x -C /tmp/release
    PYTHONPATH=/tmp/release:. python -P -m tests.support.recorded.record OUT.sql

``programs`` and ``record`` import nothing that the oldest release lacks.
"""

from __future__ import annotations

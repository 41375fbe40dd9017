"""The process that forks workers and operators: importing everything anew takes longer than most
live.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import traceback

from tests.support.crashes import operators, worker

ROLES = {"worker": worker.work, "operator": operators.operate}


def nurse() -> None:
    """Fork a process for each line of a role and arguments, and say its process id. Whoever is left
    at the end of the lines is killed.
    """
    signal.signal(
        signal.SIGCHLD, signal.SIG_IGN
    )  # nobody waits for them, and none stays behind as a zombie
    children = []
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            try:
                role, *arguments = json.loads(line)
                ROLES[role](arguments)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
        print(child, flush=True)
    for child in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


if __name__ == "__main__":
    nurse()

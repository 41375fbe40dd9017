"""Runs programs one after the other in one process, each as its own ``__main__``, and writes what
each has printed: imports are paid once.

    python tests/guide/programs.py PROGRAM... > outcomes.json
"""

import contextlib
import io
import json
import sys
import traceback
from pathlib import Path
from types import ModuleType


def outcome_of(path: Path) -> dict[str, str]:
    """Run one program. Return what it printed, and the traceback of its failure."""
    module = sys.modules["__main__"] = ModuleType("__main__")
    printed, failure = io.StringIO(), ""
    try:
        code = compile(path.read_text(encoding="utf-8"), path, "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, module.__dict__)
    except ModuleNotFoundError as missing:
        failure = f"needs {missing.name}"
    except BaseException:
        failure = traceback.format_exc()
    return {"printed": printed.getvalue(), "failure": failure}


if __name__ == "__main__":
    outcomes = {path: outcome_of(Path(path)) for path in sys.argv[1:]}
    sys.stdout.write(json.dumps(outcomes))

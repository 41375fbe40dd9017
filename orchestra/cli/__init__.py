"""The command line for operators of a store. It needs the extra ``cli``."""

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command ``orchestra``. Return its exit code."""
    try:
        from orchestra.cli.program import main as run  # noqa: PLC0415 - needs an extra
    except ModuleNotFoundError as error:
        if error.name not in {"click", "rich"}:
            raise
        sys.stderr.write(
            "orchestra: the command line needs the extra 'cli': "
            "pip install 'orchestra-runtime[cli]'\n"
        )
        return 3
    return run(arguments)

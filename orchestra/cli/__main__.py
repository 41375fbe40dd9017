"""``python -m orchestra.cli`` does what ``orchestra`` does."""

import sys

from orchestra.cli.command import main

if __name__ == "__main__":
    sys.exit(main())

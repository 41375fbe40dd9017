"""Makes the package that drives the workers importable; ``ops/crash`` uses it too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

"""How many examples a property is tried on."""

from hypothesis import settings


def examples(number: int) -> int:
    """Return the number, or the share of it that the profile allows where tests are to be quick."""
    return max(1, number * settings.default.max_examples // 100)

"""A campaign by each way of injecting faults that a machine has."""

import pytest

from tests.support.crashes.campaigns import Outcome, conduct
from tests.support.crashes.injections import MISSING


def by_every_way(campaign, tmp_path, seed, cycles):
    """Conduct a campaign by each way that there is on this machine. Where there is none, that is
    said.
    """
    missing = {way: reason() for way, reason in MISSING.items()}
    ways = [way for way, reason in missing.items() if reason is None]
    if not ways:
        pytest.skip(
            "no fault can be injected here: "
            + "; ".join(f"{way}: {reason}" for way, reason in missing.items())
        )
    total = Outcome()
    for number, way in enumerate(ways):
        folder = tmp_path / way
        folder.mkdir()
        total.add(conduct(campaign, folder, seed, (cycles + number) // len(ways), way))
    return total

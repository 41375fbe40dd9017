"""A plugin for pytest that gives each runtime and client of the tests a pipeline, so that existing
tests show whether values survive it::

    .venv/bin/python -m pytest -q -p tests.support.sealed_everywhere tests/testing tests/runtime
"""

import orchestra.client.client
import orchestra.runtime.runtime
import orchestra.testing.checker
import orchestra.testing.runtime
from orchestra.payloads import Compress, Encrypt, Keys, Pipeline, SealingProvider, with_payloads

PIPELINE = Pipeline(Compress(200), Encrypt(Keys({"everywhere": bytes(range(32))})))


def sealed(provider, payloads):
    if payloads is None and isinstance(provider, SealingProvider):
        return provider
    return with_payloads(provider, payloads or PIPELINE)


for module in (
    orchestra.client.client,
    orchestra.runtime.runtime,
    orchestra.testing.checker,
    orchestra.testing.runtime,
):
    module.with_payloads = sealed

"""What tests, campaigns and measurements share. It is not part of what users install.

- :mod:`~tests.support.contract`: what every provider must pass.
- :mod:`~tests.support.model`: the reference model, which decides by other means than the stores.
- :mod:`~tests.support.simulation`: worlds of several nodes, decided by a seed.
- :mod:`~tests.support.crashes`: processes that are killed and stopped while they work.
- :mod:`~tests.support.ages`: an artificial next library, for stores that two ages share.
- :mod:`~tests.support.harness`, :mod:`~tests.support.kit`, :mod:`~tests.support.driver`,
  :mod:`~tests.support.script`, :mod:`~tests.support.observed`: engines, runtimes, executions,
  operators' commands and telemetry, as their tests drive them.
- :mod:`~tests.support.example_modules`: the examples, imported as modules.

A checkout that is installed as README says (``pip install -e``) has this package on its path, from
any directory. Tests have it by ``pythonpath`` in ``pyproject.toml``, and the processes that they
start by ``tests/conftest.py``.
"""

"""Checks that orchestration code is deterministic: each turn is replayed, and each history under
other hash seeds.
"""

from __future__ import annotations

import base64
import importlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from orchestra.codec import pack, unpack
from orchestra.errors import InvalidArgument, OrchestraError
from orchestra.registry import OrchestrationRegistry
from orchestra.testing.commits import CrashPlan, under_plan
from orchestra.testing.replaying import ReplayDiffers, Replayed, replay_history
from orchestra.testing.scenarios import Scenario, run_scenario

__all__ = ["check_determinism"]

_HASH_SEEDS: Final = (1, 2)
_CHILD: Final = "from orchestra.testing.determinism import replay_in_child; replay_in_child()"


async def check_determinism(
    registry: OrchestrationRegistry,
    scenario: Scenario,
    activities: Sequence[object] = (),
    *,
    hash_seeds: Sequence[int] = _HASH_SEEDS,
    **options: Any,
) -> Replayed:
    """Run a scenario with each turn cold, so that code replays its history whenever it goes on.
    Then replay its histories in processes with other hash seeds, in which sets have another order.

    Args:
        scenario: an async function that makes a :class:`TestRuntime`, or that takes one.
        hash_seeds: the values of ``PYTHONHASHSEED``.

    Raises:
        AssertionError: the code did something else the second time; :class:`ReplayDiffers` where
            that shows in this process.
        InvalidArgument: a function of the registry cannot be imported in another process.
    """
    with under_plan(CrashPlan(cold=True)) as plan:
        await run_scenario(scenario, registry, activities, options)
    if plan.held:
        raise AssertionError(f"code did something else as its turn was repeated: {plan.held[0]}")
    histories = list(plan.histories)
    replayed = [replay_history(registry, history, strict=True) for history in histories]
    request = pack(
        {
            "path": sys.path,
            "definitions": [
                _place(definition.name, definition.version, definition.function)
                for definition in registry.capabilities()
            ],
            "histories": [base64.b64encode(history).decode() for history in histories],
        }
    )
    for seed in hash_seeds:
        _replay_under(seed, request)
    return Replayed(
        sum(one.executions for one in replayed),
        sum(one.events for one in replayed),
        tuple(drift for one in replayed for drift in one.drifts),
    )


def _replay_under(seed: int, request: bytes) -> None:
    done = subprocess.run(  # noqa: S603 - it is this very interpreter
        [sys.executable, "-c", _CHILD],
        input=request,
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    if done.returncode == 0:
        return
    lines = done.stderr.decode(errors="replace").strip().splitlines()
    raise AssertionError(
        f"under PYTHONHASHSEED={seed}: {lines[-1] if lines else 'the process has failed'}"
    )


def _place(name: str, version: str, function: Any) -> dict[str, str]:
    """Return where the function of an orchestration can be imported from.

    Raises:
        InvalidArgument: it has no name in a module that is a file.
    """
    inner = getattr(function, "func", function)  # of functools.partial
    for module_name in {
        getattr(function, "__module__", None): None,
        getattr(inner, "__module__", None): None,
        type(function).__module__: None,
        type(getattr(function, "__self__", None)).__module__: None,
    }:
        module = sys.modules.get(module_name or "")
        file = getattr(module, "__file__", None)
        path = None if module is None or file is None else _path_to(module, function)
        if path is not None:
            return {
                "name": name,
                "version": version,
                "module": str(module_name),
                "file": str(file),
                "qualname": path,
            }
    shown = getattr(function, "__qualname__", None) or repr(function)
    why = (
        "defined inside another function" if "<locals>" in shown else "of no module that is a file"
    )
    raise InvalidArgument(
        f"{name} {version} is {shown}, {why}; check_determinism imports it in another process: "
        "define it in a module, or give it a name there"
    )


def _path_to(module: ModuleType, function: Any) -> str | None:
    """Return under which dotted name a module has a function."""
    path = str(getattr(function, "__qualname__", ""))
    if path and _leads_to(module, path, function):
        return path
    owner = getattr(function, "__self__", None)
    for name, value in vars(module).items():
        if value is function:
            return name
        path = f"{name}.{getattr(function, '__name__', '')}"
        if owner is not None and value is owner and _leads_to(module, path, function):
            return path
    return None


def _leads_to(module: ModuleType, path: str, function: Any) -> bool:
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part, None)
    return found == function  # a method is another object each time


def replay_in_child() -> None:
    """Replay what the parent process has written to the standard input."""
    request = unpack(sys.stdin.buffer.read())
    sys.path[:] = request["path"]
    builder = OrchestrationRegistry.builder()
    for place in request["definitions"]:
        found: Any = _import(place["module"], Path(place["file"]))
        for part in place["qualname"].split("."):
            found = getattr(found, part)
        builder.register(place["name"], found, version=place["version"])
    registry = builder.build()
    try:
        for history in request["histories"]:
            replay_history(registry, base64.b64decode(history), strict=True)
    except (ReplayDiffers, OrchestraError) as error:
        sys.stderr.write(f"{error}".replace("\n", " "))
        sys.exit(1)


def _import(name: str, file: Path) -> ModuleType:
    """Import a module, from its file where its name does not lead there (``__main__``, tests)."""
    if name == "__main__":
        name = "__orchestra_main__"  # a script does not run once more
    else:
        try:
            module = importlib.import_module(name)
        except ImportError:
            pass
        else:
            if getattr(module, "__file__", None) == str(file):
                return module
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise InvalidArgument(f"module {name!r} cannot be imported from {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module

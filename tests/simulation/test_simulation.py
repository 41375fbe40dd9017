"""Worlds of several nodes over one store; see :mod:`tests.support.simulation`."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from contextlib import closing
from itertools import zip_longest
from pathlib import Path
from random import Random

import psycopg
import pytest

from orchestra.engine.store_time import StoreTime
from orchestra.errors import StoreBusy, StoreUnavailable
from orchestra.providers.memory import MemoryProvider
from orchestra.providers.postgres import calls
from tests.support.simulation import PROGRAMS, Plan, memory_store, run_seed, simulate
from tests.support.simulation.clocks import MachineClock, VirtualTime
from tests.support.simulation.plan import COMMIT_FAULTS

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "ops" / "simulation" / "run.py"

SEEDS = (
    [int(os.environ["ORCHESTRA_SEED"])]
    if "ORCHESTRA_SEED" in os.environ
    else range(int(os.environ.get("ORCHESTRA_SEEDS", "30")))
)
QUICK, AT_FIRST = 15, 30
"""The seeds that are tried while one works, and those of every full run; the rest are a campaign."""
LONG = 19
"""This seed takes as long as fifty others."""


def tiers(seeds):
    """Return seeds with the marks of their place."""
    marks = [()] * QUICK + [pytest.mark.slow] * (AT_FIRST - QUICK)
    marks[LONG] = pytest.mark.campaign
    pairs = zip_longest(seeds, marks[: len(seeds)], fillvalue=pytest.mark.campaign)
    return [pytest.param(seed, marks=mark) for seed, mark in pairs]


LATE = {1, 12, 30}
POSTGRES_SEEDS = [
    pytest.param(seed, marks=pytest.mark.campaign if seed in LATE else pytest.mark.slow)
    for seed in (SEEDS if "ORCHESTRA_SEED" in os.environ else (1, 6, 12, 30))
]
"""A few, for each takes seconds: with children, work for others, retention, lost connections; 12 as
behind a pooler.
"""


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL, "orchestra")


@pytest.mark.parametrize("seed", tiers(SEEDS))
def test_whatever_happens_the_invariants_hold_and_everything_ends(seed):
    print(f"rerun: python ops/simulation/run.py --from {seed} --seeds 1")
    counts = run_seed(seed).counts
    assert counts["commits"] > 0


@pytest.mark.parametrize("seed", POSTGRES_SEEDS)
def test_whatever_happens_on_postgresql_the_invariants_hold_and_everything_ends(seed, dsn):
    print(f"rerun: python ops/simulation/run.py --from {seed} --seeds 1 --postgres")
    counts = run_seed(seed, "postgres", dsn=dsn).counts
    assert counts["commits"] > 0


@pytest.mark.parametrize("seed", tiers(SEEDS))
def test_whatever_happens_nodes_of_two_ages_live_side_by_side_and_what_one_does_not_know_it_leaves_to_the_other(
    seed,
):
    """Upgrades and roll backs of the library under crashes; in the end all is upgraded, and
    everything ends.
    """
    print(f"rerun: python ops/simulation/run.py --from {seed} --seeds 1 --ages")
    counts = run_seed(seed, ages=True).counts
    assert counts["commits"] > 0


@pytest.mark.parametrize("seed", POSTGRES_SEEDS)
def test_nodes_of_two_ages_live_side_by_side_on_postgresql(seed, dsn):
    print(f"rerun: python ops/simulation/run.py --from {seed} --seeds 1 --postgres --ages")
    assert run_seed(seed, "postgres", dsn=dsn, ages=True).counts["commits"] > 0


def test_the_seeds_of_two_ages_reach_what_they_are_for():
    counts = Counter()
    for seed in (44, 46, 54, 55, 71):
        counts.update(run_seed(seed, "memory", ages=True).counts)
    for what in (
        "levels raised",
        "opened in format 1",
        "opened in format 2",
        "left alone by old nodes",
        "known to old nodes",
        "eras: old",
        "eras: mixed",
        "eras: new",
    ):
        assert counts[what] > 0, what


@pytest.mark.parametrize("seed", [pytest.param(3, marks=pytest.mark.campaign), 20])
def test_a_seed_does_the_same_on_every_store(seed, dsn):
    """What may differ is switched off: hints, and what goes on between the round trips of a call.
    20 is as behind a pooler.
    """
    digests = {
        store: run_seed(seed, store, dsn=dsn, alike=True).digest
        for store in ("memory", "sqlite", "postgres")
    }
    assert len(set(digests.values())) == 1, digests


@pytest.mark.campaign
def test_a_seed_on_postgresql_repeats_exactly_though_connections_are_lost_under_it_and_locks_are_met(
    dsn, monkeypatch
):
    met = []

    def remembered(error, description):
        failure = translate(error, description)
        met.append(type(failure))
        return failure

    translate = calls.translate
    monkeypatch.setattr(calls, "translate", remembered)
    # Which seeds meet all of it depends on how many round trips things take; 51 has lately.
    for seed in (*range(51, 72), *range(45, 51)):
        met.clear()
        first = run_seed(seed, "postgres", dsn=dsn)
        if {"trip lost before", "trip lost within"} <= first.counts.keys() and {
            StoreUnavailable,
            StoreBusy,
        } <= set(met):
            break
    else:
        pytest.fail("no seed has lost connections and met locks")
    assert run_seed(seed, "postgres", dsn=dsn) == first


def test_a_seed_leaves_nothing_on_the_server(dsn, postgres):
    with psycopg.connect(dsn) as connection:
        find = "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'simulation%'"
        before = connection.execute(find).fetchone()
        run_seed(45, "postgres", dsn=dsn)
        assert connection.execute(find).fetchone() == before


def test_the_store_in_memory_tells_the_time_of_now_also_when_nothing_was_written_since():
    """As the others do: a start that a client has made of the catalogue's time was younger there
    than here.
    """
    clock = MachineClock(time := VirtualTime())
    with closing(MemoryProvider(clock=clock)) as provider:
        provider.open()
        provider.admin.set_policy("job", "latest", by="me", reason="")
        time.skip(5)
        assert provider.directory.catalogue().now == provider.store.catalogue().now == clock.now()


@pytest.mark.parametrize("seed", range(1_000_000, 1_000_005))
def test_where_nothing_goes_wrong_nobody_is_taken_over(seed):
    counts = simulate(memory_store(), seed, faults=False).counts
    assert counts["writes"] > 0
    assert not {"crashes", "take-overs"} & counts.keys()


def test_the_seeds_of_these_tests_leave_nothing_out_and_none_has_it_all():
    plans = [Plan.draw(Random(seed)) for seed in range(500)]
    for program in PROGRAMS:
        assert 100 < sum(program in plan.programs for plan in plans) < 400
    for fault in COMMIT_FAULTS:
        assert 100 < sum(fault in plan.commit_faults for plan in plans) < 400
    for act in {name for plan in plans for name in plan.weights}:
        assert sum(act in plan.weights for plan in plans) > 100
    for retention in {plan.retention for plan in plans}:
        assert sum(plan.retention == retention for plan in plans) > 50
    assert not any(
        len(plan.commit_faults) == len(COMMIT_FAULTS) and len(plan.programs) == len(PROGRAMS)
        for plan in plans
    )


@pytest.mark.parametrize(
    "seed",
    [pytest.param(27, marks=pytest.mark.slow), pytest.param(472, marks=pytest.mark.campaign)],
)
def test_a_seed_repeats_exactly_under_any_hash_seed(seed):
    """Both have families, work for other nodes, code that does not return, and retention. 472 runs
    on SQLite.
    """
    plan = Plan.draw(Random(seed))
    assert {"family", "errand"} <= set(plan.programs)
    assert plan.apart
    assert plan.blocked_turns
    assert plan.retention.histories is not None
    code = f"from tests.support.simulation import run_seed; print(run_seed({seed}).digest)"
    digests = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert len(digests) == 1
    assert digests != {""}


def test_a_broken_invariant_is_not_swallowed_by_the_engine_that_survives_every_store(monkeypatch):
    """The witness speaks from below the engine, which holds instances over whatever exception the
    store raises.
    """
    monkeypatch.setattr(StoreTime, "now", property(lambda time: time._clock.now() + 60_000_000))
    with pytest.raises(AssertionError, match="I7"):
        run_seed(3)


@pytest.mark.slow
def test_the_script_writes_what_a_report_needs(tmp_path):
    result = tmp_path / "result.json"
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--from", "20", "--seeds", "3", "--json", str(result)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "seeds 20 to 22" in done.stdout
    written = json.loads(result.read_text())
    assert written["campaign"] == "simulation"
    assert written["seeds"] == [20, 22]
    assert written["failures"] == []
    assert written["counts"]["commits"] > 0
    assert written["command"].startswith("python ops/simulation/run.py --from 20 --seeds 3")


def test_the_script_runs_seeds_on_postgresql_and_says_on_which(tmp_path, dsn):
    result = tmp_path / "result.json"
    done = subprocess.run(
        [
            sys.executable,
            str(SCRIPT),
            "--postgres",
            "--from",
            "45",
            "--seeds",
            "1",
            "--json",
            str(result),
        ],
        env={**os.environ, "ORCHESTRA_TEST_DSN": dsn},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "seeds 45 to 45" in done.stdout
    written = json.loads(result.read_text())
    assert written["failures"] == []
    assert "PostgreSQL" in written["what"]
    assert re.fullmatch(r"\d+\.\d+", written["postgresql"])


def test_the_script_prints_the_command_that_repeats_a_failing_seed_and_says_so_with_its_exit_code(
    tmp_path, monkeypatch, capsys
):
    specification = importlib.util.spec_from_file_location("simulation_script", SCRIPT)
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    monkeypatch.setattr(script, "prepare", lambda: None)
    monkeypatch.setattr(StoreTime, "now", property(lambda time: time._clock.now() + 60_000_000))
    result = tmp_path / "result.json"
    assert (
        script.main(
            [
                "--from",
                "3",
                "--seeds",
                "3",
                "--store",
                "memory",
                "--fail-fast",
                "--json",
                str(result),
            ]
        )
        == 1
    )
    command = "python ops/simulation/run.py --from 3 --seeds 1 --store memory"
    assert f"rerun: {command}\n" in capsys.readouterr().out
    written = json.loads(result.read_text())
    assert written["seeds"] == [3, 3]
    assert [(failure["seed"], failure["rerun"]) for failure in written["failures"]] == [
        (3, command)
    ]
    assert "I7" in written["failures"][0]["error"]

"""A process with a runtime.

What a worker writes beside the store, for whoever looks at what it has done: ``ledger`` and
``steps`` (see ``program``), ``status-NAME`` (how far it has come, which kinds of instances it has claimed),
``errors-NAME`` (what it logs), ``writes-NAME`` (the outcome of every owner's write, a JSON line
each) and ``acknowledged-NAME`` (what its own client was told).
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from itertools import count
from pathlib import Path

import anyio

from orchestra import Runtime, SqliteProvider, StoreError
from orchestra.clock import new_id
from orchestra.errors import OutcomeUnknown
from orchestra.providers.postgres import PostgresProvider
from orchestra.providers.postgres.calls import Read, Transaction
from orchestra.providers.postgres.wire import Result
from orchestra.store.changes import Change, Write
from orchestra.store.outcomes import Claimed, Commit, Granted, Refused
from orchestra.store.port import Provider
from orchestra.store.routes import Kind
from tests.support.crashes import program, tracer
from tests.support.crashes.device import Device, Fault

STOP_INSIDE = signal.SIGRTMIN
NARROW, WIDE = 3, 256
"""How many activities a worker runs at once."""
OWN_START = 1
"""The revision of the first turn of what a node has started itself. Both are one transaction, which
makes the instance, so no other node can own it. The commit of a buried node leaves a ghost owner,
whose instances the others release within a lease (rule 12).
"""


class Lines:
    """A file of lines, each written at once: what was written is there after a kill."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, *values: object) -> None:
        os.write(self._file, (json.dumps(values) + "\n").encode())


class Watch:
    """Notes what becomes of owners' writes; and the process can be told to stop right before one,
    or in a transaction.
    """

    def __init__(self, provider: Provider, lines: Lines, status: Lines) -> None:
        self._status = status
        self._claimed: set[Kind] = set()
        self._lines = lines
        self._commit = provider.store.commit
        provider.store.commit = self._noted_commit
        self.stop_before_write = False
        self.stop_inside = False
        begin = Transaction.begin

        def begin_and_stop(transaction: Transaction, *reads: Read) -> list[Result]:
            results = begin(transaction, *reads)
            if self.stop_inside and reads:  # it holds locks now, and goes on with another message
                self.stop_inside = False
                _stop_here()
            return results

        Transaction.begin = begin_and_stop

    def _noted_commit(self, changes: Sequence[Change]) -> Commit:
        if self.stop_before_write and any(_may_be_taken_over(change) for change in changes):
            self.stop_before_write = False
            _stop_here()
        commit = self._commit(changes)
        for change, outcome in zip(changes, commit.outcomes, strict=True):
            if isinstance(outcome, Claimed):
                for snapshot in outcome.snapshots:
                    self._note_claim(snapshot.row.kind)
            if isinstance(change, Write) and isinstance(outcome, (Granted, Refused)):
                granted = isinstance(outcome, Granted)
                self._lines.write(
                    change.instance_id,
                    change.incarnation,
                    change.revision,
                    change.owner,
                    granted,
                    commit.now,
                )
        return commit

    def _note_claim(self, kind: Kind) -> None:
        if kind not in self._claimed:
            self._claimed.add(kind)
            self._status.write("claimed", kind.name, kind.version)


def _may_be_taken_over(change: Change) -> bool:
    """Return whether a change is a write of an instance that the store has already."""
    return isinstance(change, Write) and change.revision > OWN_START


def _stop_here() -> None:
    signal.pthread_kill(
        threading.get_ident(), signal.SIGSTOP
    )  # so that it is this thread that stops, and now


def provider_for(options: argparse.Namespace) -> Provider:
    busy = timedelta(seconds=options.busy)
    if not options.dsn:
        return SqliteProvider(options.store, busy_timeout=busy)
    return PostgresProvider(
        options.dsn,
        options.schema,
        lock_timeout=busy,
        statement_timeout=timedelta(seconds=options.statement),
    )


async def main(options: argparse.Namespace) -> None:
    folder = options.store.parent
    status = Lines(folder / f"status-{options.name}")
    program.LEDGER.open(folder / "ledger")
    program.STEPS.open(folder / "steps")
    fault = Fault.parse(options.fault) if options.fault else None
    device = Device(options.store, status.write) if fault or options.count else None
    if device and fault and not options.later:
        device.arm(fault)
    provider = provider_for(options)
    watch = Watch(provider, Lines(folder / f"writes-{options.name}"), status)
    runtime = Runtime(
        provider,
        program.registry(options.code),
        program.activities(options.code),
        lease=timedelta(seconds=options.lease),
        poll=timedelta(seconds=0.1),
        grace=timedelta(seconds=2),
        max_owned=options.max_owned,
        # Every other one has few places, so that what it cannot run goes through the store to its
        # neighbours.
        max_concurrent_activities=NARROW if int(options.name) % 2 else WIDE,
    )

    def stop_before_write(_signal: int, _frame: object) -> None:
        watch.stop_before_write = True

    def stop_inside(_signal: int, _frame: object) -> None:
        watch.stop_inside = True

    intake = Intake(runtime, options.name, Lines(folder / f"acknowledged-{options.name}"))
    signal.signal(signal.SIGUSR1, stop_before_write)
    signal.signal(signal.SIGUSR2, intake.stop)
    signal.signal(STOP_INSIDE, stop_inside)
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with runtime, anyio.create_task_group() as group:
            status.write("ready")
            if options.later and options.traced:
                tracer.wait_for_tracer()
            if device and fault and options.later:
                device.arm(fault)
            if options.intake:
                group.start_soon(intake.run)
            async for _ in signals:
                group.cancel_scope.cancel()
                break
    if device:
        status.write("calls", device.counts)
    status.write("ended")


class Intake:
    """Uses this process's own client: a kill may come between its commit and its word."""

    def __init__(self, runtime: Runtime, name: str, acknowledged: Lines) -> None:
        self._runtime = runtime
        self._name = name
        self._acknowledged = acknowledged
        self._stopping = False

    def stop(self, _signal: int, _frame: object) -> None:
        self._stopping = True

    async def run(self) -> None:
        for number in count():
            if self._stopping:
                break
            instance_id = f"own-{self._name}-{number}"
            client, request_id, message_id = self._runtime.client, new_id(), new_id()
            await self._insist(
                lambda: client.start("once", number, instance_id=instance_id, request_id=request_id)  # noqa: B023 - used at once
            )
            self._acknowledged.write("start", instance_id)
            await self._insist(
                lambda: client.raise_event(instance_id, "go", 1, message_id=message_id)  # noqa: B023 - used at once
            )
            self._acknowledged.write("event", instance_id)
            await anyio.sleep(0.02)
        self._acknowledged.write("end", None)

    async def _insist(self, ask: Callable[[], Awaitable[object]]) -> None:
        """Ask until the store has answered. It may be away; then it has to say so, by an error that
        tells what to do.
        """
        while True:
            try:
                await ask()
            except StoreError as error:
                if not (error.retryable or isinstance(error, OutcomeUnknown)):
                    raise
                self._acknowledged.write("refused", type(error).__name__)
                await anyio.sleep(0.02)
            else:
                return


def work(arguments: list[str]) -> None:
    """Be a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("store", type=Path)
    parser.add_argument("--name", required=True)
    parser.add_argument("--code", choices=("old", "new"), default="old")
    parser.add_argument("--lease", type=float, default=10)
    parser.add_argument("--max-owned", type=int, default=4096)
    parser.add_argument("--intake", action="store_true")
    parser.add_argument("--busy", type=float, default=5)
    parser.add_argument(
        "--dsn",
        default="",
        help="of the server, if the store is on one; what is noted lies beside STORE then",
    )
    parser.add_argument("--schema", default="orchestra")
    parser.add_argument(
        "--statement",
        type=float,
        default=10,
        help="how long the server may take for a statement, in seconds",
    )
    parser.add_argument(
        "--count", action="store_true", help="say at the end what was asked of the machine"
    )
    parser.add_argument(
        "--fault",
        default="",
        help="what becomes of the store's files, see tests.support.crashes.device",
    )
    parser.add_argument("--later", action="store_true", help="... from when the runtime runs")
    parser.add_argument("--traced", action="store_true", help="wait for a tracer")
    options = parser.parse_args(arguments)
    errors = os.open(
        options.store.parent / f"errors-{options.name}",
        os.O_WRONLY | os.O_CREAT | os.O_APPEND,
        0o666,
    )
    os.dup2(errors, 1)
    os.dup2(errors, 2)
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    if options.traced and not options.later:
        tracer.wait_for_tracer()
    anyio.run(main, options)

"""What must hold once the workers have gone home."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from orchestra.codec import plain
from orchestra.events import ActivityCompleted, ActivityScheduled, ExecutionStarted, from_record
from orchestra.store.kinds import Status
from orchestra.store.port import Directory
from orchestra.store.queries import InstanceQuery
from orchestra.store.streams import StreamItemRow
from orchestra.testing.checker import Report, check_store
from tests.support.crashes.processes import Worker, read_lines
from tests.support.crashes.program import TURNS, TURNS_PER_LAP, WORDS, WORDS_PER_LAP, registry
from tests.support.crashes.stores import (
    Store,
    damages_of,
    folder_of,
    open_ids,
    provider_of,
    rows_of,
)
from tests.support.crashes.traffic import Promises

BELONGING = (
    "instance_detail",
    "label",
    "execution",
    "event",
    "message",
    "tombstone",
    "activity",
    "set_aside",
    "request",
    "stream",
    "stream_item",
)
"""The tables whose rows belong to an instance."""

ORPHANS = {
    "a message of an instance that has ended": """
        SELECT m.instance_id FROM message m JOIN instance i USING (instance_id) WHERE i.status <> 0""",
    "an activity of another execution": """
        SELECT a.instance_id FROM activity a JOIN instance i USING (instance_id) WHERE i.execution <> a.execution""",
    "an activity of an instance that has ended": """
        SELECT a.instance_id FROM activity a JOIN instance i USING (instance_id) WHERE i.status <> 0""",
    "a message that is unread and read": """
        SELECT instance_id FROM message JOIN tombstone USING (instance_id, message_id) WHERE kind = 0""",
    "a request that waits and is not open": """
        SELECT m.instance_id FROM message m LEFT JOIN request r
        ON (r.instance_id, r.request_id, r.sequence) = (m.instance_id, m.message_id, m.sequence)
        WHERE m.kind = 5 AND (r.request_id IS NULL OR r.answered_at IS NOT NULL)""",
    "an open request that no lap will receive": """
        SELECT r.instance_id FROM request r
        JOIN instance i ON (i.instance_id, i.incarnation) = (r.instance_id, r.incarnation)
        LEFT JOIN message m ON (m.instance_id, m.sequence, m.kind) = (r.instance_id, r.sequence, 5)
        WHERE i.status = 0 AND r.answered_at IS NULL AND m.sequence IS NULL""",
    "a message from the future": """
        SELECT m.instance_id FROM message m JOIN instance i USING (instance_id) WHERE m.sequence > i.inbox_seq""",
    "the end of a child that the current execution has not asked for": """
        SELECT m.instance_id FROM message m JOIN instance i USING (instance_id)
        LEFT JOIN event e ON (e.instance_id, e.execution, e.event_id, e.kind) = (m.instance_id, i.execution, m.source, 11)
        WHERE m.kind BETWEEN 1 AND 4 AND e.event_id IS NULL""",
    "a journal of an activity that has ended": """
        SELECT s.instance_id FROM stream s JOIN instance i USING (instance_id)
        WHERE substr(s.stream, 1, 18) = 'orchestra:journal/' AND i.status <> 0""",
    "events without their execution": """
        SELECT e.instance_id FROM event e LEFT JOIN execution x USING (instance_id, execution)
        WHERE x.instance_id IS NULL""",
    "an instance without its execution": """
        SELECT i.instance_id FROM instance i LEFT JOIN execution x USING (instance_id, execution)
        WHERE x.instance_id IS NULL""",
    "an instance without its details": """
        SELECT i.instance_id FROM instance i LEFT JOIN instance_detail d USING (instance_id) WHERE d.instance_id IS NULL""",
    "abilities of a node that does not live": """
        SELECT c.node_id FROM capability c LEFT JOIN node n USING (node_id) WHERE n.node_id IS NULL OR n.dead""",
    "an owner at rest": "SELECT instance_id FROM instance WHERE owner IS NOT NULL",
    "a node at rest": "SELECT node_id FROM node WHERE NOT dead",
}


def raw_problems(store: Store) -> Iterator[str]:
    """Look at the database itself: it is sound (I13), and nothing in it belongs to nobody (I9)."""
    for damage in damages_of(store):
        yield f"I13: {damage}"
    for table in BELONGING:
        strangers = (
            f"SELECT DISTINCT instance_id FROM {table} WHERE instance_id NOT IN (SELECT "
            "instance_id FROM instance)"
        )
        for (instance_id,) in rows_of(store, strangers):
            yield f"I9: {table} has rows of {instance_id!r}, which is not there"
    for what, query in ORPHANS.items():
        for (name,) in rows_of(store, query):
            yield f"I9: {what}: {name}"


def promise_problems(directory: Directory, promises: Promises) -> Iterator[str]:
    """Everything that was acknowledged has happened, once (I1, I8)."""
    for instance_id, promise in promises.ends.items():
        record = directory.get(instance_id)
        if record is None:
            yield f"I1: {instance_id!r} was acknowledged and is not there"
        elif record.status.name != promise.status:
            yield (
                f"I1: {instance_id!r} is {record.status.name} (waiting: {record.summary!r}), "
                f"expected was {promise.status}"
            )
        elif record.status is Status.COMPLETED:
            problem = promise.check(plain(record.execution.output))
            if problem:
                yield f"I1: {instance_id!r}: {problem}"
            if record.unread_at_end:
                yield f"I1: {instance_id!r} has ended over unread messages: {record.unread_at_end}"
    for instance_id in promises.deleted:
        if directory.get(instance_id) is not None:
            yield f"I9: {instance_id!r} was deleted and is there"


def own_problems(directory: Directory, workers: Sequence[Worker]) -> Iterator[str]:
    """What the workers' own clients were told is true, too (I1)."""
    for worker in workers:
        told = dict.fromkeys(
            instance_id for what, instance_id in read_lines(worker.acknowledged) if what == "start"
        )
        events = {
            instance_id for what, instance_id in read_lines(worker.acknowledged) if what == "event"
        }
        for instance_id in told:
            record = directory.get(instance_id)
            number = int(instance_id.rpartition("-")[2])
            if record is None:
                yield f"I1: {instance_id!r} was acknowledged to its own process and is not there"
            elif instance_id in events and (
                record.status is not Status.COMPLETED
                or plain(record.execution.output) != number + 1
            ):
                yield f"I1: {instance_id!r} is {record.status.name} with {record.execution.output}"


def own_open(directory: Directory, workers: Sequence[Worker]) -> list[str]:
    """Return instances of the workers' own clients that have still to end."""
    still_open = open_ids(directory)
    told = (line for worker in workers for line in read_lines(worker.acknowledged))
    return [
        instance_id for what, instance_id in told if what == "event" and instance_id in still_open
    ]


def ledger_problems(
    directory: Directory, ledger: Path, instance_ids: Sequence[str]
) -> Iterator[str]:
    """Every result in history was returned by a run of that very activity (I5)."""
    entered = set()
    for line in ledger.read_text().splitlines():
        key, _attempt, token = line.rsplit(" ", 2)
        entered.add((key, token))
    for instance_id in instance_ids:
        record = directory.get(instance_id)
        if record is None:
            continue
        for row in directory.executions(instance_id):
            incarnation = record.row.incarnation
            for event in map(from_record, directory.history(instance_id, row.number)):
                if isinstance(event, ExecutionStarted):
                    incarnation = event.incarnation  # that of an earlier life, perhaps
                elif isinstance(event, ActivityCompleted):
                    token = plain(event.result)["token"]
                    key = f"{instance_id}/{incarnation}/{row.number}/{event.source}"
                    if (key, token) not in entered:
                        yield f"I5: {key} has a result that no run returned: {plain(event.result)}"


def stream_problems(directory: Directory, instance_id: str) -> Iterator[str]:
    """What turns published stands once and in order; what an activity published comes from its
    current attempts, one after the other, and is complete where its result counted (I16).
    """
    spoken: dict[tuple[int, int], list[tuple[int, str, int]]] = {}
    turns: list[tuple[int, int]] = []
    for item in read_items(directory, instance_id, TURNS):
        if item.attempt is not None:
            yield f"I16: {instance_id!r}: {item} comes from a turn"
        turns.append((item.execution, plain(item.payload)))
    for item in read_items(directory, instance_id, WORDS):
        token, number = plain(item.payload)
        said = spoken.setdefault((item.execution, item.event_id or 0), [])
        said.append((item.attempt or 0, token, number))
    laps = directory.executions(instance_id)
    expected = [
        (row.number, (row.number - 1) * TURNS_PER_LAP + number)
        for row in laps
        for number in range(TURNS_PER_LAP)
    ]
    if turns != expected:
        yield f"I16: {instance_id!r}: turns published {turns}, expected was {expected}"
    for row in laps:
        events = [*map(from_record, directory.history(instance_id, row.number))]
        speaking = {
            event.id
            for event in events
            if isinstance(event, ActivityScheduled) and event.name.startswith("speak")
        }
        for event in events:
            if isinstance(event, ActivityCompleted) and event.source in speaking:
                said = spoken.pop((row.number, event.source), [])
                token = plain(event.result)["token"]
                for problem in attempt_problems(said, event.attempt, token):
                    yield f"I16: {instance_id!r}/{row.number}/{event.source}: {problem}"
    for key, said in spoken.items():
        yield f"I16: {instance_id!r}: {key} has no result, and has published {said}"


def attempt_problems(
    said: Sequence[tuple[int, str, int]], attempt: int, token: str
) -> Iterator[str]:
    """Hold what the attempts of an activity have published against the one whose result counted."""
    runs: dict[tuple[int, str], list[int]] = {}
    last: tuple[int, str] | None = None
    for its_attempt, its_token, number in said:
        run = its_attempt, its_token
        if run != last and run in runs:
            yield f"{run} published when it was no longer current: {said}"
        runs.setdefault(run, []).append(number)
        last = run
    if [run[0] for run in runs] != sorted(run[0] for run in runs):
        yield f"an older attempt published after a newer one: {said}"
    for run, numbers in runs.items():
        if numbers != [*range(len(numbers))]:
            yield f"{run} published {numbers}"
    if last != (attempt, token) or len(runs[last]) != WORDS_PER_LAP:
        yield f"attempt {attempt}, {token}, counted, and {last} was the last one of {said}"


def read_items(directory: Directory, instance_id: str, name: str) -> Iterator[StreamItemRow]:
    """Yield the items of a stream."""
    after = 0
    while (page := directory.stream(instance_id, name, after)) is not None and page.items:
        yield from page.items
        after = page.items[-1].offset


def step_problems(steps: Path) -> Iterator[str]:
    """No step has run once its result was stored, and all attempts were given the same one."""
    results: dict[tuple[str, str], str] = {}
    runs: dict[tuple[str, str], list[tuple[int, str]]] = {}
    made: dict[str, int] = {}
    for line in steps.read_text().splitlines() if steps.exists() else ():
        key, attempt, what, step, result = line.rsplit(" ", 4)
        place = key, step
        if what == "ran":
            made[result] = int(attempt)
            keeper = made.get(results.get(place, ""))
            # An older attempt may still run: it does not know yet that it is not current.
            if keeper is not None and int(attempt) >= keeper:
                yield f"step {place} ran in attempt {attempt}, and was stored by {keeper}"
            runs.setdefault(place, []).append((int(attempt), result))
        elif results.setdefault(place, result) != result:
            yield f"step {place} was {results[place]}, and is {result}"
    for place, result in results.items():
        if result not in made:
            yield f"step {place} is {result}, which no run returned"
            continue
        late = [run for run in runs[place] if run[0] > made[result]]
        if late:
            yield f"step {place} was stored by attempt {made[result]}, and ran again: {late}"


def write_problems(workers: Sequence[Worker]) -> Iterator[str]:
    """Each revision of an instance was left by one write only, whoever made it (I6)."""
    granted: dict[tuple[str, str, int], str] = {}
    for worker in workers:
        for instance_id, incarnation, revision, owner, was_granted, _now in read_lines(
            worker.writes
        ):
            if not was_granted:
                continue
            key = instance_id, incarnation, revision
            if key in granted:
                yield (
                    f"I6: revision {revision} of {instance_id!r} was written by {granted[key]} "
                    f"and by {owner}"
                )
            granted[key] = owner


def log_problems(workers: Sequence[Worker]) -> Iterator[str]:
    """No worker has complained about anything but the deaths of others."""
    for worker in workers:
        for line in worker.errors.splitlines():
            if " ERROR " in line or line.startswith("Traceback"):
                yield f"worker {worker.name} says: {line}"


def counts_of_runs(ledger: Path) -> tuple[int, int]:
    """Return how many activities have run, and how many of them more than once."""
    keys = Counter(line.split(" ")[0] for line in ledger.read_text().splitlines())
    return len(keys), sum(times > 1 for times in keys.values())


def judge(
    store: Store, promises: Promises, workers: Sequence[Worker], code: str
) -> tuple[list[str], Report]:
    """Return everything that is wrong with a store whose workers have gone home, and the checker's
    report.
    """
    provider = provider_of(store)
    report = check_store(provider, registry(code))
    problems = [
        *map(str, report.violations),
        *(f"I10: {drift}" for drift in report.drift),
        *raw_problems(store),
        *write_problems(workers),
        *log_problems(workers),
        *step_problems(folder_of(store) / "steps"),
    ]
    provider.open()
    try:
        directory = provider.directory
        problems += promise_problems(directory, promises)
        problems += own_problems(directory, workers)
        everybody = directory.list(InstanceQuery(limit=1_000_000))
        children = [record.row.instance_id for record in everybody if record.row.parent is not None]
        instance_ids = [*promises.ends, *own_started(workers), *children]
        problems += ledger_problems(directory, folder_of(store) / "ledger", instance_ids)
        for record in everybody:
            if record.execution.name == "radio":
                problems += stream_problems(directory, record.row.instance_id)
    finally:
        provider.close()
    return problems, report


def own_started(workers: Sequence[Worker]) -> list[str]:
    """Return the instances that the workers' own clients have started."""
    return [
        instance_id
        for worker in workers
        for what, instance_id in read_lines(worker.acknowledged)
        if what == "start"
    ]

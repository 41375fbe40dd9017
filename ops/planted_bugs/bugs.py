"""The bugs that are planted: for each rule of the commit protocol that closes a hole, the hole.

An edit replaces a text that must occur exactly once in its file, so that a bug fails loudly when
the code has moved on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ["BUGS", "ELSEWHERE", "Bug", "Edit", "Moved", "Simulated", "Tests", "plant"]


@dataclass(frozen=True)
class Edit:
    """A search and a replacement in one file below the repository's root."""

    path: str
    old: str
    new: str


@dataclass(frozen=True)
class Tests:
    """Named tests: what is given to pytest."""

    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Simulated:
    """Seeds of the simulation from 0 on, on a store."""

    store: str
    seeds: int = 400


@dataclass(frozen=True)
class Bug:
    """A hole, the rule that closes it, the edits that open it, and the suites each of which must
    notice.
    """

    name: str
    rule: str
    edits: tuple[Edit, ...]
    suites: tuple[Tests | Simulated, ...]


class Moved(AssertionError):
    """The code that a bug is to be put into is not there any more, or stands there twice."""


def plant(bug: Bug, root: Path) -> None:
    """Put a bug into a copy of the repository.

    Raises:
        Moved: an edit does not fit.
    """
    for edit in bug.edits:
        path = root / edit.path
        text = path.read_text()
        if text.count(edit.old) != 1:
            raise Moved(
                f"{bug.name}: {edit.path} holds this {text.count(edit.old)} times, not once:\n{edit.old}"
            )
        path.write_text(text.replace(edit.old, edit.new))


_STATEMENTS: Final = "orchestra/providers/sqlite/statements.py"
_CONTRACT: Final = "tests/providers/test_sqlite_contract.py"
_POSTGRES_STATEMENTS: Final = "orchestra/providers/postgres/statements.py"
_POSTGRES_CONTRACT: Final = "tests/providers/test_postgres_contract.py"

_DECISION: Final = "orchestra/store/decision.py"

_NO_REVISION: Final = Edit(
    _DECISION,
    "            or (row.incarnation, row.revision) != (write.incarnation, write.revision)\n",
    "            or row.incarnation != write.incarnation\n",
)
_RECOVERY_BY_READING: Final = Edit(_DECISION, "        row.recover()\n", "")

BUGS: Final = (
    Bug(
        "no revision in the fence",
        "1: every write of an owner is conditional on owner and revision, else a delayed one applies after a newer one",
        (
            _NO_REVISION,
            Edit(
                _STATEMENTS,
                "instance_id = ? AND incarnation = ? AND revision = ? AND status = 0 AND owner = ?",
                "instance_id = ? AND incarnation = ? AND ? > 0 AND status = 0 AND owner = ?",
            ),
        ),
        (Tests((_CONTRACT, "-k", "delayed_write or applied_twice")), Simulated("sqlite")),
    ),
    Bug(
        "SELECT instead of a write after a lost reply",
        "9: an unknown outcome is resolved by a write, which fences off the one that is still under way",
        (_RECOVERY_BY_READING,),
        (Tests((_CONTRACT, "-k", "recovery")), Simulated("sqlite")),
    ),
    Bug(
        "park by NOT EXISTS",
        "4: a park looks at numbers (inbox_seq > seen_seq), not at whether the inbox is empty",
        (
            Edit(
                _STATEMENTS,
                "WHEN ? <> 0 THEN NULL WHEN inbox_seq > ? THEN 0 ELSE ? END,",
                "WHEN ? <> 0 THEN NULL WHEN EXISTS (SELECT 1 FROM message m WHERE m.instance_id = instance.instance_id)"
                " AND ? >= 0 THEN 0 ELSE ? END,",
            ),
        ),
        (Tests((_CONTRACT, "-k", "nobody_awaits")), Simulated("sqlite")),
    ),
    Bug(
        "no sweep of ghosts",
        "12: an owner without a living node row is no owner; a claim may commit after the burial of its node",
        (
            Edit(
                "orchestra/engine/membership.py",
                "        if not at_once and moment - self._swept < self._lease:\n",
                "        if not at_once:\n",
            ),
        ),
        (Tests(("tests/engine/test_membership.py", "-k", "ghosts")), Simulated("memory")),
    ),
    Bug(
        "no adoption of forgotten rows",
        "13: a node lists the rows it owns, and adopts what it does not hold",
        (
            Edit(
                "orchestra/engine/ownership.py",
                "            if instance_id not in known:\n                self._unknown.recover(instance_id)\n",
                "            pass\n",
            ),
        ),
        (Tests(("tests/engine", "-k", "forgotten or claim_whose_reply")), Simulated("memory")),
    ),
    Bug(
        "no tombstone",
        "21: removing a message leaves a tombstone, so that sending it again has no effect",
        (
            Edit(
                "orchestra/providers/sqlite/effects.py",
                "    _run(connection, sql.BURY_MESSAGE, [(now, *message) for message in effects.consumed])\n",
                "",
            ),
        ),
        (Tests((_CONTRACT, "-k", "remembered_for_a_window")), Simulated("sqlite")),
    ),
    Bug(
        "a hint without a poll",
        "15 and DESIGN 3.6: wake-ups to other nodes are hints, and polling is the truth",
        (
            Edit(
                "orchestra/engine/cycle.py",
                "            self._engine.look()\n            self._engine.check_tasks()\n",
                "            self._engine.check_tasks()\n",
            ),
        ),
        (Tests(("tests/engine", "-k", "polling_alone")), Simulated("memory")),
    ),
    Bug(
        "cancel as an ordinary message",
        "18: a cancel is a sticky mark that crosses boundaries, not a message that one execution reads",
        (
            Edit(
                "orchestra/engine/owned.py",
                "            cancel=row.cancel,\n",
                "            cancel=row.cancel if row.cancel and row.cancel.at >= snapshot.execution.created_at else None,\n",
            ),
            Edit(
                "orchestra/engine/steps/boundaries.py",
                "    instance.opened = False\n    instance.execution = None\n",
                "    instance.opened = False\n    instance.cancel = None\n    instance.execution = None\n",
            ),
        ),
        (Tests(("tests/engine/test_cancel.py",)), Simulated("memory")),
    ),
    Bug(
        "attempts are not counted over crashes",
        "14: a take-over adds an attempt to each pending activity",
        (
            Edit(
                "orchestra/engine/steps/opening.py",
                "        if instance.takeovers and not activity.running:\n",
                "        if instance.takeovers < 0:\n",
            ),
        ),
        (Tests(("tests/engine/test_activities.py", "-k", "crash")), Simulated("memory")),
    ),
    Bug(
        "a boundary in two transactions",
        "16: the write of a boundary closes one execution and creates the next, all or nothing",
        (
            Edit(
                "orchestra/engine/cycle.py",
                "        commit = store.commit(changes)\n",
                """        whole = [change for change in changes if isinstance(change, Write) and len(change.executions) > 1]
        parts = {
            id(change): replace(
                change,
                executions=change.executions[:1],
                state=replace(
                    change.state,
                    execution=change.executions[0].number,
                    opened=True,
                    owner=change.owner,
                    status=Status.OPEN,
                    wake_at=0,
                ),
                activities=(),
                hold=None,
            )
            for change in whole
        }
        commit = store.commit([parts.get(id(change), change) for change in changes])
        if whole:
            rest = [
                replace(change, executions=change.executions[1:], revision=change.revision + 1, consumed=(), completed=())
                for change in whole
            ]
            ends = dict(zip(map(id, whole), store.commit(rest).outcomes, strict=True))
            outcomes = zip(changes, commit.outcomes, strict=True)
            commit = replace(commit, outcomes=tuple(ends.get(id(change), outcome) for change, outcome in outcomes))
""",
            ),
            Edit(
                "orchestra/engine/cycle.py",
                "from orchestra.store.changes import Change\n",
                "from dataclasses import replace\n\n"
                "from orchestra.store.changes import Change, Write\n"
                "from orchestra.store.kinds import Status\n",
            ),
        ),
        (Tests(("tests/engine/test_commits.py", "-k", "lap")), Simulated("memory")),
    ),
    Bug(
        "timers against the worker's clock",
        "25: a node's idea of the store's time is a lower bound made of the store's replies, not its own wall clock",
        (
            Edit(
                "orchestra/engine/store_time.py",
                "return self._told + int((self._clock.monotonic() - self._heard_at) * 1e6)",
                "return self._clock.now()",
            ),
        ),
        (Tests(("tests/engine/test_clocks.py",)), Simulated("memory")),
    ),
    Bug(
        "a group that is lost when the look at the next claim fails",
        "9: what was stepped is in a group until its outcome is known (found by the simulation)",
        (
            Edit(
                "orchestra/engine/engine.py",
                "        except StoreError as error:  # what was stepped is not lost by that\n"
                "            self._read_error = error\n",
                "        except StoreError:\n            self._in_flight.take_group()\n            raise\n",
            ),
        ),
        (Tests(("tests/engine/test_outage.py", "-k", "stepped")), Simulated("memory")),
    ),
    Bug(
        "a ghost after a lost reply to joining again",
        "11 and 12: a node that was buried goes on under the id that it has joined with (found by the simulation's author)",
        (
            Edit(
                "orchestra/engine/membership.py",
                "        self._join(node)\n        # Only now",
                "        self.node = node\n        self._join(node)\n        # Only now",
            ),
        ),
        (
            Tests(("tests/engine/test_membership.py", "-k", "joining_again")),
            Simulated("memory", seeds=1_000),
        ),
    ),
    Bug(
        "a child that is given up and lives on",
        "20: who gives up a child cancels it",
        (
            Edit(
                "orchestra/engine/steps/stepper.py",
                "        gathered.cancels.extend("
                "child_cancel(instance, event) for event in extras.recalled)\n",
                "",
            ),
        ),
        (Tests(("tests/engine/test_children.py", "-k", "loser_of_a_race")), Simulated("memory")),
    ),
    Bug(
        "a report that is lost on an instance whose code does not return",
        "scenario 30: the engine goes on without code that does not return, and what comes meanwhile is kept",
        (
            Edit(
                "orchestra/engine/ownership.py",
                "                self._postpone_reports(late.turn)\n",
                "",
            ),
        ),
        (
            Tests(("tests/engine/test_blocked_turns.py", "-k", "what_comes_while_it_is_away")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a report is taken from anybody",
        "1: whoever has an activity that was handed out reports under its fence, and nobody else",
        (
            Edit(
                _DECISION,
                "        if (activity.owner, activity.revision) != (report.node, report.revision):\n",
                "        if activity.has_ended:\n",
            ),
        ),
        # Not the simulation: a node that was buried finds that out before it reports, so that
        # hardly a seed meets it.
        (
            Tests((_CONTRACT, "-k", "whoever_has_not_got_it")),
            Tests((_CONTRACT, "-k", "what_is_handed_out_anew")),
        ),
    ),
    Bug(
        "what a dead node ran is never given up",
        "12 and 14: activities that were handed out to a node that has died are lost attempts",
        (
            Edit(
                "orchestra/providers/sqlite/nodes.py",
                "            return len(ghosts) + lose_tasks(connection, now, limit)\n",
                "            return len(ghosts)\n",
            ),
        ),
        (Tests((_CONTRACT, "-k", "what_a_dead_node_had")), Simulated("sqlite")),
    ),
    Bug(
        "to be stopped and given up at once",
        "scenario 59: a compensation begins once the cancelled activity has ended, also on another node",
        (
            Edit(
                "orchestra/engine/attempts.py",
                "        return activity is not None and (activity.running or activity.route is not None)\n",
                "        return activity is not None and activity.running\n",
            ),
        ),
        (Tests(("tests/engine/test_stop_marks.py", "-k", "ends_on_its_node")), Simulated("memory")),
    ),
    Bug(
        "to be stopped and taken from who has it",
        "1: the fence of a node that has taken an activity holds until the node has reported its end",
        (
            Edit(
                _DECISION,
                "            if activity.owner is None:\n"
                "                activity = replace(activity, failure=stop.failure, revision=activity.revision + 1)\n",
                "            activity = replace(activity, owner=None, failure=stop.failure, revision=activity.revision + 1)\n",
            ),
        ),
        (Tests((_CONTRACT, "-k", "goes_on_under_its_fence")), Simulated("sqlite")),
    ),
    Bug(
        "to be stopped and there to be taken",
        "12: what has the stop mark ends with the node that has it, and nobody tries it again",
        (Edit(_STATEMENTS, ' WHERE owner = ? AND stopping = 0"\n', ' WHERE owner = ?"\n'),),
        (
            Tests((_CONTRACT, "-k", "leaves_hands_back")),
            Tests(("tests/engine/test_stop_marks.py", "-k", "stops_in_order")),
        ),
    ),
    Bug(
        "two updates of one row in a statement",
        "7: of two updates of one row in a statement PostgreSQL silently drops one",
        (
            Edit(
                _DECISION,
                "        self._facts.activities[key] = self.decision.reported[key] = activity\n",
                "        reported = self.decision.reported\n"
                "        self._facts.activities[key] = reported[(*key, len(reported))] = activity\n",
            ),
            Edit(
                "orchestra/providers/postgres/effects.py",
                "    reported = [(*report_values(activity), *key) for key, activity in decision.reported.items()]\n"
                "    _add(script, sql.REPORT_ACTIVITIES, sql.REPORTED, reported, counted=True)\n",
                "    reported = [(*report_values(activity), *key[:3]) for key, activity in decision.reported.items()]\n"
                "    if reported:\n"
                "        values = arrays(sql.REPORTED, reported)\n"
                "        script.add(sql.REPORT_ACTIVITIES, *values, len({value[-3:] for value in reported}))\n",
            ),
        ),
        (
            Tests(("tests/providers/test_postgres_contract.py", "-k", "heartbeat_is_stored")),
            Tests(("tests/engine/test_routes.py", "-k", "told_in_one_group and postgres")),
        ),
    ),
    Bug(
        "no revision in the fence, on PostgreSQL",
        "1: every write of an owner is conditional on owner and revision, else a delayed one applies after a newer one",
        (
            _NO_REVISION,
            Edit(
                _POSTGRES_STATEMENTS,
                "t.incarnation = u.fence_incarnation AND t.revision = u.fence_revision\n",
                "t.incarnation = u.fence_incarnation AND u.fence_revision > 0\n",
            ),
        ),
        (
            Tests((_POSTGRES_CONTRACT, "-k", "delayed_write or applied_twice")),
            Simulated("postgres", seeds=60),
        ),
    ),
    Bug(
        "SELECT instead of a write after a lost reply, on PostgreSQL",
        "9: an unknown outcome is resolved by a write, which fences off the one that is still under way",
        (_RECOVERY_BY_READING,),
        (Tests((_POSTGRES_CONTRACT, "-k", "recovery")), Simulated("postgres", seeds=60)),
    ),
    Bug(
        "rows that are read and not locked, on PostgreSQL",
        "7: a group's transaction locks all its rows, and only then reads what its outcomes depend on",
        (
            Edit(
                _POSTGRES_STATEMENTS,
                'WHERE i.instance_id = ANY($1::text[]) ORDER BY i.instance_id FOR UPDATE OF i"""\n',
                'WHERE i.instance_id = ANY($1::text[]) ORDER BY i.instance_id"""\n',
            ),
        ),
        # Hardly the simulation: a row is written only as it was read, so that the group fails, and
        # is put together anew.
        (
            Tests(("tests/providers/test_postgres.py", "-k", "times_of_messages")),
            Tests(("tests/providers/test_postgres.py", "-k", "recovery_waits")),
        ),
    ),
    Bug(
        "no tombstone, on PostgreSQL",
        "21: removing a message leaves a tombstone, so that sending it again has no effect",
        (
            Edit(
                _POSTGRES_STATEMENTS,
                "$4::bigint FROM removed WHERE kind = 0\n",
                "$4::bigint FROM removed WHERE kind < 0\n",
            ),
        ),
        (
            Tests((_POSTGRES_CONTRACT, "-k", "remembered_for_a_window")),
            Simulated("postgres", seeds=60),
        ),
    ),
    Bug(
        "a migration that runs again on replay",
        "27: Started holds the state as it was opened; replay reads it and never migrates again",
        (
            Edit(
                "orchestra/engine/steps/opening.py",
                "            execution.start(state, now, written_by=instance.current.state_version, path=path)\n",
                "            execution.start(\n                instance.current.state, now, written_by=instance.current.state_version, path=path\n            )\n",
            ),
        ),
        (
            Tests(("tests/testing/test_migrations.py", "-k", "passes_one_migration or recorded")),
            Tests(("tests/testing/test_migrations.py", "-k", "death_at_any_commit")),
        ),
    ),
    Bug(
        "a field that the new version does not know is dropped",
        "27: only the opening is strict, and it drops nothing",
        (
            Edit(
                "orchestra/migrations.py",
                "            field = lost_field(state, decoder, value)\n",
                "            field = lost_field(state, decoder, value) and None\n",
            ),
        ),
        (
            Tests(("tests/testing/test_migrations.py", "-k", "strictly and first")),
            Tests(("tests/testing/test_migrations.py", "-k", "strictly and nested")),
        ),
    ),
    Bug(
        "mended migrations that release nothing",
        "27: the fingerprint of a hold at an opening covers the function and all migrations",
        (
            Edit(
                "orchestra/registry.py",
                "        return self.migrating_fingerprint or self.fingerprint\n",
                "        return self.fingerprint\n",
            ),
        ),
        (
            Tests(("tests/testing/test_migrations.py", "-k", "mended")),
            Tests(("tests/core/test_registry.py", "-k", "other_migrations")),
        ),
    ),
    Bug(
        "a policy read as Latest",
        "37: a policy that a library cannot read chooses no version",
        (
            Edit(
                "orchestra/versions.py",
                "    if isinstance(kind, Unknown):\n        return UnknownPolicy(text)\n",
                "    if isinstance(kind, Unknown):\n        return Latest()\n",
            ),
        ),
        (
            Tests(("tests/engine/test_ages.py", "-k", "reads_a_range_as_latest")),
            Tests(("tests/operations/test_retarget.py", "-k", "only_a_newer_library_can_read")),
        ),
    ),
    Bug(
        "a range that goes down",
        "28: no boundary goes down but by an exact version, a pin or the code",
        (
            Edit(
                "orchestra/resolution.py",
                "    elif not isinstance(policy, Exact):\n",
                "    elif isinstance(policy, Latest):\n",
            ),
        ),
        (
            Tests(("tests/engine/test_versions.py", "-k", "range_never_goes_down")),
            Tests(("tests/testing/test_policies.py", "-k", "never_goes_down")),
        ),
    ),
    Bug(
        "a nudge that hits the next lap",
        "40: a nudge means the execution that it names",
        (
            Edit(
                "orchestra/engine/owned.py",
                "        if nudge is None or nudge.execution != self.current.number:\n",
                "        if nudge is None:\n",
            ),
        ),
        (
            Tests(("tests/engine/test_nudges.py", "-k", "sleeps_a_year and memory")),
            Tests(("tests/runtime/test_nudges.py", "-k", "new_version_at_once and asyncio")),
        ),
    ),
    Bug(
        "a nudge that is stored after the boundary",
        "40: a nudge whose execution has ended is dropped",
        (
            Edit(
                "orchestra/store/nudges.py",
                "    if (row.incarnation, row.execution) != (incarnation, execution):\n",
                "    if row.incarnation != incarnation:\n",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "comes_after_the_boundary")),
            Tests((_POSTGRES_CONTRACT, "-k", "comes_after_the_boundary")),
        ),
    ),
    Bug(
        "a patch whose answer changes within an execution",
        "23: the answer for one patch is the same throughout an execution",
        (
            Edit(
                "orchestra/replay/commands.py",
                "        answer = self._patches.get(patch)\n        if answer is None:\n",
                "        answer = self._patches.get(patch)\n        if not answer:\n",
            ),
        ),
        (
            Tests(("tests/core/test_patches.py", "-k", "began_without_the_mark")),
            Tests(("tests/engine/test_patches.py", "-k", "comes_there_again and memory")),
        ),
    ),
    Bug(
        "a policy that overwrites what another operator has set",
        "28: a change that expects another revision is refused",
        (
            Edit(
                "orchestra/store/policies.py",
                "        if self.expected_revision in {None, revision}:\n",
                "        if self.expected_revision in {None, revision, revision - 1}:\n",
            ),
        ),
        (
            Tests(("tests/providers/test_sqlite_contract.py", "-k", "expected_revision")),
            Tests(("tests/testing/test_policies.py", "-k", "told_of_the_first")),
        ),
    ),
    Bug(
        "a bulk act that is applied twice",
        "6: an operator's act is conditional, so that a job that was cut off can be run again",
        (
            Edit(
                "orchestra/operations/bulk.py",
                "order.reason, unless_same=True)\n",
                "order.reason, unless_same=False)\n",
            ),
        ),
        (
            Tests(("tests/runtime/test_bulk.py", "-k", "each_act_is_done_once and asyncio")),
            Tests(("tests/runtime/test_bulk.py", "-k", "two_jobs_at_once and asyncio")),
        ),
    ),
    Bug(
        "a rewind that loses the inbox",
        "31: what was read since the boundary is unread again after a rewind",
        (
            Edit(
                "orchestra/operations/rewind.py",
                "            restored=inbox.restored,\n            uncancels=True,\n",
                "            uncancels=True,\n",
            ),
        ),
        (
            Tests(("tests/testing/test_control_crashes.py", "-k", "runs_or_is_held")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a rewind that puts back what is unread",
        "31: a second rewind leaves unread what the first one has put back (found by the simulation's author)",
        (
            Edit(
                "orchestra/operations/rewind.py",
                "    if record.status is Status.OPEN and any(row.request_id is not None for row in rows[1:]):\n",
                "    if not rows:\n",
            ),
        ),
        (Tests(("tests/runtime/test_control.py", "-k", "second_rewind")), Simulated("memory")),
    ),
    Bug(
        "a rewind that leads back and reads twice",
        "31: an earlier rewind has put back what the state of an execution that it undid had read",
        (
            Edit(
                "orchestra/operations/rewind.py",
                "        read = read_by(way, begun)\n",
                "",
            ),
        ),
        (
            Tests(("tests/engine/test_rewinds_and_holds.py", "-k", "undone and memory")),
            Tests(("tests/engine/test_rewinds_and_holds.py", "-k", "any_order and memory")),
        ),
    ),
    Bug(
        "a release that forgets a due timer",
        "32: a release restores the wake time",
        (
            Edit(
                "orchestra/store/hot_row.py",
                "        self.wake_at = self.wake_at or 0\n        self.updated_at = now\n\n    def begin_again",
                "        self.wake_at = None if self.wake_at else 0\n        self.updated_at = now\n\n    def begin_again",
            ),
        ),
        (Tests((_CONTRACT, "-k", "restores_the_wake_time")), Simulated("memory")),
    ),
    Bug(
        "a hold that new code releases",
        "32: only an operator's release ends an operator's hold",
        (
            Edit(
                _DECISION,
                "            or not row.held\n            or row.paused\n",
                "            or not row.held\n",
            ),
            Edit(
                "orchestra/store/hot_row.py",
                "        self.revision += 1\n        self.held = False\n        self.wake_at = 0\n",
                "        self.revision += 1\n        self.held = self.paused = False\n        self.wake_at = 0\n",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "new_code_does_not_end_it")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "new_code_does_not_end_it")),
        ),
    ),
    Bug(
        "a hold that leaves activities with their nodes",
        "32: handed-out tries are revoked, also where their node reports in the same group (found by the simulation's author)",
        (
            Edit(
                _DECISION,
                "        if key in self.decision.reported:\n            self.decision.reported[key] = activity\n",
                "",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "heartbeat_in_the_same_group")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "heartbeat_in_the_same_group")),
        ),
    ),
    Bug(
        "a restart that forgets the former request id",
        "31: request ids of earlier lives are remembered, so that a repeated start begins nothing twice",
        (
            Edit(
                _DECISION,
                "            *facts.former_requests.get(instance_id, ()),\n",
                "",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "repeated_request_has_no_effect")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "the end of a child is told as that of its next life",
        "20: a child's end reaches the execution that asked for it, and no other (found by the simulation)",
        (
            Edit(
                _DECISION,
                "self._former_links.get(life, self._facts.links.get(write.instance_id))",
                "self._facts.links.get(write.instance_id)",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "not_told_as_that_of_its_next_life")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "not_told_as_that_of_its")),
        ),
    ),
    Bug(
        "a stale fingerprint of a chain",
        "27: the fingerprint of a hold at an opening covers every migration of the chain",
        (
            Edit(
                "orchestra/migrations.py",
                "        for version in sorted(self.by_version, key=version_key):\n            migration",
                "        for version in sorted(self.by_version, key=version_key)[:1]:\n            migration",
            ),
        ),
        (
            Tests(("tests/testing/test_migrations.py", "-k", "second_of_a_chain")),
            Tests(("tests/core/test_registry.py", "-k", "each_migration_of_a_chain")),
        ),
    ),
    Bug(
        "a version that its recorded policy does not explain",
        "28: what floats up while it waits records the revision that has chosen (found by the simulation)",
        (
            Edit(
                "orchestra/engine/steps/opening.py",
                "Resolution(ResolvedBy.POLICY, self.node_id, revision)",
                "Resolution(ResolvedBy.POLICY, self.node_id, resolution.policy_revision)",
            ),
        ),
        (
            Tests(("tests/engine/test_versions.py", "-k", "records_the_policy_that_has_chosen")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "lives whose laps are never deleted",
        "I3: retention deletes the laps of what is begun again, too (found by the simulation)",
        (
            Edit(
                "orchestra/engine/steps/stepper.py",
                "    return 1 if begun else current.number\n",
                "    return 1 if begun < 0 else current.number\n",
            ),
        ),
        (Tests(("tests/engine/test_retention.py", "-k", "begun_again")), Simulated("memory")),
    ),
    Bug(
        "a tick without a fence",
        "35: a tick is conditional on the revision of its schedule",
        (
            Edit(
                "orchestra/store/schedule_writes.py",
                "    if standing.revision != write.revision or (\n",
                "    if bool(standing.revision) != bool(write.revision) or (\n",
            ),
        ),
        (
            Tests(("tests/providers/test_memory_contract.py", "-k", "two_nodes_tick_one_slot")),
            Tests((_CONTRACT, "-k", "two_nodes_tick_one_slot")),
        ),
    ),
    Bug(
        "the id of a run without its slot",
        "I14: the id of a run is made of the schedule and the slot",
        (
            Edit(
                "orchestra/schedules/schedule.py",
                "    return f\"{schedule_id}/{text}Z{'/trigger' if is_trigger else ''}\"\n",
                "    return f\"{schedule_id}/{text[:4]}Z{'/trigger' if is_trigger else ''}\"\n",
            ),
        ),
        (
            Tests(("tests/testing/test_schedules.py", "-m", "not slow", "-k", "of_a_month")),
            Tests(("tests/schedules/test_ticks.py",)),
        ),
    ),
    Bug(
        "a refused start that counts as fired",
        "35: outcomes are written with what they tell of; the cursor moves by evaluation",
        (
            Edit(
                "orchestra/store/schedule_writes.py",
                "        return _failed(act.slot, reason)\n",
                "        return act.slot\n",
            ),
        ),
        (
            Tests(("tests/providers/test_memory_contract.py", "-k", "another_instance_has_fails")),
            Tests((_CONTRACT, "-k", "another_instance_has_fails")),
        ),
    ),
    Bug(
        "slots that a tick forgets",
        "35: each slot that is evaluated has one outcome, in the write that moves the cursor",
        (
            Edit(
                "orchestra/operations/scheduling.py",
                "            slots.append(_slot_row(outcome, None))\n",
                "            continue\n",
            ),
        ),
        (
            Tests(("tests/testing/test_schedules.py", "-m", "not slow", "-k", "downtime")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "an activity of a lost session is tried elsewhere",
        "what belongs to a session runs on its node alone; with the node it is lost, and never an attempt",
        (
            Edit(
                "orchestra/engine/attempts.py",
                "        if self.node is not None and failure.error.type == _NODE_LOST.type:\n",
                "        if self.node is None and failure.error.type == SESSION_LOST:\n",
            ),
            Edit(
                "orchestra/engine/placement.py",
                "                self._session_nodes.add(node)\n                return True\n",
                "                return node in self._living\n",
            ),
            Edit(
                "orchestra/engine/steps/stepper.py",
                "            if event.queue is not None and self._placement.has_lost(route, event.at):\n",
                "            if event.queue is None and self._placement.has_lost(route, event.at):\n",
            ),
        ),
        (
            Tests(("tests/engine/test_sessions.py", "-m", "not slow", "-k", "lost or loses")),
            Tests(("tests/runtime/test_sessions.py", "-k", "sqlite and killed_node")),
        ),
    ),
    Bug(
        "what waits for a node that is gone waits for ever",
        "12: an activity that only a dead node may take is lost, taken or not",
        (
            Edit(
                "orchestra/providers/sqlite/tasks.py",
                "    lost += connection.execute(sql.FIND_ABANDONED_TASKS, (limit,)).fetchall()\n",
                "",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "node_that_is_gone")),
            Tests(("tests/engine/test_sessions.py", "-k", "sqlite and not_taken")),
        ),
    ),
    Bug(
        "a receipt outlives its execution",
        "I9: what answers commands of an execution is deleted with it",
        (
            Edit(
                "orchestra/store/effects.py",
                "drops = drops or delta.receipts or delta.children or",
                "drops = drops or delta.children or",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "unread_receipts")),
            Tests(("tests/engine/test_sends.py", "-k", "sqlite and leaves_no_row")),
        ),
    ),
    Bug(
        "a send without a receipt",
        "the sender learns in the same transaction what became of what it has sent",
        (
            Edit(
                "orchestra/store/decision.py",
                "        is_told = self._tell(send.sender, message.instance_id, kind, payload, None, "
                "arrivals)\n",
                "        is_told = True\n",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "receipt")),
            Tests(("tests/engine/test_sends.py", "-k", "sqlite and without_polling")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a stopping node takes sessions",
        "a node that stops takes no new session: it would be lost with the next deploy",
        (
            Edit(
                "orchestra/engine/claims.py",
                "            plain, sessions = (), ()\n",
                "            plain = ()\n",
            ),
            Edit(
                "orchestra/engine/sessions.py",
                "        if self.are_refused:\n            return 0\n",
                "",
            ),
        ),
        (
            Tests(("tests/engine/test_sessions.py", "-k", "memory and stops_takes_no_session_and")),
            Tests(("tests/engine/test_sessions.py", "-k", "sqlite and stops_takes_no_session_of")),
        ),
    ),
    Bug(
        "a second answer replaces the first",
        "33: the first answer wins",
        (
            Edit(
                _STATEMENTS,
                'update("request", tables.ANSWER, _REQUEST_ID) + " AND answered_at IS NULL"',
                'update("request", tables.ANSWER, _REQUEST_ID)',
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "first_answer_wins")),
            Tests((_CONTRACT, "-k", "does_what_the_model_does")),
        ),
    ),
    Bug(
        "a second answer replaces the first on PostgreSQL",
        "33: the first answer wins",
        (
            Edit(
                _POSTGRES_STATEMENTS,
                "r.request_id = u.request_id AND r.answered_at IS NULL",
                "r.request_id = u.request_id",
            ),
        ),
        (
            Tests((_POSTGRES_CONTRACT, "-k", "first_answer_wins")),
            Tests((_POSTGRES_CONTRACT, "-k", "does_what_the_model_does")),
        ),
    ),
    Bug(
        "a request leaves the inbox when it is received",
        "33: a request that was received and not answered is received again in the next lap",
        (
            Edit(
                "orchestra/replay/inputs.py",
                "    gathered.received.append(message)\n    return RequestReceived(",
                "    gathered.received.append(message)\n"
                "    gathered.consumed.append(message.sequence)\n    return RequestReceived(",
            ),
        ),
        (
            Tests(("tests/testing/test_requests.py", "-k", "received_again")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "an answer is stored with a later turn",
        "33: the answer is in the write of the turn",
        (
            Edit(
                "orchestra/engine/steps/stepper.py",
                "            gathered.answers.extend(answers)\n",
                "            late = self.__dict__.setdefault('late', {})\n"
                "            gathered.answers.extend(late.pop(instance.instance_id, ()))\n"
                "            late[instance.instance_id] = answers\n",
            ),
        ),
        (
            Tests(("tests/testing/test_requests.py", "-k", "every_crash")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a lap hands on a request that it has answered",
        "33: each request is answered once, also where a node has loaded the lap (found by the simulation)",
        (
            Edit(
                "orchestra/engine/steps/boundaries.py",
                "end_lap(commands.received_requests, commands.in_hand)",
                "end_lap({}, commands.in_hand)",
            ),
        ),
        (
            Tests(("tests/testing/test_requests.py", "-k", "leaves_nothing_of_the_request")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a request that is asked again is another one",
        "33: the row of a request is its dedup, while it is open and for the window after",
        (
            Edit(
                _DECISION,
                "asked = self._facts.asked.get(Address(append.instance_id, append.message_id))\n",
                "asked = None\n",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "same_request_gets")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a background child tells only the lap that has started it",
        "20: the end of a background child goes to the life of the instance, in whichever execution it is",
        (
            Edit(
                _DECISION,
                "            or (status is None and row.execution != parent.execution)\n",
                "            or row.execution != parent.execution\n",
            ),
        ),
        (
            # Not the loop that awaits such a child: it reads the child's row where no message comes.
            Tests((_CONTRACT, "-k", "also_in_a_later_lap")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "also_in_a_later_lap")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "items of a lost reply are stored twice",
        "34: a change of items that was committed stores nothing when it comes once more",
        (
            Edit(
                _DECISION,
                "if item.number > known])",
                "])",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "items_whose_reply_was_lost")),
            Simulated("memory"),
        ),
    ),
    Bug(
        "a node that has lost the instance publishes for its attempt",
        "34: items of an attempt go under the fence of the instance's owner",
        (
            Edit(
                _DECISION,
                "        if row.owner != publish.node:\n            return False\n",
                "",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "former_owner_or_lap")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "former_owner_or_lap")),
        ),
    ),
    Bug(
        "a step without its row",
        "I9: the steps of an activity go with its row, which is made in the write of the first step",
        (
            Edit(
                _DECISION,
                "                self._keep_steps(publish.steps, attempt.activity)\n",
                "                pass\n",
            ),
        ),
        (Tests((_CONTRACT, "-k", "first_step")), Simulated("memory")),
    ),
    Bug(
        "a late step begins a journal",
        "I9: a first step that comes late, or again, is refused where its activity may have ended",
        (
            Edit(
                _DECISION,
                "            return publish.steps is None or publish.steps.revision == row.revision\n",
                "            return True\n",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "first_step")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "first_step")),
        ),
    ),
    Bug(
        "a refused start that runs",
        "15: the first turn in a start's group names the life that the start would make, and is refused with the start",
        (
            Edit(
                _DECISION,
                "            or (row.incarnation, row.revision) != (write.incarnation, write.revision)\n",
                "            or row.revision != write.revision\n",
            ),
            Edit(
                "orchestra/store/facts.py",
                "                and begun.get(change.instance_id) == change.incarnation\n",
                "                and not begun\n",
            ),
        ),
        (
            Tests((_CONTRACT, "-k", "turn_of_a_refused_start")),
            Tests(("tests/providers/test_memory_contract.py", "-k", "turn_of_a_refused_start")),
        ),
    ),
    Bug(
        "a turn that is written twice",
        "15: a node takes no start under an id of which it has anything, so that a repeated start makes no second turn",
        (
            Edit(
                "orchestra/engine/local_starts.py",
                "            and self._ownership.has_nothing_of(start.instance_id)\n",
                "",
            ),
        ),
        (
            Tests(("tests/engine/test_local_starts.py", "-k", "leaves_that_alone and memory")),
            Tests(("tests/engine/test_local_starts.py", "-k", "leaves_that_alone and sqlite")),
        ),
    ),
    Bug(
        "a start that is sent again for an owner",
        "15: a start whose reply was lost is sent again for nobody, as its first turn is not sent again",
        (
            Edit(
                "orchestra/engine/in_flight.py",
                "        sent.unknown += 1\n        _disown(sent)\n",
                "        sent.unknown += 1\n",
            ),
        ),
        (
            Tests(("tests/engine/test_local_starts.py", "-k", "reply_to_both and memory")),
            Tests(("tests/engine/test_local_starts.py", "-k", "reply_to_both and sqlite")),
        ),
    ),
    Bug(
        "a sealed value bound to no place",
        "36: what is authenticated with a value holds its place, so that a moved value does not open",
        (
            Edit(
                "orchestra/payloads/pipeline.py",
                '    return head[:4] + b"\\0" + head[5:HEADER] + place.name\n',
                '    return head[:4] + b"\\0" + head[5:HEADER]\n',
            ),
        ),
        (
            Tests(("tests/payloads/test_transforms.py", "-k", "another_place")),
            Tests(("tests/payloads/test_sealed_instances.py", "-k", "within_one_instance")),
        ),
    ),
    Bug(
        "a boundary goes on with the old key",
        "36: a loop writes its state anew each lap, so that a new key is in use everywhere after a boundary",
        (
            Edit(
                "orchestra/payloads/pipeline.py",
                "            ring = encrypt.keys.ring\n            head = _header(",
                '            ring = self._first = getattr(self, "_first", encrypt.keys.ring)\n            head = _header(',
            ),
        ),
        (
            Tests(("tests/payloads/test_sealed_instances.py", "-k", "new_key_is_in_use")),
            Tests(
                ("tests/payloads/test_keys_in_use.py", "-k", "needs_the_old_key_no_more and memory")
            ),
        ),
    ),
)

ELSEWHERE: Final[dict[str, str]] = {}
"""Planted bugs of the protocol that have no place in this code."""

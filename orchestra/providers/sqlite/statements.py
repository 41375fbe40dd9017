"""Every SQL statement of the provider, by name.

All are constants, so the connection's statement cache always hits. Values are parameters only
(I15). Parameters are positional; each statement is executed in one place.
"""

from __future__ import annotations

from typing import Final

from orchestra.providers.sqlite.rendering import insert, update
from orchestra.store import tables
from orchestra.store.executions import (
    FAMILY_SCANNED,
    GOES_WITH_LAP,
    MARKED_AT_ONCE,
    PRUNED_AT_ONCE,
)
from orchestra.store.instances import CRASHES_BEFORE_DELAY, LONGEST_DELAY
from orchestra.store.messages import KEPT_ASIDE, NAMES_SHOWN
from orchestra.store.routes import NODE_QUEUES
from orchestra.store.schedules import KEPT_SLOTS, TRIGGERED
from orchestra.store.streams import AT_ONCE
from orchestra.store.tables import Columns

# --- columns ----------------------------------------------------------------------------------

EXECUTION_COLUMNS: Final = tables.EXECUTION.without("instance_id", "version_key").listed("x")

INSTANCE_COLUMNS: Final = """
    i.instance_id, i.incarnation, i.revision, i.owner, i.wake_at, i.inbox_seq, i.seen_seq, i.execution, i.opened,
    i.takeovers, i.history_events, i.history_bytes, i.cancel_at, i.cancel_reason, i.cancel_by, i.cancel_terminate,
    d.pin, d.hold, d.traceparent, d.parent_id, d.parent_incarnation, d.parent_execution, d.parent_event, d.root_id,
    i.paused, i.boundary_due, i.not_before, d.operator_hold, d.nudge"""

KIND_COLUMNS: Final = "k.queue, k.name, k.version, k.format, k.floating, k.level"

_EVENT_COLUMNS: Final = tables.EVENT.without("instance_id", "execution").listed()
_MESSAGE_COLUMNS: Final = tables.MESSAGE.without("instance_id").listed()
_ACTIVITY_ID: Final = tables.ACTIVITY.only("instance_id", "execution", "event_id")
_ACTIVITY_COLUMNS: Final = Columns(
    (*tables.ACTIVITY.without("instance_id"), *tables.ACTIVITY_FENCE)
).listed()

# --- transactions -----------------------------------------------------------------------------

BEGIN_WRITE: Final = "BEGIN IMMEDIATE"
BEGIN_READ: Final = "BEGIN"
COMMIT: Final = "COMMIT"
ROLLBACK: Final = "ROLLBACK"
DATA_VERSION: Final = "PRAGMA data_version"
EMPTY_LOG: Final = "PRAGMA wal_checkpoint(TRUNCATE)"

# --- schema -----------------------------------------------------------------------------------

TABLES: Final = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
READ_SCHEMA: Final = "SELECT value FROM meta WHERE key = 'schema'"
READ_META: Final = "SELECT key, value FROM meta"
READ_LEVELS: Final = """
    SELECT CAST(w.value AS INTEGER), CAST(l.value AS INTEGER) FROM meta w JOIN meta l ON l.key = 'lowest_reader'
    WHERE w.key = 'write_level'"""
SET_META: Final = (
    "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = "
    "excluded.value"
)
ADD_META: Final = "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO NOTHING"

# --- kinds ------------------------------------------------------------------------------------

FIND_KIND: Final = """
    SELECT kind_id FROM kind WHERE name = ? AND version = ? AND queue = ? AND format = ? AND floating = ? AND level = ?"""
ADD_KIND: Final = """
    INSERT INTO kind (name, version, queue, format, floating, level) VALUES (?, ?, ?, ?, ?, ?) RETURNING kind_id"""
LIST_KINDS: Final = f"SELECT {KIND_COLUMNS} FROM kind k ORDER BY k.kind_id"

# --- owners' writes of plain groups, on trust: what HotRow.write does to a row that is not read fir

_OWNED: Final = "instance_id = ? AND incarnation = ? AND revision = ? AND status = 0 AND owner = ?"
_PROGRESS: Final = (
    "execution = ?, opened = ?, history_events = ?, history_bytes = ?, summary = ?, updated_at = ?"
)
# wake_at: a message that the turn has not seen makes the instance ready, even if the turn would
# park it (rule 4).
WRITE_AS_OWNER: Final = f"""
    UPDATE instance SET
        revision = revision + 1, kind = ?, owner = ?, status = ?, held = ?, takeovers = ?, boundary_due = ?,
        wake_at = CASE WHEN ? <> 0 THEN NULL WHEN inbox_seq > ? THEN 0 ELSE ? END,
        seen_seq = ?, {_PROGRESS}
    WHERE {_OWNED}
    RETURNING inbox_seq"""
# The common writes, which leave all other columns as they are: the owner stays, or the instance ends.
# They name few columns, so that SQLite touches few indexes and runs few triggers, and they return
# nothing, which costs a table of its own. They do nothing to an instance that changes otherwise or has
# unseen messages: then WRITE_AS_OWNER follows.
_UNCHANGED: Final = (
    "kind = ? AND takeovers = ? AND boundary_due IS ? AND held = 0 AND inbox_seq = ?"
)
WRITE_AND_KEEP: Final = f"""
    UPDATE instance SET revision = revision + 1, wake_at = ?, seen_seq = ?, {_PROGRESS}
    WHERE {_OWNED} AND {_UNCHANGED}"""
WRITE_END: Final = f"""
    UPDATE instance SET revision = revision + 1, owner = NULL, wake_at = NULL, status = ?, seen_seq = ?, {_PROGRESS}
    WHERE {_OWNED} AND {_UNCHANGED}"""

# --- writing a decision -------------------------------------------------------------------------

_FENCED: Final = tables.HOT_ROW.only("instance_id", "revision")
_SUMMARY: Final = "summary = coalesce(?, summary)"
WRITE_ROW: Final = update("instance", tables.WRITTEN_ROW, _FENCED).replace(
    " WHERE", f", {_SUMMARY} WHERE"
)
RING_ROW: Final = update(
    "instance",
    tables.HOT_ROW.only("inbox_seq", "wake_at", "updated_at", "most_unread", "most_unread_bytes"),
    _FENCED,
)
MARK_CANCELLED: Final = update("instance", tables.CANCEL_MARK, tables.HOT_ROW.only("instance_id"))

# An ended instance begins again. Its hot row is written by the group.
RENEW_INSTANCE: Final = """
    UPDATE instance SET incarnation = ?, not_before = ?, created_at = ?, expires_at = NULL WHERE instance_id = ?"""
REMOVE_DETAIL: Final = "DELETE FROM instance_detail WHERE instance_id = ?"
REMOVE_LABELS: Final = "DELETE FROM label WHERE instance_id = ?"

SET_OPERATOR_HOLD: Final = "UPDATE instance_detail SET operator_hold = ? WHERE instance_id = ?"
# What has a stop mark goes on under its fence: its instance waits for its end.
SUSPEND_ACTIVITIES: Final = """
    UPDATE activity SET owner = NULL, revision = revision + 1, paused = 1
    WHERE instance_id = ? AND queue IS NOT NULL AND result IS NULL AND failure IS NULL AND stopping = 0"""
RESUME_ACTIVITIES: Final = "UPDATE activity SET paused = 0 WHERE instance_id = ? AND paused = 1"

ADD_EXECUTION: Final = insert("execution", tables.EXECUTION)
_IS_OPEN: Final = " AND closed_at IS NULL"
OPEN_EXECUTION: Final = (
    update("execution", tables.OPENING, tables.EXECUTION_ID) + " AND opened_at IS NULL" + _IS_OPEN
)
CLOSE_EXECUTION: Final = update("execution", tables.CLOSING, tables.EXECUTION_ID) + _IS_OPEN
SET_PATCHES: Final = update("execution", tables.PATCHED, tables.EXECUTION_ID)
ADD_EVENT: Final = insert("event", tables.EVENT)

# The former node of the attempt has lost it: its fence does not hold.
_REPLACED: Final = ", ".join(
    f"{name} = excluded.{name}" for name in tables.ACTIVITY.without(*_ACTIVITY_ID.names).names
)
PUT_ACTIVITY: Final = f"""
    {insert("activity", tables.ACTIVITY)}
    ON CONFLICT ({_ACTIVITY_ID.listed()}) DO UPDATE SET {_REPLACED}, revision = revision + 1"""
REPORT_ACTIVITY: Final = update("activity", tables.REPORT, _ACTIVITY_ID)
SETTLE_ACTIVITY: Final = (
    "DELETE FROM activity WHERE instance_id = ? AND execution = ? AND event_id = ?"
)
FORGET_ACTIVITIES: Final = "DELETE FROM activity WHERE instance_id = ?"

# OR REPLACE: the same id may have been sent again after its first tombstone expired.
BURY_MESSAGE: Final = """
    INSERT OR REPLACE INTO tombstone (instance_id, message_id, sequence, removed_at)
    SELECT instance_id, message_id, sequence, ? FROM message WHERE instance_id = ? AND sequence = ? AND kind = 0"""
_ASIDE: Final = tables.SET_ASIDE.without("reason", "set_aside_at").listed()
# OR REPLACE: a library that did not know the table may have left a row of an earlier instance.
SET_ASIDE: Final = f"""
    INSERT OR REPLACE INTO set_aside ({_ASIDE}, reason, set_aside_at)
    SELECT {_ASIDE}, ?, ? FROM message WHERE instance_id = ? AND sequence = ? AND kind = 0"""
# The newest stay, and at least one.
PRUNE_ASIDE: Final = f"""
    DELETE FROM set_aside WHERE instance_id = ?1 AND sequence IN (
        SELECT a.sequence FROM (
            SELECT sequence, row_number() OVER newest AS place, sum(length(payload)) OVER newest AS total
            FROM set_aside WHERE instance_id = ?1 WINDOW newest AS (ORDER BY sequence DESC)) AS a
        WHERE a.place > {KEPT_ASIDE.messages} OR (a.place > 1 AND a.total > {KEPT_ASIDE.bytes}))"""
REMOVE_ASIDE: Final = "DELETE FROM set_aside WHERE instance_id = ? AND sequence = ?"
EMPTY_ASIDE: Final = "DELETE FROM set_aside WHERE instance_id = ?"
REMOVE_MESSAGE: Final = "DELETE FROM message WHERE instance_id = ? AND sequence = ?"
EMPTY_INBOX: Final = "DELETE FROM message WHERE instance_id = ?"
# Only the known kinds of children's ends: rows of a newer library stay for it.
DROP_REPORTS: Final = """
    DELETE FROM message INDEXED BY message_report
    WHERE instance_id = ? AND kind <> 0 AND source > 0 AND kind IN (SELECT value FROM json_each(?))"""
PRUNE_TOMBSTONES: Final = """
    DELETE FROM tombstone WHERE (instance_id, message_id) IN (
        SELECT instance_id, message_id FROM tombstone WHERE removed_at <= ? ORDER BY removed_at LIMIT ?)"""

# --- requests. OR REPLACE: the answer of the former one was given longer ago than the window.
ADD_REQUEST: Final = insert("request", tables.REQUEST).replace(
    "INSERT INTO", "INSERT OR REPLACE INTO"
)
_REQUEST_ID: Final = tables.REQUEST.only("instance_id", "request_id")
# The first answer wins.
ANSWER_REQUEST: Final = update("request", tables.ANSWER, _REQUEST_ID) + " AND answered_at IS NULL"
REMOVE_REQUEST: Final = "DELETE FROM message WHERE instance_id = ? AND sequence = ? AND kind = 5"
# What an ended life has left open is never answered.
CLOSE_REQUESTS: Final = (
    "UPDATE request SET answered_at = ? WHERE instance_id = ? AND answered_at IS NULL"
)
PRUNE_REQUESTS: Final = """
    DELETE FROM request WHERE (instance_id, request_id) IN (
        SELECT instance_id, request_id FROM request WHERE answered_at <= ? ORDER BY answered_at LIMIT ?)"""
_ASKED: Final = Columns((*tables.REQUEST.without("instance_id"), *tables.ANSWER))
READ_REQUEST_ROW: Final = f"""
    SELECT {_ASKED.listed()} FROM request WHERE instance_id = ? AND request_id = ?"""
READ_REQUEST_STATE: Final = f"""
    SELECT i.status IS NOT NULL AND i.status = 0 AND i.incarnation = r.incarnation, {_ASKED.listed("r")}
    FROM request r LEFT JOIN instance i ON i.instance_id = r.instance_id WHERE r.instance_id = ? AND r.request_id = ?"""

SET_CUSTOM_STATUS: Final = """
    UPDATE instance_detail SET custom_status = ?, custom_status_encoding = ? WHERE instance_id = ?"""
SET_HOLD: Final = "UPDATE instance_detail SET hold = ? WHERE instance_id = ?"
COUNT_UNREAD_BY_NAME: Final = """
    SELECT kind, name, count(*) FROM message WHERE instance_id = ?1 GROUP BY kind, name
    UNION ALL SELECT 0, name, count(*) FROM set_aside WHERE instance_id = ?1 GROUP BY name"""
SET_UNREAD_AT_END: Final = "UPDATE instance_detail SET unread_at_end = ? WHERE instance_id = ?"

# From the oldest on, so that it reads only the rows to delete, and one more. It deletes a part of a
# long backlog.
FIND_KEPT: Final = f"""
    SELECT execution FROM execution WHERE instance_id = ? AND (
        execution >= ? OR closed_at IS NULL OR closed_at > ?
        OR execution >= (SELECT min(x.execution) FROM execution x WHERE x.instance_id = ?) + {PRUNED_AT_ONCE})
    ORDER BY execution LIMIT 1"""
PRUNE_EVENTS: Final = f"""
    DELETE FROM event WHERE instance_id = ? AND execution <= min(
        ?, (SELECT min(e.execution) FROM event e WHERE e.instance_id = ?) + {PRUNED_AT_ONCE - 1})"""
PRUNE_EXECUTIONS: Final = f"""
    DELETE FROM execution WHERE instance_id = ? AND execution <= min(
        ?, (SELECT min(x.execution) FROM execution x WHERE x.instance_id = ?) + {PRUNED_AT_ONCE - 1})"""

# Ended ones whose laps have no row, of this life.
LET_CHILDREN_GO: Final = f"""
    UPDATE instance SET expires_at = {GOES_WITH_LAP} WHERE instance_id IN (
        SELECT i.instance_id FROM (
            SELECT d.instance_id, d.parent_execution FROM instance_detail d
            WHERE d.parent_id = ?1 AND d.parent_execution >= ?2
                AND d.parent_execution < (SELECT min(x.execution) FROM execution x WHERE x.instance_id = ?1)
                AND d.parent_incarnation = (SELECT p.incarnation FROM instance p WHERE p.instance_id = ?1)
            ORDER BY d.parent_execution, d.instance_id LIMIT {FAMILY_SCANNED}) AS c
        JOIN instance i ON i.instance_id = c.instance_id
        WHERE i.status <> 0 AND (i.expires_at IS NULL OR i.expires_at > {GOES_WITH_LAP})
        ORDER BY c.parent_execution, i.instance_id LIMIT ?3)"""
# The ended children of an instance that goes with its lap.
LET_FAMILY_GO: Final = f"""
    UPDATE instance SET expires_at = {GOES_WITH_LAP} WHERE instance_id IN (
        SELECT i.instance_id FROM instance_detail d JOIN instance i ON i.instance_id = d.instance_id
        WHERE d.parent_id = ?1 AND d.parent_incarnation = ?2 AND i.status <> 0
            AND (i.expires_at IS NULL OR i.expires_at > {GOES_WITH_LAP})
        ORDER BY i.instance_id LIMIT {MARKED_AT_ONCE})"""
ANY_EXPIRY: Final = "SELECT 1 FROM expiry LIMIT 1"
SET_EXPIRES_AT: Final = """
    UPDATE instance SET expires_at = ? + (
        SELECT e.after FROM kind k JOIN expiry e ON e.name = k.name WHERE k.kind_id = instance.kind)
    WHERE instance_id = ? AND status <> 0"""

# --- the facts of a group -------------------------------------------------------------

ADD_INSTANCE: Final = f"""
    INSERT INTO instance ({tables.HOT_ROW.listed()}, created_at, summary)
    VALUES ({"?, " * len(tables.HOT_ROW)}?, ?)"""
ADD_DETAIL: Final = insert("instance_detail", tables.DETAIL)
ADD_LABEL: Final = insert("label", tables.LABEL)
SET_LABEL: Final = f"""
    {ADD_LABEL} ON CONFLICT (instance_id, key) DO UPDATE SET value = excluded.value"""
REMOVE_LABEL: Final = "DELETE FROM label WHERE instance_id = ? AND key = ?"
COUNT_LABEL: Final = (
    "SELECT count(*) FROM (SELECT 1 FROM label WHERE key = ? AND value = ? LIMIT ?)"
)
LIST_LABELS: Final = "SELECT key, value FROM label WHERE instance_id = ?"
READ_REQUEST: Final = "SELECT request_id FROM instance_detail WHERE instance_id = ?"
READ_FORMER_REQUESTS: Final = (
    "SELECT request_id FROM execution WHERE instance_id = ? AND request_id IS NOT NULL"
)
READ_ROW: Final = f"SELECT {tables.HOT_ROW.listed()} FROM instance WHERE instance_id = ?"

# Whether an append's message waits unread, with its columns, and whether it was removed.
FIND_ADDRESSEE: Final = f"""
    SELECT m.sequence IS NOT NULL, {tables.MESSAGE.without("instance_id").listed("m")}, t.sequence, t.removed_at
    FROM (SELECT ? AS instance_id, ? AS message_id) a
    LEFT JOIN message m ON m.instance_id = a.instance_id AND m.message_id = a.message_id AND m.kind = 0
    LEFT JOIN tombstone t ON t.instance_id = a.instance_id AND t.message_id = a.message_id
    WHERE m.sequence IS NOT NULL OR t.sequence IS NOT NULL"""
COUNT_UNREAD: Final = """
    SELECT count(*), coalesce(sum(length(payload)), 0) FROM message NOT INDEXED WHERE instance_id = ? AND kind IN (0, 5)"""
COUNT_NAME: Final = """
    SELECT count(*), coalesce(sum(size), 0) FROM (
        SELECT length(payload) AS size FROM message INDEXED BY message_name WHERE instance_id = ?1 AND kind = 0 AND name = ?2
        UNION ALL
        SELECT length(payload) FROM message INDEXED BY message_request WHERE instance_id = ?1 AND kind = 5 AND name = ?2)"""
READ_CONSUMED_EVENT: Final = """
    SELECT name, length(payload) FROM message WHERE instance_id = ? AND sequence = ? AND kind IN (0, 5)"""
READ_ACTIVITY: Final = f"""
    SELECT {_ACTIVITY_COLUMNS} FROM activity WHERE instance_id = ? AND execution = ? AND event_id = ?"""
ADD_MESSAGE: Final = insert("message", tables.MESSAGE)

# The end of an activity makes its instance due now, or earlier if it was. So the longest waiting
# one comes first; a 0 would come before all. An instance that crashed its owners repeatedly waits
# out its delay (rule 14).
RING_BY_REPORT: Final = f"""
    UPDATE instance SET inbox_seq = inbox_seq + 1, updated_at = ?,
        wake_at = CASE WHEN takeovers >= {CRASHES_BEFORE_DELAY} AND owner IS NULL AND wake_at > ? THEN min(wake_at, ?)
            ELSE min(coalesce(wake_at, ?), ?) END
    WHERE instance_id = ? AND status = 0"""

READ_LINK: Final = f"""
    SELECT {tables.DETAIL.only("parent_id", "parent_incarnation", "parent_execution", "parent_event").listed()}, on_parent_close
    FROM instance_detail WHERE instance_id = ? AND parent_id IS NOT NULL"""
LIST_BOUND: Final = """
    SELECT instance_id FROM instance_detail
    WHERE parent_id = ? AND parent_execution = ? AND on_parent_close NOT IN (0, 3)"""
READ_TRACE: Final = "SELECT traceparent FROM execution WHERE instance_id = ? AND execution = ?"

# --- claims -----------------------------------------------------------------------------------

_CLAIMABLE: Final = "kind = ? AND owner IS NULL AND status = 0 AND held = 0 AND wake_at IS NOT NULL"
FIND_READY: Final = f"""
    SELECT instance_id FROM instance WHERE {_CLAIMABLE} AND wake_at <= ? ORDER BY wake_at, instance_id LIMIT ?"""
NEXT_WAKE: Final = f"SELECT wake_at FROM instance WHERE {_CLAIMABLE} ORDER BY wake_at LIMIT 1"
CLAIM: Final = """
    UPDATE instance SET owner = ?, revision = revision + 1
    WHERE instance_id = ? AND owner IS NULL AND status = 0 AND held = 0"""

# --- activities that are handed out -----------------------------------------------------------

IS_WAITING: Final = (
    "queue IS NOT NULL AND owner IS NULL AND result IS NULL AND failure IS NULL AND paused = 0"
)
_TASK_COLUMNS: Final = """
    a.instance_id, i.incarnation, a.execution, a.event_id, a.revision, a.attempt, x.name, x.version, x.traceparent,
    a.heartbeat, a.heartbeat_encoding, a.stopping, e.event_id, e.kind, e.at, e.format, e.envelope, e.payload, e.encoding"""
_TASKS: Final = f"""
    SELECT {_TASK_COLUMNS} FROM activity a
    JOIN instance i ON i.instance_id = a.instance_id
    JOIN execution x ON x.instance_id = a.instance_id AND x.execution = a.execution
    JOIN event e ON e.instance_id = a.instance_id AND e.execution = a.execution AND e.event_id = a.event_id"""
ANY_WAITING: Final = f"SELECT 1 FROM activity WHERE {IS_WAITING} LIMIT 1"
FIND_WAITING: Final = f"""
    SELECT instance_id, execution, event_id, started_at FROM activity
    WHERE queue = ? AND name = ? AND {IS_WAITING} ORDER BY started_at, instance_id, execution, event_id LIMIT ?"""
TAKE_TASK: Final = """
    UPDATE activity SET owner = ?, revision = revision + 1 WHERE instance_id = ? AND execution = ? AND event_id = ?"""
READ_TASK: Final = f"{_TASKS} WHERE a.instance_id = ? AND a.execution = ? AND a.event_id = ?"
LIST_TASKS: Final = f"{_TASKS} WHERE a.owner = ? ORDER BY a.instance_id, a.execution, a.event_id"
RELEASE_TASKS: Final = (
    "UPDATE activity SET owner = NULL, revision = revision + 1 WHERE owner = ? AND stopping = 0"
)
FIND_STOPPING_TASKS: Final = (
    "SELECT instance_id, execution, event_id FROM activity WHERE owner = ? AND stopping = 1"
)
FIND_LOST_TASKS: Final = """
    SELECT instance_id, execution, event_id FROM activity a
    WHERE a.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM node n WHERE n.node_id = a.owner AND n.dead = 0)
    LIMIT ?"""
# No other node takes what waits for one that is gone: it is lost with the session.
FIND_ABANDONED_TASKS: Final = f"""
    SELECT instance_id, execution, event_id FROM activity a
    WHERE a.queue >= char({ord(NODE_QUEUES[0])}) AND a.queue < char({ord(NODE_QUEUES[1])}) AND {IS_WAITING}
        AND NOT EXISTS (SELECT 1 FROM node n WHERE n.node_id = substr(a.queue, 2) AND n.dead = 0)
    LIMIT ?"""
LOSE_TASK: Final = """
    UPDATE activity SET failure = x'', owner = NULL, revision = revision + 1
    WHERE instance_id = ? AND execution = ? AND event_id = ?"""

# --- snapshots: %s is a list of placeholders, of a few fixed lengths --------------------------

READ_SNAPSHOTS: Final = f"""
    SELECT i.kind, {INSTANCE_COLUMNS}, {EXECUTION_COLUMNS}, i.summary
    FROM instance i
    JOIN instance_detail d ON d.instance_id = i.instance_id
    JOIN execution x ON x.instance_id = i.instance_id AND x.execution = i.execution
    WHERE i.instance_id IN (%s)"""
READ_REPORTS: Final = f"""
    SELECT instance_id, {_MESSAGE_COLUMNS} FROM message INDEXED BY message_report WHERE instance_id IN (%s) AND kind <> 0
        AND source > 0
    ORDER BY instance_id, sequence"""
READ_ACTIVITIES: Final = f"""
    SELECT instance_id, {_ACTIVITY_COLUMNS} FROM activity WHERE instance_id IN (%s)
    ORDER BY instance_id, execution, event_id"""
READ_KIND: Final = f"SELECT {KIND_COLUMNS} FROM kind k WHERE k.kind_id = ?"

# --- reads of the store -----------------------------------------------------------------------

# In order of arrival, of all names or of one. Read it row by row, until there are enough.
READ_EVENTS: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM message INDEXED BY message_name
    WHERE instance_id = ? AND kind = 0 AND name = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"""
READ_REQUESTS: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM message INDEXED BY message_request
    WHERE instance_id = ? AND kind = 5 AND name = ? AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"""
READ_INBOX: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM message NOT INDEXED
    WHERE instance_id = ? AND kind IN (0, 5) AND sequence > ? AND sequence <= ? ORDER BY sequence LIMIT ?"""

LIST_MESSAGES: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM message NOT INDEXED
    WHERE instance_id = ? AND kind IN (0, 5, 8) AND sequence > ? ORDER BY sequence LIMIT ?"""
LIST_ASIDE: Final = f"""
    SELECT {tables.SET_ASIDE.without("instance_id").listed()} FROM set_aside
    WHERE instance_id = ? AND sequence > ? ORDER BY sequence LIMIT ?"""
COUNT_NAMES: Final = f"""
    SELECT name, sum(number) AS total FROM (
        SELECT name, count(*) AS number FROM message WHERE instance_id = ?1 AND kind = 0 GROUP BY name
        UNION ALL SELECT name, count(*) FROM message WHERE instance_id = ?1 AND kind = 5 GROUP BY name
        UNION ALL SELECT name, count(*) FROM set_aside WHERE instance_id = ?1 GROUP BY name)
    GROUP BY name ORDER BY total DESC, name LIMIT {NAMES_SHOWN}"""

READ_HISTORY: Final = f"""
    SELECT {_EVENT_COLUMNS} FROM event WHERE instance_id = ? AND execution = ? ORDER BY event_id"""
READ_ENVELOPES: Final = """
    SELECT event_id, kind, at, format, envelope FROM event WHERE instance_id = ? AND execution = ? AND event_id IN (%s)
    ORDER BY event_id"""
READ_NEWS: Final = """
    SELECT instance_id, incarnation, inbox_seq, cancel_at, cancel_reason, cancel_by, cancel_terminate, seen_seq
    FROM instance WHERE owner = ? AND inbox_seq > seen_seq ORDER BY instance_id"""
READ_NEW_REPORTS: Final = f"""
    SELECT {_MESSAGE_COLUMNS} FROM message INDEXED BY message_report
    WHERE instance_id = ? AND kind <> 0 AND source > 0 AND sequence > ? AND sequence <= ? ORDER BY sequence"""
READ_ENDED: Final = f"""
    SELECT instance_id, {_ACTIVITY_COLUMNS} FROM activity
    WHERE (result IS NOT NULL OR failure IS NOT NULL) AND (instance_id, execution) IN (
        SELECT i.instance_id, i.execution FROM instance i WHERE i.owner = ? AND i.inbox_seq > i.seen_seq)
    ORDER BY instance_id, event_id"""
# After a clock went back: a pass over instances that are parked until a time.
_AHEAD: Final = "owner IS NULL AND status = 0 AND held = 0 AND wake_at > ?"
FIND_AHEAD: Final = f"""
    SELECT instance_id FROM instance
    WHERE {_AHEAD} AND (updated_at > ? OR updated_at >= ? AND updated_at < ?) LIMIT ?"""
ROUSE: Final = f"""
    UPDATE instance SET
        wake_at = CASE WHEN takeovers >= {CRASHES_BEFORE_DELAY} THEN min(wake_at, ?) ELSE 0 END, updated_at = ?
    WHERE instance_id = ? AND {_AHEAD}"""
LIST_OWNED: Final = "SELECT instance_id FROM instance WHERE owner = ? ORDER BY instance_id"
READ_TALLY: Final = f"""
    SELECT {KIND_COLUMNS}, t.status, t.held, t.number FROM tally t JOIN kind k ON k.kind_id = t.kind WHERE t.number <> 0"""
COUNT_OWNED_BY_KIND: Final = """
    SELECT kind, count(*) FROM instance WHERE owner IS NOT NULL AND status = 0 GROUP BY kind"""
COUNT_HOLDS: Final = """
    SELECT kind, hold_kind, count(*) FROM instance
    WHERE held = 1 AND hold_kind IS NOT NULL GROUP BY kind, hold_kind"""
COUNT_CRASHING: Final = """
    SELECT kind, count(*) FROM instance
    WHERE takeovers >= 3 AND status = 0 AND held = 0 AND owner IS NULL GROUP BY kind"""
LAST_BOUNDARIES: Final = f"""
    SELECT k.kind_id, {KIND_COLUMNS},
        (SELECT max(i.boundary_due) FROM instance i WHERE i.kind = k.kind_id AND i.boundary_due IS NOT NULL)
    FROM kind k"""
COUNT_FAILED: Final = """
    SELECT name, version, count(*) FROM execution WHERE end_kind = 2 AND closed_at >= ? GROUP BY name, version"""
LIST_PINS: Final = f"""
    SELECT {KIND_COLUMNS}, d.pin FROM instance_detail d JOIN instance i ON i.instance_id = d.instance_id JOIN kind k ON k.kind_id = i.kind
    WHERE d.pin IS NOT NULL AND i.status = 0 LIMIT ?"""
LIST_SEEN_CODE: Final = """
    SELECT name, version, fingerprint, first_seen, first_node, last_seen, last_node FROM code_seen
    ORDER BY name, version, first_seen, fingerprint"""
SEE_CODE: Final = """
    INSERT INTO code_seen (name, version, fingerprint, first_seen, first_node, last_seen, last_node)
    SELECT c.name, c.version, c.fingerprint, ?, c.node_id, ?, c.node_id FROM capability c WHERE c.node_id = ?
    ON CONFLICT (name, version, fingerprint) DO UPDATE SET
        last_seen = max(last_seen, excluded.last_seen), last_node = excluded.last_node"""
_GROUP: Final = (
    "name",
    "version",
    "coalesce(fingerprint, '')",
    "resolved_how",
    "coalesce(patches, '')",
)


def _next_group(shared: int) -> str:
    """Return the first group of open executions behind one that has ``shared`` columns in common
    with it.
    """
    conditions = [f"{column} = ?" for column in _GROUP[:shared]] + [f"{_GROUP[shared]} > ?"]
    return f"""
        SELECT {", ".join(_GROUP)}, created_at FROM execution INDEXED BY execution_open
        WHERE closed_at IS NULL AND {" AND ".join(conditions)} ORDER BY {", ".join(_GROUP[shared:])}, created_at LIMIT 1"""


NEXT_GROUPS: Final = tuple(_next_group(shared) for shared in reversed(range(len(_GROUP))))
"""The statements that find the next group, tried in this order: each needs one column less in
common.
"""
COUNT_OWNED: Final = "SELECT count(*) FROM instance WHERE owner = ?"
IS_GOING: Final = "SELECT 1 FROM instance WHERE instance_id = ? AND status = 0 AND held = 0"
COUNT_OVERDUE: Final = """
    SELECT k.name, count(*) FROM instance i JOIN kind k ON k.kind_id = i.kind
    WHERE i.boundary_due <= ? AND i.status = 0 GROUP BY k.name"""
LIST_HELD: Final = f"""
    SELECT h.created_at, h.instance_id, i.incarnation, i.revision, {KIND_COLUMNS}, d.hold, i.paused, d.operator_hold
    FROM (
        SELECT created_at, instance_id FROM instance INDEXED BY instance_hold
        WHERE held = 1 AND (created_at, instance_id) > (?, ?) ORDER BY created_at, instance_id LIMIT ?) h
    CROSS JOIN instance i ON i.instance_id = h.instance_id
    LEFT JOIN kind k ON k.kind_id = i.kind AND k.name IN (SELECT value FROM json_each(?)) AND i.status = 0
    LEFT JOIN instance_detail d ON d.instance_id = i.instance_id AND k.kind_id IS NOT NULL
    ORDER BY h.created_at, h.instance_id"""

# --- nodes ------------------------------------------------------------------------------------

ADD_NODE: Final = """
    INSERT INTO node (
        node_id, host, boot_id, pid, library, abilities, lease, started_at, renewed_at, renewals, dead, reads, writes)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, 0, 0, ?, ?)"""
ADD_CAPABILITY: Final = (
    "INSERT INTO capability (node_id, name, version, fingerprint) VALUES (?, ?, ?, ?)"
)
ADD_NODE_ACTIVITY: Final = "INSERT INTO node_activity (node_id, name) VALUES (?, ?)"
RENEW_NODE: Final = (
    "UPDATE node SET renewals = renewals + 1, renewed_at = ?, load = ? WHERE node_id = ? AND "
    "dead = 0"
)
BURY_NODE: Final = "UPDATE node SET dead = 1 WHERE node_id = ? AND renewals = ? AND dead = 0"
REMOVE_NODE: Final = "DELETE FROM node WHERE node_id = ?"
REMOVE_CAPABILITIES: Final = "DELETE FROM capability WHERE node_id = ?"
REMOVE_NODE_ACTIVITIES: Final = "DELETE FROM node_activity WHERE node_id = ?"
PRUNE_NODES: Final = "DELETE FROM node WHERE dead = 1 AND renewed_at < ?"
RELEASE_OWNED: Final = """
    UPDATE instance SET owner = NULL, wake_at = 0, revision = revision + 1 WHERE owner = ?"""
LIST_NEIGHBOURS: Final = """
    SELECT node_id FROM node WHERE dead = 0 AND host = ? AND boot_id = ? ORDER BY node_id"""
FIND_GHOST_OWNED: Final = """
    SELECT i.instance_id, i.revision FROM instance i
    WHERE i.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM node n WHERE n.node_id = i.owner AND n.dead = 0)
    LIMIT ?"""
# From the third take-over on the next claim waits 2^n seconds, at most five minutes (rule 14).
TAKE_OVER: Final = f"""
    UPDATE instance SET
        owner = NULL, revision = revision + 1, takeovers = takeovers + 1,
        wake_at = CASE WHEN takeovers < {CRASHES_BEFORE_DELAY - 1} THEN 0
            ELSE ? + min(1000000 << min(takeovers + 1, 9), {LONGEST_DELAY}) END
    WHERE instance_id = ? AND revision = ?"""

LIST_NODES: Final = """
    SELECT node_id, host, boot_id, pid, library, abilities, lease, started_at, renewed_at, renewals, dead, load, reads, writes
    FROM node WHERE dead = 0 ORDER BY node_id"""
ANY_OLDER_NODE: Final = "SELECT 1 FROM node WHERE dead = 0 AND reads < ? LIMIT 1"
LIST_CAPABILITIES: Final = """
    SELECT c.node_id, c.name, c.version, c.fingerprint FROM capability c
    JOIN node n ON n.node_id = c.node_id AND n.dead = 0 ORDER BY c.node_id, c.name, c.version"""
LIST_NODE_ACTIVITIES: Final = """
    SELECT a.node_id, a.name FROM node_activity a
    JOIN node n ON n.node_id = a.node_id AND n.dead = 0 ORDER BY a.node_id, a.name"""
LIST_POLICIES: Final = (
    "SELECT name, revision, value, set_by, reason, set_at FROM policy ORDER BY name"
)
LIST_POLICIES_OF: Final = """
    SELECT name, revision, value, set_by, reason, set_at FROM policy WHERE name = ?
    UNION ALL
    SELECT name, revision, value, set_by, reason, set_at FROM policy_history WHERE name = ?
    ORDER BY revision DESC LIMIT ?"""

# --- the directory ----------------------------------------------------------------------------

RECORD_COLUMNS: Final = f"""
    SELECT {KIND_COLUMNS}, {INSTANCE_COLUMNS}, {EXECUTION_COLUMNS},
        i.held, i.status, i.summary, d.custom_status, d.custom_status_encoding, i.created_at, i.updated_at, d.created_by,
        (SELECT count(*) FROM message m WHERE m.instance_id = i.instance_id AND m.kind = 0)
            + (SELECT count(*) FROM message m WHERE m.instance_id = i.instance_id AND m.kind = 5), d.unread_at_end,
        (SELECT json_group_object(l.key, l.value) FROM label l WHERE l.instance_id = i.instance_id), i.expires_at,
        (SELECT count(*) FROM set_aside a WHERE a.instance_id = i.instance_id), d.schedule_id, d.schedule_tick"""
FROM_HOT_ROWS: Final = """
    FROM instance i
    JOIN kind k ON k.kind_id = i.kind"""
FROM_INSTANCES: Final = f"""{FROM_HOT_ROWS}
    JOIN instance_detail d ON d.instance_id = i.instance_id"""
FROM_RECORDS: Final = f"""{FROM_INSTANCES}
    JOIN execution x ON x.instance_id = i.instance_id AND x.execution = i.execution"""
READ_RECORD: Final = f"{RECORD_COLUMNS}, NULL{FROM_RECORDS} WHERE i.instance_id = ?"
NEXT_WAITING_ROUTE: Final = f"""
    SELECT a.queue, a.name FROM activity a WHERE {IS_WAITING} AND (a.queue, a.name) > (?, ?)
    ORDER BY a.queue, a.name LIMIT 1"""
LIST_REPORTS: Final = (
    "SELECT source FROM message INDEXED BY message_report WHERE instance_id = ? AND kind <> 0 "
    "AND kind <> 8 AND source > 0 ORDER BY source"
)
LIST_EXECUTIONS: Final = f"""
    SELECT {EXECUTION_COLUMNS} FROM execution x
    WHERE x.instance_id = ? AND x.execution > ? ORDER BY x.execution LIMIT ?"""

# --- operators --------------------------------------------------------------------------------

READ_POLICY: Final = (
    "SELECT name, revision, value, set_by, reason, set_at FROM policy WHERE name = ?"
)
SET_POLICY: Final = """
    INSERT INTO policy (name, revision, value, set_by, reason, set_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (name) DO UPDATE SET
        revision = excluded.revision, value = excluded.value, set_by = excluded.set_by, reason = excluded.reason,
        set_at = excluded.set_at"""
ADD_FORMER_POLICY: Final = """
    INSERT INTO policy_history (name, revision, value, set_by, reason, set_at) VALUES (?, ?, ?, ?, ?, ?)"""
PRUNE_FORMER_POLICIES: Final = "DELETE FROM policy_history WHERE name = ? AND revision < ?"
# Takes ownership away (rule 6), so that the pin reaches an owner with the instance in memory.
REVOKE: Final = """
    UPDATE instance SET
        revision = revision + 1, wake_at = CASE WHEN owner IS NULL THEN wake_at ELSE 0 END, owner = NULL, updated_at = ?
    WHERE instance_id = ? AND status = 0"""
READ_NUDGE: Final = "SELECT nudge FROM instance_detail WHERE instance_id = ?"
SET_NUDGE: Final = "UPDATE instance_detail SET nudge = ? WHERE instance_id = ?"
READ_PIN: Final = "SELECT pin FROM instance_detail WHERE instance_id = ?"
SET_PIN: Final = "UPDATE instance_detail SET pin = ? WHERE instance_id = ?"
DELETE_INSTANCE: Final = (
    "DELETE FROM instance WHERE instance_id = ? AND incarnation = ? AND status <> 0"
)
DELETE_BELONGINGS: Final = (
    "DELETE FROM instance_detail WHERE instance_id = ?",
    "DELETE FROM label WHERE instance_id = ?",
    "DELETE FROM execution WHERE instance_id = ?",
    "DELETE FROM event WHERE instance_id = ?",
    "DELETE FROM message WHERE instance_id = ?",
    "DELETE FROM tombstone WHERE instance_id = ?",
    "DELETE FROM activity WHERE instance_id = ?",
    "DELETE FROM set_aside WHERE instance_id = ?",
    "DELETE FROM request WHERE instance_id = ?",
    "DELETE FROM stream WHERE instance_id = ?",
    "DELETE FROM stream_item WHERE instance_id = ?",
)
ANY_EXPIRED: Final = "SELECT 1 FROM instance WHERE expires_at <= ? LIMIT 1"
FIND_EXPIRED: Final = """
    SELECT instance_id, incarnation, expires_at FROM instance WHERE expires_at <= ?
    ORDER BY expires_at, instance_id LIMIT ?"""
SET_EXPIRY: Final = """
    INSERT INTO expiry (name, after) VALUES (?, ?)
    ON CONFLICT (name) DO UPDATE SET after = excluded.after WHERE after <> excluded.after"""
REMOVE_EXPIRY: Final = "DELETE FROM expiry WHERE name = ?"
LIST_EXPIRIES: Final = "SELECT name, after FROM expiry"
ADD_OPERATION: Final = (
    "INSERT INTO operation (at, actor, action, subject, detail) VALUES (?, ?, ?, ?, ?)"
)
LIST_OPERATIONS: Final = """
    SELECT at, actor, action, subject, detail, operation_id FROM operation
    WHERE {} ORDER BY at DESC, operation_id DESC LIMIT ?"""
# The audit is bounded too: people ask about the latest entries.
PRUNE_OPERATIONS: Final = (
    "DELETE FROM operation WHERE operation_id <= (SELECT max(operation_id) FROM operation) - ?"
)

# --- schedules --------------------------------------------------------------------------------

READ_SCHEDULE_FENCE: Final = "SELECT incarnation, revision FROM schedule WHERE schedule_id = ?"
ADD_SCHEDULE: Final = insert("schedule", tables.SCHEDULE)
WRITE_SCHEDULE: Final = update(
    "schedule",
    tables.SCHEDULE.without("schedule_id", "incarnation", "created_at"),
    tables.SCHEDULE.only("schedule_id", "revision"),
)
DELETE_SCHEDULE: Final = "DELETE FROM schedule WHERE schedule_id = ? AND revision = ?"
DELETE_SLOTS: Final = "DELETE FROM schedule_slot WHERE schedule_id = ?"
# What is recorded of a slot stays.
ADD_SLOT: Final = f"{insert('schedule_slot', tables.SCHEDULE_SLOT)} ON CONFLICT DO NOTHING"
END_RUN: Final = update(
    "schedule_slot", tables.SCHEDULE_SLOT.only("follows", "ended"), tables.SLOT_KEY
)
PRUNE_SLOTS: Final = f"""
    DELETE FROM schedule_slot WHERE schedule_id = ?1 AND follows = 0 AND slot < (
        SELECT slot FROM schedule_slot WHERE schedule_id = ?1 AND follows = 0
        ORDER BY slot DESC LIMIT 1 OFFSET {KEPT_SLOTS - 1})"""
NEXT_TICK: Final = "SELECT min(next_at) FROM schedule WHERE next_at > ?"
FIND_DUE_SCHEDULES: Final = f"""
    SELECT {tables.SCHEDULE.listed()} FROM schedule
    WHERE next_at <= ? AND (next_at, schedule_id) > (?, ?) ORDER BY next_at, schedule_id LIMIT ?"""
READ_SCHEDULE: Final = f"SELECT {tables.SCHEDULE.listed()} FROM schedule WHERE schedule_id = ?"
LIST_SCHEDULES: Final = f"""
    SELECT {tables.SCHEDULE.listed()} FROM schedule WHERE schedule_id > ? ORDER BY schedule_id LIMIT ?"""
_SLOT: Final = tables.SCHEDULE_SLOT.without("schedule_id")
LIST_SLOTS: Final = f"""
    SELECT {_SLOT.listed()} FROM schedule_slot WHERE schedule_id = ? ORDER BY slot DESC, cause DESC LIMIT ?"""
# With the instance that the slot has started, or whether the event that it has sent is unread.
LIST_RUNS: Final = f"""
    SELECT s.schedule_id, {_SLOT.listed("s")}, i.incarnation, i.status, i.held, m.sequence IS NOT NULL, i.cancel_at IS NOT NULL
    FROM schedule_slot s
    LEFT JOIN instance_detail d
        ON d.instance_id = s.instance_id AND d.schedule_id = s.schedule_id AND d.schedule_tick = s.slot
    LEFT JOIN instance i ON i.instance_id = d.instance_id
    LEFT JOIN message m ON m.instance_id = s.instance_id AND m.kind = 0 AND m.message_id =
        'schedule:' || s.schedule_id || '/' || s.slot || CASE s.cause WHEN '{TRIGGERED}' THEN '/trigger' ELSE '' END
    WHERE s.schedule_id IN (SELECT value FROM json_each(?)) AND s.follows = 1 ORDER BY s.schedule_id, s.slot, s.cause"""
# --- streams ----------------------------------------------------------------------------------

GROW_STREAM: Final = f"""
    {insert("stream", tables.STREAM)}
    ON CONFLICT (instance_id, stream) DO UPDATE SET
        last_offset = last_offset + excluded.last_offset, bytes = bytes + excluded.bytes
    RETURNING first_offset, last_offset, bytes, first_at"""
ADD_STREAM_ITEM: Final = insert("stream_item", tables.STREAM_ITEM)
READ_OLDEST_ITEMS: Final = f"""
    SELECT item_offset, length(payload), at FROM stream_item
    WHERE instance_id = ? AND stream = ? ORDER BY item_offset LIMIT {AT_ONCE}"""
CUT_ITEMS: Final = (
    "DELETE FROM stream_item WHERE instance_id = ? AND stream = ? AND item_offset <= ?"
)
MOVE_CUT: Final = """
    UPDATE stream SET first_offset = ?3 + 1, bytes = bytes - ?4,
        first_at = (SELECT i.at FROM stream_item i WHERE i.instance_id = ?1 AND i.stream = ?2 AND i.item_offset = ?3 + 1)
    WHERE instance_id = ?1 AND stream = ?2"""
STREAM_COLUMNS: Final = tables.STREAM.without("instance_id", "first_at").listed("s")
_ITEM_COLUMNS: Final = tables.STREAM_ITEM.without("instance_id", "stream", "attempt_number").listed(
    "t"
)
READ_STREAM: Final = f"""
    SELECT i.status, {STREAM_COLUMNS}, {_ITEM_COLUMNS} FROM instance i
    LEFT JOIN stream s ON s.instance_id = i.instance_id AND s.stream = ?2
    LEFT JOIN stream_item t ON t.instance_id = i.instance_id AND t.stream = ?2 AND t.item_offset > ?3
    WHERE i.instance_id = ?1 ORDER BY t.item_offset LIMIT ?4"""
LIST_STREAMS: Final = (
    f"SELECT {STREAM_COLUMNS} FROM stream s WHERE s.instance_id = ? ORDER BY s.stream"
)
# By an index of the items of activities: each change of theirs asks.
READ_LAST_NUMBER: Final = """
    SELECT max(attempt_number) FROM stream_item
    WHERE instance_id = ? AND execution = ? AND event_id = ? AND attempt = ?"""

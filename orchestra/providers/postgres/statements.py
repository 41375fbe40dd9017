"""Every SQL statement of the provider, by name.

All are constants; ``@name`` is a table of the store's schema. Values are parameters only (I15). A
statement for a group takes its rows as arrays, one a column, so it is one statement for any group.
"""

from __future__ import annotations

from typing import Final

from orchestra.clock import STANDS_STILL
from orchestra.providers.postgres.rendering import exactly, given, insert, update
from orchestra.store import tables
from orchestra.store.executions import (
    FAMILY_SCANNED,
    GOES_WITH_LAP,
    MARKED_AT_ONCE,
    PRUNED_AT_ONCE,
)
from orchestra.store.instances import CRASHES_BEFORE_DELAY, LONGEST_DELAY
from orchestra.store.messages import KEPT_ASIDE, NAMES_SHOWN
from orchestra.store.routes import NODE_QUEUES, SESSION_QUEUES
from orchestra.store.schedules import KEPT_SLOTS, TRIGGERED
from orchestra.store.streams import AT_ONCE, SLACK
from orchestra.store.tables import Column, Columns

# --- columns ----------------------------------------------------------------------------------

EXECUTION_COLUMNS: Final = tables.EXECUTION.without("instance_id", "version_key").listed("x")

INSTANCE_COLUMNS: Final = """
    i.instance_id, i.incarnation, i.revision, i.owner, i.wake_at, i.inbox_seq, i.seen_seq, i.execution, i.opened,
    i.takeovers, i.history_events, i.history_bytes, i.cancel_at, i.cancel_reason, i.cancel_by, i.cancel_terminate,
    d.pin, d.hold, d.traceparent, d.parent_id, d.parent_incarnation, d.parent_execution, d.parent_event, d.root_id,
    i.paused, i.boundary_due, i.not_before, d.operator_hold, d.nudge"""

KIND_COLUMNS: Final = "k.queue, k.name, k.version, k.format, k.floating, k.level"

_ROW_COLUMNS: Final = tables.HOT_ROW.listed("i")
_EVENT_COLUMNS: Final = tables.EVENT.without("instance_id", "execution").listed()
_MESSAGE: Final = tables.MESSAGE.without("instance_id")
_ACTIVITY_COLUMNS: Final = Columns(
    (*tables.ACTIVITY.without("instance_id"), *tables.ACTIVITY_FENCE)
).listed("a")

ACTIVITY_ID: Final = tables.ACTIVITY.only("instance_id", "execution", "event_id")
MESSAGE_ID: Final = tables.MESSAGE.only("instance_id", "sequence")
ASIDE: Final = Columns((*tables.SET_ASIDE.only("reason"), *MESSAGE_ID))
ADDRESS: Final = tables.MESSAGE.only("instance_id", "message_id")
ROOM: Final = Columns(
    (
        *tables.MESSAGE.only("instance_id", "name"),
        Column("first", "flag"),
        *(
            Column(name, "number")
            for name in (
                "messages",
                "bytes",
                "max_messages",
                "max_bytes",
                "name_limit",
                "name_byte_limit",
            )
        ),
    )
)
"""A name that a group sends to: whether it is the first of its inbox, the group's total, and the
limits.
"""

_INSTANCE_ID: Final = tables.HOT_ROW.only("instance_id")
_SUMMARY: Final = Columns((Column("summary", "blob"),))
_READ_REVISION: Final = Columns((Column("read_revision", "number"),))
OPENED: Final = Columns((*tables.OPENING, *tables.EXECUTION_ID))
CLOSED: Final = Columns((*tables.CLOSING, *tables.EXECUTION_ID))
PATCHED: Final = Columns((*tables.PATCHED, *tables.EXECUTION_ID))
REPORTED: Final = Columns((*tables.REPORT, *ACTIVITY_ID))
CANCELLED: Final = Columns((*tables.CANCEL_MARK, *_INSTANCE_ID))
WRITTEN: Final = Columns((*tables.WRITTEN_ROW, *_SUMMARY, *_INSTANCE_ID, *_READ_REVISION))
CUSTOM_STATUS: Final = Columns(
    (Column("custom_status", "blob"), Column("custom_status_encoding", "number"), *_INSTANCE_ID)
)
HOLD: Final = Columns((Column("hold", "blob"), *_INSTANCE_ID))
NUDGE: Final = Columns((Column("nudge", "blob"), *_INSTANCE_ID))
OPERATOR_HOLD: Final = Columns((Column("operator_hold", "blob"), *_INSTANCE_ID))
PIN: Final = Columns((Column("pin", "blob"), *_INSTANCE_ID))
PRUNED: Final = Columns(
    (
        *_INSTANCE_ID,
        *(
            Column(name, "number")
            for name in ("current", "histories", "executions", "closed_until")
        ),
    )
)
OPERATION: Final = Columns((Column("operation_id", "text"), *tables.OPERATION))
FAMILY: Final = Columns(
    (*_INSTANCE_ID, Column("children_from", "number"), Column("children", "number"))
)
_FENCE: Final = Columns(
    (
        Column("fence_incarnation", "text"),
        Column("fence_revision", "number"),
        Column("fence_owner", "text"),
    )
)
_FENCED: Final = tables.HOT_ROW.only(
    "kind",
    "owner",
    "status",
    "held",
    "wake_at",
    "seen_seq",
    "execution",
    "opened",
    "takeovers",
    "history_events",
    "history_bytes",
    "boundary_due",
)
FENCED: Final = Columns((*_FENCED, *_SUMMARY, *_INSTANCE_ID, *_FENCE))
"""The columns that a plain group writes, and the fence of each row."""

# --- transactions -----------------------------------------------------------------------------

BEGIN: Final = "BEGIN"
BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
COMMIT: Final = "COMMIT"


def _moment(known: str, asks: str) -> str:
    """Return the store's time, given the last ``known`` one: the rule of
    :func:`orchestra.clock.followed`.
    """
    return f"""
        SELECT CASE WHEN {asks}::boolean AND NOT (clock.now BETWEEN {known}::bigint - {STANDS_STILL} AND {known}::bigint)
            THEN clock.now ELSE {known}::bigint END AS now
        FROM (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now) AS clock"""


READ_TIME: Final = _moment("$1", "$2")

# --- schema -----------------------------------------------------------------------------------

FIND_TABLES: Final = """
    SELECT n.oid, ARRAY(
        SELECT c.relname::text FROM pg_catalog.pg_class c WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'p', 'v', 'm'))
    FROM pg_catalog.pg_namespace n WHERE n.nspname = $1"""
COUNT_INDEXES: Final = """
    SELECT count(*) FROM pg_catalog.pg_indexes WHERE schemaname = $1 AND indexname = ANY($2)"""
ADD_META_TABLE: Final = "CREATE TABLE @meta (key text NOT NULL PRIMARY KEY, value text NOT NULL)"
# Writers of the schema exclude each other; readers of its number go on.
LOCK_META: Final = "LOCK TABLE @meta IN SHARE ROW EXCLUSIVE MODE"
READ_META: Final = "SELECT key, value FROM @meta"
SET_META: Final = (
    "INSERT INTO @meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = "
    "excluded.value"
)
READ_LEVELS: Final = """
    SELECT w.value::bigint, l.value::bigint FROM @meta w JOIN @meta l ON l.key = 'lowest_reader' WHERE w.key = 'write_level'"""
# A joining node has the table locked until it commits, and the next statement sees it. A later node
# waits for this, and sees the new levels (rule 41).
LOCK_NODES: Final = "LOCK TABLE @node IN SHARE MODE"
RAISE_LEVEL: Final = """
    UPDATE @meta m SET
        value = CASE m.key WHEN 'write_level' THEN $1::bigint ELSE greatest(m.value::bigint, $2::bigint) END::text
    WHERE m.key IN ('write_level', 'lowest_reader')
        AND (SELECT w.value::bigint FROM @meta w WHERE w.key = 'write_level') < $1::bigint
        AND NOT EXISTS (SELECT 1 FROM @node n WHERE NOT n.dead AND n.reads < $1::bigint)"""
ADD_META: Final = "INSERT INTO @meta (key, value) VALUES ($1, $2) ON CONFLICT (key) DO NOTHING"

# --- kinds ------------------------------------------------------------------------------------

_GIVEN_KINDS: Final = """
    unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::boolean[], $6::bigint[])
    WITH ORDINALITY AS g (queue, name, version, format, floating, level, place)"""
ADD_KINDS: Final = f"""
    INSERT INTO @kind (queue, name, version, format, floating, level)
    SELECT g.queue, g.name, g.version, g.format, g.floating, g.level FROM {_GIVEN_KINDS} ORDER BY g.place
    ON CONFLICT (name, version, queue, format, floating, level) DO NOTHING"""
LIST_KINDS: Final = f"SELECT {KIND_COLUMNS}, k.kind_id FROM @kind k ORDER BY k.kind_id"
_FOUND_KINDS: Final = f"""
    {_GIVEN_KINDS} JOIN @kind k ON k.name = g.name AND k.version = g.version AND k.queue = g.queue
        AND k.format = g.format AND k.floating = g.floating AND k.level = g.level"""

# --- the start of a group: new ids, then locks in the order of the ids, then what the outcomes depe

_ADD_INSTANCES: Final = f"""
    INSERT INTO @instance (
        instance_id, incarnation, kind, revision, owner, wake_at, status, held, inbox_seq, seen_seq, execution, opened,
        takeovers, history_events, history_bytes, not_before, created_at, updated_at, summary, most_unread,
        most_unread_bytes)
    SELECT u.instance_id, u.incarnation, u.kind, 1, u.owner, u.wake_at, 0, false, 0, 0, u.execution, u.opened, 0, 0, 0,
        u.not_before, moment.now, moment.now, '', 0, 0
    FROM {given(tables.NEW_INSTANCE)}, ({_moment("$9", "$10")}) AS moment
    ORDER BY u.instance_id COLLATE "C"
    ON CONFLICT (instance_id) DO NOTHING"""
ADD_INSTANCES: Final = f"{_ADD_INSTANCES} RETURNING instance_id"
# Fails (22012) if an id is taken.
ADD_INSTANCES_ON_TRUST: Final = exactly(_ADD_INSTANCES, number=11)
# Besides the instances that a group names: parents of ending ones, and children of closing
# executions. They were fixed before the write was sent; otherwise its fence does not hold.
LOCK_FAMILIES: Final = f"""
    SELECT {_ROW_COLUMNS} FROM @instance i WHERE i.instance_id = ANY(ARRAY(
        SELECT unnest($1::text[])
        UNION SELECT d.parent_id FROM @instance_detail d WHERE d.instance_id = ANY($2::text[]) AND d.parent_id IS NOT NULL
        UNION SELECT d.instance_id
        FROM unnest($3::text[], $4::bigint[]) AS u (instance_id, execution)
        JOIN @instance_detail d ON d.parent_id = u.instance_id AND d.parent_execution = u.execution
            AND d.on_parent_close NOT IN (0, 3)))
    ORDER BY i.instance_id FOR UPDATE OF i"""
# Their parents, and the traces of executions that may end.
READ_LINKS: Final = """
    SELECT d.instance_id, d.parent_id, d.parent_incarnation, d.parent_execution, d.parent_event, d.on_parent_close
    FROM @instance_detail d WHERE d.parent_id IS NOT NULL AND d.instance_id = ANY(ARRAY(
        SELECT unnest($1::text[])
        UNION SELECT c.instance_id
        FROM unnest($2::text[], $3::bigint[]) AS u (instance_id, execution)
        JOIN @instance_detail c ON c.parent_id = u.instance_id AND c.parent_execution = u.execution
        WHERE c.on_parent_close NOT IN (0, 3)))"""
READ_TRACES: Final = f"""
    SELECT x.instance_id, x.traceparent FROM {given(tables.EXECUTION_ID)}
    JOIN @execution x ON x.instance_id = u.instance_id AND x.execution = u.execution"""
# kind < 1 means events, but avoids the index on names, which says kind = 0. A plan from an empty
# store would read that index as a whole.
READ_CONSUMED_EVENTS: Final = f"""
    SELECT m.instance_id, m.sequence, m.name, octet_length(m.payload) FROM {given(MESSAGE_ID)}
    JOIN @message m ON m.instance_id = u.instance_id AND m.sequence = u.sequence AND (m.kind < 1 OR m.kind = 5)"""
# Rows that were made for a write that was then refused.
UNMAKE_INSTANCES: Final = exactly(
    "DELETE FROM @instance WHERE instance_id = ANY($1::text[])", number=2
)
LOCK_ROWS: Final = f"""
    SELECT {_ROW_COLUMNS} FROM @instance i WHERE i.instance_id = ANY($1::text[]) ORDER BY i.instance_id FOR UPDATE OF i"""
# The request of the present life, with its orchestration, and those of all lives whose first
# execution has a row.
READ_REQUESTS: Final = """
    SELECT d.instance_id, d.request_id, k.name FROM @instance_detail d
    JOIN @instance i ON i.instance_id = d.instance_id
    JOIN @kind k ON k.kind_id = i.kind
    WHERE d.instance_id = ANY($1::text[])
    UNION ALL
    SELECT d.instance_id, x.request_id, NULL FROM @instance_detail d
    JOIN @execution x ON x.instance_id = d.instance_id AND x.request_id IS NOT NULL
    WHERE d.instance_id = ANY($1::text[])"""
# The facts of an append: whether its message exists or existed.
READ_ADDRESSEES: Final = f"""
    SELECT u.place, m.sequence IS NOT NULL, {_MESSAGE.listed("m")}, t.sequence, t.removed_at
    FROM {given(ADDRESS, numbered=True)}
    LEFT JOIN @message m ON m.instance_id = u.instance_id AND m.message_id = u.message_id AND m.kind < 1
    LEFT JOIN @tombstone t ON t.instance_id = u.instance_id AND t.message_id = u.message_id
    WHERE m.sequence IS NOT NULL OR t.sequence IS NOT NULL"""
# And how full its inbox is. A name is counted if the bounds leave no room for the group's messages;
# the whole inbox, if they pass a name's part or the limit (InboxLimits). kind < 1: as above.
_HOW_MUCH: Final = (
    "SELECT ARRAY[count(*), coalesce(sum(octet_length(m.payload)), 0)::bigint] FROM @message m"
)
READ_ROOMS: Final = f"""
    SELECT u.place,
        CASE WHEN coalesce(
            i.most_unread + u.messages > u.name_limit OR i.most_unread_bytes + u.bytes > u.name_byte_limit, true)
        THEN (SELECT ARRAY[count(*), coalesce(sum(n.size), 0)::bigint] FROM (
            SELECT octet_length(m.payload) AS size FROM @message m
            WHERE m.instance_id = u.instance_id AND m.kind = 0 AND m.name = u.name
            UNION ALL
            SELECT octet_length(m.payload) FROM @message m
            WHERE m.instance_id = u.instance_id AND m.kind = 5 AND m.name = u.name) n) END,
        CASE WHEN u.first AND coalesce(
            i.most_unread + u.messages > u.max_messages OR i.most_unread_bytes + u.bytes > u.max_bytes
            OR (i.most_unread <= u.name_limit AND i.most_unread + u.messages > u.name_limit)
            OR (i.most_unread_bytes <= u.name_byte_limit AND i.most_unread_bytes + u.bytes > u.name_byte_limit), true)
        THEN ({_HOW_MUCH} WHERE m.instance_id = u.instance_id AND (m.kind < 1 OR m.kind = 5)) END
    FROM {given(ROOM, numbered=True)}
    JOIN @instance i ON i.instance_id = u.instance_id"""

# --- the effects of owners' writes ------------------------------------------------------------

ADD_EXECUTIONS: Final = insert("execution", tables.EXECUTION)
_IS_OPEN: Final = " AND t.closed_at IS NULL"
OPEN_EXECUTIONS: Final = update(
    "execution",
    tables.OPENING,
    tables.EXECUTION_ID,
    condition=f" AND t.opened_at IS NULL{_IS_OPEN}",
)
CLOSE_EXECUTIONS: Final = update(
    "execution", tables.CLOSING, tables.EXECUTION_ID, condition=_IS_OPEN
)
SET_PATCHES: Final = update("execution", tables.PATCHED, tables.EXECUTION_ID)
ADD_EVENTS: Final = insert("event", tables.EVENT)

# The former node of the attempt has lost it: its fence does not hold.
_REPLACED: Final = ", ".join(
    f"{name} = excluded.{name}" for name in tables.ACTIVITY.without(*ACTIVITY_ID.names).names
)
PUT_ACTIVITIES: Final = f"""
    {insert("activity AS a", tables.ACTIVITY)}
    ON CONFLICT ({ACTIVITY_ID.listed()}) DO UPDATE SET {_REPLACED}, revision = a.revision + 1"""
SETTLE_ACTIVITIES: Final = f"""
    DELETE FROM @activity a USING {given(ACTIVITY_ID)}
    WHERE a.instance_id = u.instance_id AND a.execution = u.execution AND a.event_id = u.event_id"""
FORGET_ACTIVITIES: Final = "DELETE FROM @activity WHERE instance_id = ANY($1::text[])"

_COPIED: Final = tables.SET_ASIDE.without("reason", "set_aside_at")
_OVERWRITTEN: Final = ", ".join(
    f"{name} = excluded.{name}"
    for name in tables.SET_ASIDE.without("instance_id", "sequence").names
)
# ON CONFLICT: a library that did not know the table may have left a row of an earlier instance.
SET_ASIDE: Final = f"""
    INSERT INTO @set_aside ({_COPIED.listed()}, reason, set_aside_at)
    SELECT {_COPIED.listed("m")}, u.reason, $4::bigint FROM {given(ASIDE)}
    JOIN @message m ON m.instance_id = u.instance_id AND m.sequence = u.sequence AND m.kind < 1
    ON CONFLICT (instance_id, sequence) DO UPDATE SET {_OVERWRITTEN}"""
# The newest stay, and at least one.
PRUNE_ASIDE: Final = f"""
    DELETE FROM @set_aside a USING (
        SELECT s.instance_id, s.sequence, row_number() OVER newest AS place,
            sum(octet_length(s.payload)) OVER newest AS total
        FROM @set_aside s WHERE s.instance_id = ANY($1::text[])
        WINDOW newest AS (PARTITION BY s.instance_id ORDER BY s.sequence DESC)) AS o
    WHERE a.instance_id = o.instance_id AND a.sequence = o.sequence
        AND (o.place > {KEPT_ASIDE.messages} OR (o.place > 1 AND o.total > {KEPT_ASIDE.bytes}))"""
REMOVE_ASIDE: Final = f"""
    DELETE FROM @set_aside a USING {given(MESSAGE_ID)}
    WHERE a.instance_id = u.instance_id AND a.sequence = u.sequence"""
# ON CONFLICT: the same id may have been sent again after its first tombstone expired.
BURY_MESSAGES: Final = f"""
    WITH removed AS (
        DELETE FROM @message m USING {given(MESSAGE_ID)}
        WHERE m.instance_id = u.instance_id AND m.sequence = u.sequence
        RETURNING m.instance_id, m.message_id, m.sequence, m.kind),
    buried AS (
        INSERT INTO @tombstone (instance_id, message_id, sequence, removed_at)
        SELECT instance_id, message_id, sequence, $4::bigint FROM removed WHERE kind = 0
        ON CONFLICT (instance_id, message_id) DO UPDATE SET sequence = excluded.sequence, removed_at = excluded.removed_at)
    SELECT 1 / (count(*) = $3::bigint)::integer FROM removed"""
# Only the known kinds of children's ends: rows of a newer library stay for it.
DROP_REPORTS: Final = """
    DELETE FROM @message WHERE instance_id = ANY($1::text[]) AND kind <> 0 AND source > 0 AND kind = ANY($2::bigint[])"""
EMPTY_INBOXES: Final = """
    WITH removed AS (DELETE FROM @message WHERE instance_id = ANY($1::text[]) RETURNING instance_id, name, kind),
        aside AS (DELETE FROM @set_aside WHERE instance_id = ANY($1::text[]) RETURNING instance_id, name),
        unread AS (
            SELECT instance_id, name FROM removed WHERE kind IN (0, 5) UNION ALL SELECT instance_id, name FROM aside),
        counted AS (SELECT instance_id, name, count(*) AS number FROM unread GROUP BY instance_id, name),
        gathered AS (
            SELECT instance_id, array_agg(name ORDER BY name) AS names, array_agg(number ORDER BY name) AS counts
            FROM counted GROUP BY instance_id)
    UPDATE @instance_detail d SET unread_names = g.names, unread_counts = g.counts
    FROM gathered g WHERE d.instance_id = g.instance_id"""
# SKIP LOCKED: two nodes that prune at once must not wait for each other.
# MATERIALIZED, here and wherever rows are chosen under locks: a join may compute its inner side once
# for each row of the outer one, and would then choose other rows each time, past those that it has
# written already.
PRUNE_TOMBSTONES: Final = """
    WITH old AS MATERIALIZED (
        SELECT instance_id, message_id FROM @tombstone WHERE removed_at <= $1::bigint
        ORDER BY removed_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
    DELETE FROM @tombstone t USING old
    WHERE t.instance_id = old.instance_id AND t.message_id = old.message_id"""

# --- requests ---------------------------------------------------------------------------------

REQUEST_ID: Final = tables.REQUEST.only("instance_id", "request_id")
ANSWERED: Final = Columns((*tables.ANSWER, *REQUEST_ID))
_ASKED: Final = Columns((*tables.REQUEST.without("instance_id"), *tables.ANSWER))
# ON CONFLICT: the answer of the former one was given longer ago than the window.
ADD_REQUESTS: Final = f"""
    {insert("request", tables.REQUEST)}
    ON CONFLICT (instance_id, request_id) DO UPDATE SET
        incarnation = excluded.incarnation, name = excluded.name, sequence = excluded.sequence, asked_at = excluded.asked_at,
        answered_at = NULL, answer = NULL, answer_encoding = NULL, rejection = NULL"""
# The first answer wins, so the number of rows is not checked.
ANSWER_REQUESTS: Final = f"""
    UPDATE @request r SET
        answered_at = u.answered_at, answer = u.answer, answer_encoding = u.answer_encoding, rejection = u.rejection
    FROM {given(ANSWERED)}
    WHERE r.instance_id = u.instance_id AND r.request_id = u.request_id AND r.answered_at IS NULL"""
REMOVE_REQUESTS: Final = f"""
    DELETE FROM @message m USING {given(MESSAGE_ID)}
    WHERE m.instance_id = u.instance_id AND m.sequence = u.sequence AND m.kind > 4 AND m.kind < 6"""
# What an ended life has left open is never answered.
CLOSE_REQUESTS: Final = """
    UPDATE @request SET answered_at = $2::bigint WHERE instance_id = ANY($1::text[]) AND answered_at IS NULL"""
# SKIP LOCKED: two nodes that prune at once must not wait for each other.
PRUNE_REQUESTS: Final = """
    WITH old AS MATERIALIZED (
        SELECT instance_id, request_id FROM @request WHERE answered_at <= $1::bigint
        ORDER BY answered_at LIMIT $2::bigint FOR UPDATE SKIP LOCKED)
    DELETE FROM @request r USING old
    WHERE r.instance_id = old.instance_id AND r.request_id = old.request_id"""
READ_ASKED: Final = f"""
    SELECT r.instance_id, {_ASKED.listed("r")} FROM {given(REQUEST_ID)}
    JOIN @request r ON r.instance_id = u.instance_id AND r.request_id = u.request_id"""
READ_REQUEST_STATE: Final = f"""
    SELECT coalesce(i.status = 0 AND i.incarnation = r.incarnation, false), {_ASKED.listed("r")}
    FROM @request r LEFT JOIN @instance i ON i.instance_id = r.instance_id
    WHERE r.instance_id = $1::text AND r.request_id = $2::text"""

SET_CUSTOM_STATUSES: Final = f"""
    UPDATE @instance_detail d SET custom_status = u.custom_status, custom_status_encoding = u.custom_status_encoding
    FROM {given(CUSTOM_STATUS)} WHERE d.instance_id = u.instance_id"""
SET_NUDGES: Final = f"""
    UPDATE @instance_detail d SET nudge = u.nudge FROM {given(NUDGE)} WHERE d.instance_id = u.instance_id"""
SET_HOLDS: Final = f"""
    UPDATE @instance_detail d SET hold = u.hold FROM {given(HOLD)} WHERE d.instance_id = u.instance_id"""
# By number and by age, whichever deletes more; never the current execution, and a bounded number at
# once (I3).
_AGED: Final = f"""
    CASE WHEN u.closed_until IS NOT NULL THEN (
        SELECT x.execution FROM @execution x WHERE x.instance_id = u.instance_id AND (
            x.execution >= u.current - 1 OR x.closed_at IS NULL OR x.closed_at > u.closed_until
            OR x.execution >= {PRUNED_AT_ONCE} + (
                SELECT min(o.execution) FROM @execution o WHERE o.instance_id = u.instance_id))
        ORDER BY x.execution LIMIT 1) - 1 END"""
PRUNE_EVENTS: Final = f"""
    DELETE FROM @event e USING (
        SELECT u.instance_id, least(
            greatest(u.histories, u.executions, {_AGED}), u.current - 1,
            (SELECT min(o.execution) FROM @event o WHERE o.instance_id = u.instance_id) + {PRUNED_AT_ONCE - 1}) AS last
        FROM {given(PRUNED)}) AS p
    WHERE e.instance_id = p.instance_id AND e.execution <= p.last"""
PRUNE_EXECUTIONS: Final = f"""
    DELETE FROM @execution e USING (
        SELECT u.instance_id, least(
            greatest(u.executions, {_AGED}), u.current - 1,
            (SELECT min(o.execution) FROM @execution o WHERE o.instance_id = u.instance_id) + {PRUNED_AT_ONCE - 1}) AS last
        FROM {given(PRUNED)}) AS p
    WHERE e.instance_id = p.instance_id AND e.execution <= p.last"""

# Ended ones whose laps have no row, of this life. SKIP LOCKED: what is locked begins again, or is
# deleted already.
_MAY_GO: Final = f"i.status <> 0 AND (i.expires_at IS NULL OR i.expires_at > {GOES_WITH_LAP})"
LET_CHILDREN_GO: Final = f"""
    WITH gone AS MATERIALIZED (
        SELECT g.instance_id FROM {given(FAMILY)} CROSS JOIN LATERAL (
            SELECT i.instance_id FROM (
                SELECT d.instance_id, d.parent_execution FROM @instance_detail d
                WHERE d.parent_id = u.instance_id AND d.parent_execution >= u.children_from
                    AND d.parent_execution < (SELECT min(x.execution) FROM @execution x WHERE x.instance_id = u.instance_id)
                    AND d.parent_incarnation = (SELECT p.incarnation FROM @instance p WHERE p.instance_id = u.instance_id)
                ORDER BY d.parent_execution, d.instance_id LIMIT {FAMILY_SCANNED}) AS c
            JOIN @instance i ON i.instance_id = c.instance_id
            WHERE {_MAY_GO}
            ORDER BY c.parent_execution, i.instance_id LIMIT u.children FOR UPDATE OF i SKIP LOCKED) AS g)
    UPDATE @instance t SET expires_at = {GOES_WITH_LAP} FROM gone
    WHERE t.instance_id = gone.instance_id"""
# The ended children of instances that go with their laps, and how many there are of each.
LET_FAMILIES_GO: Final = f"""
    WITH gone AS MATERIALIZED (
        SELECT u.instance_id AS parent_id, g.instance_id
        FROM unnest($1::text[], $2::text[]) AS u (instance_id, incarnation) CROSS JOIN LATERAL (
            SELECT i.instance_id FROM @instance_detail d JOIN @instance i ON i.instance_id = d.instance_id
            WHERE d.parent_id = u.instance_id AND d.parent_incarnation = u.incarnation AND {_MAY_GO}
            ORDER BY i.instance_id LIMIT {MARKED_AT_ONCE} FOR UPDATE OF i SKIP LOCKED) AS g),
    marked AS (
        UPDATE @instance t SET expires_at = {GOES_WITH_LAP} FROM gone
        WHERE t.instance_id = gone.instance_id RETURNING gone.parent_id)
    SELECT parent_id, count(*) FROM marked GROUP BY parent_id"""

# --- arrivals ---------------------------------------------------------------------------------

ADD_DETAILS: Final = insert("instance_detail", tables.DETAIL)
ADD_LABELS: Final = insert("label", tables.LABEL)
SET_LABELS: Final = f"""
    {ADD_LABELS} ON CONFLICT (instance_id, key) DO UPDATE SET value = excluded.value"""
LABEL_ID: Final = tables.LABEL.only("instance_id", "key")
UNSET_LABELS: Final = f"""
    DELETE FROM @label l USING {given(LABEL_ID)} WHERE l.instance_id = u.instance_id AND l.key = u.key"""
LIST_LABELS: Final = "SELECT key, value FROM @label WHERE instance_id = $1::text"
ADD_MESSAGES: Final = insert("message", tables.MESSAGE)
MARK_CANCELLED: Final = update("instance", tables.CANCEL_MARK, _INSTANCE_ID)

# An ended instance begins again. Its hot row is written by the group.
RENEW_INSTANCES: Final = exactly(
    """
    UPDATE @instance t SET incarnation = u.incarnation, not_before = u.not_before, created_at = $4::bigint
    FROM unnest($1::text[], $2::text[], $3::bigint[]) AS u (instance_id, incarnation, not_before)
    WHERE t.instance_id = u.instance_id""",
    number=5,
)
REMOVE_DETAILS: Final = "DELETE FROM @instance_detail WHERE instance_id = ANY($1::text[])"
REMOVE_LABELS: Final = "DELETE FROM @label WHERE instance_id = ANY($1::text[])"

SUSPEND_INSTANCES: Final = f"""
    UPDATE @instance_detail d SET operator_hold = u.operator_hold
    FROM {given(OPERATOR_HOLD)} WHERE d.instance_id = u.instance_id"""
# What has a stop mark goes on under its fence: its instance waits for its end.
SUSPEND_ACTIVITIES: Final = """
    UPDATE @activity SET owner = NULL, revision = revision + 1, paused = true
    WHERE instance_id = ANY($1::text[]) AND queue IS NOT NULL AND result IS NULL AND failure IS NULL
        AND NOT stopping"""
RESUME_ACTIVITIES: Final = (
    "UPDATE @activity SET paused = false WHERE instance_id = ANY($1::text[]) AND paused"
)
SET_PINS: Final = f"""
    UPDATE @instance_detail d SET pin = u.pin FROM {given(PIN)} WHERE d.instance_id = u.instance_id"""

# --- the hot rows: each is written once -------------------------------------

# An ended instance gets its expiry, if its name has one; it is never written again. The rows are
# locked, and the fence was checked under the lock. The revision is compared once more, so that no
# write ever passes it (I6).
_EXPIRES_AT: Final = """
    SELECT {now} + x.after FROM @kind k JOIN @expiry x ON x.name = k.name WHERE k.kind_id = u.kind"""
WRITE_ROWS: Final = exactly(
    f"""
    UPDATE @instance t SET {", ".join(f"{name} = u.{name}" for name in tables.WRITTEN_ROW.names)},
        summary = coalesce(u.summary, t.summary),
        expires_at = CASE WHEN u.status <> 0 THEN ({_EXPIRES_AT.format(now=f"${len(WRITTEN) + 2}::bigint")}) END
    FROM {given(WRITTEN)}
    WHERE t.instance_id = u.instance_id AND t.revision = u.read_revision""",
    number=len(WRITTEN) + 1,
)

# --- groups of nothing but owners' writes: all in one round trip, on trust ---------------------

# Rows are locked in the order of their ids; a single one is locked as it is written. The statement fails (22012) unless every
# fence holds; the script then ends, and nothing of it is kept.
LOCK_IN_ORDER: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM @instance i WHERE i.instance_id = ANY($1::text[]) ORDER BY i.instance_id FOR UPDATE OF i) locked"""
_CLOCK: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
# As `_moment`, but evaluated once more where the row was locked by others: not before they have committed.
_KNOWN, _ASKS = f"${len(FENCED) + 2}::bigint", f"${len(FENCED) + 3}::boolean"
_WRITTEN_AT: Final = f"""
    CASE WHEN {_ASKS} AND NOT ({_CLOCK} BETWEEN {_KNOWN} - {STANDS_STILL} AND {_KNOWN}) THEN {_CLOCK} ELSE {_KNOWN} END"""
WRITE_FENCED: Final = f"""
    WITH written AS (
        UPDATE @instance t SET {", ".join(f"{name} = u.{name}" for name in _FENCED.without("wake_at").names)},
            revision = t.revision + 1, summary = u.summary, updated_at = {_WRITTEN_AT},
            wake_at = CASE WHEN u.status = 0 AND t.inbox_seq > u.seen_seq THEN 0 ELSE u.wake_at END,
            expires_at = CASE WHEN u.status <> 0 THEN ({_EXPIRES_AT.format(now=_WRITTEN_AT)}) END
        FROM {given(FENCED)}
        WHERE t.instance_id = u.instance_id AND t.incarnation = u.fence_incarnation AND t.revision = u.fence_revision
            AND t.owner = u.fence_owner AND t.status = 0
        RETURNING t.instance_id, t.inbox_seq, t.updated_at)
    SELECT array_agg(w.instance_id), array_agg(w.inbox_seq), max(w.updated_at),
        1 / (count(*) = ${len(FENCED) + 1}::bigint)::integer
    FROM written w"""

# --- claims -----------------------------------------------------------------------------------

# How many of each kind: first counted without locks, one of each kind in turn, so that a busy kind
# starves no other. Then that many are taken, past rows that other nodes are taking. The quota shows
# how many a kind has lost to others.
CLAIM: Final = f"""
    WITH quota AS MATERIALIZED (
        SELECT kind, min(place) AS place, count(*) AS quota
        FROM (
            SELECT k.kind_id AS kind, g.place, due.number
            FROM {_FOUND_KINDS}
            CROSS JOIN LATERAL (
                SELECT row_number() OVER () AS number FROM (
                    SELECT 1 FROM @instance c WHERE c.kind = k.kind_id AND c.due_at <= $7::bigint
                    ORDER BY c.due_at, c.instance_id LIMIT $8::bigint) ready) due
            ORDER BY due.number, g.place LIMIT $8::bigint) chosen
        GROUP BY kind),
    ready AS MATERIALIZED (
        SELECT r.instance_id FROM quota CROSS JOIN LATERAL (
            SELECT c.instance_id FROM @instance c WHERE c.kind = quota.kind AND c.due_at <= $7::bigint
            ORDER BY c.due_at, c.instance_id LIMIT quota.quota FOR UPDATE SKIP LOCKED) r),
    taken AS (
        UPDATE @instance i SET owner = $9::text, revision = i.revision + 1
        WHERE i.instance_id = ANY(ARRAY(SELECT instance_id FROM ready)) RETURNING {_ROW_COLUMNS})
    SELECT q.place, q.quota, i.* FROM quota q LEFT JOIN taken i ON i.kind = q.kind"""
IS_WAITING: Final = (
    "a.queue IS NOT NULL AND a.owner IS NULL AND a.result IS NULL AND a.failure IS NULL AND NOT "
    "a.paused"
)
NEXT_WAKE: Final = f"""
    SELECT least(
        (SELECT min(due.due_at) FROM {_FOUND_KINDS}
        CROSS JOIN LATERAL (
            SELECT c.due_at FROM @instance c WHERE c.kind = k.kind_id AND c.due_at IS NOT NULL
            ORDER BY c.due_at, c.instance_id LIMIT 1) due),
        (SELECT min(oldest.started_at) FROM unnest($7::text[], $8::text[]) AS r (queue, name)
        CROSS JOIN LATERAL (
            SELECT a.started_at FROM @activity a WHERE a.queue = r.queue AND a.name = r.name AND {IS_WAITING}
            ORDER BY a.started_at, a.instance_id LIMIT 1) oldest))"""

# --- activities that are handed out -----------------------------------------------------------

_TASKS: Final = """
    SELECT t.instance_id, i.incarnation, t.execution, t.event_id, t.revision, t.attempt, x.name, x.version, x.traceparent,
        t.heartbeat, t.heartbeat_encoding, t.stopping, e.event_id, e.kind, e.at, e.format, e.envelope, e.payload, e.encoding
    FROM {} t
    JOIN @instance i ON i.instance_id = t.instance_id
    JOIN @execution x ON x.instance_id = t.instance_id AND x.execution = t.execution
    JOIN @event e ON e.instance_id = t.instance_id AND e.execution = t.execution AND e.event_id = t.event_id"""
# Past rows that other nodes are taking, and one of each route in turn, so that a busy name starves
# no other.
TAKE_TASKS: Final = f"""
    WITH waiting AS MATERIALIZED (
        SELECT r.place, r.blocks, w.*
        FROM unnest($1::text[], $2::text[], $5::boolean[]) WITH ORDINALITY AS r (queue, name, blocks, place)
        CROSS JOIN LATERAL (
            SELECT a.instance_id, a.execution, a.event_id, a.started_at FROM @activity a
            WHERE a.queue = r.queue AND a.name = r.name AND {IS_WAITING}
            ORDER BY a.started_at, a.instance_id, a.execution, a.event_id
            LIMIT CASE WHEN r.blocks THEN least($3::bigint, $6::bigint) ELSE $3::bigint END FOR UPDATE SKIP LOCKED) w),
    in_turn AS (
        SELECT w.*, row_number() OVER (
            PARTITION BY place ORDER BY started_at, instance_id, execution, event_id) AS turn FROM waiting w),
    fitting AS (
        SELECT t.*, row_number() OVER (PARTITION BY blocks ORDER BY turn, place) AS number FROM in_turn t),
    chosen AS (
        SELECT instance_id, execution, event_id FROM fitting WHERE NOT blocks OR number <= $6::bigint
        ORDER BY turn, place LIMIT $3::bigint),
    taken AS (
        UPDATE @activity a SET owner = $4::text, revision = a.revision + 1 FROM chosen c
        WHERE a.instance_id = c.instance_id AND a.execution = c.execution AND a.event_id = c.event_id RETURNING a.*)
    {_TASKS.format("taken")} ORDER BY t.instance_id, t.execution, t.event_id"""
LIST_TASKS: Final = (
    f"{_TASKS.format('@activity')} WHERE t.owner = $1::text ORDER BY t.instance_id, t.execution, "
    "t.event_id"
)
# Under the locks of the instances. Only a node that takes one, has it or hands it back changes them
# meanwhile. So they are locked as well, in one order.
READ_TASKS: Final = f"""
    SELECT u.place, {_ACTIVITY_COLUMNS} FROM {given(ACTIVITY_ID, numbered=True)}
    JOIN @activity a ON a.instance_id = u.instance_id AND a.execution = u.execution AND a.event_id = u.event_id
    ORDER BY a.instance_id, a.execution, a.event_id FOR UPDATE OF a"""
REPORT_ACTIVITIES: Final = update("activity", tables.REPORT, ACTIVITY_ID)
# The activities of a leaving node.
LOCK_TAKEN: Final = """
    SELECT a.instance_id, a.execution, a.event_id, a.owner, a.stopping FROM @activity a WHERE a.owner = $1::text
    ORDER BY a.instance_id, a.execution, a.event_id FOR UPDATE"""
RELEASE_TASKS: Final = (
    "UPDATE @activity SET owner = NULL, revision = revision + 1 WHERE owner = $1::text AND NOT "
    "stopping"
)
# Those of a session that its node has not taken count as well: no other node takes them.
_NODE_OF_SESSION: Final = "substr(a.queue, 2)"
_IS_OF_NODE: Final = f"a.queue >= chr({ord(NODE_QUEUES[0])}) AND a.queue < chr({ord(NODE_QUEUES[1])}) AND {IS_WAITING}"
FIND_LOST_TASKS: Final = f"""
    (SELECT a.instance_id, a.execution, a.event_id, a.owner FROM @activity a
    WHERE a.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM @node n WHERE n.node_id = a.owner AND NOT n.dead)
    ORDER BY a.instance_id LIMIT $1::bigint)
    UNION ALL
    (SELECT a.instance_id, a.execution, a.event_id, {_NODE_OF_SESSION} FROM @activity a
    WHERE {_IS_OF_NODE} AND NOT EXISTS (SELECT 1 FROM @node n WHERE n.node_id = {_NODE_OF_SESSION} AND NOT n.dead)
    ORDER BY a.instance_id LIMIT $1::bigint)"""
# An instance that crashed its owners repeatedly waits out its delay (rule 14), as with any arrival.
LOSE_TASKS: Final = f"""
    WITH lost AS (
        UPDATE @activity a SET failure = '', owner = NULL, revision = a.revision + 1
        FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[]) AS u (instance_id, execution, event_id, owner)
        WHERE a.instance_id = u.instance_id AND a.execution = u.execution AND a.event_id = u.event_id
            AND (a.owner = u.owner OR ({_IS_OF_NODE} AND {_NODE_OF_SESSION} = u.owner))
        RETURNING a.instance_id),
    rung AS (
        UPDATE @instance i SET
            inbox_seq = i.inbox_seq + l.number, updated_at = $5::bigint,
            wake_at = CASE WHEN i.takeovers >= {CRASHES_BEFORE_DELAY} AND i.owner IS NULL AND i.wake_at > $5::bigint
                THEN least(i.wake_at, $6::bigint) ELSE least(i.wake_at, $5::bigint) END
        FROM (SELECT instance_id, count(*) AS number FROM lost GROUP BY instance_id) AS l
        WHERE i.instance_id = l.instance_id AND i.status = 0)
    SELECT count(*) FROM lost"""

# --- snapshots --------------------------------------------------------------------------------

# Run it after the statement that locked the rows. A statement sees other tables as they were when
# it began, but a row that it waited for as it is now.
READ_SNAPSHOTS: Final = f"""
    SELECT d.instance_id, {KIND_COLUMNS}, d.pin, d.hold, d.traceparent, d.parent_id, d.parent_incarnation,
        d.parent_execution, d.parent_event, d.root_id, d.operator_hold, d.nudge, i.summary, {EXECUTION_COLUMNS}
    FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS u (instance_id, execution, kind)
    JOIN @instance i ON i.instance_id = u.instance_id
    JOIN @kind k ON k.kind_id = u.kind
    JOIN @instance_detail d ON d.instance_id = u.instance_id
    JOIN @execution x ON x.instance_id = u.instance_id AND x.execution = u.execution"""
# Of each inbox all ends of children, and the first events. An event beyond the page comes without
# its payload, and shows that there are more. Payloads that are not returned are not loaded either:
# their sizes are known without that.
_M_COLUMNS: Final = (
    "m.sequence, m.message_id, m.name, m.payload, m.encoding, m.sent_at, m.kind, m.source, "
    "m.traceparent, m.sender"
)
_FITTING: Final = """
    f.sequence, f.message_id, f.name, CASE WHEN f.total <= {} THEN f.payload END, f.encoding, f.sent_at, f.kind, f.source,
    f.traceparent, f.sender"""
_SIZED: Final = f"""
    SELECT {_M_COLUMNS}, sum(octet_length(m.payload)) OVER (ORDER BY m.sequence) AS total,
        row_number() OVER (ORDER BY m.sequence) AS place"""
READ_INBOXES: Final = f"""
    SELECT u.instance_id, {_FITTING.format("$3::bigint")}
    FROM unnest($1::text[]) AS u (instance_id)
    CROSS JOIN LATERAL ({_SIZED} FROM (
        SELECT e.* FROM @message e WHERE e.instance_id = u.instance_id AND (e.kind < 1 OR e.kind = 5)
        ORDER BY e.sequence LIMIT $2::bigint) m) f
    UNION ALL
    SELECT m.instance_id, {_M_COLUMNS} FROM @message m WHERE m.instance_id = ANY($1::text[]) AND m.kind <> 0 AND m.source > 0
    ORDER BY 1, 2"""
READ_ACTIVITIES: Final = f"""
    SELECT a.instance_id, {_ACTIVITY_COLUMNS} FROM @activity a WHERE a.instance_id = ANY($1::text[])
    ORDER BY a.instance_id, a.execution, a.event_id"""

# --- reads of the store -----------------------------------------------------------------------

READ_HISTORY: Final = f"""
    SELECT {_EVENT_COLUMNS} FROM @event WHERE instance_id = $1::text AND execution = $2::bigint ORDER BY event_id"""
READ_ENVELOPES: Final = """
    SELECT event_id, kind, at, format, envelope FROM @event
    WHERE instance_id = $1::text AND execution = $2::bigint AND event_id = ANY($3::bigint[]) ORDER BY event_id"""
READ_NEWS: Final = f"""
    WITH news AS MATERIALIZED (
        SELECT i.instance_id, i.incarnation, i.inbox_seq, i.cancel_at, i.cancel_reason, i.cancel_by, i.cancel_terminate,
            i.seen_seq
        FROM @instance i WHERE i.news_for = $1::text)
    SELECT n.instance_id, n.incarnation, n.inbox_seq, n.cancel_at, n.cancel_reason, n.cancel_by, n.cancel_terminate, g.*
    FROM news n LEFT JOIN LATERAL (
        SELECT {_FITTING.format("$3::bigint")}
        FROM ({_SIZED} FROM (
            SELECT e.* FROM @message e WHERE e.instance_id = n.instance_id AND (e.kind < 1 OR e.kind = 5) AND e.sequence > n.seen_seq
            ORDER BY e.sequence LIMIT $2::bigint) m) f
        UNION ALL
        SELECT {_M_COLUMNS} FROM @message m
        WHERE m.instance_id = n.instance_id AND m.kind <> 0 AND m.source > 0 AND m.sequence > n.seen_seq) g ON true
    ORDER BY 1, 8"""


# The next events of some names, always with the first of each.
def _unread(kind: int) -> str:
    return f"""
    SELECT u.name, f.sequence, f.message_id, f.name, CASE WHEN f.total <= $6::bigint OR f.place = 1 THEN f.payload END,
        f.encoding, f.sent_at, f.kind, f.source, f.traceparent, f.sender
    FROM unnest($2::text[], $3::bigint[]) AS u (name, after)
    CROSS JOIN LATERAL ({_SIZED} FROM (
        SELECT e.* FROM @message e
        WHERE e.instance_id = $1::text AND e.kind = {kind} AND e.name = u.name AND e.sequence > u.after
            AND e.sequence <= $4::bigint
        ORDER BY e.sequence LIMIT $5::bigint) m) f
    ORDER BY 1, 2"""


READ_UNREAD: Final = _unread(0)
READ_UNREAD_REQUESTS: Final = _unread(5)
LIST_MESSAGES: Final = f"""
    SELECT {_M_COLUMNS} FROM @message m
    WHERE m.instance_id = $1::text AND (m.kind < 1 OR m.kind = 5 OR m.kind = 8) AND m.sequence > $2::bigint
    ORDER BY m.sequence LIMIT $3::bigint"""
LIST_ASIDE: Final = f"""
    SELECT {tables.SET_ASIDE.without("instance_id").listed("a")} FROM @set_aside a
    WHERE a.instance_id = $1::text AND a.sequence > $2::bigint ORDER BY a.sequence LIMIT $3::bigint"""
COUNT_NAMES: Final = f"""
    SELECT n.name, sum(n.number)::bigint AS total FROM (
        SELECT m.name, count(*) AS number FROM @message m WHERE m.instance_id = $1::text AND m.kind = 0 GROUP BY m.name
        UNION ALL
        SELECT m.name, count(*) FROM @message m WHERE m.instance_id = $1::text AND m.kind = 5 GROUP BY m.name
        UNION ALL
        SELECT a.name, count(*) FROM @set_aside a WHERE a.instance_id = $1::text GROUP BY a.name) AS n
    GROUP BY n.name ORDER BY total DESC, n.name LIMIT {NAMES_SHOWN}"""
READ_ENDED: Final = f"""
    SELECT a.instance_id, {_ACTIVITY_COLUMNS} FROM @instance i
    JOIN @activity a ON a.instance_id = i.instance_id AND a.execution = i.execution
    WHERE i.news_for = $1::text AND (a.result IS NOT NULL OR a.failure IS NOT NULL)
    ORDER BY a.instance_id, a.event_id"""
# After a clock went back: a pass over instances that are parked until a time. SKIP LOCKED: a row
# that is being written is right already.
ROUSE: Final = f"""
    WITH ahead AS MATERIALIZED (
        SELECT instance_id FROM @instance
        WHERE owner IS NULL AND status = 0 AND NOT held AND wake_at > $2::bigint
            AND (updated_at > $2::bigint OR instance_id = ANY($1::text[])
                OR updated_at >= $3::bigint AND updated_at < $4::bigint)
        LIMIT $5::bigint FOR UPDATE SKIP LOCKED)
    UPDATE @instance i SET
        wake_at = CASE WHEN i.takeovers >= {CRASHES_BEFORE_DELAY}
            THEN least(i.wake_at, $2::bigint + {LONGEST_DELAY}) ELSE 0 END,
        updated_at = $2::bigint
    FROM ahead
    WHERE i.instance_id = ahead.instance_id"""
LIST_OWNED: Final = "SELECT instance_id FROM @instance WHERE owner = $1::text ORDER BY instance_id"
# Node by node: without statistics the planner assumes that all rows are owned, and would read each
# of them.
# In one statement, so that a sweep which adds changes up is seen wholly or not at all.
READ_TALLY: Final = f"""
    SELECT {KIND_COLUMNS}, t.status, t.held, t.number
    FROM (SELECT a.kind, a.status, a.held, sum(a.number)::bigint AS number
        FROM (SELECT kind, status, held, number FROM @tally
            UNION ALL SELECT kind, status, held, number FROM @tally_change) AS a
        GROUP BY a.kind, a.status, a.held) AS t
    JOIN @kind k ON k.kind_id = t.kind WHERE t.number <> 0"""
# Nodes add up different changes at once. They lock the numbers in one order.
FOLD_TALLY: Final = """
    WITH folded AS (
        DELETE FROM @tally_change c
        WHERE c.ctid = ANY(ARRAY(SELECT ctid FROM @tally_change LIMIT $1::bigint FOR UPDATE SKIP LOCKED))
        RETURNING c.kind, c.status, c.held, c.number),
    added AS (
        INSERT INTO @tally AS t (kind, status, held, number)
        SELECT kind, status, held, sum(number) FROM folded GROUP BY kind, status, held ORDER BY kind, status, held
        ON CONFLICT (kind, status, held) DO UPDATE SET number = t.number + excluded.number)
    SELECT count(*) FROM folded"""
COUNT_OWNED_BY_KIND: Final = """
    SELECT kind, count(*) FROM @instance WHERE owner IS NOT NULL AND status = 0 GROUP BY kind"""
COUNT_LABEL: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM @label WHERE key = $1::text AND value = $2::text LIMIT $3::bigint) AS found"""
COUNT_HOLDS: Final = """
    SELECT kind, hold_kind, count(*) FROM @instance
    WHERE held AND hold_kind IS NOT NULL GROUP BY kind, hold_kind"""
COUNT_CRASHING: Final = """
    SELECT kind, count(*) FROM @instance
    WHERE takeovers >= 3 AND status = 0 AND NOT held AND owner IS NULL GROUP BY kind"""
LAST_BOUNDARIES: Final = f"""
    SELECT k.kind_id, {KIND_COLUMNS},
        (SELECT max(i.boundary_due) FROM @instance i WHERE i.kind = k.kind_id AND i.boundary_due IS NOT NULL)
    FROM @kind k"""
COUNT_FAILED: Final = """
    SELECT name, version, count(*) FROM @execution WHERE end_kind = 2 AND closed_at >= $1::bigint GROUP BY name, version"""
LIST_PINS: Final = f"""
    SELECT {KIND_COLUMNS}, d.pin FROM @instance_detail d JOIN @instance i ON i.instance_id = d.instance_id JOIN @kind k ON k.kind_id = i.kind
    WHERE d.pin IS NOT NULL AND i.status = 0 LIMIT $1::bigint"""
LIST_SEEN_CODE: Final = """
    SELECT name, version, fingerprint, first_seen, first_node, last_seen, last_node FROM @code_seen
    ORDER BY name, version, first_seen, fingerprint"""
# In the order of the key: nodes that join and leave at once see the same code.
SEE_CODE: Final = """
    INSERT INTO @code_seen AS s (name, version, fingerprint, first_seen, first_node, last_seen, last_node)
    SELECT c.name, c.version, c.fingerprint, $2::bigint, c.node_id, $2::bigint, c.node_id
    FROM @capability c WHERE c.node_id = $1::text ORDER BY c.name, c.version, c.fingerprint
    ON CONFLICT (name, version, fingerprint) DO UPDATE SET
        last_seen = greatest(s.last_seen, excluded.last_seen), last_node = excluded.last_node"""


def _groups(alias: str) -> str:
    return (
        f"{alias}.name, {alias}.version, coalesce({alias}.fingerprint, ''), {alias}.resolved_how, "
        f"coalesce({alias}.patches, '')"
    )


# Each group is found by one probe of the index, behind the one before.
LIST_OPEN_CODE: Final = f"""
    WITH RECURSIVE g (name, version, fingerprint, resolved_how, patches, created_at) AS (
        (SELECT {_groups("x")}, x.created_at FROM @execution x
        WHERE coalesce(x.closed_at, 0) = 0 AND x.name >= coalesce($1::text, '')
        ORDER BY {_groups("x")}, x.created_at LIMIT 1)
        UNION ALL
        SELECT n.* FROM g CROSS JOIN LATERAL (
            SELECT {_groups("x")}, x.created_at FROM @execution x
            WHERE coalesce(x.closed_at, 0) = 0 AND ({_groups("x")}) > (g.name, g.version, g.fingerprint, g.resolved_how, g.patches)
            ORDER BY {_groups("x")}, x.created_at LIMIT 1) AS n
        WHERE $1::text IS NULL OR g.name = $1::text)
    SELECT * FROM g LIMIT $2::bigint"""
COUNT_OWNED: Final = """
    SELECT g.node_id, (SELECT count(*) FROM @instance i WHERE i.owner = g.node_id) FROM unnest($1::text[]) AS g (node_id)"""
GOING_AMONG: Final = """
    SELECT g.instance_id FROM unnest($1::text[]) AS g (instance_id)
    WHERE (SELECT i.status = 0 AND NOT i.held FROM @instance i WHERE i.instance_id = g.instance_id)"""
COUNT_OVERDUE: Final = """
    SELECT k.name, count(*) FROM @instance i JOIN @kind k ON k.kind_id = i.kind
    WHERE i.boundary_due <= $1::bigint AND i.status = 0 GROUP BY k.name"""
LIST_HELD: Final = f"""
    SELECT i.created_at, i.instance_id, i.incarnation, i.revision, {KIND_COLUMNS}, d.hold, i.paused, d.operator_hold
    FROM (
        SELECT h.created_at, h.instance_id, h.incarnation, h.revision, h.kind, h.paused, h.status FROM @instance h
        WHERE h.held AND (h.created_at, h.instance_id) > ($1::bigint, $2::text)
        ORDER BY h.created_at, h.instance_id LIMIT $3::bigint) i
    LEFT JOIN @kind k ON k.kind_id = i.kind AND k.name = ANY($4::text[]) AND i.status = 0
    LEFT JOIN LATERAL (
        SELECT d.hold, d.operator_hold FROM @instance_detail d
        WHERE d.instance_id = i.instance_id AND k.kind_id IS NOT NULL) d ON true
    ORDER BY i.created_at, i.instance_id"""

# --- nodes ------------------------------------------------------------------------------------

ADD_NODE: Final = """
    INSERT INTO @node (
        node_id, host, boot_id, pid, library, abilities, lease, started_at, renewed_at, renewals, dead, pulse, pulse_server,
        reads, writes)
    VALUES ($1::text, $2::text, $3::text, $4::bigint, $5::text, $6::bytea, $7::bigint, $8::bigint, $8::bigint, 0, false,
        $9::bigint, $10::bigint, $11::bigint, $12::bigint)"""
ADD_CAPABILITIES: Final = """
    INSERT INTO @capability (node_id, name, version, fingerprint)
    SELECT $1::text, u.* FROM unnest($2::text[], $3::text[], $4::text[]) u"""
ADD_NODE_ACTIVITIES: Final = (
    "INSERT INTO @node_activity (node_id, name) SELECT $1::text, u.* FROM unnest($2::text[]) u"
)
RENEW_NODE: Final = """
    UPDATE @node SET
        renewals = renewals + 1, renewed_at = $2::bigint, pulse = $3::bigint, pulse_server = $4::bigint, load = $5::bigint
    WHERE node_id = $1::text AND NOT dead"""
BURY_NODE: Final = (
    "UPDATE @node SET dead = true WHERE node_id = $1::text AND renewals = $2::bigint AND NOT dead"
)
REMOVE_NODE: Final = "DELETE FROM @node WHERE node_id = $1::text"
REMOVE_CAPABILITIES: Final = "DELETE FROM @capability WHERE node_id = $1::text"
REMOVE_NODE_ACTIVITIES: Final = "DELETE FROM @node_activity WHERE node_id = $1::text"
PRUNE_NODES: Final = "DELETE FROM @node WHERE dead AND renewed_at < $1::bigint"
# The instances of a leaving node, and those that learn of an activity's end by that.
LOCK_LEFT: Final = """
    SELECT i.instance_id FROM @instance i
    WHERE i.instance_id = ANY(ARRAY(
        SELECT o.instance_id FROM @instance o WHERE o.owner = $1::text
        UNION SELECT a.instance_id FROM @activity a WHERE a.owner = $1::text AND a.stopping))
    ORDER BY i.instance_id FOR UPDATE"""
RELEASE_OWNED: Final = """
    UPDATE @instance SET owner = NULL, wake_at = 0, revision = revision + 1 WHERE owner = $1::text"""
FIND_GHOST_OWNED: Final = """
    SELECT i.instance_id, i.owner FROM @instance i
    WHERE i.owner IS NOT NULL AND NOT EXISTS (SELECT 1 FROM @node n WHERE n.node_id = i.owner AND NOT n.dead)
    ORDER BY i.owner, i.instance_id LIMIT $1::bigint"""
# Conditional on the owner alone: it is dead or unknown for ever, even if a write of it succeeded
# meanwhile. From the third take-over on the next claim waits 2^n seconds, at most five minutes
# (rule 14).
TAKE_OVER: Final = f"""
    UPDATE @instance i SET
        owner = NULL, revision = revision + 1, takeovers = takeovers + 1,
        wake_at = CASE WHEN takeovers < {CRASHES_BEFORE_DELAY - 1} THEN 0
            ELSE $3::bigint + least(1000000::bigint << least(takeovers + 1, 9), {LONGEST_DELAY}) END
    FROM unnest($1::text[], $2::text[]) AS u (instance_id, owner)
    WHERE i.instance_id = u.instance_id AND i.owner = u.owner"""

LIST_NODES: Final = """
    SELECT node_id, host, boot_id, pid, library, abilities, lease, started_at, renewed_at, renewals, dead, load, reads, writes
    FROM @node WHERE NOT dead ORDER BY node_id"""
LIST_CAPABILITIES: Final = """
    SELECT c.node_id, c.name, c.version, c.fingerprint FROM @capability c
    JOIN @node n ON n.node_id = c.node_id AND NOT n.dead ORDER BY c.node_id, c.name, c.version"""
LIST_NODE_ACTIVITIES: Final = """
    SELECT a.node_id, a.name FROM @node_activity a
    JOIN @node n ON n.node_id = a.node_id AND NOT n.dead ORDER BY a.node_id, a.name"""
LIST_POLICIES: Final = (
    "SELECT name, revision, value, set_by, reason, set_at FROM @policy ORDER BY name"
)
LIST_POLICIES_OF: Final = """
    SELECT name, revision, value, set_by, reason, set_at FROM @policy WHERE name = $1::text
    UNION ALL
    SELECT name, revision, value, set_by, reason, set_at FROM @policy_history WHERE name = $1::text
    ORDER BY revision DESC LIMIT $2::bigint"""

# --- hints: the pulse of a node is a lock of its own connection -------------------------------

TAKE_PULSE: Final = "SELECT pg_advisory_lock_shared($1::bigint)"
LOSE_PULSE: Final = "SELECT pg_advisory_unlock_shared($1::bigint)"
# The identity of the server's history: its cluster, and the timeline of its log. A promoted standby
# and a restored backup begin another timeline.
READ_BRANCH: Final = """
    SELECT (SELECT s.system_identifier FROM pg_catalog.pg_control_system() s), left(pg_walfile_name(pg_current_wal_lsn()), 8)"""
READ_SERVER_START: Final = (
    "SELECT (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"
)
# Nodes whose connection belonged to this start of the server, and is gone.
LIST_PULSELESS: Final = """
    SELECT n.node_id, n.renewals, n.host, n.pid, n.abilities FROM @node n
    WHERE NOT n.dead AND n.pulse IS NOT NULL
        AND n.pulse_server = (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint
        AND NOT EXISTS (
            SELECT 1 FROM pg_catalog.pg_locks l
            WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
                AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
                AND (l.classid::bigint << 32) | l.objid::bigint = n.pulse)
    ORDER BY n.node_id"""
NOTIFY: Final = "SELECT pg_notify($1::text, $2::text)"

# --- the directory ----------------------------------------------------------------------------

RECORD_COLUMNS: Final = f"""
    SELECT {KIND_COLUMNS}, {INSTANCE_COLUMNS}, {EXECUTION_COLUMNS},
        i.held, i.status, i.summary, d.custom_status, d.custom_status_encoding, i.created_at, i.updated_at, d.created_by,
        (SELECT count(*) FROM @message m WHERE m.instance_id = i.instance_id AND m.kind = 0)
            + (SELECT count(*) FROM @message m WHERE m.instance_id = i.instance_id AND m.kind = 5), d.unread_names, d.unread_counts,
        ARRAY(SELECT l.key FROM @label l WHERE l.instance_id = i.instance_id ORDER BY l.key),
        ARRAY(SELECT l.value FROM @label l WHERE l.instance_id = i.instance_id ORDER BY l.key), i.expires_at,
        (SELECT count(*) FROM @set_aside a WHERE a.instance_id = i.instance_id), d.schedule_id, d.schedule_tick"""
FROM_HOT_ROWS_ALONE: Final = """
    FROM @instance i"""
FROM_HOT_ROWS: Final = f"""{FROM_HOT_ROWS_ALONE}
    JOIN @kind k ON k.kind_id = i.kind"""
FROM_INSTANCES: Final = f"""{FROM_HOT_ROWS}
    JOIN @instance_detail d ON d.instance_id = i.instance_id"""
# OFFSET 0 keeps the planner from deriving x.instance_id = d.instance_id: in a store with a long loop
# it has read all executions of the loop for that, and dropped all but one.
FROM_RECORDS: Final = f"""{FROM_INSTANCES}
    CROSS JOIN LATERAL (
        SELECT * FROM @execution e WHERE e.instance_id = i.instance_id AND e.execution = i.execution OFFSET 0) AS x"""
READ_RECORD: Final = f"{RECORD_COLUMNS}, NULL::text[]{FROM_RECORDS} WHERE i.instance_id = $1::text"


def _waiting_routes(among: str = "true") -> str:
    """Return the routes by which activities wait: one look at the index for each, past all
    activities of the one before.
    """
    return f"""
    WITH RECURSIVE found AS (
        (SELECT a.queue, a.name FROM @activity a WHERE {IS_WAITING} AND {among} ORDER BY a.queue, a.name LIMIT 1)
        UNION ALL
        SELECT n.queue, n.name FROM found f CROSS JOIN LATERAL (
            SELECT a.queue, a.name FROM @activity a
            WHERE {IS_WAITING} AND {among} AND (a.queue, a.name) > (f.queue, f.name) ORDER BY a.queue, a.name LIMIT 1) n)
    SELECT queue, name FROM found ORDER BY queue, name"""


WAITING_ROUTES: Final = _waiting_routes()
WAITING_SESSIONS: Final = _waiting_routes(
    f"a.queue >= chr({ord(SESSION_QUEUES[0])}) AND a.queue < chr({ord(SESSION_QUEUES[1])})"
)
LIST_REPORTS: Final = (
    "SELECT source FROM @message WHERE instance_id = $1::text AND kind <> 0 AND kind <> 8 "
    "AND source > 0 ORDER BY source"
)
LIST_EXECUTIONS: Final = f"""
    SELECT {EXECUTION_COLUMNS} FROM @execution x
    WHERE x.instance_id = $1::text AND x.execution > $2::bigint ORDER BY x.execution LIMIT $3::bigint"""

# --- operators --------------------------------------------------------------------------------

LOCK_POLICY: Final = """
    SELECT name, revision, value, set_by, reason, set_at FROM @policy WHERE name = $1::text FOR UPDATE"""
# Changes nothing if another operator has set the first policy since it was read: no row was there to lock.
SET_POLICY: Final = """
    INSERT INTO @policy AS p (name, revision, value, set_by, reason, set_at)
    VALUES ($1::text, $2::bigint, $3::text, $4::text, $5::text, $6::bigint)
    ON CONFLICT (name) DO UPDATE SET
        revision = excluded.revision, value = excluded.value, set_by = excluded.set_by, reason = excluded.reason,
        set_at = excluded.set_at
    WHERE p.revision = excluded.revision - 1"""
ADD_FORMER_POLICY: Final = """
    INSERT INTO @policy_history (name, revision, value, set_by, reason, set_at)
    VALUES ($1::text, $2::bigint, $3::text, $4::text, $5::text, $6::bigint)"""
PRUNE_FORMER_POLICIES: Final = (
    "DELETE FROM @policy_history WHERE name = $1::text AND revision < $2::bigint"
)
# Takes ownership away (rule 6), so that the pin reaches an owner with the instance in memory.
REVOKE: Final = """
    UPDATE @instance SET
        revision = revision + 1, wake_at = CASE WHEN owner IS NULL THEN wake_at ELSE 0 END, owner = NULL,
        updated_at = $1::bigint
    WHERE instance_id = $2::text AND status = 0"""
READ_NUDGE: Final = "SELECT nudge FROM @instance_detail WHERE instance_id = $1::text"
SET_NUDGE: Final = "UPDATE @instance_detail SET nudge = $1::bytea WHERE instance_id = $2::text"
READ_PIN: Final = "SELECT pin FROM @instance_detail WHERE instance_id = $1::text"
SET_PIN: Final = "UPDATE @instance_detail SET pin = $1::bytea WHERE instance_id = $2::text"
DELETE_INSTANCES: Final = exactly(
    "DELETE FROM @instance WHERE instance_id = ANY($1::text[]) AND status <> 0", number=2
)
DELETE_BELONGINGS: Final = (
    "DELETE FROM @instance_detail WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @label WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @execution WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @event WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @message WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @tombstone WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @activity WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @set_aside WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @request WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @stream WHERE instance_id = ANY($1::text[])",
    "DELETE FROM @stream_item WHERE instance_id = ANY($1::text[])",
)
FIND_EXPIRED: Final = """
    SELECT instance_id, incarnation, expires_at FROM @instance
    WHERE expires_at <= greatest(
        $1::bigint, CASE WHEN $2::boolean THEN (extract(epoch FROM statement_timestamp()) * 1000000)::bigint END)
    ORDER BY expires_at, instance_id LIMIT $3::bigint"""
SET_EXPIRY: Final = """
    INSERT INTO @expiry (name, after) VALUES ($1::text, $2::bigint) ON CONFLICT (name) DO UPDATE SET after = excluded.after"""
REMOVE_EXPIRY: Final = "DELETE FROM @expiry WHERE name = $1::text"
LIST_EXPIRIES: Final = "SELECT name, after FROM @expiry"
ADD_OPERATIONS: Final = insert("operation", OPERATION)
LIST_OPERATIONS: Final = """
    SELECT at, actor, action, subject, detail, operation_id FROM @operation
    WHERE ($1::text IS NULL OR subject = $1::text) AND ($2::text IS NULL OR action = $2::text)
        AND ($3::text IS NULL OR actor = $3::text)
        AND ($4::bigint IS NULL OR (at, operation_id) < ($4::bigint, $5::text))
    ORDER BY at DESC, operation_id DESC LIMIT $6::bigint"""
# The audit is bounded too: people ask about the latest entries.
PRUNE_OPERATIONS: Final = """
    WITH old AS MATERIALIZED (
        SELECT operation_id FROM @operation
        WHERE at < (SELECT k.at FROM @operation k ORDER BY k.at DESC OFFSET $1::bigint LIMIT 1)
        ORDER BY at LIMIT 1000 FOR UPDATE SKIP LOCKED)
    DELETE FROM @operation o USING old
    WHERE o.operation_id = old.operation_id"""

# --- schedules --------------------------------------------------------------------------------

# A schedule that a group may make is there from its locks on, under revision 0: of two that make it
# one waits for the other. The group's decision gives it its first revision.
MAKE_SCHEDULES: Final = """
    INSERT INTO @schedule (
        schedule_id, incarnation, revision, definition, state, value, value_encoding, paused, level, edition, created_at, updated_at, changed_by,
        request_id)
    SELECT u.schedule_id, '', 0, '', '', '', 0, false, 1, 0, 0, 0, '', '' FROM unnest($1::text[]) AS u (schedule_id)
    ORDER BY u.schedule_id COLLATE "C" ON CONFLICT (schedule_id) DO NOTHING"""
LOCK_SCHEDULES: Final = """
    SELECT s.schedule_id, s.incarnation, s.revision FROM @schedule s
    WHERE s.schedule_id = ANY($1::text[]) ORDER BY s.schedule_id FOR UPDATE OF s"""
SCHEDULE_FENCE: Final = Columns((*tables.SCHEDULE.only("schedule_id"), *_READ_REVISION))
SCHEDULE_WRITTEN: Final = Columns((*tables.SCHEDULE, *_READ_REVISION))
_SCHEDULE_CHANGES: Final = ", ".join(
    f"{name} = u.{name}" for name in tables.SCHEDULE.without("schedule_id").names
)
WRITE_SCHEDULES: Final = exactly(
    f"""
    UPDATE @schedule t SET {_SCHEDULE_CHANGES} FROM {given(SCHEDULE_WRITTEN)}
    WHERE t.schedule_id = u.schedule_id AND t.revision = u.read_revision""",
    number=len(SCHEDULE_WRITTEN) + 1,
)
DELETE_SCHEDULES: Final = exactly(
    f"""
    DELETE FROM @schedule t USING {given(SCHEDULE_FENCE)}
    WHERE t.schedule_id = u.schedule_id AND t.revision = u.read_revision""",
    number=len(SCHEDULE_FENCE) + 1,
)
DELETE_SLOTS: Final = "DELETE FROM @schedule_slot WHERE schedule_id = ANY($1::text[])"
# What is recorded of a slot stays.
ADD_SLOTS: Final = f"{insert('schedule_slot', tables.SCHEDULE_SLOT)} ON CONFLICT DO NOTHING"
ENDED_RUN: Final = Columns((*tables.SLOT_KEY, *tables.SCHEDULE_SLOT.only("ended")))
END_RUNS: Final = f"""
    UPDATE @schedule_slot t SET follows = false, ended = u.ended FROM {given(ENDED_RUN)}
    WHERE t.schedule_id = u.schedule_id AND t.slot = u.slot AND t.cause = u.cause"""
PRUNE_SLOTS: Final = f"""
    DELETE FROM @schedule_slot t USING (
        SELECT u.schedule_id, (
            SELECT s.slot FROM @schedule_slot s WHERE s.schedule_id = u.schedule_id AND NOT s.follows
            ORDER BY s.slot DESC LIMIT 1 OFFSET {KEPT_SLOTS - 1}) AS last
        FROM unnest($1::text[]) AS u (schedule_id)) AS p
    WHERE t.schedule_id = p.schedule_id AND NOT t.follows AND t.slot < p.last"""
NEXT_TICK: Final = "SELECT min(next_at) FROM @schedule WHERE next_at > $1::bigint"
FIND_DUE_SCHEDULES: Final = f"""
    SELECT {tables.SCHEDULE.listed()} FROM @schedule
    WHERE next_at <= $1::bigint AND (next_at, schedule_id) > ($2::bigint, $3::text)
    ORDER BY next_at, schedule_id LIMIT $4::bigint"""
READ_SCHEDULE: Final = f"SELECT {tables.SCHEDULE.listed()} FROM @schedule WHERE schedule_id = $1::text AND revision > 0"
LIST_SCHEDULES: Final = f"""
    SELECT {tables.SCHEDULE.listed()} FROM @schedule
    WHERE schedule_id > $1::text AND revision > 0 ORDER BY schedule_id LIMIT $2::bigint"""
_SLOT: Final = tables.SCHEDULE_SLOT.without("schedule_id")
LIST_SLOTS: Final = f"""
    SELECT g.schedule_id, s.* FROM unnest($1::text[]) AS g (schedule_id) CROSS JOIN LATERAL (
        SELECT {_SLOT.listed("n")} FROM @schedule_slot n WHERE n.schedule_id = g.schedule_id
        ORDER BY n.slot DESC, n.cause DESC LIMIT $2::bigint) AS s"""
# With the instance that the slot has started, or whether the event that it has sent is unread.
LIST_RUNS: Final = f"""
    SELECT s.schedule_id, {_SLOT.listed("s")}, i.incarnation, i.status, i.held, m.sequence IS NOT NULL, i.cancel_at IS NOT NULL
    FROM @schedule_slot s
    LEFT JOIN @instance_detail d
        ON d.instance_id = s.instance_id AND d.schedule_id = s.schedule_id AND d.schedule_tick = s.slot
    LEFT JOIN @instance i ON i.instance_id = d.instance_id
    LEFT JOIN @message m ON m.instance_id = s.instance_id AND m.kind < 1 AND m.message_id =
        'schedule:' || s.schedule_id || '/' || s.slot || CASE s.cause WHEN '{TRIGGERED}' THEN '/trigger' ELSE '' END
    WHERE s.schedule_id = ANY($1::text[]) AND s.follows ORDER BY s.schedule_id, s.slot, s.cause"""
# --- streams ----------------------------------------------------------------------------------

PUBLISHED: Final = Columns(
    (*tables.STREAM.only("incarnation"), *tables.STREAM_ITEM.without("item_offset"))
)
_PUBLISHED_ITEM: Final = tables.STREAM_ITEM.without("item_offset")
# Blind: the instance's row is locked, so only this transaction changes its streams. ON CONFLICT sees
# the newest row, and gives the offsets.
PUBLISH: Final = f"""
    WITH given AS MATERIALIZED (
        SELECT u.*, row_number() OVER same AS number, count(*) OVER stream AS total
        FROM {given(PUBLISHED, numbered=True)}
        WINDOW same AS (PARTITION BY u.instance_id, u.stream ORDER BY u.place),
            stream AS (PARTITION BY u.instance_id, u.stream)),
    grown AS (
        INSERT INTO @stream AS s (instance_id, stream, incarnation, first_offset, last_offset, bytes, first_at)
        SELECT g.instance_id, g.stream, min(g.incarnation), 1, count(*), sum(octet_length(g.payload)), min(g.at)
        FROM given g GROUP BY g.instance_id, g.stream ORDER BY g.instance_id, g.stream
        ON CONFLICT (instance_id, stream) DO UPDATE SET
            last_offset = s.last_offset + excluded.last_offset, bytes = s.bytes + excluded.bytes
        RETURNING s.instance_id, s.stream, s.last_offset)
    INSERT INTO @stream_item (item_offset, {_PUBLISHED_ITEM.listed()})
    SELECT n.last_offset - g.total + g.number, {_PUBLISHED_ITEM.listed("g")}
    FROM given g JOIN grown n ON n.instance_id = g.instance_id AND n.stream = g.stream"""
STREAM_BOUNDS: Final = Columns(
    (
        *tables.STREAM.only("instance_id", "stream"),
        *(Column(name, "number") for name in ("items", "size", "age", "now")),
    )
)
# Streams that are an eighth over a bound lose their oldest items, a bounded number at once; the
# rules of is_over and last_cut.
CUT_STREAMS: Final = f"""
    WITH due AS MATERIALIZED (
        SELECT s.instance_id, s.stream, s.last_offset, s.bytes, u.items, u.size, u.age, u.now
        FROM {given(STREAM_BOUNDS)}
        JOIN @stream s ON s.instance_id = u.instance_id AND s.stream = u.stream
        WHERE s.last_offset - s.first_offset + 1 > u.items + u.items / {SLACK}
            OR s.bytes > u.size + u.size / {SLACK} OR s.first_at < u.now - u.age - u.age / {SLACK}),
    cut AS MATERIALIZED (
        SELECT d.instance_id, d.stream, c.item_offset, c.gone FROM due d CROSS JOIN LATERAL (
            SELECT max(o.item_offset) AS item_offset, max(o.passed) AS gone FROM (
                SELECT t.item_offset, t.at, octet_length(t.payload) AS length,
                    sum(octet_length(t.payload)) OVER (ORDER BY t.item_offset) AS passed
                FROM @stream_item t
                WHERE t.instance_id = d.instance_id AND t.stream = d.stream AND t.item_offset < d.last_offset
                ORDER BY t.item_offset LIMIT {AT_ONCE}) AS o
            WHERE o.item_offset <= d.last_offset - d.items OR d.bytes - (o.passed - o.length) > d.size
                OR o.at < d.now - d.age) AS c
        WHERE c.item_offset IS NOT NULL),
    gone AS (
        DELETE FROM @stream_item t USING cut c
        WHERE t.instance_id = c.instance_id AND t.stream = c.stream AND t.item_offset <= c.item_offset)
    UPDATE @stream s SET first_offset = c.item_offset + 1, bytes = s.bytes - c.gone,
        first_at = (SELECT t.at FROM @stream_item t
            WHERE t.instance_id = s.instance_id AND t.stream = s.stream AND t.item_offset = c.item_offset + 1)
    FROM cut c WHERE s.instance_id = c.instance_id AND s.stream = c.stream"""
STREAM_COLUMNS: Final = tables.STREAM.without("instance_id", "first_at").listed("s")
# Items beyond the page's bytes come without their payloads, which are then not loaded.
READ_STREAM: Final = f"""
    SELECT i.status, {STREAM_COLUMNS}, t.item_offset,
        CASE WHEN t.place = 1 OR t.total <= $5::bigint THEN t.payload END,
        t.encoding, t.at, t.execution, t.event_id, t.attempt
    FROM @instance i
    LEFT JOIN @stream s ON s.instance_id = i.instance_id AND s.stream = $2::text
    LEFT JOIN LATERAL (
        SELECT p.*, sum(octet_length(p.payload)) OVER (ORDER BY p.item_offset) AS total,
            row_number() OVER (ORDER BY p.item_offset) AS place
        FROM (
            SELECT o.* FROM @stream_item o
            WHERE o.instance_id = i.instance_id AND o.stream = $2::text AND o.item_offset > $3::bigint
            ORDER BY o.item_offset LIMIT $4::bigint) AS p) AS t ON true
    WHERE i.instance_id = $1::text ORDER BY t.item_offset"""
LIST_STREAMS: Final = f"""
    SELECT {STREAM_COLUMNS} FROM @stream s WHERE s.instance_id = $1::text ORDER BY s.stream"""
ATTEMPT: Final = tables.STREAM_ITEM.only("instance_id", "execution", "event_id", "attempt")
# By an index of the items of activities: each change of theirs asks.
READ_LAST_NUMBERS: Final = f"""
    SELECT u.place, l.number FROM {given(ATTEMPT, numbered=True)} CROSS JOIN LATERAL (
        SELECT t.attempt_number AS number FROM @stream_item t
        WHERE t.instance_id = u.instance_id AND t.execution = u.execution AND t.event_id = u.event_id
            AND t.attempt = u.attempt
        ORDER BY t.attempt_number DESC LIMIT 1) AS l"""

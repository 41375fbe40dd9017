"""Scripts of statements: one message to the server, one wait, and all answers.

The driver's own pipeline talks to the server at each statement, and releases the interpreter's lock
each time: five conversations for five statements. Here libpq gets all statements first, and sends
them at once.
"""

from __future__ import annotations

import select
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.abc import PQGen
from psycopg.adapt import Transformer
from psycopg.errors import error_from_result
from psycopg.waiting import Ready, Wait

from orchestra.providers.postgres.arrays import to_binary
from orchestra.providers.postgres.connection import Connection, Connector

__all__ = ["Result", "Row", "Script", "is_dead"]

Row = tuple[Any, ...]

_BINARY: Final = pq.Format.BINARY
_GOOD: Final = (pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK)


class Result:
    """The result of a statement, once its script has run."""

    __slots__ = ("_connection", "_result")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._result: pq.abc.PGresult | None = None

    @property
    def rows(self) -> list[Row]:
        """The rows that it returned."""
        result = self._done
        transformer = Transformer(self._connection)
        transformer.set_pgresult(result, set_loaders=True, format=_BINARY)
        return transformer.load_rows(0, result.ntuples, tuple)

    @property
    def count(self) -> int:
        """How many rows it has changed."""
        return self._done.command_tuples or 0

    @property
    def tag(self) -> str:
        """The server's name for the command."""
        return (self._done.command_status or b"").decode()

    @property
    def _done(self) -> pq.abc.PGresult:
        assert self._result is not None, "the script has not run"
        return self._result


class Script:
    """Statements that go to the server together, in one round trip.

    They are prepared on a direct connection. Behind a pooler the next transaction may run on
    another connection of the server, which has not prepared them.
    """

    def __init__(self, connection: Connection, connector: Connector) -> None:
        self._connection = connection
        self._connector = connector
        self._statements: list[tuple[bytes, list[bytes | None], Result]] = []

    def add(self, statement: str, *values: Any) -> Result:
        """Add a statement."""
        return self.add_rendered(self._connector.render(statement), values)

    def add_rendered(self, statement: bytes, values: Sequence[Any]) -> Result:
        """Add a statement whose schema was filled in."""
        result = Result(self._connection)
        self._statements.append((statement, [to_binary(value) for value in values], result))
        return result

    def extend(self, script: Script) -> None:
        """Add the statements of another script."""
        self._statements += script._statements

    def run(self) -> None:
        """Run the statements. After the first failure, none is executed.

        Raises:
            psycopg.Error: a statement has failed, or the connection was lost.
        """
        statements, self._statements = self._statements, []
        if not statements:
            return
        prepared = self._connector.prepared_on(self._connection)
        with self._connection.lock:
            try:
                failed = self._connection.converse(self._exchange(statements, prepared))
            except BaseException:
                # Interrupted in a conversation: the connection is unusable.
                self._connection.pgconn.finish()
                raise
        if failed is not None:
            raise error_from_result(failed)

    def _exchange(
        self,
        statements: Sequence[tuple[bytes, list[bytes | None], Result]],
        prepared: dict[bytes, bytes] | None,
    ) -> PQGen[pq.abc.PGresult | None]:
        pgconn = self._connection.pgconn
        pgconn.enter_pipeline_mode()
        answers: list[tuple[bytes, Result | None]] = []
        for statement, values, result in statements:
            self._send(pgconn, statement, values, prepared, answers)
            answers.append((statement, result))
        pgconn.pipeline_sync()
        failed = yield from _converse(pgconn, answers, prepared)
        pgconn.exit_pipeline_mode()
        return failed

    @staticmethod
    def _send(
        pgconn: pq.abc.PGconn,
        statement: bytes,
        values: list[bytes | None],
        prepared: dict[bytes, bytes] | None,
        answers: list[tuple[bytes, Result | None]],
    ) -> None:
        formats = [_BINARY] * len(values)
        if prepared is None:
            pgconn.send_query_params(
                statement, values, param_formats=formats, result_format=_BINARY
            )
            return
        name = prepared.get(statement)
        if name is None:
            name = b"orchestra_" + blake2b(statement, digest_size=16).hexdigest().encode()
            pgconn.send_prepare(name, statement)
            answers.append((statement, None))
            prepared[statement] = name
        pgconn.send_query_prepared(name, values, param_formats=formats, result_format=_BINARY)


def is_dead(connection: Connection) -> bool:
    """Return whether the server has sent something on an idle connection: most likely its
    farewell.
    """
    pgconn = connection.pgconn
    if pgconn.status == pq.ConnStatus.OK and select.select([pgconn.socket], [], [], 0)[0]:
        pgconn.finish()  # if it was a notice, a new connection is cheap
    return pgconn.status != pq.ConnStatus.OK


def _converse(
    pgconn: pq.abc.PGconn,
    answers: Sequence[tuple[bytes, Result | None]],
    prepared: dict[bytes, bytes] | None,
) -> PQGen[pq.abc.PGresult | None]:
    """Send libpq's buffer, and read the answers. Return the first error."""
    while pgconn.flush():
        if (yield Wait.RW) & Ready.R:
            pgconn.consume_input()
    failed: pq.abc.PGresult | None = None
    for statement, result in answers:
        answer = yield from _next_answer(pgconn)
        if answer.status in _GOOD:
            if result is not None:
                result._result = answer
            continue
        if result is None and prepared is not None:
            prepared.pop(statement, None)
        if failed is None:
            failed = answer
    yield from _next_answer(pgconn)  # the answer to the sync
    return failed


def _next_answer(pgconn: pq.abc.PGconn) -> PQGen[pq.abc.PGresult]:
    while True:
        while pgconn.is_busy():
            yield Wait.R
            pgconn.consume_input()
        answer = pgconn.get_result()
        if answer is None:  # it separates the answers of two statements
            if pgconn.status != pq.ConnStatus.OK:
                raise psycopg.OperationalError("the connection was lost")
            continue
        if pgconn.status != pq.ConnStatus.OK:
            raise error_from_result(answer)
        return answer

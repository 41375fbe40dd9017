"""Arrays in PostgreSQL's binary form, which the server gives back as they were."""

from __future__ import annotations

import struct

import psycopg
import pytest
from psycopg.adapt import PyFormat

from orchestra.providers.postgres.arrays import Blobs, Flags, Numbers, Texts, to_binary

ARRAYS = [
    ("bigint", Numbers, [0, -1, 2**63 - 1, -(2**63)]),
    ("text", Texts, ["", "a", "ä☃", '{"x"}', "null"]),
    ("bytea", Blobs, [b"", b"\0", b"x" * 300]),
    ("boolean", Flags, [True, False]),
]


@pytest.mark.parametrize(("kind", "form", "values"), ARRAYS, ids=[kind for kind, *_ in ARRAYS])
def test_an_array_comes_back_as_it_was_whatever_its_length(dsn, kind, form, values):
    lists = [[], *([value] for value in values), values, [None], [None, *values, None]]
    if form is Flags:
        lists = [one for one in lists if None not in one]
    with psycopg.connect(dsn) as connection:
        connection.adapters.register_dumper(_Sent, _Dumper)
        for one in lists:
            sent = to_binary(form(one))
            found = connection.execute(
                f"SELECT %{PyFormat.BINARY.value}::{kind}[]", [_Sent(sent)], binary=True
            ).fetchone()
            assert found == (one,)


class _Sent:
    def __init__(self, data):
        self.data = data


class _Dumper(psycopg.adapt.Dumper):
    format = psycopg.pq.Format.BINARY

    def dump(self, obj):
        return obj.data


def test_a_number_that_no_column_holds_is_refused():
    with pytest.raises((struct.error, OverflowError)):
        to_binary(Numbers([2**63]))

"""The filter language: what it means, and that nothing gets past it into SQL."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stationmaster_server.db.engine import Database
from stationmaster_server.db.filters import Field, filter_sql
from stationmaster_server.errors import InvalidArgument, Reason


class State(Enum):
    ACTIVE = "active"
    PAUSED = "paused"


FIELDS: Mapping[str, Field] = {
    "state": Field("t.state", State),
    "title": Field("t.title", str),
    "count": Field("t.count", int),
    "score": Field("t.score", float),
    "done": Field("t.done", bool),
    "create_time": Field("t.created_at", datetime),
    "owner": Field("t.owner", UUID),
    "labels": Field("t.labels", dict),
    "usage.tokens": Field("t.count", int),
}

ROWS = """
(VALUES
  (1, 'active', 'Alpha 100%', 1::bigint, 0.5::float8, true, '2026-01-01Z'::timestamptz,
   '00000000-0000-0000-0000-000000000001'::uuid, '{"env": "prod", "team": "a"}'::jsonb),
  (2, 'paused', 'beta', 2, 1.5, false, '2026-06-01Z', '00000000-0000-0000-0000-000000000002', '{"env": "test"}'),
  (3, 'active', 'al_pha', 3, -1, NULL, '2026-12-01Z', NULL, '{}')
) AS t (id, state, title, count, score, done, created_at, owner, labels)
"""


async def matching(database: Database, text: str) -> list[int]:
    values: list[object] = []

    def bind(value: object) -> str:
        values.append(value)
        return f"${len(values)}"

    condition = filter_sql(text, FIELDS, bind) or "true"
    async with database.system(autocommit=True) as tx:
        return [row["id"] for row in await tx.fetch(f"SELECT id FROM {ROWS} WHERE {condition} ORDER BY id", *values)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [1, 2, 3]),
        ("  ", [1, 2, 3]),
        ("state = ACTIVE", [1, 3]),
        ('state != "ACTIVE"', [2]),
        ("count >= 2 AND count < 3", [2]),
        ("count = -1 OR score = -1", [3]),
        ("usage.tokens > 2", [3]),
        ("score <= 0.5", [1, 3]),
        ("done = true", [1]),
        ("done != true", [2, 3]),
        ("NOT done = true", [2, 3]),
        ("-done=true", [2, 3]),
        ('create_time > "2026-03-01T00:00:00+01:00"', [2, 3]),
        ("create_time > 2026-03-01T00:00:00Z AND NOT (state = PAUSED)", [3]),
        ("owner = 00000000-0000-0000-0000-000000000002", [2]),
        ("title : al", [1, 3]),
        ('title:"100%"', [1]),
        ('title:"al_p"', [3]),
        ('title:"Al*"', [1]),
        ("title > alpha", [2]),
        ('labels.env = "prod"', [1]),
        ('labels.env != "prod"', [2, 3]),
        ("labels:team", [1]),
        ("count = 1 AND state = PAUSED OR state = ACTIVE", [1]),  # AIP-160: OR binds tighter
        ("(count = 1 AND state = PAUSED) OR state = ACTIVE", [1, 3]),
        ("title = 'it''s'", None),
        (r'title = "a\"b"', []),
    ],
)
async def test_a_filter_means_what_it_says(database: Database, text: str, expected: list[int] | None) -> None:
    if expected is None:
        with pytest.raises(InvalidArgument):
            await matching(database, text)
    else:
        assert await matching(database, text) == expected


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nothing = 1", "at character 1: no such field 'nothing'; fields: count, create_time, done"),
        ("count 1", "at character 7: expected one of = != < <= > >= :"),
        ("count = ", "at character 8: expected a value"),
        ("count = one", "at character 9: expected a whole number"),
        ("count = 9223372036854775808", "at character 9: expected a whole number"),
        ("state = GONE", "at character 9: expected one of ACTIVE, PAUSED"),
        ("state = active", "expected one of ACTIVE, PAUSED"),
        ("state > ACTIVE", "can be compared by = and != only"),
        ("done = yes", "expected true or false"),
        ('create_time > "2026-01-01T00:00:00"', "expected a timestamp with its zone"),
        ("count : 1", "`:` is for text and labels"),
        ("(count = 1", "at character 11: expected a closing parenthesis"),
        ("count = 1)", "at character 10: expected AND, OR or the end"),
        ("count = 1 count = 2", "at character 11: expected AND, OR or the end"),
        ('title = "open', "at character 9: cannot be read"),
        ('title = "a\0b"', "NUL"),
        ("title.x = 1", "no such field 'title.x'"),
        ("labels = 1", "write labels.key"),
        ("(" * 60 + "count = 1" + ")" * 60, "nested deeper than 50"),
        ("NOT " * 60 + "count = 1", "nested deeper than 50"),
        ("x" * 5000, "longer than 4096"),
    ],
)
def test_a_wrong_filter_says_where_and_what_was_expected(text: str, complaint: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        filter_sql(text, FIELDS, lambda _: "$1")
    assert caught.value.reason is Reason.INVALID_FILTER
    assert complaint in caught.value.message
    assert caught.value.violations[0].field == "filter"


SIGNS = "()-=<:'\"1\\%;*\0\n٣"
PIECES = ["labels.x", "AND", "OR", "NOT", "!=", ">=", "-1.5", "ACTIVE", "true", "nan", "1_0", "--", "$1", '"a"']
WORDS = st.sampled_from([*FIELDS, *SIGNS, *PIECES, "2026-01-01T00:00:00Z"])
FILTERS = st.one_of(
    st.lists(WORDS, max_size=15).map(" ".join), st.lists(WORDS, max_size=12).map("".join), st.text(max_size=60)
)


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=FILTERS)
async def test_any_filter_either_runs_or_is_refused_as_an_invalid_argument(database: Database, text: str) -> None:
    with contextlib.suppress(InvalidArgument):
        await matching(database, text)

"""What an audit event's id says."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.audit.rows import created_at
from stationmaster_server.db.ids import new_id


def test_an_id_carries_the_time_of_its_event() -> None:
    assert abs(created_at(new_id()) - datetime.now(UTC)) < timedelta(minutes=1)


@given(st.uuids())
def test_an_id_that_somebody_made_up_has_some_time(event_id: UUID) -> None:
    assert created_at(event_id).tzinfo is UTC


def test_the_last_id_there_is_has_some_time() -> None:
    assert created_at(UUID(int=2**128 - 1)).year > 9000

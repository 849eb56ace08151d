"""What the model test does the engine's work with: what is submitted, how it ends, a worker that only takes leases."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID, uuid4

from hypothesis import strategies as st
from stationmaster_server.db.ids import new_id
from stationmaster_server.work.model import (
    NO_TIMEOUTS,
    Cancelled,
    Failed,
    Outcome,
    Priority,
    Released,
    RetryPolicy,
    Strategy,
    Succeeded,
    Suspended,
    Timeouts,
    WorkItem,
)
from stationmaster_server.work.store import Lease

from tests.work.engine_model import LEASE


def span(whole: int) -> timedelta:
    """So many hours and a half."""
    return timedelta(hours=whole, minutes=30)


USERS = (new_id(), new_id())
KINDS = ("boil", "fry")
LIMITS = st.sampled_from([None, None, span(0), span(2), span(5)])
TIMEOUTS = st.just(NO_TIMEOUTS) | st.builds(Timeouts, LIMITS, LIMITS, LIMITS, LIMITS)
POLICIES = st.builds(
    RetryPolicy,
    attempts=st.integers(1, 3),
    initial=st.just(span(0)),
    factor=st.just(3.0),
    cap=st.just(span(1)),
    jitter=st.just(0.0),
    non_retryable=st.sampled_from([frozenset(), frozenset({"BURNT"})]),
)
KEYS = st.fixed_dictionaries(
    {
        "concurrency_key": st.sampled_from([None, "pan", "pot"]),
        "max_running": st.integers(1, 2),
        "strategy": st.sampled_from(Strategy),
        "idempotency_key": st.sampled_from([None, None, "egg", "rice"]),
        "idempotency_ttl": st.just(span(3)),
    }
)
REST = st.fixed_dictionaries(
    {
        "user_id": st.sampled_from(USERS),
        "kind": st.sampled_from(KINDS),
        "priority": st.sampled_from([Priority.URGENT, Priority.NORMAL, Priority.IDLE]),
        "retry": POLICIES,
        "timeouts": TIMEOUTS,
        "paused": st.sampled_from([False, False, False, True]),
    }
)
OUTCOMES: st.SearchStrategy[Outcome] = st.sampled_from(
    [
        Succeeded(),
        Failed("cold", reason="COLD"),
        Failed("cold", reason="COLD", retry_after=timedelta(0)),
        Failed("burnt", reason="BURNT"),
        Failed("gone", retryable=False),
        Released(),
        Suspended(),
        Cancelled("no hunger"),
    ]
)
INDEX = st.integers(0, 50)


class HereWorker:
    """The worker of the queue's own server, as far as it takes leases."""

    def __init__(self) -> None:
        self.taken: list[WorkItem] = []
        self.leases: list[Lease] = []
        self.given_back: list[Lease] = []

    def wake(self, kind: str | None) -> bool:
        """All is claimed by the test."""
        return True

    def lease_for(self, kind: str) -> Lease | None:
        """A lease; there is always a free slot."""
        self.leases.append(Lease(uuid4(), "here", LEASE))
        return self.leases[-1]

    def take(self, item: WorkItem) -> None:
        """It runs here."""
        self.taken.append(item)

    def cancel(self, item_id: UUID) -> None:
        """The test looks at what is stored."""

    def give_back(self, lease: Lease) -> None:
        """It was not needed."""
        self.given_back.append(lease)

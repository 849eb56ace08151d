"""Refuses calls that come too fast, of all callers together and of each one; counted in this process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Set
from datetime import timedelta
from uuid import UUID

from stationmaster_server.db.caller import Caller
from stationmaster_server.errors import QuotaViolation, Reason, ResourceExhausted
from stationmaster_server.resilience.rate_limit import TokenBucket, TokenBuckets
from stationmaster_server.rpc.call import Call
from stationmaster_server.rpc.interceptors.base import Before, Interceptor
from stationmaster_server.rpc.interceptors.refusals import Refusals
from stationmaster_server.rpc.method import Method


class ServerRate(Interceptor):
    """The rate of all calls together. Comes before authentication, so that refusing is cheap."""

    def __init__(self, bucket: TokenBucket) -> None:
        self._bucket = bucket

    def before(self, method: Method) -> Before:
        """Return what takes a token."""
        bucket = self._bucket

        def take(call: Call) -> None:
            if wait := bucket.take():
                raise _too_fast("server", "the server takes no more calls a second", wait)

        return take


class CallerRate(Interceptor):
    """The rate of each user. Comes after authentication."""

    def __init__(self, buckets: TokenBuckets[UUID], refusals: Refusals) -> None:
        self._buckets = buckets
        self._refusals = refusals

    def before(self, method: Method) -> Before | None:
        """Return what takes a token of the caller; None where there is no caller."""
        if method.open:
            return None
        buckets = self._buckets

        def take(call: Call) -> Awaitable[None] | None:
            if call.caller is None:
                return None
            user = call.caller.tenant.user_id
            wait = buckets.take(user)
            if not wait:
                return None
            error = _too_fast(f"users/{user}", "you call faster than the server takes it", wait)
            return self._refusals.refuse_often(call, error)

        return take


class CallQuota(Interceptor):
    """The calls per hour of each user and organization, counted across servers.

    Comes last of what refuses before the request is read, so that a call refused there is not counted.
    """

    def __init__(
        self, take_call: Callable[[Caller], Awaitable[None] | None], uncounted: Set[str] = frozenset()
    ) -> None:
        self._take_call = take_call
        self._uncounted = uncounted

    def before(self, method: Method) -> Before | None:
        """Return what takes a call of the caller's quota; None where there is no caller, and for an uncounted path."""
        if method.open or method.path in self._uncounted:
            return None
        take_call = self._take_call

        def take(call: Call) -> Awaitable[None] | None:
            return None if call.caller is None else take_call(call.caller)

        return take


def _too_fast(subject: str, message: str, wait_seconds: float) -> ResourceExhausted:
    wait = timedelta(seconds=wait_seconds)
    return ResourceExhausted(
        Reason.RATE_LIMITED,
        f"{message}; come again shortly",
        QuotaViolation(subject, "calls per second"),
        retry_after=wait,
    )

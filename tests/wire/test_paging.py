"""Page tokens: nobody else makes one, and each fits one request only."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster.v1 import audit_pb2, identity_pb2
from stationmaster_server.errors import InvalidArgument, Reason
from stationmaster_server.wire.paging import PageTokens

TOKENS = PageTokens(b"a secret of all servers")
ASKED: dict[str, Any] = {"page_size": 10, "filter": "disabled = false", "order_by": "email"}


def ask(token: str, **changes: Any) -> identity_pb2.ListUsersRequest:
    """A request for the page of a token."""
    return identity_pb2.ListUsersRequest(**(ASKED | changes), page_token=token)


def refused(request: Any, tokens: PageTokens = TOKENS) -> Reason:
    """Why the token of a request is refused."""
    with pytest.raises(InvalidArgument) as refusal:
        tokens.read(request)
    assert refusal.value.violations[0].field == "page_token"
    return refusal.value.reason


@given(
    st.tuples(
        st.one_of(st.text(), st.integers(), st.booleans(), st.none(), st.datetimes(timezones=st.just(UTC))), st.uuids()
    )
)
def test_a_cursor_comes_back_as_it_was(cursor: tuple[Any, ...]) -> None:
    assert TOKENS.read(ask(TOKENS.next(ask(""), cursor))).after == cursor


def test_the_first_page_has_no_cursor_and_the_last_no_token() -> None:
    assert TOKENS.read(ask("")).after is None
    assert TOKENS.next(ask(""), None) == ""


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_sizes_are_bounded(asked: int, size: int) -> None:
    assert TOKENS.read(ask("", page_size=asked)).size == size


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(InvalidArgument):
        TOKENS.read(ask("", page_size=-1))


def test_another_size_may_be_asked_for_on_the_way() -> None:
    token = TOKENS.next(ask(""), ("a", uuid4()))
    assert TOKENS.read(ask(token, page_size=99)).size == 99


@pytest.mark.parametrize("changes", [{"filter": ""}, {"filter": "disabled = true"}, {"order_by": "email desc"}])
def test_a_token_with_other_arguments_is_refused(changes: dict[str, str]) -> None:
    token = TOKENS.next(ask(""), ("a", uuid4()))
    assert refused(ask(token, **changes)) is Reason.PAGE_TOKEN_INVALID


def test_a_token_of_another_list_is_refused() -> None:
    plain = identity_pb2.ListUsersRequest()
    token = TOKENS.next(plain, ("a", uuid4()))
    for request in (
        identity_pb2.ListApiKeysRequest(page_token=token),
        audit_pb2.ListAuditEventsRequest(page_token=token),
    ):
        assert refused(request) is Reason.PAGE_TOKEN_INVALID


def test_a_token_of_another_installation_is_refused() -> None:
    token = TOKENS.next(ask(""), ("a", uuid4()))
    assert refused(ask(token), PageTokens(b"another secret")) is Reason.PAGE_TOKEN_INVALID


def test_a_token_that_was_changed_anywhere_is_refused() -> None:
    token = TOKENS.next(ask(""), (datetime(2026, 1, 1, tzinfo=UTC), uuid4()))
    raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    for position in range(len(raw)):
        forged = bytearray(raw)
        forged[position] ^= 1
        assert refused(ask(base64.urlsafe_b64encode(forged).rstrip(b"=").decode())) is Reason.PAGE_TOKEN_INVALID


@given(st.text(min_size=1, alphabet=st.characters(codec="utf-8")))
def test_what_is_no_token_is_refused(token: str) -> None:
    assert refused(ask(token)) is Reason.PAGE_TOKEN_INVALID

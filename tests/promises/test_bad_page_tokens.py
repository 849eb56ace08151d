"""Page tokens: made by this installation for the arguments of one list, and for nothing else."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest
from stationmaster_server.wire.paging import PageTokens

from tests.contract.descriptors import Method
from tests.contract.samples import smallest
from tests.contract.world import Caller, connect, furnish, settle
from tests.fixtures.server import RunningServer
from tests.promises.refusal import Refusal, refused
from tests.promises.valid import PAGED

pytestmark = pytest.mark.asyncio(loop_scope="module")


_NOT_IN_THE_DATABASE = ("McpService.ListTools", "McpService.ListResources", "McpService.ListMcpPrompts")
_FILTERS = {"AgentService.ListModels": 'provider = "demo"'} | dict.fromkeys(_NOT_IN_THE_DATABASE, "*e*")
_PARENTS = dict.fromkeys(_NOT_IN_THE_DATABASE, "stationmaster.dev/McpSession") | {
    "TaskService.ListDependencies": "stationmaster.dev/Task",
    "StorageService.ListFiles": "stationmaster.dev/Workspace",
    "CredentialService.ListCredentialVersions": "stationmaster.dev/Credential",
    "CredentialService.ListGrants": "stationmaster.dev/Credential",
    "PromptService.ListPromptVersions": "stationmaster.dev/Prompt",
    "PromptService.ListPromptCustomizations": "stationmaster.dev/Prompt",
}


class Listed:
    """A list with more than one page, and a token of its first."""

    def __init__(self, method: Method, request: Any, token: str) -> None:
        self.method, self.request, self.token = method, request, token

    def again(self, token: str, **changes: Any) -> Any:
        """The request for the next page, with another token or other arguments."""
        request = type(self.request)()
        request.CopyFrom(self.request)
        request.page_token = token
        for name, value in changes.items():
            setattr(request, name, value)
        return request


async def first_pages(caller: Caller) -> list[Listed]:
    """The first page of every list."""
    found = []
    for method in PAGED:
        request: Any = smallest(method.request, caller.names)
        request.page_size = 1
        if "query" in method.request.fields_by_name:
            request.query = "papaya"
        if method.name == "SessionService.ListPermissionRequests":
            request.parent = "sessions/-"
        (page,) = await caller.call(method, request)
        assert page.next_page_token, f"{method.name} has one page only"
        (next_page,) = await caller.call(method, Listed(method, request, "").again(page.next_page_token))
        assert next_page != page
        found.append(Listed(method, request, page.next_page_token))
    return found


async def test_a_forged_page_token_is_refused(owner: Caller) -> None:
    chance, wrong = random.Random(1), []
    stranger = PageTokens(b"the secret of another installation")
    for listed in await first_pages(owner):
        raw = bytearray(base64.urlsafe_b64decode(listed.token + "=" * (-len(listed.token) % 4)))
        raw[chance.randrange(len(raw))] ^= 1 << chance.randrange(8)
        changed = base64.urlsafe_b64encode(bytes(raw)).rstrip(b"=").decode()
        foreign = stranger.next(listed.request, (1,))
        longest = "A" * 2048
        for token in ("x", "%%%", "é", listed.token[:-3], listed.token + "AAAA", changed, foreign, longest):
            wrong += told_wrongly(listed, await refused(owner.call(listed.method, listed.again(token))))
    assert not wrong, "\n".join(wrong)


def told_wrongly(listed: Listed, refusal: Refusal) -> list[str]:
    fine = refusal.code == "INVALID_ARGUMENT" and refusal.reason == "PAGE_TOKEN_INVALID"
    advised = fine and refusal.fields == ["page_token"] and "start again without a token" in refusal.advice
    return [] if advised else [f"{listed.method.name}: {refusal}"]


async def test_a_page_token_with_other_arguments_is_refused(owner: Caller) -> None:
    wrong, tried = [], 0
    for listed in await first_pages(owner):
        fields = listed.method.request.fields_by_name
        other: dict[str, Any] = {
            "filter": _FILTERS.get(listed.method.name, "create_time > 2001-01-01T00:00:00Z"),
            "order_by": "create_time",
            "parent": owner.names[_PARENTS.get(listed.method.name, "stationmaster.dev/Session")],
            "query": "another",
            "show_archived": True,
        }
        for name, value in other.items():
            if name in fields and getattr(listed.request, name) != value:
                tried += 1
                request = listed.again(listed.token, **{name: value})
                wrong += told_wrongly(listed, await refused(owner.call(listed.method, request)))
    assert not wrong, "\n".join(wrong)
    assert tried > 15


async def test_a_page_token_of_another_list_is_refused(owner: Caller) -> None:
    lists = await first_pages(owner)
    wrong = []
    for listed, other in zip(lists, lists[1:] + lists[:1], strict=True):
        wrong += told_wrongly(listed, await refused(owner.call(listed.method, listed.again(other.token))))
    assert not wrong, "\n".join(wrong)


async def test_a_page_token_of_another_organization_shows_nothing_of_it(shared: RunningServer, owner: Caller) -> None:
    async with connect(shared.target, await settle(owner, "Neighbour")) as neighbour:
        await furnish(neighbour, shared.app.database_url)
        for listed in await first_pages(owner):
            if listed.method.name in ("SessionService.ListSessions", "AgentService.ListAgents"):
                (page,) = await neighbour.call(listed.method, listed.again(listed.token))
                shown = [each.name for field, value in page.ListFields() if field.is_repeated for each in value]
                assert set(shown) <= set(neighbour.names.values())

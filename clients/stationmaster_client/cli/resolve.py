"""Full names from what people type: names, ids, and ends of ids."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.names import full, last

if TYPE_CHECKING:
    from collections.abc import AsyncIterable

    from stationmaster_client import Client

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHORTEST = 4


def short(name: str) -> str:
    """The last group of the id: short, and all of it random, which the beginning of a UUIDv7 is not."""
    return last(name).rpartition("-")[2]


def brief(name: str) -> str:
    """A name with every id in it shortened."""
    return _UUID.sub(lambda match: short(match[0]), name)


async def session(client: Client, text: str) -> str:
    """A session's name; `-` is the one that changed last."""
    listing = client.sessions.list(order_by="update_time desc", page_size=_page(text))
    return await _newest_or_one(listing, "sessions", text)


async def user(client: Client, text: str) -> str:
    """A user's name, also from the email address; `me` is the caller."""
    if text == "me":
        return (await client.whoami()).user.name
    if "@" in text:
        async for found in client.users.list(filter=f'email = "{text}"'):
            return found.name
        raise CommandError(f"no user has the email address {text!r}", ExitCode.NOT_FOUND)
    return await _one(client.users.list(page_size=1000), "users", text)


async def actor(client: Client, text: str) -> str:
    """Who an audit event is of: a user, or `system`, the server itself."""
    return text if text == "system" else await user(client, text)


async def resource(client: Client, text: str) -> str:
    """What an audit event is about: a name, whose id may be given by its end where that can be looked up."""
    if "@" in text and "/" not in text:
        return await user(client, text)
    known = {"sessions": session, "executions": execution, "reports": report, "users": user, "apiKeys": key}
    collection, _, rest = text.partition("/")
    return await known[collection](client, text) if collection in known and "/" not in rest else text


async def principal(client: Client, text: str) -> str:
    """Who a credential is granted to: a user as above, or `apiKeys/…` or `agents/…`."""
    if text.startswith("apiKeys/"):
        return await key(client, text)
    return text if text.startswith("agents/") else await user(client, text)


async def grant(client: Client, credential: str, text: str) -> str:
    """A grant's name: from its id or the end of it, or from whom it is to. Raises CommandError."""
    if "/grants/" in text:
        return full("credentials", text)
    named = text.split("/")[0] in ("users", "apiKeys", "agents") or "@" in text or text == "me"
    to = await principal(client, text) if named else ""
    if not named and len(text) < _SHORTEST:
        raise CommandError(f"{text!r} is too short: give at least {_SHORTEST} characters of the id's end")
    found = [
        one
        async for one in client.credentials.grants(credential, page_size=1000)
        if (one.principal == to if named else one.name.endswith(text) or one.principal.endswith(text))
    ]
    if not found:
        hint = f"stationmaster credentials grants {last(credential)} lists them"
        raise CommandError(f"no grant of {last(credential)} is {text!r}, or to it: {hint}", ExitCode.NOT_FOUND)
    if len(found) > 1:
        lines = (f"  {last(one.name)} to {one.principal} for {', '.join(one.purposes) or 'anything'}" for one in found)
        raise CommandError("\n".join([f"{text!r} can mean any of these:", *lines]))
    return found[0].name


async def key(client: Client, text: str) -> str:
    """An API key's name."""
    return await _one(client.keys.list(page_size=1000), "apiKeys", text)


async def permission(client: Client, text: str) -> str:
    """A permission request's name, among those that wait for an answer; else among all, which tells that it has one."""
    if "/permissionRequests/" in text:
        return text
    pending = client.permissions.list(filter="state = PENDING", page_size=1000)
    try:
        return await _one(pending, "permissionRequests", text)
    except CommandError as error:
        if error.code is not ExitCode.NOT_FOUND:
            raise
        return await _one(client.permissions.list(page_size=1000), "permissionRequests", text)


async def report(client: Client, text: str) -> str:
    """A report's name; `-` is the newest."""
    return await _newest_or_one(client.reports.list(page_size=_page(text)), "reports", text)


async def archive(client: Client, text: str) -> str:
    """An archive's name, from that of its session; `-` is the newest."""
    bare = text.removeprefix("sessions/").removeprefix("workspaces/")
    return await _newest_or_one(client.archives.list(page_size=_page(bare)), "archives", bare)


async def execution(client: Client, text: str) -> str:
    """An execution's name; `-` is the newest."""
    return await _newest_or_one(client.executions.list(page_size=_page(text)), "executions", text)


async def operation(client: Client, text: str) -> str:
    """An operation's name; `-` is the newest."""
    return await _newest_or_one(client.maintenance.operations(page_size=_page(text)), "operations", text)


async def experiment(client: Client, text: str) -> str:
    """An experiment's name; `-` is the newest."""
    return await _newest_or_one(client.experiments.list(page_size=_page(text)), "experiments", text)


async def owner(client: Client, text: str) -> str:
    """Who has a quota: `me`, `organization` (the caller's), or a name."""
    if text == "organization":
        return (await client.whoami()).organization.name
    return text if text.startswith("organizations/") else await user(client, text)


def _page(text: str) -> int:
    return 1 if text == "-" else 1000


async def _newest_or_one(newest_first: AsyncIterable[Any], collection: str, text: str) -> str:
    if text != "-":
        return await _one(newest_first, collection, text)
    async for found in newest_first:
        return str(found.name)
    raise CommandError(f"there is no {collection.removesuffix('s')} yet", ExitCode.NOT_FOUND)


async def _one(items: AsyncIterable[Any], collection: str, text: str) -> str:
    """The item that is meant. Nothing is asked of the server when the text is a whole name or id."""
    text = text.removeprefix(f"{collection}/")
    if "/" in text or _UUID.fullmatch(text):
        return full(collection, text)
    if len(text) < _SHORTEST:
        raise CommandError(f"{text!r} is too short: give at least {_SHORTEST} characters of the id's end")
    found = [item.name async for item in items if item.name.endswith(text)]
    if not found:
        raise CommandError(f"nothing in {collection}/ ends in {text!r}", ExitCode.NOT_FOUND)
    if len(found) > 1:
        raise CommandError("\n".join([f"{text!r} can mean any of these:", *(f"  {name}" for name in found)]))
    return str(found[0])

"""Users and keys: what a key may not do, it cannot."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

from stationmaster.v1 import identity_pb2

from stationmaster_client.client import Client
from stationmaster_client.demo.stage import Stage, some
from stationmaster_client.errors import PermissionDenied, Unauthenticated

_AT_LATEST_SECONDS = 15.0
"""A second is promised; a machine that is busy with other things takes longer to ask."""


async def play(stage: Stage) -> None:
    """A visitor may look and not touch, until the key is revoked."""
    client, programme = stage.client, stage.programme
    programme.act("A visitor with a key of his own")
    visitor = await client.users.create("A visitor", identity_pb2.ROLE_VIEWER)
    key = await client.keys.create("the visitor's", user=visitor.name)
    guest = client.on_behalf_of(key.secret)
    looked = (await guest.agents.get(stage.agent)).name
    try:
        await guest.agents.delete(stage.agent)
        refused = "deleted it"
    except PermissionDenied as error:
        refused = error.reason
    may_look = looked == stage.agent and refused in {"SCOPE_MISSING", "ROLE_INSUFFICIENT"}
    programme.check("Identity", "a viewer may read an agent, and not delete it", may_look, refused)
    await client.keys.revoke(key.api_key.name)
    began = time.monotonic()
    (reason,) = await some(lambda: _refused(guest), "the refusal of a key that was revoked")
    took = time.monotonic() - began
    soon = reason == "CREDENTIALS_REVOKED" and took < _AT_LATEST_SECONDS
    programme.check("Identity", "a revoked key is refused", soon, f"{reason} after {took:.2f} s")


async def _refused(guest: Client) -> AsyncIterator[str]:
    """Why it is, once it is: each server hears of it on its own, within a second."""
    try:
        await guest.whoami()
    except Unauthenticated as error:
        yield error.reason

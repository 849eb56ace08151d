"""The server and the caller."""

from __future__ import annotations

from stationmaster.v1 import identity_pb2

from stationmaster_client.mcp_server.answer import Answer, facts, plain
from stationmaster_client.mcp_server.caller import Call
from stationmaster_client.mcp_server.tool import reads


class Me(Answer):
    """Who calls."""

    user: str
    display_name: str
    email: str
    role: str
    organization: str
    organization_name: str
    scopes: list[str]

    def text(self) -> str:
        """All that is known."""
        return facts(
            user=f"{self.user} {self.display_name}".strip(),
            email=self.email,
            role=self.role,
            organization=f"{self.organization} {self.organization_name}".strip(),
            scopes=", ".join(self.scopes),
        )


class Status(Answer):
    """How the server is."""

    serving: bool
    services: dict[str, str]

    def text(self) -> str:
        """The whole, then each part that is not well."""
        ill = [f"{name} is {state}" for name, state in self.services.items() if state != "serving"]
        return "\n".join(["Stationmaster is serving." if self.serving else "Stationmaster is not serving.", *ill])


@reads("Who am I")
async def whoami(call: Call) -> Me:
    """Show as whom these tools act, and what they may do."""
    me = await call.client.whoami()
    return Me(
        user=me.user.name,
        display_name=me.user.display_name,
        email=me.user.email,
        role=plain(identity_pb2.Role.Name(me.user.role), "ROLE"),
        organization=me.organization.name,
        organization_name=me.organization.display_name,
        scopes=list(me.scopes),
    )


@reads("Server status")
async def server_status(call: Call) -> Status:
    """Show whether the Stationmaster server and each of its services is well."""
    services = {name: state.lower() for name, state in dict(await call.client.health.services()).items()}
    return Status(serving=services.pop("", "unknown") == "serving", services=services)

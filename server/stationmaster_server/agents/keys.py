"""The keys of models' providers that specifications name as credentials, gotten when a turn runs."""

from __future__ import annotations

from stationmaster_server.agents.runtime import RuntimeFailure, TurnInput
from stationmaster_server.credentials.using import Kind, Using
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import StationmasterError

PURPOSE = "model"


class ModelKeys:
    """A key is had by the agent, if it was granted to it, or by the user whose session it is."""

    def __init__(self, using: Using) -> None:
        self._using = using

    async def of(self, turn: TurnInput) -> str:
        """The key that the specification names; empty when it names none. Raises RuntimeFailure."""
        if not turn.spec.credential:
            return ""
        tenant = Tenant(turn.organization_id, turn.user_id)
        used_by = f"sessions/{turn.session_id}"
        try:
            return await self._using.secret(
                tenant, turn.spec.credential, Kind.KEY, purpose=PURPOSE, used_by=used_by, agent_id=turn.agent_id
            )
        except StationmasterError as error:
            raise RuntimeFailure(error.reason, error.message) from None

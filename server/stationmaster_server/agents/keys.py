"""The keys of models' providers that specifications name as credentials, gotten when a turn runs."""

from __future__ import annotations

from stationmaster_server.agents import store
from stationmaster_server.agents.runtime import RuntimeFailure, TurnInput
from stationmaster_server.credentials.using import Kind, Using
from stationmaster_server.db.engine import Database
from stationmaster_server.db.model import Tenant
from stationmaster_server.errors import StationmasterError

PURPOSE = "model"


class ModelKeys:
    """A key is had by the agent, if it was granted to it, or by the user whose session it is.

    Sessions can be given another specification than their agent's: what was granted to the agent counts only for its
    own model and credential.
    """

    def __init__(self, database: Database, using: Using) -> None:
        self._database = database
        self._using = using

    async def of(self, turn: TurnInput) -> str:
        """The key that the specification names; empty when it names none. Raises RuntimeFailure."""
        if not turn.spec.credential:
            return ""
        tenant = Tenant(turn.organization_id, turn.user_id)
        used_by = f"sessions/{turn.session_id}"
        try:
            agent_id = turn.agent_id if await self._is_the_agents(tenant, turn) else ""
            return await self._using.secret(
                tenant, turn.spec.credential, Kind.KEY, purpose=PURPOSE, used_by=used_by, agent_id=agent_id
            )
        except StationmasterError as error:
            raise RuntimeFailure(error.reason, error.message) from None

    async def _is_the_agents(self, tenant: Tenant, turn: TurnInput) -> bool:
        """Whether the agent, as it is now, asks this model with this key."""
        if not turn.agent_id:
            return False
        async with self._database.tenant(tenant, read=True) as tx:
            agent = await store.get(tx, tenant.organization_id, turn.agent_id)
        spec = turn.spec
        return agent is not None and (agent.spec.credential, agent.spec.model) == (spec.credential, spec.model)

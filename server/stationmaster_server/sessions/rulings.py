"""What is to happen to a tool call: the rules of four levels, the session's grants and people's answers, joined."""

from __future__ import annotations

from collections.abc import Sequence

from stationmaster_server.agents.runtime import Ruling, Rulings, ToolCall
from stationmaster_server.identity.model import Effect, ToolPolicy, strictest
from stationmaster_server.sessions.model import PermissionRequest, PermissionState, Session


def rulings(session: Session, above: tuple[ToolPolicy, ...], answers: Sequence[PermissionRequest]) -> Rulings:
    """The rules of the agent and the session, and those `above` of its owner and the organization: the strictest wins.

    An ASK is answered by a person, or granted for the session. A DENY stands, whatever anybody has answered.
    """
    policies = session.spec.tool_policies + session.tool_policies + above
    answered = {answer.call.call_id: answer for answer in answers if answer.breach is None}

    def rule(call: ToolCall, default: Effect) -> Ruling:
        effect = strictest(policies, call.tool, default)
        if effect is Effect.DENY:
            return Ruling(Effect.DENY, message="The policy does not allow this tool.")
        answer = answered.get(call.call_id)
        if answer is not None:
            return _answered(answer)
        if effect is Effect.ASK and call.tool in session.granted_tools:
            return Ruling(Effect.ALLOW)
        return Ruling(effect)

    return rule


def _answered(answer: PermissionRequest) -> Ruling:
    if answer.state is PermissionState.ALLOWED:
        return Ruling(Effect.ALLOW, answer.edited_arguments)
    return Ruling(Effect.DENY, message=answer.message or "The user did not allow this call.")

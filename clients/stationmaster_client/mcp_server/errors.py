"""Failures of the API as a model reads them: what happened, and which tool to call next."""

from __future__ import annotations

import re

from stationmaster_client.errors import StationmasterError

_TOOLS = {"ForkSession": "fork_session", "ResumeSession": "resume_session"}
_ADVICE = {
    "CREDENTIALS_EXPIRED": "The user has to make a new API key (stationmaster keys create) and configure it here.",
    "CREDENTIALS_INVALID": "The user has to configure an API key of this server.",
    "CREDENTIALS_MISSING": "The user has to configure an API key.",
    "CREDENTIALS_REVOKED": "The user has to make a new API key (stationmaster keys create) and configure it here.",
    "CONCURRENT_CHANGE": "Call the same again.",
    "INVALID_FILTER": 'Filters look like: state = ACTIVE AND update_time > "2026-01-31T00:00:00Z".',
    "MODEL_UNAVAILABLE": "list_models shows which models can be used.",
    "PAGE_TOKEN_INVALID": "Call without page_token, or with all arguments as in the call that gave it.",
    "PERMISSION_ALREADY_RESOLVED": "It has its answer; wait_for_turn shows how the turn goes on.",
    "ROLE_INSUFFICIENT": "whoami shows the role and scopes.",
    "SCOPE_MISSING": "whoami shows the scopes; the user may have another key.",
    "SESSION_BUSY": "Wait for its turn (wait_for_turn), or end it (cancel_turn).",
    "SESSION_CLOSED": "A paused session goes on after resume_session; fork_session makes a new one of its messages.",
    "TURN_FINISHED": "It has ended; list_messages shows what was said.",
}

_SHOWN_BY = {
    "agents": "list_agents shows which there are.",
    "sessions": "list_sessions shows which there are.",
    "turns": "The answer of send_message names its turn.",
    "messages": "list_messages shows which there are.",
    "permissionRequests": "list_permission_requests shows which there are.",
    "backgroundServices": "get_background_service_status without service shows which there are.",
}
"""By the collection of a name, what tells the names that are in it."""
_NAMED = re.compile(r"'(?:\w+/[\w-]+/)*(\w+)/[^/']+'")


def explain(error: StationmasterError, target: str) -> str:
    """A failed call in some sentences, its reason last."""
    if error.code.name == "UNAVAILABLE" and not error.reason:
        lines = [f"Stationmaster at {target} cannot be reached. Try again in a moment, or ask the user to start it."]
    else:
        lines = [error.message.rstrip(".") + "."]
    lines += [
        f"{violation.subject}: {violation.description}" if violation.subject else violation.description
        for violation in error.violations
        if violation.description not in error.message
    ]
    if "/UUID" in error.message or "does not match regex pattern" in error.message:
        lines.append("Names are sessions/{id} and the like, as the lists give them.")
    elif advice := _shown_by(error) or _ADVICE.get(error.reason):
        lines.append(advice)
    elif error.retry_after is not None:
        lines.append(f"Try again in {error.retry_after.total_seconds():.0f} s.")
    request = f", request {error.request_id}" if error.request_id else ""
    text = "\n".join([*lines, f"({error.reason or error.code.name}{request})"])
    for method, tool in _TOOLS.items():
        text = text.replace(method, tool)
    return text


def _shown_by(error: StationmasterError) -> str:
    """Where the names are that there are instead; empty when that is not known, or not what is wrong."""
    named = _NAMED.search(error.message) if error.reason == "RESOURCE_NOT_FOUND" else None
    return _SHOWN_BY.get(named[1], "") if named else ""

"""What went wrong with a model call, from what the command line says of it."""

from __future__ import annotations

import re
from datetime import timedelta

from claude_agent_sdk import ResultMessage

from stationmaster_server.agents.runtimes.retries import ProviderFailure
from stationmaster_server.errors import Reason

_KEYS = re.compile(r"\b(sk|key|pk)[-_A-Za-z0-9*.]{6,}")
_MAX_MESSAGE = 300


def translate(
    result: ResultMessage, refused: tuple[int, str] | None, model_id: str, *, own_key: bool = False
) -> ProviderFailure:
    """Our failure for a turn that ended with an error, without secrets; `refused`: how the provider did so."""
    said = _said(result)
    status = result.api_error_status or 0
    if refused is not None:
        status, said = refused[0], refused[1] or f"status {refused[0]}"
    if "too long" in said or "context window" in said:
        return ProviderFailure(
            Reason.LIMIT_REACHED, f"the conversation is too long for {model_id}: start a new session or fork this one"
        )
    if "credit balance" in said or status == 402:
        whose = "the credential's" if own_key else "this server's"
        return _final(f"{whose} account with the provider of {model_id} is used up")
    match status:
        case 401 | 403 if own_key:
            return _final(f"the provider of {model_id} refuses the key of the credential that the agent names")
        case 401 | 403:
            return _final(f"the provider of {model_id} refuses this server's API key: ask whoever runs the server")
        case 404:
            return _final(f"the provider does not know {model_id}: choose a model that ListModels names")
        case 429:
            message = f"the provider of {model_id} limits the rate of calls{_detail(said)}"
            return ProviderFailure(Reason.RATE_LIMITED, message, retryable=True)
        case 400 | 413 | 422:
            return ProviderFailure(
                Reason.INVALID_FIELD, f"the provider of {model_id} refused the request{_detail(said)}"
            )
    return broken_off(model_id, _detail(said).removeprefix(": ") or "the answer broke off")


def broken_off(model_id: str, why: str) -> ProviderFailure:
    """The provider is ill: another attempt may do better."""
    message = f"the provider of {model_id} failed: {why}"
    return ProviderFailure(Reason.MODEL_UNAVAILABLE, message, retryable=True, blames_provider=True)


def left_alone(model_id: str, pause: timedelta) -> ProviderFailure:
    """The circuit is open: nothing was tried."""
    message = f"the provider of {model_id} failed again and again and is left alone for {pause.total_seconds():.0f} s"
    return ProviderFailure(Reason.MODEL_UNAVAILABLE, message, retryable=True, retry_after=pause.total_seconds())


def ended(model_id: str) -> ProviderFailure:
    """The command line is gone, and nobody here ended it."""
    message = f"the process that asks {model_id} for this session ended unexpectedly: send the message again"
    return ProviderFailure(Reason.INTERNAL, message, retryable=True)


def _final(message: str) -> ProviderFailure:
    return ProviderFailure(Reason.MODEL_UNAVAILABLE, message)


def _said(result: ResultMessage) -> str:
    return "; ".join(filter(None, (*(result.errors or ()), result.result)))


def _detail(said: str) -> str:
    text = _KEYS.sub("***", said).strip()[:_MAX_MESSAGE]
    return f": {text}" if text else ""

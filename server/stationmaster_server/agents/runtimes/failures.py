"""What goes wrong with a provider, told to people and to whoever decides about another attempt."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta

from pydantic_ai.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelConnectionError,
    ModelContextWindowExceededError,
    ModelHTTPError,
    ModelNotFoundError,
    ModelQuotaExceededError,
    ModelRateLimitError,
    ModelRequestRejectedError,
    ModelRequestTimeout,
    ModelServerError,
    ModelUnavailableError,
    UnexpectedModelBehavior,
    UserError,
)

from stationmaster_server.agents.runtimes.retries import ProviderFailure
from stationmaster_server.errors import Reason

# What `translate` knows; anything else is a fault of ours.
MODEL_ERRORS = (ModelAPIError, UnexpectedModelBehavior, UserError)

_KEYS = re.compile(r"\b(sk|key|pk|AIza)[-_A-Za-z0-9*.]{6,}")
_MAX_MESSAGE = 300

_RETRYABLE = (ModelUnavailableError, ModelServerError, ModelConnectionError, ModelRequestTimeout)


def translate(error: Exception, model_id: str, own_key: str = "") -> ProviderFailure:
    """Our failure for one of MODEL_ERRORS, without secrets."""
    detail = _detail(error, own_key)
    match error:
        case ModelRateLimitError():
            message = f"the provider of {model_id} limits the rate of calls{detail}"
            after = error.retry_after or 0
            return ProviderFailure(Reason.RATE_LIMITED, message, retryable=True, retry_after=after)
        case ModelQuotaExceededError():
            whose = "the credential's" if own_key else "this server's"
            return _final(f"{whose} account with the provider of {model_id} is used up")
        case ModelAuthenticationError():
            if own_key:
                return _final(f"the provider of {model_id} refuses the key of the credential that the agent names")
            return _final(f"the provider of {model_id} refuses this server's API key: ask whoever runs the server")
        case ModelNotFoundError():
            return _final(f"the provider does not know {model_id}: choose a model that ListModels names")
        case ModelContextWindowExceededError():
            message = f"the conversation is too long for {model_id}: start a new session or shrink the memory window"
            return ProviderFailure(Reason.LIMIT_REACHED, message)
        case ModelRequestRejectedError():
            return ProviderFailure(Reason.INVALID_FIELD, f"the provider of {model_id} refused the request{detail}")
        case UserError():
            return ProviderFailure(Reason.INTERNAL, f"the request for {model_id} could not be made")
        case UnexpectedModelBehavior():
            return broken_off(model_id, "its answer made no sense")
    # An error of no kind at all is a stream that ended without its end.
    if isinstance(error, _RETRYABLE) or _status(error) >= 500 or type(error) is ModelAPIError:
        after = error.retry_after or 0 if isinstance(error, ModelAPIError) else 0
        return broken_off(model_id, detail.removeprefix(": ") or "the answer broke off", after)
    return _final(f"the provider of {model_id} failed{detail}")


def broken_off(model_id: str, why: str, retry_after: float = 0) -> ProviderFailure:
    """The provider is ill: another attempt may do better."""
    message = f"the provider of {model_id} failed: {why}"
    return ProviderFailure(
        Reason.MODEL_UNAVAILABLE, message, retryable=True, retry_after=retry_after, blames_provider=True
    )


def _final(message: str) -> ProviderFailure:
    return ProviderFailure(Reason.MODEL_UNAVAILABLE, message)


def _status(error: Exception) -> int:
    return error.status_code if isinstance(error, ModelHTTPError) else 0


def _detail(error: Exception, own_key: str) -> str:
    """`: what the provider said`, with anything that looks like a key masked."""
    text = _said(error.body) if isinstance(error, ModelAPIError) else ""
    status = _status(error)
    if not text and status:
        text = f"status {status}"
    elif not text and isinstance(error, ModelConnectionError):
        text = "the connection failed"
    if own_key:
        text = text.replace(own_key, "***")
    return f": {_KEYS.sub('***', text)[:_MAX_MESSAGE]}" if text else ""


def _said(body: object) -> str:
    if not isinstance(body, Mapping):
        return ""
    inner = body.get("error", body)
    message = inner.get("message") if isinstance(inner, Mapping) else inner
    return message if isinstance(message, str) else ""


def left_alone(model_id: str, pause: timedelta) -> ProviderFailure:
    """The circuit is open: nothing was tried."""
    message = f"the provider of {model_id} failed again and again and is left alone for {pause.total_seconds():.0f} s"
    return ProviderFailure(Reason.MODEL_UNAVAILABLE, message, retryable=True, retry_after=pause.total_seconds())

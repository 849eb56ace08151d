"""The kind `webhook`: one HTTP request to a URL, signed as the Standard Webhooks specification says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, ClassVar, Literal, Self

import httpx2
from pydantic import AfterValidator, BaseModel, Field, SecretStr, model_validator

from stationmaster_server.credentials.rights import require_naming
from stationmaster_server.credentials.using import Kind as At
from stationmaster_server.credentials.using import Using, reference
from stationmaster_server.db.caller import Caller
from stationmaster_server.errors import FailedPrecondition, StationmasterError, Unavailable
from stationmaster_server.mcp.masking import Mask
from stationmaster_server.resilience.breakers import Breakers
from stationmaster_server.resilience.circuit_breaker import CircuitBreaker
from stationmaster_server.resilience.outbound import Outbound
from stationmaster_server.resilience.webhooks import identified, read_secret, retry_after, signed
from stationmaster_server.tasks.kinds.base import Done, Job, KindFailed, Later, Payload

MAX_ANSWER = 4 * 1024
"""Characters of the response's body that are kept."""
LONGEST_WAIT = timedelta(days=1)
"""What a receiver may ask for by Retry-After."""
LEFT_ALONE = timedelta(hours=1)
"""So long an execution waits for a receiver that is left alone, without an attempt."""
_PAUSE, _LONGEST_PAUSE = timedelta(seconds=10), timedelta(minutes=5)
_RETRIED = frozenset({408, 425, 429})
_ASKS_TO_WAIT = frozenset({429, 503})
_OURS = frozenset({"connection", "content-length", "expect", "host", "te", "trailer", "transfer-encoding", "upgrade"})
_LONGEST_SECRET = 2_000
PURPOSE = "webhook"
_ONE = r"credentials/[a-z][a-z0-9-]{0,62}"
_NAMED = rf"^({_ONE}|[^{{}}\x00-\x1f\x7f]{{0,200}}\{{{_ONE}\}}[^{{}}\x00-\x1f\x7f]{{0,200}})$"
_BROKEN: dict[type[Exception], str] = {
    httpx2.ConnectError: "there was no connection (it was refused, or the name leads nowhere)",
    httpx2.RemoteProtocolError: "it broke off the connection",
    httpx2.NetworkError: "the connection broke off",
}


def _is_a_url(url: str) -> str:
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        raise ValueError("cannot be read as a URL") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise ValueError("write http://host/path or https://host/path, without user and password")
    return url


def _is_a_secret(secret: SecretStr) -> SecretStr:
    read_secret(secret.get_secret_value())
    return secret


def _is_a_header(name: str) -> str:
    if name.lower() in _OURS or name.lower().startswith("webhook-"):
        raise ValueError("is a header that the server writes itself; leave it out")
    return name


def _is_a_value(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if len(text) > _LONGEST_SECRET or not all(character == "\t" or " " <= character <= "~" for character in text):
        raise ValueError(f"must be at most {_LONGEST_SECRET} printable ASCII characters")
    return value


HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}$"), AfterValidator(_is_a_header)]


class WebhookPayload(Payload):
    """What is sent where. `secret` and the values of `headers` are secrets: they are used and never shown."""

    url: Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_is_a_url)]
    """Who may read the task or execution sees it: keys go into `headers`."""
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    headers: Annotated[
        dict[HeaderName, Annotated[SecretStr, AfterValidator(_is_a_value)]], Field(default_factory=dict, max_length=50)
    ]
    """Beside those that the server writes: `webhook-…`, `content-type`."""
    body: Annotated[Any, Field(default_factory=dict)]
    """Any JSON; it is sent as `application/json`."""
    text: Annotated[str, Field(max_length=200_000)] | None = None
    """Instead of `body`: sent as it is, as `text/plain` unless `headers` say otherwise."""
    credential_headers: Annotated[
        dict[HeaderName, Annotated[str, Field(pattern=_NAMED)]], Field(default_factory=dict, max_length=50)
    ]
    """Headers with the secret of a credential, such as `Bearer {credentials/x}`: it is put in when the request is sent.
    The owner must be allowed to read it for the purpose `webhook`."""
    secret: Annotated[SecretStr, AfterValidator(_is_a_secret)] | None = None
    """`whsec_` and the base64 of 24 to 64 bytes, shared with the receiver; without it nothing is signed."""
    secret_credential: Annotated[str, Field(pattern=r"^(credentials/[a-z][a-z0-9-]{0,62})?$")] = ""
    """Instead of `secret`: the credential that holds it."""
    timeout_seconds: Annotated[float, Field(ge=0.1, le=300)] = 30
    """For the whole request."""

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if self.text is not None and "body" in self.model_fields_set:
            raise ValueError("write either `body` or `text`")
        if self.secret is not None and self.secret_credential:
            raise ValueError("write either `secret` or `secret_credential`")
        return self

    def content(self) -> tuple[bytes, str]:
        """What is sent, and its type."""
        if self.text is not None:
            return self.text.encode("utf-8", "replace"), "text/plain; charset=utf-8"
        return json.dumps(self.body, ensure_ascii=True, separators=(",", ":")).encode(), "application/json"


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: str
    truncated: bool
    wait: timedelta | None


class _Unwell(Exception):
    """The receiver answered, but not as somebody who works."""

    def __init__(self, answer: _Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class WebhookKind:
    """Sends under the execution's id, the same for every attempt: receivers know a repeat by it."""

    name: ClassVar[str] = "webhook"
    payload: ClassVar[type[BaseModel]] = WebhookPayload

    def __init__(self, outbound: Outbound, using: Using) -> None:
        self._outbound = outbound
        self._using = using
        self._breakers = Breakers(_breaker)

    def admit(self, caller: Caller, payload: Mapping[str, Any]) -> None:
        """Who has a credential sent needs the scope to read it. Raises PermissionDenied(SCOPE_MISSING)."""
        require_naming(caller, payload.get("credential_headers"), payload.get("secret_credential"))

    def sends_credentials(self, payload: Mapping[str, Any]) -> bool:
        """Whether a header or the signature needs one."""
        return bool(payload.get("credential_headers") or payload.get("secret_credential"))

    async def run(self, job: Job[WebhookPayload]) -> Done:
        """Send. Raises KindFailed unless the answer is a 2xx, Later while the receiver is left alone."""
        payload, secrets = await self._with_secrets(job)
        url = httpx2.URL(payload.url)
        breaker = self._breakers.of((job.caller.tenant.organization_id, url.scheme, url.host, url.port))
        try:
            answer = await breaker.call(lambda: self._sent(job, payload, _mask(payload, secrets)))
        except Unavailable as alone:
            raise await _left_alone(job, url.host, alone) from None
        except _Unwell as unwell:
            answer = unwell.answer
        except TimeoutError:
            limit = f"{payload.timeout_seconds:g} s"
            raise KindFailed(f"{url.host} did not answer within {limit}", reason="TIMEOUT") from None
        except httpx2.HTTPError as error:
            # Its text may have the URL, and that a key.
            why = next((words for kind, words in _BROKEN.items() if isinstance(error, kind)), type(error).__name__)
            raise KindFailed(f"{url.host} could not be reached: {why}", reason="CONNECTION") from None
        return _judged(answer, url.host)

    async def _with_secrets(self, job: Job[WebhookPayload]) -> tuple[WebhookPayload, tuple[str, ...]]:
        """The payload with the secrets that it names, and those of its headers.

        Raises KindFailed: the owner may not have them.
        """
        payload, tenant, used_by = job.payload, job.caller.tenant, f"executions/{job.execution_id}"
        named: dict[str, str] = {name: reference(text) for name, text in payload.credential_headers.items()}
        secret = payload.secret
        try:
            filled = await self._using.filled(tenant, named, At.HEADER, purpose=PURPOSE, used_by=used_by)
            if payload.secret_credential:
                name = payload.secret_credential
                found = await self._using.secret(tenant, name, At.KEY, purpose=PURPOSE, used_by=used_by)
                secret = SecretStr(found)
                read_secret(found)
        except StationmasterError as error:
            retryable = isinstance(error, Unavailable)
            raise KindFailed(error.message, reason=error.reason.value, retryable=retryable) from None
        except ValueError as error:
            raise KindFailed(
                f"the secret in {payload.secret_credential} {error}", reason="SECRET", retryable=False
            ) from None
        hidden = {name: SecretStr(value) for name, value in filled.texts.items()}
        updated = {"headers": {**payload.headers, **hidden}, "secret": secret}
        return payload.model_copy(update=updated), filled.secrets

    async def _sent(self, job: Job[WebhookPayload], payload: WebhookPayload, mask: Mask) -> _Answer:
        content, kind = payload.content()
        async with (
            asyncio.timeout(payload.timeout_seconds),
            self._outbound.client(timeout=httpx2.Timeout(payload.timeout_seconds)) as client,
            client.stream(
                payload.method, payload.url, content=content, headers=_headers(job, payload, content, kind)
            ) as response,
        ):
            answer = await _read(response, mask)
        if answer.status == 429 or answer.status >= 500:
            raise _Unwell(answer)
        return answer


def _breaker() -> CircuitBreaker:
    return CircuitBreaker(
        "the receiver of webhooks",
        pause=_PAUSE,
        longest_pause=_LONGEST_PAUSE,
        counts=lambda error: not isinstance(error, FailedPrecondition),
    )


async def _left_alone(job: Job[WebhookPayload], host: str, alone: Unavailable) -> Later | KindFailed:
    """Come again when the receiver is tried again; when that has been so for long, it is a failed attempt."""
    now = datetime.now(UTC)
    since = datetime.fromisoformat((job.checkpoint or {}).get("alone_since") or now.isoformat())
    if now - since > LEFT_ALONE:
        await job.save({})
        return KindFailed(f"{host} has been out of order for {LEFT_ALONE}", reason="RECEIVER_DOWN")
    await job.save({"alone_since": since.isoformat()})
    return Later(alone.retry_after)


def _headers(job: Job[WebhookPayload], payload: WebhookPayload, content: bytes, kind: str) -> dict[str, str]:
    message_id, now = str(job.execution_id), datetime.now(UTC)
    own = {name.lower(): value.get_secret_value() for name, value in payload.headers.items()}
    # The body is read as it comes: what is not encoded cannot inflate.
    headers = {"content-type": kind, "accept-encoding": "identity", "user-agent": "stationmaster", **own}
    if payload.secret is None:
        return headers | identified(message_id, now)
    return headers | signed(read_secret(payload.secret.get_secret_value()), message_id, now, content)


def _mask(payload: WebhookPayload, secrets: Iterable[str]) -> Mask:
    """Receivers may send back what they got, or a part of it."""
    texts = [value.get_secret_value() for value in payload.headers.values()]
    if payload.secret is not None:
        texts.append(payload.secret.get_secret_value())
    return Mask([*secrets, *texts, *(text.partition(" ")[2] for text in texts)])


async def _read(response: httpx2.Response, mask: Mask) -> _Answer:
    """The status and the beginning of the body, in which no secret is cut in two."""
    body, most = b"", MAX_ANSWER + mask.longest
    async for part in response.aiter_raw():
        body += part
        if len(body) > most:
            break
    truncated = len(body) > MAX_ANSWER
    text = mask.text(body[:most].decode("utf-8", "replace"))
    if len(body) > most:
        text = text[: len(text) - mask.longest]
    seconds = retry_after(response.headers.get("retry-after", ""), response.headers.get("date", ""))
    wait = None if seconds is None else min(timedelta(seconds=seconds), LONGEST_WAIT)
    return _Answer(response.status_code, text[:MAX_ANSWER].replace("\0", ""), truncated, wait)


def _judged(answer: _Answer, host: str) -> Done:
    """The result of a 2xx. Raises KindFailed."""
    status = answer.status
    if 200 <= status < 300:
        return Done({"status": status, "body": answer.body, "body_truncated": answer.truncated})
    said = f": {answer.body[:200]}" if answer.body.strip() else ""
    advice = "; redirects are not followed: write the URL that it leads to" if 300 <= status < 400 else ""
    raise KindFailed(
        f"{host} answered with status {status}{advice}{said}",
        reason="GONE" if status == 410 else "STATUS",
        retryable=status >= 500 or status in _RETRIED,
        retry_after=answer.wait if status in _ASKS_TO_WAIT else None,
    )

"""Keys that AWS KMS encrypts: the database has them so, memory as they are, no disk ever."""

from __future__ import annotations

import json
import secrets
from base64 import b64decode, b64encode
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stationmaster_server.credentials.envelope import KEY_BYTES
from stationmaster_server.credentials.model import StoredKey
from stationmaster_server.credentials.providers.base import KeysUnreadable, NewKey
from stationmaster_server.resilience.aws_identity import AwsIdentities, NoIdentity
from stationmaster_server.resilience.aws_signing import signed

_TIMEOUT = timedelta(seconds=10)
_ATTEMPTS = 3


class _Unwell(Exception):
    """The service did not answer, or not as one that works."""


class _Refused(KeysUnreadable):
    """The service works and will not do it."""


class AwsKmsKeys:
    """Each key is 32 bytes that KMS made and encrypts under `kms_key`; it is decrypted once, at start."""

    name = "aws-kms"

    def __init__(
        self, kms_key: str, region: str, identities: AwsIdentities, endpoint: str = "", *, former: Sequence[str] = ()
    ) -> None:
        """`former`: other keys of KMS that may have encrypted what is in the database."""
        self._kms_key = kms_key
        self._former = former
        self._region = region
        self._identities = identities
        self._url = endpoint.rstrip("/") or f"https://kms.{region}.amazonaws.com"
        self._known: dict[bytes, bytes] = {}

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        """See `KeyProvider.keys`."""
        had: dict[str, bytes] = {}
        faults: list[str] = []
        away = False
        for key in stored:
            if away and key.material not in self._known:
                continue
            try:
                had[key.key_id] = await self._decrypted(key)
            except KeysUnreadable as error:
                faults.append(str(error))
                away = not isinstance(error, _Refused)
        if faults:
            raise KeysUnreadable("; ".join(faults), had)
        return had

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        """See `KeyProvider.make`: a new one, which KMS makes."""
        if key_id and not new:
            return None
        chosen = key_id or f"kms-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        wanted = {"KeyId": self._kms_key, "KeySpec": "AES_256", "EncryptionContext": _context(chosen)}
        answer = await self._ask("GenerateDataKey", wanted)
        key, stored = self._key_in(answer), self._bytes_in(answer, "CiphertextBlob")
        return NewKey(self.name, chosen, key, stored)

    async def _decrypted(self, key: StoredKey) -> bytes:
        known = self._known.get(key.material)
        if known is None:
            known = self._known[key.material] = await self._decrypt(key)
        return known

    async def _decrypt(self, key: StoredKey) -> bytes:
        """By a key of KMS that the settings name: whoever writes to the database may be able to use others."""
        wanted = {"CiphertextBlob": b64encode(key.material).decode(), "EncryptionContext": _context(key.key_id)}
        refusals: list[str] = []
        for kms_key in (self._kms_key, *self._former):
            try:
                answer = await self._ask("Decrypt", {**wanted, "KeyId": kms_key})
            except _Refused as refusal:
                refusals.append(str(refusal))
            else:
                return self._key_in(answer)
        advice = f"if another key of KMS encrypted {key.key_id!r}, name it in credentials.kms_former_keys"
        raise _Refused(f"{'; '.join(refusals)}; {advice}")

    def _key_in(self, answer: Mapping[str, Any]) -> bytes:
        key = self._bytes_in(answer, "Plaintext")
        if len(key) != KEY_BYTES:
            raise KeysUnreadable(
                f"AWS KMS at {self._url} answers with a key of {len(key)} bytes instead of {KEY_BYTES}"
            )
        return key

    def _bytes_in(self, answer: Mapping[str, Any], name: str) -> bytes:
        try:
            return b64decode(answer[name], validate=True)
        except (KeyError, TypeError, ValueError):
            raise KeysUnreadable(f"what answers at {self._url} is not AWS KMS: its answer has no {name}") from None

    async def _ask(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Unwell),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )
        try:
            answer: dict[str, Any] = await retrying(self._once, action, body)
        except _Unwell as error:
            raise KeysUnreadable(f"AWS KMS at {self._url} does not work: {error}") from None
        return answer

    async def _once(self, action: str, body: Mapping[str, Any]) -> dict[str, Any]:
        content = json.dumps(body).encode()
        headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"TrentService.{action}"}
        async with httpx2.AsyncClient(timeout=_TIMEOUT.total_seconds(), trust_env=False) as client:
            try:
                identity = await self._identities.current(client)
            except NoIdentity as error:
                raise KeysUnreadable(str(error)) from None
            at = datetime.now(UTC)
            headers = signed(identity, self._url, headers, content, region=self._region, service="kms", at=at)
            try:
                response = await client.post(f"{self._url}/", content=content, headers=headers)
            except httpx2.HTTPError as error:
                raise _Unwell(type(error).__name__) from None
        if response.status_code >= 500 or response.status_code == 429:
            raise _Unwell(f"status {response.status_code}")
        try:
            answer = response.json()
        except ValueError:
            raise _Unwell("it answers what is no JSON") from None
        if not isinstance(answer, dict):
            raise _Unwell("its answer is no JSON object")
        if response.status_code != 200:
            kind = str(answer.get("__type", response.status_code)).rpartition("#")[2]
            why = str(answer.get("message") or answer.get("Message") or "")[:300]
            raise _Refused(f"AWS KMS refuses {action} with key {body['KeyId']}: {kind} {why}".rstrip())
        return answer


def _context(key_id: str) -> dict[str, str]:
    """What KMS binds a key to, and writes into its own trail."""
    return {"application": "stationmaster", "key_id": key_id}

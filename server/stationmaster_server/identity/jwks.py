"""Where an issuer's keys come from: a file, or an address that is asked again when a token names an unknown key."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, OKPKey, RSAKey

logger = logging.getLogger(__name__)

PublicKey = RSAKey | ECKey | OKPKey

_LIFETIME = timedelta(minutes=10)
_FLOOR = timedelta(seconds=10)
_TIMEOUT = timedelta(seconds=5)
_LARGEST = 1024 * 1024


class KeySource:
    """The public keys of an issuer, asked for at most once per `floor`, whatever tokens claim.

    `location`: the URL or path of a JWK set, or of the discovery document (`.../.well-known/openid-configuration`) that
    tells its URL. While the issuer cannot be reached, the keys known before go on serving.
    """

    def __init__(self, location: str | Path, *, lifetime: timedelta = _LIFETIME, floor: timedelta = _FLOOR) -> None:
        self._location = str(location)
        self._lifetime = lifetime.total_seconds()
        self._floor = floor.total_seconds()
        self._client: httpx2.AsyncClient | None = None
        self._keys: list[PublicKey] = []
        self._asked: float | None = None
        self._lock = asyncio.Lock()

    async def find(self, kid: object) -> PublicKey | None:
        """The key of this id; without an id the only key there is. None: the issuer has no such key."""
        if self._older_than(self._lifetime):
            await self._refresh(self._lifetime)
        found = self._known(kid)
        if found is None and self._older_than(self._floor):
            await self._refresh(self._floor)
            found = self._known(kid)
        return found

    async def close(self) -> None:
        """Let go of connections."""
        if self._client is not None:
            await self._client.aclose()

    def _known(self, kid: object) -> PublicKey | None:
        if kid is None:
            return self._keys[0] if len(self._keys) == 1 else None
        return next((key for key in self._keys if key.kid == kid), None)

    def _older_than(self, seconds: float) -> bool:
        return self._asked is None or time.monotonic() - self._asked >= seconds

    async def _refresh(self, age: float) -> None:
        async with self._lock:
            if not self._older_than(age):
                return
            try:
                self._keys = _public_keys(await self._read(self._location))
            except (httpx2.HTTPError, OSError, JoseError, ValueError, KeyError, TypeError, RecursionError) as error:
                logger.warning("the keys of %s could not be read: %s: %s", self._location, type(error).__name__, error)
            finally:
                self._asked = time.monotonic()

    async def _read(self, location: str) -> dict[str, Any]:
        document = json.loads(await self._load(location))
        if not isinstance(document, dict):
            raise ValueError("it is no JSON object")
        if "keys" not in document and "jwks_uri" in document and location == self._location:
            return await self._read(str(document["jwks_uri"]))
        return document

    async def _load(self, location: str) -> bytes:
        if not location.startswith(("http://", "https://")):
            return await asyncio.to_thread(Path(location.removeprefix("file://")).read_bytes)
        if self._client is None:
            self._client = httpx2.AsyncClient(timeout=_TIMEOUT.total_seconds(), follow_redirects=False)
        async with self._client.stream("GET", location) as response:
            response.raise_for_status()
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _LARGEST:
                    raise ValueError("it is too large")
        return bytes(body)


def _public_keys(document: dict[str, Any]) -> list[PublicKey]:
    """The keys that can verify signatures; shared secrets and keys for encryption are left out."""
    keys = [key for key in KeySet.import_key_set({"keys": document["keys"]}) if key.get("use", "sig") == "sig"]
    return [key for key in keys if isinstance(key, RSAKey | ECKey | OKPKey)]

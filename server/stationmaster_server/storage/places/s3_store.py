"""Objects of one bucket, and what goes wrong with them in words."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx2
import structlog
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.resilience.aws_identity import AwsIdentities, NoIdentity
from stationmaster_server.storage.paths import PathRefused

if TYPE_CHECKING:
    from obstore import GetOptions, ListStream
    from obstore.store import S3Config

_log = structlog.get_logger(__name__)

_MAX_KEY_BYTES = 1024
_NO_BUCKET = "there is no such bucket: make it, or correct storage.s3.bucket"
_RETRY_AFTER = timedelta(seconds=5)
_LISTED_AT_ONCE = 1000


@dataclass(frozen=True, slots=True)
class Bucket:
    """Where objects are. `endpoint`: empty for AWS's own; the bucket is named in the path of any other."""

    name: str
    region: str
    endpoint: str = ""
    prefix: str = ""
    timeout: timedelta = timedelta(seconds=60)

    @property
    def url(self) -> str:
        """What the paths of its objects are appended to."""
        if self.endpoint:
            return f"{self.endpoint}/{self.name}"
        return f"https://{self.name}.s3.{self.region}.amazonaws.com"

    def full(self, key: str) -> str:
        """An object's key in the bucket. Raises PathRefused: too long."""
        key = f"{self.prefix}/{key}" if self.prefix else key
        if len(key.encode()) > _MAX_KEY_BYTES:
            room = _MAX_KEY_BYTES - len(self.prefix) - 49
            raise PathRefused(f"it is too long: object storage has room for about {room} bytes")
        return key


@dataclass(frozen=True, slots=True)
class Object:
    """One object."""

    key: str
    size: int
    etag: str
    changed_at: datetime


class Changed(Exception):
    """The object is not the one any more that was asked for."""


class Objects:
    """The objects below the bucket's prefix. Everything raises Unavailable, and PathRefused for keys too long."""

    def __init__(self, bucket: Bucket, identities: AwsIdentities) -> None:
        self.bucket = bucket
        self.identities = identities
        self.client = httpx2.AsyncClient(timeout=bucket.timeout.total_seconds(), trust_env=False)
        self._store = S3Store(
            bucket.name,
            prefix=bucket.prefix or None,
            config=_config(bucket),
            client_options={
                "allow_http": bucket.endpoint.startswith("http://"),
                "timeout": bucket.timeout,
                "connect_timeout": timedelta(seconds=5),
            },
            retry_config={"max_retries": 4, "retry_timeout": bucket.timeout},
            credential_provider=self._identity,
        )

    async def head(self, key: str) -> Object | None:
        """What is known of an object; None when there is none."""
        self.bucket.full(key)
        with self.told():
            try:
                return _object(await self._store.head_async(key))
            except FileNotFoundError:
                return None

    async def get(self, key: str, start: int = 0, end: int | None = None, *, etag: str = "") -> bytes:
        """An object's bytes. Raises FileNotFoundError; Changed when it has not this etag, or is gone meanwhile."""
        options: GetOptions = {}
        if end is not None:
            options["range"] = (start, end)
        if etag:
            options["if_match"] = etag
        with self.told():
            try:
                found = await self._store.get_async(key, options=options)
                return (await found.bytes_async()).to_bytes()
            except PreconditionError:
                raise Changed from None
            except FileNotFoundError:
                if etag:
                    raise Changed from None
                raise

    async def put(self, key: str, data: bytes | bytearray | memoryview) -> None:
        """Make or replace an object, at once."""
        self.bucket.full(key)
        with self.told(), self.there():
            await self._store.put_async(key, data, use_multipart=False)

    async def put_once(self, key: str, data: bytes) -> bool:
        """Make an object; False when there is one, which stays as it is."""
        self.bucket.full(key)
        with self.told(), self.there():
            try:
                await self._store.put_async(key, data, mode="create")
            except AlreadyExistsError:
                return False
        return True

    async def copy(self, key: str, target: str) -> None:
        """Copy an object of up to 5 GiB, at once. Raises FileNotFoundError."""
        self.bucket.full(target)
        with self.told():
            await self._store.copy_async(key, target)

    async def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, of which some may be gone."""
        if keys:
            with self.told(), self.there():
                await self._store.delete_async(list(keys))

    async def below(self, key: str, *, after: str = "") -> AsyncIterator[Object]:
        """All objects whose keys begin with this one and a slash, in the order of their keys."""
        with self.told(), self.there():
            stream: ListStream[Sequence[Any]] = self._store.list(key, offset=after or None, chunk_size=_LISTED_AT_ONCE)
            async for chunk in stream:
                for each in chunk:
                    yield _object(each)

    async def any_below(self, key: str) -> bool:
        """Whether there is any."""
        with self.told(), self.there():
            async for chunk in self._store.list(key, chunk_size=1):
                return bool(chunk)
        return False

    async def inside(self, key: str) -> tuple[list[Object], list[str]]:
        """The objects in a folder, and the keys of its folders."""
        with self.told(), self.there():
            found = await self._store.list_with_delimiter_async(key)
        return [_object(each) for each in found["objects"]], list(found["common_prefixes"])

    async def sweep(self, key: str) -> bool:
        """Delete all that is below a key; whether there was anything."""
        keys, there = [], False
        async for each in self.below(key):
            keys.append(each.key)
            there = True
            if len(keys) == _LISTED_AT_ONCE:
                await self.delete(keys)
                keys = []
        await self.delete(keys)
        return there

    async def answer(self) -> None:
        """See whether the bucket is there, by one request."""
        await self.any_below("probes")

    async def probe(self) -> None:
        """Write, read, copy, list and delete something."""
        key = f"probes/{uuid4().hex}"
        await self.put(f"{key}/one", b"probe")
        try:
            with self.there():
                await self.copy(f"{key}/one", f"{key}/two")
                await self.get(f"{key}/two")
            if not await self.any_below(key):
                raise self.away("what was written is not listed")
        finally:
            await self.delete([f"{key}/one", f"{key}/two"])

    async def close(self) -> None:
        """Let go of connections."""
        await self.client.aclose()

    @contextmanager
    def told(self) -> Iterator[None]:
        """Translates what is raised in the body. Raises Unavailable, and what concerns one object alone."""
        try:
            yield
        except NoIdentity as error:
            raise self.away(str(error)) from None
        except (PermissionDeniedError, UnauthenticatedError):
            advice = "check storage.s3.access_key_id, or what the role of this machine may do with the bucket"
            raise self.away(f"it refuses this server: {advice}") from None
        except BaseError as error:
            _log.warning("the object storage does not work", bucket=self.bucket.name, error=str(error)[:1000])
            raise self.away(_why(str(error))) from None

    @contextmanager
    def there(self) -> Iterator[None]:
        """Where no single object can be missing it is the bucket that is."""
        try:
            yield
        except FileNotFoundError:
            raise self.away(_NO_BUCKET) from None

    def away(self, why: str) -> Unavailable:
        """What callers are told."""
        text = f"the object storage of this server (bucket {self.bucket.name!r}) does not work: {why}"
        return Unavailable(Reason.STORAGE_UNAVAILABLE, text, retry_after=_RETRY_AFTER)

    async def _identity(self) -> Any:
        identity = await self.identities.current(self.client)
        return {
            "access_key_id": identity.access_key_id,
            "secret_access_key": identity.secret_access_key,
            "token": identity.token or None,
            "expires_at": identity.expires_at,
        }


def _why(text: str) -> str:
    """What callers are told of an error; the log has the rest."""
    if "NoSuchBucket" in text:
        return _NO_BUCKET
    code = re.search(r"<Code>(\w+)</Code>", text)
    if code:
        return f"it answers {code[1]}"
    if "error sending request" in text or "timed out" in text:
        return "it cannot be reached: see whether it runs, and storage.s3.endpoint"
    return "the log of the server says why"


def _config(bucket: Bucket) -> S3Config:
    config: S3Config = {"region": bucket.region or "us-east-1", "virtual_hosted_style_request": not bucket.endpoint}
    if bucket.endpoint:
        config["endpoint"] = bucket.endpoint
    return config


def _object(meta: Mapping[str, Any]) -> Object:
    return Object(meta["path"], meta["size"], meta["e_tag"] or "", meta["last_modified"].replace(microsecond=0))

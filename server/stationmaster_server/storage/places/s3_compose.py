"""One object made of others, by the object storage itself: it appears at once, and no byte comes through here."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from hashlib import sha256
from html import unescape
from urllib.parse import quote, urlencode

import httpx2
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from stationmaster_server.errors import Unavailable
from stationmaster_server.resilience.aws_identity import NoIdentity
from stationmaster_server.resilience.aws_signing import signed
from stationmaster_server.storage.places.s3_store import Objects
from stationmaster_server.storage.places.threads import to_the_end

_AT_ONCE = 8
_ATTEMPTS = 4


class _Unwell(Exception):
    """It did not answer, or not as one that works."""


async def compose(objects: Objects, parts: Sequence[str], target: str) -> None:
    """Make an object of parts of at least 5 MiB each but the last; in place of one that is there.

    Raises FileNotFoundError: a part is missing; Unavailable.
    """
    request = _Requests(objects)
    for left in await request.begun(target):  # by a server that died meanwhile
        await request.abort(target, left)
    async with request.multipart(target) as upload:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def add(number: int, part: str) -> str:
            async with slots:
                return await request.add(target, upload, number, part)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(number, part)) for number, part in enumerate(parts, 1)]
        await request.complete(target, upload, [task.result() for task in tasks])


class _Requests:
    """What the library for everything else has no calls for."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def begun(self, target: str) -> list[str]:
        """The uploads of an object that nobody has completed or aborted."""
        key = self._objects.bucket.full(target)
        text = await self._ask("GET", "", {"prefix": key, "uploads": ""})
        found = [(_between(each, "Key"), _between(each, "UploadId")) for each in text.split("<Upload>")[1:]]
        return [upload for name, upload in found if name == key]

    @asynccontextmanager
    async def multipart(self, target: str) -> AsyncIterator[str]:
        """An upload that is aborted when the body fails."""
        upload = _between(await self._ask("POST", target, {"uploads": ""}), "UploadId")
        try:
            yield upload
        except BaseException as error:
            await to_the_end(self.abort(target, upload))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def add(self, target: str, upload: str, number: int, part: str) -> str:
        """Copy an object into an upload; its etag there."""
        bucket = self._objects.bucket
        source = {"x-amz-copy-source": quote(f"/{bucket.name}/{bucket.full(part)}", safe="/-_.~")}
        text = await self._ask("PUT", target, {"partNumber": str(number), "uploadId": upload}, headers=source)
        return _between(text, "ETag")

    async def complete(self, target: str, upload: str, etags: Sequence[str]) -> None:
        """Have the object appear."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in enumerate((each.replace('"', "&quot;") for each in etags), 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        _between(await self._ask("POST", target, {"uploadId": upload}, body=body.encode()), "ETag")

    async def abort(self, target: str, upload: str) -> None:
        """Have it forgotten, with what was copied; it may be gone."""
        try:
            await self._ask("DELETE", target, {"uploadId": upload})
        except FileNotFoundError:
            return

    async def _ask(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> str:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Unwell),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )
        try:
            text: str = await retrying(self._once, method, key, query, headers or {}, body)
        except (_Unwell, NoIdentity) as error:
            raise self._objects.away(str(error)) from None
        return text

    async def _once(self, method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes) -> str:
        bucket = self._objects.bucket
        path = quote(bucket.full(key), safe="/-_.~") if key else ""
        url = f"{bucket.url}/{path}?{urlencode(sorted(query.items()), quote_via=quote, safe='-_.~')}"
        identity = await self._objects.identities.current(self._objects.client)
        sent = signed(
            identity,
            url,
            {**headers, "x-amz-content-sha256": sha256(body).hexdigest()},
            body,
            region=bucket.region or "us-east-1",
            service="s3",
            at=datetime.now(UTC),
            method=method,
        )
        try:
            answer = await self._objects.client.request(method, url, content=body, headers=sent)
        except httpx2.HTTPError as error:
            raise _Unwell(f"{type(error).__name__} at {bucket.url}") from None
        return self._read(method, answer)

    def _read(self, method: str, answer: httpx2.Response) -> str:
        text = answer.text
        code = _between(text, "Code") if "<Error>" in text else ""
        if answer.is_success and not code:
            return text
        if code in {"NoSuchKey", "NoSuchUpload"} or (answer.status_code == 404 and code != "NoSuchBucket"):
            raise FileNotFoundError(code or "404")
        if answer.status_code >= 500 or answer.status_code == 429 or answer.is_success:
            raise _Unwell(f"it answers {answer.status_code} {code}")
        raise self._refused(f"it refuses {method}: {answer.status_code} {code} {_between(text, 'Message')[:200]}")

    def _refused(self, why: str) -> Unavailable:
        return self._objects.away(why.rstrip())


def _between(text: str, name: str) -> str:
    """What stands in an element; empty when there is none."""
    found = re.search(f"<{name}>(.*?)</{name}>", text, re.DOTALL)
    return unescape(found[1]) if found else ""

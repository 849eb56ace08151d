"""Requests to object storage that the library for everything else has no calls for, signed here."""

from __future__ import annotations

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

_ATTEMPTS = 4
_MARK = "x-amz-meta-stationmaster-upload"


class Interrupted(Exception):
    """What was being put together is no more: it is complete, or was aborted."""


class _Unwell(Exception):
    """It did not answer, or not as one that works."""


class Requests:
    """All raise Unavailable. A `mark` is kept beside an object's bytes, and tells what made it."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def mark(self, target: str) -> str | None:
        """The mark of an object, empty when it has none; None when there is no object."""
        try:
            answer = await self._ask("HEAD", target, {})
        except FileNotFoundError:
            return None
        return str(answer.headers.get(_MARK, ""))

    async def copy(self, part: str, target: str, mark: str) -> None:
        """Make an object of another, at once. Raises FileNotFoundError."""
        headers = {**self._source(part), _MARK: mark, "x-amz-metadata-directive": "REPLACE"}
        await self._text("PUT", target, {}, headers=headers)

    async def begun(self, target: str) -> list[str]:
        """The uploads of an object that nobody has completed or aborted."""
        key = self._objects.bucket.full(target)
        text = await self._text("GET", "", {"prefix": key, "uploads": ""})
        found = [(_between(each, "Key"), _between(each, "UploadId")) for each in text.split("<Upload>")[1:]]
        return [upload for name, upload in found if name == key]

    @asynccontextmanager
    async def multipart(self, target: str, mark: str) -> AsyncIterator[str]:
        """An upload that is aborted when the body fails."""
        upload = _between(await self._text("POST", target, {"uploads": ""}, headers={_MARK: mark}), "UploadId")
        try:
            yield upload
        except BaseException as error:
            await to_the_end(self.abort(target, upload))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from None
            raise

    async def add(self, target: str, upload: str, number: int, part: str) -> str:
        """Copy an object into an upload; its etag there. Raises FileNotFoundError, Interrupted."""
        query = {"partNumber": str(number), "uploadId": upload}
        return _between(await self._text("PUT", target, query, headers=self._source(part)), "ETag")

    async def complete(self, target: str, upload: str, etags: Sequence[str]) -> None:
        """Have the object appear. Raises Interrupted, also when it did and the answer was lost."""
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in enumerate((each.replace('"', "&quot;") for each in etags), 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>"
        await self._text("POST", target, {"uploadId": upload}, body=body.encode())

    async def abort(self, target: str, upload: str) -> None:
        """Have it forgotten, with what was copied; it may be gone."""
        try:
            await self._text("DELETE", target, {"uploadId": upload})
        except Interrupted:
            return

    def _source(self, part: str) -> dict[str, str]:
        bucket = self._objects.bucket
        return {"x-amz-copy-source": quote(f"/{bucket.name}/{bucket.full(part)}", safe="/-_.~")}

    async def _text(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> str:
        return (await self._ask(method, key, query, headers=headers, body=body)).text

    async def _ask(
        self,
        method: str,
        key: str,
        query: dict[str, str],
        *,
        headers: dict[str, str] | None = None,
        body: bytes = b"",
    ) -> httpx2.Response:
        retrying = AsyncRetrying(
            retry=retry_if_exception_type(_Unwell),
            stop=stop_after_attempt(_ATTEMPTS),
            wait=wait_random_exponential(multiplier=0.2, max=2),
            reraise=True,
        )
        try:
            answer: httpx2.Response = await retrying(self._once, method, key, query, headers or {}, body)
        except (_Unwell, NoIdentity) as error:
            raise self._objects.away(str(error)) from None
        return answer

    async def _once(
        self, method: str, key: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> httpx2.Response:
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
        self._check(method, answer)
        return answer

    def _check(self, method: str, answer: httpx2.Response) -> None:
        text = answer.text
        code = _between(text, "Code") if "<Error>" in text else ""
        if answer.is_success and not code:
            return
        if code == "NoSuchUpload":
            raise Interrupted
        if code == "NoSuchKey" or (answer.status_code == 404 and code != "NoSuchBucket"):
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

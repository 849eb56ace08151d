"""Signature version 4 of AWS. By hand: AWS's library and Kubernetes' exclude each other."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class AwsIdentity:
    """Whose requests they are; `token` comes with those that are lent for a while, until `expires_at`."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    token: str = field(default="", repr=False)
    expires_at: datetime | None = None


def signed(
    identity: AwsIdentity,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    region: str,
    service: str,
    at: datetime,
    method: str = "POST",
) -> dict[str, str]:
    """The headers of a request, with its signature; all that are given are signed.

    The URL's path is encoded as it is to be signed, and its query is in order, each name with its `=`.
    """
    parts = urlsplit(url)
    stamp = at.strftime("%Y%m%dT%H%M%SZ")
    sent = {name.lower(): value for name, value in headers.items()} | {
        "host": parts.netloc,
        "x-amz-date": stamp,
    }
    if identity.token:
        sent["x-amz-security-token"] = identity.token
    names = ";".join(sorted(sent))
    canonical = "\n".join(
        [
            method,
            parts.path or "/",
            parts.query,
            *(f"{name}:{sent[name].strip()}" for name in sorted(sent)),
            "",
            names,
            _hash(body),
        ]
    )
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, stamp, scope, _hash(canonical.encode())])
    key = f"AWS4{identity.secret_access_key}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), hashlib.sha256)
    signature = hmac.digest(key, text.encode(), hashlib.sha256).hex()
    credential = f"{identity.access_key_id}/{scope}"
    return sent | {
        "authorization": f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    }


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

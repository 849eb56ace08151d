"""Whose requests to AWS are: keys from the settings, else the role of the container, else that of the machine."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urljoin

import httpx2

from stationmaster_server.resilience.aws_signing import AwsIdentity

CONTAINER = "http://169.254.170.2"
MACHINE = "http://169.254.169.254"
_SPARE = timedelta(minutes=5)
_LACKING = (
    "AWS gives this server no identity: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give its container or"
    " machine a role that may do this"
)


class NoIdentity(Exception):
    """AWS gives this server none; the text says what to do."""


class AwsIdentities:
    """`given`: from the settings. The `container_url` (or path), `token` and `token_file` as ECS and EKS give them."""

    def __init__(
        self,
        given: AwsIdentity | None,
        *,
        container_url: str = "",
        token: str = "",
        token_file: Path | None = None,
        machine_url: str = MACHINE,
    ) -> None:
        self._given = given
        self._container_url = urljoin(CONTAINER, container_url) if container_url else ""
        self._token = token
        self._token_file = token_file
        self._machine_url = machine_url
        self._lent: AwsIdentity | None = None

    async def current(self, client: httpx2.AsyncClient) -> AwsIdentity:
        """The identity now. Raises NoIdentity."""
        if self._given is not None:
            return self._given
        lent = self._lent
        if lent is None or lent.expires_at is None or lent.expires_at - _SPARE <= datetime.now(UTC):
            try:
                lent = self._lent = await (
                    self._of_container(client) if self._container_url else self._of_machine(client)
                )
            except (httpx2.HTTPError, OSError, ValueError, KeyError, TypeError):
                raise NoIdentity(_LACKING) from None
        return lent

    async def _of_container(self, client: httpx2.AsyncClient) -> AwsIdentity:
        token = self._token
        if self._token_file is not None:
            token = (await asyncio.to_thread(self._token_file.read_text, encoding="ascii")).strip()
        headers = {"authorization": token} if token else {}
        return _lent(await client.get(self._container_url, headers=headers))

    async def _of_machine(self, client: httpx2.AsyncClient) -> AwsIdentity:
        """By the second version of the machine's metadata service, which no redirected request can reach."""
        lifetime = {"x-aws-ec2-metadata-token-ttl-seconds": "300"}
        token = await client.put(f"{self._machine_url}/latest/api/token", headers=lifetime, timeout=2)
        token.raise_for_status()
        headers = {"x-aws-ec2-metadata-token": token.text}
        roles = f"{self._machine_url}/latest/meta-data/iam/security-credentials/"
        role = await client.get(roles, headers=headers)
        role.raise_for_status()
        return _lent(await client.get(roles + role.text.splitlines()[0].strip(), headers=headers))


def _lent(answer: httpx2.Response) -> AwsIdentity:
    answer.raise_for_status()
    lent = answer.json()
    expires_at = datetime.fromisoformat(lent["Expiration"])
    return AwsIdentity(lent["AccessKeyId"], lent["SecretAccessKey"], lent["Token"], expires_at)

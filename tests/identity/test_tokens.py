"""Tokens of an OpenID Connect issuer, whose keys come from a real HTTP server."""

from __future__ import annotations

import asyncio
import base64
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, OKPKey, RSAKey
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import PermissionDenied, Reason, Unauthenticated
from stationmaster_server.identity.authentication import Certificate
from stationmaster_server.identity.jwks import KeySource
from stationmaster_server.identity.model import Caller, Role
from stationmaster_server.identity.tokens import Issuer

from tests.identity.conftest import Server, start_server

AUDIENCE = "stationmaster"
SUBJECT = "auth0|ann"


class Provider:
    """An issuer: it serves its public keys over HTTP, and signs."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.keys: list[RSAKey | ECKey | OKPKey] = [RSAKey.generate_key(2048, {"kid": "first", "use": "sig"})]
        self.requests: list[str] = []
        self.away = False

    def claims(self, caller: Caller, **changes: Any) -> dict[str, Any]:
        """The claims of a good token, changed; None takes one away."""
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": SUBJECT,
            "organization": str(caller.tenant.organization_id),
            "iat": now,
            "exp": now + 600,
        } | changes
        return {name: value for name, value in claims.items() if value is not None}

    def sign(self, claims: dict[str, Any], key: Any = None, algorithm: str = "RS256", kid: str | None = None) -> str:
        """A token, as it stands in `authorization`."""
        signer = key or self.keys[-1]
        header = {"alg": algorithm, "kid": kid or signer.kid}
        return "Bearer " + jwt.encode(header, claims, signer, algorithms=[algorithm])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        path = head.split(b" ")[1].decode()
        self.requests.append(path)
        document: dict[str, Any] = {"keys": [key.as_dict(private=False) for key in self.keys]}
        if path == "/.well-known/openid-configuration":
            document = {"issuer": self.url, "jwks_uri": f"{self.url}/jwks"}
        body = json.dumps(document).encode()
        status = b"503 Away" if self.away else b"200 OK"
        writer.write(b"HTTP/1.1 %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body))
        await writer.drain()
        writer.close()


@pytest_asyncio.fixture
async def provider() -> AsyncIterator[Provider]:
    """An issuer on a port of its own."""
    held: list[Provider] = []
    http = await asyncio.start_server(lambda reader, writer: held[0].serve(reader, writer), "127.0.0.1", 0)
    held.append(Provider(http.sockets[0].getsockname()[1]))
    yield held[0]
    http.close()
    await http.wait_closed()


def issuer(provider: Provider, path: str = "/jwks", **options: Any) -> Issuer:
    """The provider as an issuer that is accepted; its keys may be asked for again at once."""
    return Issuer(provider.url, AUDIENCE, KeySource(provider.url + path, floor=timedelta(0)), **options)


@pytest_asyncio.fixture
async def server(servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller) -> Server:
    """A server that accepts the provider's tokens, and its user Ann."""
    server = await start_server(servers, database, issuer(provider))
    await server.create_user(owner, Role.MEMBER, external_subject=SUBJECT)
    return server


async def refused(server: Server, authorization: str) -> Reason:
    """Why a token is refused."""
    with pytest.raises(Unauthenticated) as refusal:
        await server.authenticator.authenticate(authorization)
    return refusal.value.reason


def part(document: Any) -> str:
    """One part of a token."""
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


async def test_a_good_token_is_its_user(server: Server, provider: Provider, owner: Caller) -> None:
    identity = await server.authenticator.authenticate(provider.sign(provider.claims(owner)))
    assert identity.tenant.organization_id == owner.tenant.organization_id
    assert identity.role is Role.MEMBER
    assert identity.key_id is None
    assert identity.subject == f"jwt:{SUBJECT}"


@pytest.mark.parametrize("organization", ["uuid", "name", "fixed"])
async def test_the_organization_comes_from_the_claim_or_the_setting(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller, organization: str
) -> None:
    home = owner.tenant.organization_id
    options: dict[str, Any] = {"organization_id": home} if organization == "fixed" else {}
    server = await start_server(servers, database, issuer(provider, **options))
    await server.create_user(owner, Role.MEMBER, external_subject=SUBJECT)
    claim = {"uuid": str(home), "name": f"organizations/{home}", "fixed": None}[organization]
    identity = await server.authenticator.authenticate(provider.sign(provider.claims(owner, organization=claim)))
    assert identity.tenant.organization_id == home


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"exp": int(time.time()) - 3600}, Reason.CREDENTIALS_EXPIRED),
        ({"exp": None}, Reason.CREDENTIALS_INVALID),
        ({"exp": "soon"}, Reason.CREDENTIALS_INVALID),
        ({"nbf": int(time.time()) + 3600}, Reason.CREDENTIALS_INVALID),
        ({"iat": int(time.time()) + 3600}, Reason.CREDENTIALS_INVALID),
        ({"aud": "somebody else"}, Reason.CREDENTIALS_INVALID),
        ({"aud": None}, Reason.CREDENTIALS_INVALID),
        ({"iss": "https://evil.example"}, Reason.CREDENTIALS_INVALID),
        ({"iss": None}, Reason.CREDENTIALS_INVALID),
        ({"sub": None}, Reason.CREDENTIALS_INVALID),
        ({"sub": "nobody"}, Reason.CREDENTIALS_INVALID),
        ({"sub": ""}, Reason.CREDENTIALS_INVALID),
        ({"organization": "no organization"}, Reason.CREDENTIALS_INVALID),
        ({"organization": str(uuid4())}, Reason.CREDENTIALS_INVALID),
    ],
)
async def test_a_token_with_a_wrong_claim_is_refused(
    server: Server, provider: Provider, owner: Caller, changes: dict[str, Any], reason: Reason
) -> None:
    assert await refused(server, provider.sign(provider.claims(owner, **changes))) is reason


async def test_one_of_several_audiences_is_enough(server: Server, provider: Provider, owner: Caller) -> None:
    await server.authenticator.authenticate(provider.sign(provider.claims(owner, aud=["other", AUDIENCE])))


async def test_clocks_may_differ_by_the_skew_and_no_more(server: Server, provider: Provider, owner: Caller) -> None:
    now = int(time.time())
    await server.authenticator.authenticate(provider.sign(provider.claims(owner, exp=now - 20)))
    await server.authenticator.authenticate(provider.sign(provider.claims(owner, nbf=now + 20, iat=now + 20)))
    expired = provider.sign(provider.claims(owner, exp=now - 40))
    assert await refused(server, expired) is Reason.CREDENTIALS_EXPIRED


async def test_a_token_without_signature_is_refused(server: Server, provider: Provider, owner: Caller) -> None:
    for algorithm in ("none", "None", "NONE", ""):
        token = f"{part({'alg': algorithm, 'kid': 'first'})}.{part(provider.claims(owner))}."
        assert await refused(server, f"Bearer {token}") is Reason.CREDENTIALS_INVALID
    assert await refused(server, f"Bearer {part(provider.claims(owner))}") is Reason.CREDENTIALS_INVALID
    assert await refused(server, "Bearer a.b.c") is Reason.CREDENTIALS_INVALID
    assert await refused(server, f"Bearer {part({'alg': ['RS256']})}.{part([1])}.x") is Reason.CREDENTIALS_INVALID


async def test_a_token_that_is_nothing_but_brackets_is_refused(server: Server) -> None:
    deep = base64.urlsafe_b64encode(b"[" * 6000).decode()
    assert await refused(server, f"Bearer {deep}.{part({})}.x") is Reason.CREDENTIALS_INVALID


async def test_a_subject_belongs_to_its_issuer_where_there_are_several(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller
) -> None:
    other = Issuer("https://other.example", AUDIENCE, KeySource(provider.url + "/jwks"))
    server = await start_server(servers, database, issuer(provider), other)
    await server.create_user(owner, Role.ADMIN, external_subject=SUBJECT)
    ann = await server.create_user(owner, Role.MEMBER, external_subject=f"{provider.url}|{SUBJECT}")
    identity = await server.authenticator.authenticate(provider.sign(provider.claims(owner)))
    assert identity.tenant.user_id == ann.id
    assert identity.subject == f"jwt:{provider.url}|{SUBJECT}"
    foreign = provider.sign(provider.claims(owner, iss=other.name))
    assert await refused(server, foreign) is Reason.CREDENTIALS_INVALID


async def test_a_certificate_and_a_token_with_the_same_name_are_not_the_same_user(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller
) -> None:
    server = await start_server(servers, database, issuer(provider), certificates=True)
    robot = await server.create_user(owner, Role.SERVICE, external_subject="mtls|robot")
    certificate = Certificate(("robot",), str(owner.tenant.organization_id))
    assert (await server.authenticator.authenticate(None, certificate)).tenant.user_id == robot.id
    for subject in ("robot", "mtls|robot"):
        token = provider.sign(provider.claims(owner, sub=subject))
        assert await refused(server, token) is Reason.CREDENTIALS_INVALID


async def test_the_public_key_is_no_shared_secret(server: Server, provider: Provider, owner: Caller) -> None:
    head = f"{part({'alg': 'HS256', 'kid': 'first'})}.{part(provider.claims(owner))}"
    signature = hmac.digest(provider.keys[0].as_pem(private=False), head.encode(), "sha256")
    token = f"{head}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
    assert await refused(server, f"Bearer {token}") is Reason.CREDENTIALS_INVALID
    with pytest.raises(ValueError, match="HS256"):
        issuer(provider, algorithms=("HS256",))


async def test_a_token_that_was_changed_or_signed_by_another_is_refused(
    server: Server, provider: Provider, owner: Caller
) -> None:
    token = provider.sign(provider.claims(owner))
    header, payload, signature = token.split(".")
    assert await refused(server, f"{header}.{payload}.{signature[:-8]}AAAAAAAA") is Reason.CREDENTIALS_INVALID
    forger = RSAKey.generate_key(2048, {"kid": "first"})
    assert await refused(server, provider.sign(provider.claims(owner), forger)) is Reason.CREDENTIALS_INVALID


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [(ECKey.generate_key("P-256", {"kid": "ec"}), "ES256"), (OKPKey.generate_key("Ed25519", {"kid": "ed"}), "Ed25519")],
)
async def test_elliptic_keys_are_taken(
    server: Server, provider: Provider, owner: Caller, key: ECKey | OKPKey, algorithm: str
) -> None:
    provider.keys.append(key)
    await server.authenticator.authenticate(provider.sign(provider.claims(owner), key, algorithm))


async def test_a_rotated_key_is_fetched_when_a_token_names_it(
    server: Server, provider: Provider, owner: Caller
) -> None:
    await server.authenticator.authenticate(provider.sign(provider.claims(owner)))
    old = provider.keys[0]
    provider.keys = [RSAKey.generate_key(2048, {"kid": "second", "use": "sig"})]
    await server.authenticator.authenticate(provider.sign(provider.claims(owner)))
    assert await refused(server, provider.sign(provider.claims(owner), old)) is Reason.CREDENTIALS_INVALID


async def test_unknown_keys_cannot_make_the_server_ask_more_often_than_the_floor(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller
) -> None:
    keys = KeySource(provider.url + "/jwks", floor=timedelta(hours=1))
    server = await start_server(servers, database, Issuer(provider.url, AUDIENCE, keys))
    for number in range(20):
        forger = provider.sign(provider.claims(owner), kid=f"unknown-{number}")
        assert await refused(server, forger) is Reason.CREDENTIALS_INVALID
    assert provider.requests == ["/jwks"]


async def test_known_keys_serve_on_while_the_issuer_is_away(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller
) -> None:
    keys = KeySource(provider.url + "/jwks", lifetime=timedelta(0), floor=timedelta(0))
    server = await start_server(servers, database, Issuer(provider.url, AUDIENCE, keys))
    await server.create_user(owner, Role.MEMBER, external_subject=SUBJECT)
    token = provider.sign(provider.claims(owner))
    await server.authenticator.authenticate(token)
    provider.away = True
    await server.authenticator.authenticate(token)
    assert len(provider.requests) == 2


async def test_the_discovery_document_leads_to_the_keys(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller
) -> None:
    server = await start_server(servers, database, issuer(provider, "/.well-known/openid-configuration"))
    await server.create_user(owner, Role.MEMBER, external_subject=SUBJECT)
    await server.authenticator.authenticate(provider.sign(provider.claims(owner)))
    assert provider.requests == ["/.well-known/openid-configuration", "/jwks"]


async def test_keys_may_come_from_a_file(
    servers: AsyncExitStack, database: Database, provider: Provider, owner: Caller, tmp_path: Path
) -> None:
    file = tmp_path / "jwks.json"
    file.write_text(json.dumps({"keys": [provider.keys[0].as_dict(private=False)]}))
    server = await start_server(servers, database, Issuer(provider.url, AUDIENCE, KeySource(file)))
    await server.create_user(owner, Role.MEMBER, external_subject=SUBJECT)
    await server.authenticator.authenticate(provider.sign(provider.claims(owner)))
    assert not provider.requests


async def test_many_tokens_at_once_ask_for_the_keys_once(server: Server, provider: Provider, owner: Caller) -> None:
    token = provider.sign(provider.claims(owner))
    await asyncio.gather(*(server.authenticator.authenticate(token) for _ in range(50)))
    assert provider.requests == ["/jwks"]


async def test_a_disabled_users_token_is_refused(server: Server, provider: Provider, owner: Caller) -> None:
    token = provider.sign(provider.claims(owner))
    identity = await server.authenticator.authenticate(token)
    await server.users.disable_user(owner, identity.tenant.user_id)
    server.authenticator.forget()
    with pytest.raises(PermissionDenied) as refusal:
        await server.authenticator.authenticate(token)
    assert refusal.value.reason is Reason.USER_DISABLED

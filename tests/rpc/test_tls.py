"""TLS, mutual TLS, and certificates that are renewed while the server runs."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest
from stationmaster_server.config import ServerSettings, SettingsError, StartupError, TlsSettings
from stationmaster_server.rpc import tls

from tests.rpc.certificates import Authority
from tests.rpc.echo import EchoStub, messages
from tests.rpc.served import ALL, Served, serving, with_key


def settings(certificate: Path, key: Path, client_ca: Path | None = None) -> ServerSettings:
    """A server's settings with these files."""
    return ServerSettings(port=0, tls=TlsSettings(certificate=certificate, key=key, client_ca=client_ca))


async def echo(served: Served, authority: Authority, pair: tuple[Path, Path] | None = None, key: str = ALL) -> str:
    """Call over an encrypted channel of its own."""
    chain, secret = (pair[0].read_bytes(), pair[1].read_bytes()) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.file.read_bytes(), secret, chain)
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.secure_channel(served.target, credentials, options=options) as channel:
        answer = await EchoStub(channel).echo(
            messages()[0](text="hello"), metadata=with_key(key) if key else None, timeout=5
        )
        return str(answer.text)


async def test_a_client_that_knows_the_authority_is_served(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(settings(*authority.issue("server"))) as served:
        assert await echo(served, authority) == "hello"


async def test_plaintext_and_strangers_get_nothing(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(settings(*authority.issue("server"))) as served:
        async with served.stub() as stub:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.echo(messages()[0](text="x"), metadata=with_key(ALL), timeout=5)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        with pytest.raises(grpc.aio.AioRpcError):
            await echo(served, Authority(tmp_path, "Other CA"))


async def test_mutual_tls_names_the_caller_by_its_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    async with serving(settings(*authority.issue("server"), authority.file)) as served:
        client = authority.issue("robot", organization="0199", uri="spiffe://a/robot")
        assert await echo(served, authority, client, key="") == "hello"
        (certificate,) = served.keys.certificates
        assert certificate.names == ("spiffe://a/robot", "localhost", "robot")
        assert certificate.organization == "0199"


async def test_mutual_tls_refuses_who_has_no_certificate_of_the_authority(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    stranger = Authority(tmp_path, "Other CA").issue("stranger")
    async with serving(settings(*authority.issue("server"), authority.file)) as served:
        for pair in (None, stranger):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await echo(served, authority, pair)
            assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert served.echo.reached == 0


async def test_a_renewed_certificate_is_used_without_a_restart(tmp_path: Path) -> None:
    old, new = Authority(tmp_path, "Old CA"), Authority(tmp_path, "New CA")
    certificate, key = old.issue("server")
    async with serving(settings(certificate, key)) as served:
        assert await echo(served, old) == "hello"
        certificate.write_bytes(b"half a fi")
        os.utime(certificate, ns=(1, 1))
        assert await echo(served, old) == "hello"  # what cannot be read changes nothing
        new.issue("other")
        certificate.write_bytes((tmp_path / "other.pem").read_bytes())
        assert await echo(served, old) == "hello"  # nor does a certificate whose key is still to come
        new.issue("server")
        assert await echo(served, new) == "hello"


def test_files_that_are_no_certificates_stop_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    with pytest.raises(StartupError, match=r"server\.tls\.certificate: .* cannot be read"):
        tls.credentials(TlsSettings(certificate=tmp_path / "missing.pem", key=key))
    key.write_text("nonsense")
    with pytest.raises(StartupError, match=r"server\.tls\.key: .* is not a PEM file"):
        tls.credentials(TlsSettings(certificate=certificate, key=key))


def test_a_certificate_without_its_own_key_and_what_is_none_inside_stop_the_start(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    (certificate, key), (_, other) = authority.issue("server"), authority.issue("other")
    tls.credentials(TlsSettings(certificate=certificate, key=key, client_ca=authority.file))
    with pytest.raises(SettingsError, match=r"server\.tls\.certificate: .*other\.key are no pair.*MISMATCH"):
        tls.credentials(TlsSettings(certificate=certificate, key=other))
    hollow = tmp_path / "hollow.pem"
    hollow.write_text("-----BEGIN CERTIFICATE-----\nbm90aGluZw==\n-----END CERTIFICATE-----\n")
    with pytest.raises(SettingsError, match=r"server\.tls\.certificate: .*hollow"):
        tls.credentials(TlsSettings(certificate=hollow, key=key))
    with pytest.raises(SettingsError, match=r"server\.tls\.client_ca: .*hollow"):
        tls.credentials(TlsSettings(certificate=certificate, key=key, client_ca=hollow))

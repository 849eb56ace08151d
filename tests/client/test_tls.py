"""Encrypted connections to the real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster_client import Client, ConfigurationError, Tls, errors

from tests.fixtures.server import RunningServer, running, server_settings
from tests.rpc.certificates import Authority


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest_asyncio.fixture
async def mutual(database_url: str, tmp_path: Path, authority: Authority) -> AsyncIterator[RunningServer]:
    """A server that asks clients for a certificate."""
    certificate, key = authority.issue("server")
    tls = {"certificate": certificate, "key": key, "client_ca": authority.file}
    async with running(server_settings(tmp_path / "data", database_url, server={"port": 0, "tls": tls})) as server:
        yield server


@pytest_asyncio.fixture
async def encrypted(database_url: str, tmp_path: Path, authority: Authority) -> AsyncIterator[RunningServer]:
    """A server with a certificate."""
    certificate, key = authority.issue("server")
    tls = {"certificate": certificate, "key": key}
    async with running(server_settings(tmp_path / "data", database_url, server={"port": 0, "tls": tls})) as server:
        yield server


async def test_a_server_is_trusted_by_its_authority_only(encrypted: RunningServer, authority: Authority) -> None:
    async with Client.connect(encrypted.target, encrypted.admin_key, tls=Tls(ca=authority.file)) as client:
        assert (await client.whoami()).method == "api_key"
    async with Client.connect(encrypted.target, encrypted.admin_key, tls=Tls(), attempts=1) as client:
        with pytest.raises(errors.Unavailable):
            await client.whoami()


async def test_a_client_shows_its_certificate(mutual: RunningServer, authority: Authority) -> None:
    certificate, key = authority.issue("client")
    tls = Tls(ca=authority.file, certificate=certificate, key=key)
    async with Client.connect(mutual.target, mutual.admin_key, tls=tls) as client:
        assert (await client.whoami()).user.name
    async with Client.connect(mutual.target, mutual.admin_key, tls=Tls(ca=authority.file), attempts=1) as client:
        with pytest.raises(errors.Unavailable):
            await client.whoami()


async def test_the_local_server_is_found_with_its_certificate(
    encrypted: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nothing"))
    monkeypatch.setenv("STATIONMASTER_DATA_FOLDER", str(encrypted.settings.data_folder))
    async with Client.connect() as client:
        assert client.connection.target == encrypted.target
        assert client.connection.tls is not None
        assert (await client.whoami()).user.name


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.pem"):
        Client.connect("localhost:1", tls=Tls(ca=tmp_path / "nowhere.pem"))
    with pytest.raises(ConfigurationError, match="certificate and key"):
        Client.connect("localhost:1", tls=Tls(certificate=tmp_path / "a.pem"))

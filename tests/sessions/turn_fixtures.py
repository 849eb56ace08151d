"""Fixtures of the tests of turns: a station, and a second one on the same database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from stationmaster_server.db.caller import Caller

from tests.sessions.station import Station, open_station


@pytest_asyncio.fixture
async def station(database_url: str, tmp_path: Path, caller: Caller) -> AsyncIterator[Station]:
    """A started server without its transport."""
    async with open_station(database_url, tmp_path / "workspaces", caller) as opened:
        yield opened


@pytest_asyncio.fixture
async def other_station(database_url: str, tmp_path: Path, caller: Caller, station: Station) -> AsyncIterator[Station]:
    """A second server on the same database and the same files."""
    async with open_station(database_url, tmp_path / "workspaces", caller) as opened:
        yield opened

"""`stationmaster reports` against the real server."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import pytest_asyncio
from stationmaster_client import Client
from stationmaster_server.db.engine import Database
from stationmaster_server.storage.model import ReportFormat, StoredReport

from tests.client.cli.program import Program
from tests.fixtures.reports import deposit
from tests.fixtures.server import RunningServer
from tests.storage.test_service import tenant_of
from tests.waiting import until

TEXT = "# Größe\n"


def content_of(path: str) -> str:
    return Path(path).read_text()


@pytest.fixture
def stationmaster(server: RunningServer, tmp_path: Path) -> Program:
    return Program(tmp_path, server.target, server.admin_key)


@pytest_asyncio.fixture
async def report(server: RunningServer, database: Database) -> StoredReport:
    """A report of the administrator's."""
    async with Client.connect(server.target, server.admin_key, insecure=True) as client:
        who = await client.whoami()
    me = tenant_of(who.organization.name, who.user.name)
    return await deposit(database, me, TEXT.encode(), ReportFormat.MARKDOWN, "Winter: timetable / 2026")


async def test_reports_are_listed_shown_and_written_to_standard_output(
    stationmaster: Program, report: StoredReport
) -> None:
    execution = f"executions/{report.execution_id}"
    listed, none, shown, printed, as_json = await stationmaster.many(
        [
            ["reports", "list", "--execution", str(report.execution_id)],
            ["reports", "list", "--execution", str(report.id)],
            ["reports", "show", "-"],
            ["reports", "show", str(report.id)[-6:]],
            ["reports", "list", "--json", "--execution", execution, "-f", "format = MARKDOWN"],
        ]
    )
    assert [each.code for each in (listed, none, shown, printed, as_json)] == [0] * 5
    assert "Winter: timetable / 2026" in listed.out
    assert "markdown" in listed.out
    assert "No reports." in none.err
    assert report.sha256 in shown.out
    assert execution in printed.out
    assert [each["name"] for each in json.loads(as_json.out)["reports"]] == [f"reports/{report.id}"]
    assert (await stationmaster("reports", "get", "-", "-o", "-")).out == TEXT


async def test_a_report_is_written_to_a_file_and_never_over_another(
    stationmaster: Program, report: StoredReport, tmp_path: Path
) -> None:
    target = tmp_path / "report.md"
    first = await stationmaster("reports", "get", str(report.id), "-o", str(target))
    assert (first.code, target.read_text()) == (0, TEXT)
    target.write_text("mine")
    again = await stationmaster("reports", "get", str(report.id), "-o", str(target))
    assert (again.code, target.read_text()) == (2, "mine")
    assert "--force" in again.err
    forced = await stationmaster("reports", "get", str(report.id), "-o", str(target), "--force")
    assert (forced.code, target.read_text()) == (0, TEXT)


async def test_a_download_that_fails_leaves_no_file(
    stationmaster: Program, report: StoredReport, database: Database, tmp_path: Path
) -> None:
    async with database.system() as tx:
        await tx.execute("UPDATE report_pieces SET data = 'another'")
    folder = tmp_path / "reports"
    folder.mkdir()
    failed = await stationmaster("reports", "get", str(report.id), "-o", str(folder / "report.md"), "--timeout", "1")
    assert failed.code != 0
    assert list(folder.iterdir()) == []


async def test_a_folder_that_is_not_there_is_told(stationmaster: Program, report: StoredReport, tmp_path: Path) -> None:
    failed = await stationmaster("reports", "get", str(report.id), "-o", str(tmp_path / "no" / "report.md"))
    assert failed.code == 2
    assert "cannot be written: No such file or directory" in failed.err


async def test_a_report_is_opened_with_what_the_machine_opens_such_files_with(
    stationmaster: Program, report: StoredReport, tmp_path: Path
) -> None:
    opener = tmp_path / "bin" / "xdg-open"
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\nprintf %s "$1" > {tmp_path}/opening && mv {tmp_path}/opening {tmp_path}/opened\n')
    opener.chmod(0o755)
    result = await stationmaster("reports", "open", "-", PATH=f"{opener.parent}:{os.environ['PATH']}")
    assert result.code == 0, result.err

    async def opened() -> str:
        found = tmp_path / "opened"
        return found.read_text() if found.exists() else ""

    path = await until(opened)
    assert path.endswith("/winter-timetable-2026.md")
    assert content_of(path) == TEXT

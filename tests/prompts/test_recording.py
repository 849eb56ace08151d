"""What is noted about renders reaches the database."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster_server.db.engine import Database
from stationmaster_server.db.ids import new_id
from stationmaster_server.db.model import Tenant
from stationmaster_server.db.transaction import Transaction
from stationmaster_server.prompts import figure_store, recording
from stationmaster_server.prompts.figure_model import Exposure
from stationmaster_server.prompts.model import Selection, SelectionReason
from stationmaster_server.prompts.recording import Recorder

from tests.promises.refusal import refused
from tests.prompts.making import create, render

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


def expose(recorder: Recorder, tenant: Tenant, experiment_id: UUID, *units: str) -> None:
    selection = Selection("p", new_id(), 1, "production", SelectionReason.EXPERIMENT, 0, experiment_id, "control")
    for unit in units:
        recorder.rendered(tenant.organization_id, selection, 0.001, unit, failed=False)


async def stored(database: Database, experiment_id: UUID) -> list[str]:
    async with database.system() as tx:
        rows = await tx.fetch("SELECT unit FROM prompt_exposures WHERE experiment_id = $1 ORDER BY unit", experiment_id)
    return [row["unit"] for row in rows]


@pytest.mark.parametrize("unit", ["a\0b", "a\nb", "\x7f"])
async def test_a_unit_with_control_characters_is_refused(prompts: PromptServiceAsyncStub, unit: str) -> None:
    await create(prompts, "p", "x")
    select = pb.SelectPromptRequest(name="prompts/p", unit=unit)
    outcome = pb.RecordOutcomeRequest(name="prompts/p", unit=unit, metric=pb.OUTCOME_METRIC_SUCCESS, outcome=1)
    for attempt in (render(prompts, "p", unit=unit), prompts.SelectPrompt(select), prompts.RecordOutcome(outcome)):
        assert "unit" in (await refused(attempt)).fields


async def test_an_exposure_that_cannot_be_stored_is_counted_and_holds_no_other_up(
    database: Database, tenant: Tenant
) -> None:
    recorder, experiment_id = Recorder(database), new_id()
    expose(recorder, tenant, experiment_id, "a", "b", "nul\0", "c", "another\0", "d")
    await recorder.flush_exposures()
    assert await stored(database, experiment_id) == ["a", "b", "c", "d"]
    assert recorder.lost == 2


async def test_two_that_flush_while_more_comes_lose_nothing(
    database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, experiment_id = Recorder(database), new_id()
    units = [f"u{number:03}" for number in range(64)]
    coming, write, writes = iter(units), figure_store.add_exposures, 0

    async def add_exposures(tx: Transaction, exposures: Sequence[Exposure]) -> None:
        nonlocal writes
        await write(tx, exposures)
        writes += 1
        if writes % 2:
            expose(recorder, tenant, experiment_id, *islice(coming, writes + 2))

    monkeypatch.setattr(figure_store, "add_exposures", add_exposures)
    expose(recorder, tenant, experiment_id, next(coming))
    while await stored(database, experiment_id) != units:
        expose(recorder, tenant, experiment_id, *islice(coming, 1))
        await asyncio.gather(recorder.flush_exposures(), recorder.flush_exposures())
        assert await stored(database, experiment_id) == units[: len(recorder._known)]


async def test_versions_that_are_not_there_leave_no_figures(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "x")
    await render(prompts, "p", version=1)
    for version in range(2, 22):
        assert (await refused(render(prompts, "p", version=version))).code == "NOT_FOUND"
    answer = await prompts.GetPromptAnalytics(pb.GetPromptAnalyticsRequest(name="prompts/p"))
    assert [(total.version, total.renders, total.errors) for total in answer.totals] == [(1, 1, 0)]


async def test_figures_that_wait_are_bounded_and_what_is_not_counted_is_told(
    database: Database, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_MOST_FIGURES", 3)
    recorder, uid = Recorder(database), new_id()
    for version in (1, 2, 3, 4, 5, 1):
        selection = Selection("p", uid, version, "", SelectionReason.VERSION)
        recorder.rendered(tenant.organization_id, selection, 0.001, "", failed=False)
    await recorder.flush()
    async with database.system() as tx:
        rows = await tx.fetch("SELECT version, renders FROM prompt_figures WHERE prompt_uid = $1 ORDER BY 1", uid)
    assert [tuple(row) for row in rows] == [(1, 2), (2, 1), (3, 1)]
    assert recorder.uncounted == 2

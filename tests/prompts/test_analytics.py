"""How prompts did."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from time import time
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub
from stationmaster_server.db.engine import Database
from stationmaster_server.prompts import figure_store
from stationmaster_server.prompts.histogram import BUCKETS, bucket, percentile

from tests.fixtures.server import open_channel, running, server_settings
from tests.promises.refusal import refused
from tests.prompts.making import create, experiment, note, render, results, revise, started
from tests.waiting import until

if TYPE_CHECKING:
    from stationmaster.v1.prompt_pb2_grpc import PromptServiceAsyncStub


async def analytics(prompts: PromptServiceAsyncStub, **fields: object) -> pb.GetPromptAnalyticsResponse:
    return await prompts.GetPromptAnalytics(pb.GetPromptAnalyticsRequest(name="prompts/p", **fields))  # type: ignore[arg-type]


async def test_renders_errors_latencies_and_outcomes_are_told_by_version_and_label(
    prompts: PromptServiceAsyncStub,
) -> None:
    await create(prompts, "p", "Hello {{ name }}", "production")
    await revise(prompts, "p", "Dear {{ name }}", "staging")
    for _ in range(5):
        await render(prompts, "p", {"name": "Ada"})
    await refused(render(prompts, "p"))
    await render(prompts, "p", {"name": "Ada"}, label="staging")
    for outcome in (1, 0, 1, 1):
        await prompts.RecordOutcome(
            pb.RecordOutcomeRequest(
                name="prompts/p", label="production", metric=pb.OUTCOME_METRIC_SUCCESS, outcome=outcome
            )
        )
    answer = await analytics(prompts)
    totals = {(each.version, each.label): each for each in answer.totals}
    first, second = totals[1, "production"], totals[2, "staging"]
    assert (first.renders, first.errors, second.renders, second.errors) == (6, 1, 1, 0)
    assert 0 < first.latency_p50.ToNanoseconds() <= first.latency_p95.ToNanoseconds()
    assert first.latency_p95.ToNanoseconds() <= first.latency_p99.ToNanoseconds() < 10**9
    (figures,) = first.outcomes
    assert (figures.metric, figures.count, figures.mean) == (pb.OUTCOME_METRIC_SUCCESS, 4, 0.75)
    hours = await analytics(prompts, interval=pb.ANALYTICS_INTERVAL_HOUR)
    assert sum(point.renders for point in hours.points) == 7
    assert all(point.start_time.seconds % 3600 == 0 for point in hours.points)
    assert all(point.start_time.seconds % 86400 == 0 for point in answer.points)


async def test_what_several_servers_counted_is_told_together(database_url: str, tmp_path: Path) -> None:
    async with (
        running(server_settings(tmp_path / "a", database_url)) as first,
        running(server_settings(tmp_path / "b", database_url)) as second,
        open_channel(first.target, first.admin_key) as one,
        open_channel(second.target, first.admin_key) as other,
    ):
        here, there = PromptServiceStub(one), PromptServiceStub(other)
        await create(here, "p", "x")
        for _ in range(3):
            await render(here, "p")
            await render(there, "p")

        async def together() -> bool:
            return sum(each.renders for each in (await analytics(here)).totals) == 6

        await until(together)
    async with running(server_settings(tmp_path / "a", database_url)) as again, again.channel() as channel:
        prompts = PromptServiceStub(channel)
        assert [each.renders for each in (await analytics(prompts)).totals] == [6]


async def test_spans_are_bounded(prompts: PromptServiceAsyncStub) -> None:
    await create(prompts, "p", "x")
    old = Timestamp(seconds=1_700_000_000)
    for fields in ({"start_time": old}, {"interval": pb.ANALYTICS_INTERVAL_HOUR, "start_time": old}):
        assert (await refused(analytics(prompts, **fields))).fields == ["start_time"]
    assert (await refused(analytics(prompts, end_time=Timestamp(seconds=-62135596800)))).code == "INVALID_ARGUMENT"


def test_percentiles_are_right_to_within_an_eighth() -> None:
    counts = [0] * BUCKETS
    latencies = [0.00002 * 1.01**n for n in range(1_000)]
    for latency in latencies:
        counts[bucket(latency)] += 1
    for share in (0.01, 0.5, 0.95, 0.99):
        true = latencies[int(share * 1_000) - 1]
        assert abs(percentile(counts, share) / true - 1) < 0.15
    assert percentile([0] * BUCKETS, 0.5) == 0


async def test_days_are_the_sums_of_their_hours(prompts: PromptServiceAsyncStub, administrator_url: str) -> None:
    await create(prompts, "p", "x", "production")
    await plant(administrator_url, "date_trunc('day', now(), 'UTC') - interval '2 days'", hours=48)
    start = Timestamp(seconds=int(time()) - 4 * 86400)
    days = (await analytics(prompts, start_time=start)).points
    assert [(day.renders, day.model_calls, day.cost_micros) for day in days] == [(48, 24, 72), (48, 24, 72)]
    assert [(day.outcomes[0].count, day.outcomes[0].mean) for day in days] == [(24, 0.5), (24, 0.5)]
    hours = await analytics(prompts, start_time=start, interval=pb.ANALYTICS_INTERVAL_HOUR)
    assert [hour.renders for hour in hours.points] == [2] * 48
    (total,) = hours.totals
    assert (total.renders, total.outcomes[0].count, total.outcomes[0].mean) == (96, 48, 0.5)
    assert total.latency_p50 == days[0].latency_p50 == hours.points[0].latency_p50


async def test_what_is_old_or_left_behind_is_forgotten_bit_by_bit(
    prompts: PromptServiceAsyncStub, database: Database, administrator_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figure_store, "BATCH", 10)
    for prompt_id in ("p", "gone"):
        await create(prompts, prompt_id, "x", "production")
    await plant(administrator_url, "now() - interval '30 hours'", hours=24)
    await prompts.DeletePrompt(pb.DeletePromptRequest(name="prompts/gone"))
    assert await forgotten(database)
    while await forgotten(database):
        pass
    async with database.system() as tx:
        for table in ("prompt_figures", "prompt_outcomes"):
            rows = await tx.fetch(f"SELECT p.prompt_id FROM {table} LEFT JOIN prompts p ON p.uid = prompt_uid")
            assert [row["prompt_id"] for row in rows] == ["p"] * 16


async def test_units_of_an_experiment_are_forgotten_when_it_ended_long_ago(
    tried: PromptServiceAsyncStub, database: Database
) -> None:
    old, new = await started(tried), await experiment(tried)
    for each in (old, new):
        if each is new:
            await tried.StartExperiment(pb.StartExperimentRequest(name=new.name))
        await render(tried, "p", unit="users/1")
        assert (await note(tried, each, "users/1", 1)).counted
        assert sum(variant.exposures for variant in (await results(tried, each)).variants) == 1
        await tried.StopExperiment(pb.StopExperimentRequest(name=each.name))
    async with database.system() as tx:
        sql = "UPDATE prompt_experiments SET ended_at = now() - interval '2 days' WHERE id = $1"
        await tx.execute(sql, UUID(old.name.rpartition("/")[2]))
    while await forgotten(database):
        pass
    async with database.system() as tx:
        for table in ("prompt_exposures", "prompt_outcomes"):
            left = await tx.fetch(f"SELECT experiment_id FROM {table} WHERE experiment_id IS NOT NULL")
            assert [str(row["experiment_id"]) for row in left] == [new.name.rpartition("/")[2]], table
    assert not any(variant.exposures for variant in (await results(tried, old)).variants)


async def forgotten(database: Database) -> bool:
    async with database.system() as tx:
        return await figure_store.forget(tx, timedelta(hours=23))


async def plant(url: str, start: str, *, hours: int) -> None:
    """Figures and outcomes of each prompt, one an hour from an SQL moment on."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "INSERT INTO prompt_figures (organization_id, prompt_uid, hour, version, label, renders, errors, latencies,"
        " model_calls, input_tokens, output_tokens, cost_micros)"
        f" SELECT organization_id, uid, date_trunc('hour', {start}) + n * interval '1 hour', 1, 'production', 2, 0,"
        " array_fill(0, ARRAY[9]) || ARRAY[2] || array_fill(0, ARRAY[$2::int - 10]), 1, 10, 20, 3"
        " FROM prompts, generate_series(0, $1::int - 1) AS n",
        hours,
        BUCKETS,
    )
    await connection.execute(
        "INSERT INTO prompt_outcomes (organization_id, id, prompt_uid, version, label, metric, outcome, variant, unit,"
        " created_at) SELECT organization_id, gen_random_uuid(), uid, 1, 'production', 'SUCCESS', n % 2, '', '',"
        f" date_trunc('hour', {start}) + n * interval '1 hour' FROM prompts, generate_series(0, $1::int - 1) AS n",
        hours,
    )
    await connection.close()

"""How prompts did."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf.timestamp_pb2 import Timestamp
from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.prompt_pb2_grpc import PromptServiceStub
from stationmaster_server.prompts.histogram import BUCKETS, bucket, percentile

from tests.fixtures.server import open_channel, running, server_settings
from tests.promises.refusal import refused
from tests.prompts.making import create, render, revise
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

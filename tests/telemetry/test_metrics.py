"""Metrics: what Prometheus reads."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families
from stationmaster_server.telemetry import monitor
from stationmaster_server.telemetry.calls import CallMetrics
from stationmaster_server.telemetry.metrics import Metrics
from stationmaster_server.telemetry.monitor import ResourceMonitor

from tests.waiting import until


def samples(metrics: Metrics) -> dict[str, float]:
    """Every sample by name and labels."""
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }


def test_calls_are_counted_by_code_and_timed() -> None:
    metrics, calls = Metrics(), CallMetrics()
    metrics.collect_from(calls)
    method = calls.of("s", "M")
    for code, seconds in (("OK", 0.0005), ("OK", 0.02), ("NOT_FOUND", 100.0)):
        method.begin()
        method.end(code, seconds)
    method.begin()
    found = samples(metrics)
    labels = "('method', 'M'), ('service', 's')"
    assert found[f"stationmaster_rpc_handled_total[('code', 'OK'), {labels}]"] == 2
    assert found[f"stationmaster_rpc_in_flight[{labels}]"] == 1
    assert found[f"stationmaster_rpc_duration_seconds_count[{labels}]"] == 3
    assert found[f"stationmaster_rpc_duration_seconds_bucket[('le', '0.025'), {labels}]"] == 2
    assert found[f"stationmaster_rpc_duration_seconds_bucket[('le', '60.0'), {labels}]"] == 2
    assert 100 < found[f"stationmaster_rpc_duration_seconds_sum[{labels}]"] < 101


def test_readings_are_taken_when_somebody_asks() -> None:
    metrics = Metrics()
    now = {"a": 1.0}
    metrics.read("things", "Things.", lambda: now)
    metrics.read("done", "Done.", lambda: 5.0, total=True)
    assert samples(metrics)["stationmaster_things[('kind', 'a')]"] == 1
    now["a"] = 2.0
    found = samples(metrics)
    assert found["stationmaster_things[('kind', 'a')]"] == 2
    assert found["stationmaster_done_total[]"] == 5


async def test_the_monitor_reads_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, count = set[int](), monitor.open_files

    def noted(process: psutil.Process) -> dict[str, float]:
        threads.add(threading.get_ident())
        return count(process)

    monkeypatch.setattr(monitor, "open_files", noted)
    looks: list[float] = []
    async with ResourceMonitor(Metrics(), timedelta(milliseconds=10), looks.append):

        async def looked_twice() -> bool:
            return len(looks) > 1

        await until(looked_twice)
    assert threads
    assert threading.get_ident() not in threads

    async def ended() -> bool:
        return threads.isdisjoint(thread.ident for thread in threading.enumerate())

    await until(ended)


async def test_the_monitor_tells_what_the_process_uses() -> None:
    metrics = Metrics()
    async with ResourceMonitor(metrics, timedelta(milliseconds=10)) as watching:

        async def looked() -> bool:
            return watching.figures["memory_resident_bytes"] > 1_000_000

        await until(looked)
        await asyncio.sleep(0)
        found = samples(metrics)
    for resource in ("cpu_percent", "memory_resident_bytes", "threads", "open_files"):
        assert f"stationmaster_process[('resource', '{resource}')]" in found
    assert "stationmaster_event_loop_lag_seconds[]" in found

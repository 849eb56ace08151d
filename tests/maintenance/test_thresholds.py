"""A service that leaks, or grows slow, is told of once, by thresholds that can be set; others are not."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from stationmaster_server.maintenance import growth
from stationmaster_server.maintenance.growth import Growth
from stationmaster_server.maintenance.model import Figures, Policy, ServiceState
from stationmaster_server.maintenance.thresholds import faults

from tests.maintenance.conftest import Host, Start
from tests.maintenance.services import Sample
from tests.maintenance.test_runner import figures, fine, ran
from tests.waiting import until

OFTEN = Policy(timedelta(milliseconds=5), retry_delay=timedelta(milliseconds=5))


def told(server: Host, kind: str) -> list[str]:
    return [text for service_id, text in server.alarms.told if service_id == "sample" and kind in text]


async def test_one_that_leaves_files_open_is_told_of_once_and_others_are_not(host: Start) -> None:
    opened: list[int] = []

    async def leak() -> None:
        # More than other work of this process may close meanwhile.
        opened.extend(os.open(os.devnull, os.O_RDONLY) for _ in range(20))

    service, other = Sample(leak, policy=OFTEN), Sample(fine, service_id="other")
    server = await host(service, other)

    async def alarmed() -> bool:
        return bool(told(server, "files open"))

    try:
        await until(alarmed)
        assert figures(server).handle_growth >= OFTEN.alert_handle_growth
        assert figures(server).state in (ServiceState.IDLE, ServiceState.RUNNING)
        assert [service_id for service_id, _ in server.alarms.told] == ["sample"]
        assert 'handle_growth{service="other"} 0.0' in server.metrics.render().decode()
    finally:
        service.do(fine)
        for descriptor in opened:
            os.close(descriptor)

    async def well() -> bool:
        return ("sample", "") in server.alarms.told

    await until(well)
    assert len(told(server, "files open")) == 1


async def test_one_that_leaves_memory_behind_is_told_of(host: Start) -> None:
    kept: list[bytes] = []

    async def leak() -> None:
        kept.append(bytes(8 * 1024**2).replace(b"\0", b"x"))

    policy = Policy(timedelta(milliseconds=5), alert_memory_growth_bytes=60 * 1024**2)
    server = await host(Sample(leak, policy=policy))

    async def alarmed() -> bool:
        return bool(told(server, "memory"))

    await until(alarmed, seconds=30)
    assert figures(server).memory_growth_bytes >= 60 * 1024**2
    kept.clear()


async def test_one_that_grows_slow_is_told_of(host: Start) -> None:
    async def slow() -> None:
        await asyncio.sleep(0.05)

    server = await host(Sample(slow, policy=Policy(timedelta(0), alert_run_time=timedelta(milliseconds=50))))

    async def alarmed() -> bool:
        return bool(told(server, "each"))

    await until(alarmed)


@pytest.mark.parametrize(
    "changes",
    [
        {"alert_errors_per_hour": 0, "alert_run_time": timedelta(), "alert_memory_growth_bytes": 0}
        | {"alert_handle_growth": 0}
    ],
)
def test_a_threshold_of_zero_is_none(changes: dict[str, Any]) -> None:
    bad = Figures(recent_seconds=9000.0, memory_growth_bytes=2**40, handle_growth=10_000)
    assert {fault.kind for fault in faults(bad, Policy(timedelta(1)), 1000)} == {"errors", "slow", "memory", "handles"}
    assert list(faults(bad, Policy(timedelta(1), **changes), 1000)) == []


async def test_what_the_process_has_is_read_beside_the_event_loop(host: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    now, threads = growth.Footprints.now, list[int]()

    def noted(self: growth.Footprints) -> growth.Footprint:
        threads.append(threading.get_ident())
        return now(self)

    monkeypatch.setattr(growth.Footprints, "now", noted)
    service = Sample(fine)
    await host(service)
    await until(ran(service, 3))
    assert len(threads) > 3
    assert len(set(threads)) == 1  # one thread for all readings
    assert threading.get_ident() not in threads


async def test_services_run_though_the_system_says_nothing_of_the_process(
    host: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_self: object) -> growth.Footprint:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(growth.Footprints, "now", none_left)
    service = Sample(fine)
    server = await host(service)
    await until(ran(service, 3))
    assert figures(server).failed == 0


@contextmanager
def footprints(monkeypatch: pytest.MonkeyPatch, *pairs: tuple[int, int]) -> Iterator[None]:
    """What the system says before and after each run: the same number of bytes and of files."""
    readings = iter([number for pair in pairs for number in pair])

    def read(_self: object) -> growth.Footprint:
        number = next(readings)
        return growth.Footprint(number, number)

    monkeypatch.setattr(growth.Footprints, "now", read)
    yield


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(0, 1), (1, 2), (2, 3), (3, 4)], 0),  # too few to tell
        ([(0, 1), (1, 2), (2, 3), (3, 4), (4, 6)], 6),
        ([(0, 1), (9, 10), (2, 3), (3, 4), (4, 6), (8, 9)], 7),  # what others did in between is not counted
        ([(0, 1), (1, 2), (2, 2), (2, 3), (3, 4), (4, 5)], 0),  # one left nothing
        ([(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (5, 1)], 0),  # it was given back
    ],
)
async def test_growth_counts_only_when_every_run_leaves_something(
    pairs: list[tuple[int, int]], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown, reader = Growth(), growth.Footprints()
    with footprints(monkeypatch, *pairs):
        for _ in pairs:
            before = await reader.read()
            grown.note(before, await reader.read())
    reader.close()
    assert (grown.memory_bytes, grown.handles) == (expected, expected)

"""A background service that raises, hangs or is held: what becomes of it, and that no other notices."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.maintenance import registry, runner, status_store, store
from stationmaster_server.maintenance.model import LONGEST_PAUSE, Figures, Policy, Scope, ServiceState, Settings

from tests.maintenance.conftest import Host, Start
from tests.maintenance.services import Sample
from tests.waiting import until


async def fine() -> None:
    """Nothing to complain of."""


def failing(times: int, error: Exception | None = None) -> Callable[[], Awaitable[None]]:
    """Fails so many times, then works."""
    left = [times]

    async def do() -> None:
        if left[0] > 0:
            left[0] -= 1
            raise error or RuntimeError(f"broken, {left[0]} to go")

    return do


def figures(host: Host, service_id: str = "sample") -> Figures:
    return host.registry._runners[service_id].figures


def ran(service: Sample, times: int) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return len(service.runs) >= times

    return check


async def set_to(database: Database, settings: Settings) -> None:
    async with database.system() as tx:
        await store.put_settings(tx, "sample", settings)


def test_pauses_grow_from_failure_to_failure_up_to_five_minutes() -> None:
    policy = Policy(timedelta(hours=1))
    assert policy.pause_after(0) == timedelta(hours=1)
    pauses = [policy.pause_after(failures) for failures in range(1, 40)]
    assert pauses[:3] == [timedelta(seconds=2), timedelta(seconds=4), timedelta(seconds=8)]
    assert all(one <= following for one, following in pairwise(pauses))
    assert pauses[-1] == LONGEST_PAUSE == timedelta(minutes=5)


async def test_one_that_raises_is_tried_again_started_anew_alarmed_and_well_again(
    host: Start, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, other = Sample(failing(6)), Sample(fine, service_id="other")
    pauses, pause = list[timedelta](), runner.Runner._pause

    def noted(self: runner.Runner, failures: int) -> timedelta:
        found = pause(self, failures)
        if self.service is service and failures:
            pauses.append(found)
        return found

    monkeypatch.setattr(runner.Runner, "_pause", noted)
    server = await host(service, other)

    async def well() -> bool:
        return figures(server).completed > 0 and ("sample", "") in server.alarms.told

    await until(well)
    assert (figures(server).failed, figures(server).retried) == (6, 6)
    assert figures(server).restarted == 3  # of the fourth, fifth and sixth failure
    assert service.cleanups == 3
    assert service.words == ["default"] * 4
    assert figures(server).last_error == "broken, 0 to go"
    assert [told[0] for told in server.alarms.told] == ["sample", "sample"]
    assert [bool(told[1]) for told in server.alarms.told] == [True, False]
    assert figures(server, "other").failed == 0
    assert len(pauses) == 6
    assert all(one < following for one, following in pairwise(pauses))
    async with database.system(autocommit=True) as tx:
        assert await store.errors_last_hour(tx, ["sample", "other"]) == {"sample": 6}
    text = server.metrics.render().decode()
    assert 'stationmaster_background_service_runs_failed_total{service="sample"} 6.0' in text
    assert 'stationmaster_background_service_healthy{service="sample"} 1.0' in text


async def test_one_that_hangs_is_ended_at_its_time_limit_and_others_go_on(host: Start) -> None:
    async def hang() -> None:
        await asyncio.sleep(10_000)

    service, other = Sample(hang, time_limit=timedelta(milliseconds=50)), Sample(fine, service_id="other")
    server = await host(service, other)

    async def unhealthy() -> bool:
        return figures(server).state is ServiceState.UNHEALTHY

    await until(unhealthy)
    assert "took longer than 0.05 s" in figures(server).last_error
    runs = len(other.runs)
    await until(ran(other, runs + 3))
    assert 'healthy{service="sample"} 0.0' in server.metrics.render().decode()


async def test_a_database_that_is_away_is_nobodys_failure(host: Start) -> None:
    service = Sample(failing(5, Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away")))
    server = await host(service)

    async def well() -> bool:
        return figures(server).completed > 0

    await until(well)
    assert figures(server).failed == 0
    assert server.alarms.told == []


@pytest.mark.parametrize("scope", [Scope.EVERY_SERVER, Scope.ONE_SERVER])
async def test_a_run_that_is_nobodys_failure_hides_none_of_those_before_it(host: Start, scope: Scope) -> None:
    errors = iter([RuntimeError("broken"), Unavailable(Reason.SERVER_OVERLOADED, "busy"), RuntimeError("broken")])

    async def do() -> None:
        if error := next(errors, None):
            raise error
        await asyncio.sleep(10_000)

    server = await host(Sample(do, scope=scope))

    async def failed_twice() -> bool:
        return figures(server).failed == 2

    await until(failed_twice)
    assert figures(server).failures_in_a_row == 2


async def test_a_provider_that_is_away_is_a_failure_that_is_told(host: Start) -> None:
    service = Sample(failing(50, Unavailable(Reason.MODEL_UNAVAILABLE, "the encoder is away")))
    server = await host(service)

    async def alarmed() -> bool:
        return bool(server.alarms.told)

    await until(alarmed)
    assert figures(server).state is ServiceState.UNHEALTHY
    assert "the encoder is away" in server.alarms.told[0][1]


def broken(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, times: int) -> list[int]:
    """A query of the framework's own that fails in a way that nobody foresaw; how often it will yet."""
    left, query = [times], getattr(module, name)

    async def query_or_fail(*arguments: Any, **named: Any) -> Any:
        if left[0] > 0:
            left[0] -= 1
            raise RuntimeError(f"{name} is broken")
        return await query(*arguments, **named)

    monkeypatch.setattr(module, name, query_or_fail)
    return left


def counted_calls(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[int]:
    """How often a query is asked from now on."""
    count, query = [0], getattr(module, name)

    async def counted(*arguments: Any, **named: Any) -> Any:
        count[0] += 1
        return await query(*arguments, **named)

    monkeypatch.setattr(module, name, counted)
    return count


@pytest.mark.parametrize(
    ("module", "name", "scope"),
    [
        (store, "claim", Scope.ONE_SERVER),
        (store, "release", Scope.ONE_SERVER),
        (store, "put_figures", Scope.EVERY_SERVER),
        (status_store, "seen", Scope.EVERY_SERVER),
        (store, "put_error", Scope.EVERY_SERVER),
    ],
)
async def test_what_goes_wrong_around_a_run_ends_no_service(
    host: Start, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, scope: Scope
) -> None:
    monkeypatch.setattr(runner, "_AWAY_PAUSE", timedelta(milliseconds=10))
    monkeypatch.setattr(registry, "_TELL_EVERY", 0.05)
    service = Sample(failing(1), scope=scope, policy=Policy(timedelta(milliseconds=20)))
    server = await host(service)
    left = broken(monkeypatch, module, name, 2 if name != "put_error" else 1)

    async def well() -> bool:
        return not left[0] and server.registry._runners["sample"].figures.completed > 1 and not dead(server)

    await until(well)
    runs = len(service.runs)
    await until(ran(service, runs + 2))
    assert not dead(server)


def dead(host: Host) -> list[str]:
    """What should go on and has ended."""
    return [task.get_name() for task in host.registry._tasks if task.done()]


async def test_a_lease_is_kept_though_renewing_it_went_wrong(host: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    async def long() -> None:
        await asyncio.sleep(2.5)  # more than two leases of the tests

    services = [Sample(long, scope=Scope.ONE_SERVER, policy=Policy(timedelta(hours=1))) for _ in range(2)]
    broken(monkeypatch, store, "renew", 1)
    servers = [await host(service) for service in services]

    async def ended() -> bool:
        return any(figures(server).completed for server in servers)

    await until(ended)
    assert sum(len(service.runs) for service in services) == 1


async def test_many_errors_within_an_hour_are_alarmed_though_none_is_in_a_row(host: Start) -> None:
    turns = [0]

    async def every_other() -> None:
        turns[0] += 1
        if turns[0] % 2:
            raise RuntimeError("now and then")

    policy = Policy(timedelta(milliseconds=5), retry_delay=timedelta(milliseconds=5), alert_errors_per_hour=4)
    server = await host(Sample(every_other, policy=policy))

    async def alarmed() -> bool:
        return bool(server.alarms.told)

    await until(alarmed)
    assert server.alarms.told[0] == ("sample", "it failed 4 times within the last hour: now and then")
    assert figures(server).restarted == 0


async def test_settings_are_gone_by_at_once_and_a_pause_ends_the_run_under_way(host: Start, database: Database) -> None:
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        entered.set()
        try:
            await asyncio.sleep(10_000)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    service = Sample(slow)
    server = await host(service)
    await asyncio.wait_for(entered.wait(), 10)
    await set_to(database, Settings(paused=True, own={"word": "new"}))
    await asyncio.wait_for(cancelled.wait(), 10)
    entered.clear()
    runs = len(service.runs)
    await set_to(database, Settings(enabled=False, own={"word": "new"}))
    await set_to(database, Settings(own={"word": "new"}))
    await asyncio.wait_for(entered.wait(), 10)
    assert len(service.runs) == runs + 1
    assert service.words == ["default", "new"]
    assert figures(server).failed == 0


async def test_a_notification_of_its_channel_makes_it_run_at_once(host: Start, database: Database) -> None:
    service = Sample(fine, policy=Policy(timedelta(hours=1)), channel="sample_channel")
    await host(service)
    await until(ran(service, 1))
    async with database.system() as tx:
        await tx.execute("SELECT pg_notify('sample_channel', '')")
    await until(ran(service, 2))


async def test_notifications_do_not_shorten_the_pauses_of_one_that_fails(host: Start, database: Database) -> None:
    async def notify() -> None:
        async with database.system() as tx:
            await tx.execute("SELECT pg_notify('sample_channel', '')")

    async def notified_and_failing() -> None:
        await notify()
        await asyncio.sleep(0.05)  # it arrives while this runs
        raise RuntimeError("broken")

    policy = Policy(timedelta(hours=1), retry_delay=timedelta(milliseconds=500))
    service = Sample(notified_and_failing, policy=policy, channel="sample_channel")
    server = await host(service)

    async def failed_thrice() -> bool:
        await notify()
        return figures(server).failed >= 3

    await until(failed_thrice)
    first, second, *_ = [following - one for one, following in pairwise(service.runs)]
    assert first > 0.05 + 0.45
    assert second > 0.05 + 0.9
    service.do(fine)
    await set_to(database, Settings(paused=False))  # whoever resumes it does not wait
    await until(ran(service, 4))
    assert service.runs[3] - service.runs[2] < 0.05 + 1.8
    await notify()
    await until(ran(service, 5))


@pytest.mark.parametrize("scope", [Scope.EVERY_SERVER, Scope.ONE_SERVER])
async def test_a_shorter_interval_holds_from_now_on_and_not_after_the_longer_one(
    host: Start, database: Database, scope: Scope
) -> None:
    service = Sample(fine, policy=Policy(timedelta(hours=6)), scope=scope)
    await host(service)
    await until(ran(service, 1))
    await set_to(database, Settings(interval=timedelta(milliseconds=100)))
    await until(ran(service, 4))


@pytest.mark.parametrize("scope", [Scope.EVERY_SERVER, Scope.ONE_SERVER])
async def test_settings_that_mend_what_fails_end_its_pause(host: Start, database: Database, scope: Scope) -> None:
    policy = Policy(timedelta(hours=1), retry_delay=timedelta(hours=1))
    service = Sample(failing(1), policy=policy, scope=scope)
    server = await host(service)

    async def failed() -> bool:
        return figures(server).failed == 1

    await until(failed)
    await set_to(database, Settings(own={"word": "right"}))
    await until(ran(service, 2))


async def test_settings_of_another_service_are_no_reason_to_run(host: Start, database: Database) -> None:
    service, other = (Sample(fine, service_id=name, policy=Policy(timedelta(hours=1))) for name in ("other", "sample"))
    await host(service, other)
    await until(ran(service, 1))
    await set_to(database, Settings(own={"word": "new"}))
    await until(ran(other, 2))
    assert len(service.runs) == 1


@pytest.mark.parametrize("failures", [0, 3])
async def test_what_a_server_did_stays_in_the_totals_when_it_is_gone(
    host: Start, database: Database, failures: int
) -> None:
    service = Sample(failing(failures), policy=Policy(timedelta(hours=1), retry_delay=timedelta(milliseconds=5)))
    server = await host(service)

    async def well() -> bool:
        return figures(server).completed > 0

    await until(well)
    await server.registry.__aexit__(None, None, None)
    async with database.system(autocommit=True) as tx:
        totals, servers = (await store.all_figures(tx))["sample"]
    assert (totals.completed, totals.failed, servers) == (1, failures, [])

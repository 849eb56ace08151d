"""Engines are seen by their pulse: what they do, that they fail, that they hang."""

from __future__ import annotations

import time
from datetime import timedelta
from types import SimpleNamespace

import pytest
from stationmaster_server.db.engine import Database
from stationmaster_server.errors import Reason, Unavailable
from stationmaster_server.maintenance import engines, store
from stationmaster_server.maintenance.engines import Engine, EngineRunner
from stationmaster_server.maintenance.model import Fault, ServiceState
from stationmaster_server.resilience.pulse import Pulse

from tests.maintenance.conftest import Start
from tests.waiting import until


class Watched:
    """An engine whose pulse a test makes."""

    def __init__(self, database: Database, every: float | None = 1.0) -> None:
        self.pulse = Pulse()
        self.told: list[Fault | None] = []

        async def alarm(_service: object, _figures: object, fault: Fault | None) -> None:
            self.told.append(fault)

        engine = Engine("engine", "An engine.", self.pulse, None if every is None else timedelta(seconds=every))
        self.runner = EngineRunner(engine, database, alarm)

    def fail(self, error: Exception) -> None:
        with pytest.raises(type(error)), self.pulse.round():
            raise error


async def test_an_engine_that_fails_in_each_round_is_told_of_and_so_is_its_recovery(database: Database) -> None:
    watched = Watched(database)
    with watched.pulse.round():
        pass
    await watched.runner.take()
    figures = watched.runner.figures
    assert (figures.completed, figures.failed, figures.state) == (1, 0, ServiceState.IDLE)
    for _ in range(4):
        watched.fail(RuntimeError("a bug"))
    await watched.runner.take()
    assert (figures.failed, figures.state, figures.last_error) == (4, ServiceState.UNHEALTHY, "RuntimeError: a bug")
    async with database.system(autocommit=True) as tx:
        assert await store.errors_last_hour(tx, ["engine"]) == {"engine": 4}
    with watched.pulse.round():
        pass
    await watched.runner.take()
    await watched.runner.take()
    assert figures.state is ServiceState.IDLE
    assert [fault and fault.kind for fault in watched.told] == ["failing", None]


async def test_the_alarm_of_many_errors_ends_once_there_were_few_within_the_hour(database: Database) -> None:
    watched = Watched(database)
    for _ in range(20):
        watched.fail(RuntimeError("now and then"))
        with watched.pulse.round():
            pass
        await watched.runner.take()  # a pulse keeps few errors
    assert [fault and fault.kind for fault in watched.told] == ["errors"]
    await watched.runner.take()
    assert len(watched.told) == 1  # nothing ended yet
    async with database.system(autocommit=True) as tx:
        await tx.execute("UPDATE background_errors SET at = at - interval '1 hour'")
    await watched.runner.take()
    assert [fault and fault.kind for fault in watched.told] == ["errors", None]


async def test_a_database_that_is_away_is_no_engines_failure(database: Database) -> None:
    watched = Watched(database)
    watched.fail(Unavailable(Reason.DATABASE_UNAVAILABLE, "the database is away"))
    await watched.runner.take()
    assert (watched.runner.figures.failed, watched.runner.figures.state) == (0, ServiceState.IDLE)


async def test_an_engine_that_goes_round_no_more_is_told_of(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched, on_demand = Watched(database), Watched(database, every=None)
    for each in (watched, on_demand):
        each.pulse.beat(0.001)
    await watched.runner.take()
    assert watched.told == []
    later = time.time() + 40
    monkeypatch.setattr(engines, "time", SimpleNamespace(time=lambda: later))
    for each in (watched, on_demand):
        await each.runner.take()
    assert watched.runner.figures.state is ServiceState.UNHEALTHY
    assert [fault and fault.kind for fault in watched.told] == ["silent"]
    assert (on_demand.runner.figures.state, on_demand.told) == (ServiceState.IDLE, [])


async def test_an_engine_is_among_the_services_of_its_server(host: Start, database: Database) -> None:
    pulse = Pulse()
    server = await host(Engine("engine", "An engine.", pulse))
    pulse.beat(0.5)

    async def told() -> bool:
        async with database.system(autocommit=True) as tx:
            totals, _ = (await store.all_figures(tx)).get("engine", (None, []))
        return totals is not None and totals.completed == 1

    assert await until(told)
    assert (
        'stationmaster_background_service_runs_completed_total{service="engine"} 1.0'
        in server.metrics.render().decode()
    )

"""Faults of an installation: the start stops with one line that says what to do, and `doctor` finds the same before."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest

from tests.fixtures import forks
from tests.fixtures.scratch import scratch
from tests.fixtures.server import StartServer
from tests.rpc.certificates import Authority

LIMIT_SECONDS = 30


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Installation:
    """What a command is started with."""

    folder: Path
    environment: Mapping[str, str]

    def but(self, **variables: str) -> Installation:
        """The same with other settings: `SERVER__PORT="1"`."""
        named = {f"STATIONMASTER_{name}": value for name, value in variables.items()}
        return Installation(self.folder, {**self.environment, **named})

    async def run(self, *arguments: str) -> Ended:
        """Run `stationmaster-server` to its end."""
        inherited = {n: v for n, v in os.environ.items() if not n.startswith(("STATIONMASTER_", "DATABASE_URL"))}
        return Ended(
            *await forks.run(forks.SERVER, arguments, {**inherited, **self.environment}, seconds=LIMIT_SECONDS)
        )


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that PostgreSQL's own account can reach."""
    with scratch("stationmaster-start-") as folder:
        yield folder


@pytest.fixture
def sound(folder: Path, database_url: str) -> Installation:
    """An installation that would start."""
    variables = {"DATA_FOLDER": str(folder / "data"), "SERVER__PORT": "0", "ADMIN__PORT": "0"}
    return Installation(folder, {"DATABASE_URL": database_url}).but(**variables)


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    """A port that another program listens on."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield int(other.getsockname()[1])


def unknown_setting(sound: Installation) -> Installation:
    return sound.but(SERVER__PROT="1")


def unknown_setting_in_the_file(sound: Installation) -> Installation:
    file = sound.folder / "settings.toml"
    file.write_text("[server]\nprot = 50151\n[work]\nlease = '20s'\n")
    return sound.but(CONFIG=str(file))


def file_that_is_not_there(sound: Installation) -> Installation:
    return sound.but(CONFIG=str(sound.folder / "nowhere.toml"))


def impossible_setting(sound: Installation) -> Installation:
    return sound.but(WORK__LEASE="0.2s")


def malformed_settings(sound: Installation) -> Installation:
    return sound.but(SERVER__PORT="abc", WORK__SLOTS="0")


def settings_that_do_not_go_together(sound: Installation) -> Installation:
    return sound.but(SERVER__HOST="0.0.0.0")


def folder_that_cannot_be_written(sound: Installation) -> Installation:
    (sound.folder / "file").touch()
    return sound.but(DATA_FOLDER=str(sound.folder / "file" / "data"))


def postgresql_of_another_version(sound: Installation) -> Installation:
    pgdata = sound.folder / "data" / "postgres" / "data"
    pgdata.mkdir(parents=True)
    (pgdata / "PG_VERSION").write_text("11\n")
    return Installation(sound.folder, {n: v for n, v in sound.environment.items() if n != "DATABASE_URL"})


def database_that_does_not_answer(sound: Installation) -> Installation:
    with taken_port() as port:
        pass  # nobody listens there any more
    away = sound.but(DATABASE__CONNECT_TIMEOUT="0.5s")
    return Installation(sound.folder, {**away.environment, "DATABASE_URL": f"postgresql://me@127.0.0.1:{port}/mine"})


def password_that_is_wrong(sound: Installation) -> Installation:
    user, _, rest = sound.environment["DATABASE_URL"].partition("@")
    return Installation(sound.folder, {**sound.environment, "DATABASE_URL": f"{user}wrong@{rest}"})


def database_that_does_not_exist(sound: Installation) -> Installation:
    server, _, rest = sound.environment["DATABASE_URL"].partition("@/")
    url = f"{server}@/nowhere?{rest.partition('?')[2]}"
    return Installation(sound.folder, {**sound.environment, "DATABASE_URL": url})


def certificate_that_is_not_there(sound: Installation) -> Installation:
    here = str(sound.folder / "nowhere.pem")
    return sound.but(SERVER__TLS__CERTIFICATE=here, SERVER__TLS__KEY=here)


def file_that_is_no_certificate(sound: Installation) -> Installation:
    file = sound.folder / "settings.pem"
    file.write_text("[server]")
    return sound.but(SERVER__TLS__CERTIFICATE=str(file), SERVER__TLS__KEY=str(file))


def key_of_another_certificate(sound: Installation) -> Installation:
    authority = Authority(sound.folder)
    (certificate, _), (_, other) = authority.issue("server"), authority.issue("other")
    return sound.but(SERVER__TLS__CERTIFICATE=str(certificate), SERVER__TLS__KEY=str(other))


def copies_that_cannot_be_made(sound: Installation) -> Installation:
    return sound.but(AUDIT__COPIES=(sound.folder / "nowhere").as_uri())


def secret_of_alerts_that_is_none(sound: Installation) -> Installation:
    return sound.but(MAINTENANCE__ALERT_WEBHOOK="https://example.org", MAINTENANCE__ALERT_SECRET="secret")


def model_that_was_not_fetched(sound: Installation) -> Installation:
    return sound.but(EMBEDDING__PROVIDER="local")


Fault = Callable[[Installation], Installation]
FAULTS: list[tuple[Fault, int, str, tuple[str, ...]]] = [
    (unknown_setting, 78, "settings", ("STATIONMASTER_SERVER__PROT", "did you mean STATIONMASTER_SERVER__PORT?")),
    (unknown_setting_in_the_file, 78, "settings", ("'server.prot'", "settings.toml", "did you mean server.port?")),
    (file_that_is_not_there, 78, "settings", ("nowhere.toml", "cannot be read")),
    (impossible_setting, 78, "settings", ("work.lease", "at least 1s")),
    (malformed_settings, 78, "settings", ("server.port", "work.slots")),
    (settings_that_do_not_go_together, 78, "settings", ("server.host 0.0.0.0", "server.tls.certificate")),
    (folder_that_cannot_be_written, 1, "settings", ("cannot be written", "choose another", "DATA_FOLDER")),
    (postgresql_of_another_version, 1, "database", ("of PostgreSQL 11", "this server brings", "dump it")),
    (database_that_does_not_answer, 1, "database", ("did not answer", "is it running", "database.url")),
    (password_that_is_wrong, 1, "database", ("password", "check database.url")),
    (database_that_does_not_exist, 1, "database", ("nowhere", "check database.url")),
    (certificate_that_is_not_there, 78, "tls", ("nowhere.pem", "server.tls")),
    (file_that_is_no_certificate, 78, "tls", ("settings.pem", "not a PEM file")),
    (key_of_another_certificate, 78, "tls", ("server.tls.certificate", "no pair")),
    (copies_that_cannot_be_made, 78, "settings", ("audit.copies", "nowhere")),
    (secret_of_alerts_that_is_none, 78, "settings", ("maintenance.alert_secret", "whsec_")),
    (model_that_was_not_fetched, 78, "embedding", ("embedding.provider", "models fetch")),
]


@pytest.mark.parametrize(
    ("fault", "code", "subject", "hints"), FAULTS, ids=lambda value: getattr(value, "__name__", "")
)
async def test_a_fault_stops_the_start_with_advice_and_doctor_finds_it(
    sound: Installation, fault: Fault, code: int, subject: str, hints: tuple[str, ...]
) -> None:
    broken = fault(sound)
    served, examined = await asyncio.gather(broken.run("serve"), broken.run("doctor"))
    assert served.code == code, served
    assert served.err.startswith("stationmaster-server: "), served
    assert len(served.err.strip().splitlines()) == 1, served
    assert all(hint in served.err for hint in hints), served
    assert "is serving" not in served.out
    assert examined.code == 1, examined
    found = [line for line in examined.out.splitlines() if line.startswith(f"FAIL  {subject}")]
    assert len(found) == 1, examined
    assert all(hint in found[0] for hint in hints), examined
    assert not examined.err, examined


@pytest.mark.parametrize("setting", ["server", "admin"])
async def test_a_port_in_use_stops_the_start_with_advice_and_doctor_finds_it(sound: Installation, setting: str) -> None:
    with taken_port() as port:
        broken = sound.but(**{f"{setting.upper()}__PORT": str(port)})
        served, examined = await asyncio.gather(broken.run("serve"), broken.run("doctor"))
    hints = (f"127.0.0.1:{port} is in use", f"set {setting}.port to another port")
    assert served.code == 1, served
    assert len(served.err.strip().splitlines()) == 1, served
    assert all(hint in served.err for hint in hints), served
    assert examined.code == 1, examined
    (found,) = [line for line in examined.out.splitlines() if line.startswith("FAIL")]
    assert found.startswith("FAIL  ports")
    assert all(hint in found for hint in hints)


async def test_doctor_takes_the_ports_of_the_server_that_runs_for_no_fault(
    sound: Installation, server_process: StartServer, database_url: str
) -> None:
    with taken_port() as first, taken_port() as second:
        pass
    here = sound.but(SERVER__PORT=str(first), ADMIN__PORT=str(second))
    environment = {name: value for name, value in here.environment.items() if "PORT" in name}
    await server_process(database_url=database_url, folder=sound.folder / "data", environment=environment)
    examined = await here.run("doctor")
    assert examined.code == 0, examined
    assert "FAIL" not in examined.out


async def test_a_stale_schema_stops_the_start_when_migrating_is_off(
    sound: Installation, postgres: object, administrator_url: str
) -> None:
    administrator = await asyncpg.connect(administrator_url)
    await administrator.execute("DELETE FROM alembic_version")
    await administrator.close()
    stale = sound.but(DATABASE__MIGRATE="false")
    served, examined = await asyncio.gather(stale.run("serve"), stale.run("doctor"))
    assert served.code == 1, served
    assert "stationmaster-server migrate" in served.err
    assert examined.code == 1, examined
    assert "stationmaster-server migrate" in examined.out


async def test_a_sound_installation_passes_and_serves(sound: Installation, server_process: StartServer) -> None:
    examined = await sound.run("doctor")
    assert examined.code == 0, examined
    assert "FAIL" not in examined.out
    (embedding,) = [line for line in examined.out.splitlines() if line.startswith("WARN  embedding")]
    assert "no synonyms" in embedding
    assert "stationmaster-server models fetch" in embedding
    server = await server_process(database_url=sound.environment["DATABASE_URL"], folder=sound.folder / "data")
    assert await server.stop() == 0

"""Finding the server and the key: who wins, and that a key never goes to a stranger."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from stationmaster_client import ConfigurationError, Tls
from stationmaster_client.connection import DEFAULT_TARGET, is_local, resolve


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    """An environment with a configuration file of two contexts and a local server."""
    folder = tmp_path / "config" / "stationmaster"
    folder.mkdir(parents=True)
    (folder / "client.toml").write_text(
        'current = "test"\n[contexts.test]\ntarget = "localhost:1"\napi_key = "test-key"\n'
        '[contexts.production]\ntarget = "sm.example.com:443"\napi_key_file = "'
        + str(tmp_path / "production.key")
        + '"\n'
    )
    (tmp_path / "production.key").write_text("production-key\n")
    data = tmp_path / "data"
    data.mkdir()
    (data / "server.json").write_text(json.dumps({"target": "127.0.0.1:2"}))
    (data / "admin.key").write_text("local-key\n")
    return {"XDG_CONFIG_HOME": str(tmp_path / "config"), "STATIONMASTER_DATA_FOLDER": str(data)}


@pytest.fixture
def bare(env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The same without a configuration file."""
    return env | {"XDG_CONFIG_HOME": str(tmp_path / "nothing")}


def test_arguments_win_over_the_environment_over_the_file_over_the_local_server(
    env: dict[str, str], bare: dict[str, str]
) -> None:
    named = env | {"STATIONMASTER_TARGET": "localhost:3", "STATIONMASTER_API_KEY": "env-key"}
    found = resolve("localhost:4", "key", environ=named)
    assert (found.target, found.api_key) == ("localhost:4", "key")
    found = resolve(environ=named)
    assert (found.target, found.api_key, found.source) == ("localhost:3", "env-key", "environment")
    found = resolve(environ=env)
    assert (found.target, found.api_key, found.source) == ("localhost:1", "test-key", "context test")
    found = resolve(environ=bare)
    assert (found.target, found.api_key) == ("127.0.0.1:2", "local-key")
    found = resolve(environ=bare | {"STATIONMASTER_DATA_FOLDER": "/nowhere"})
    assert (found.target, found.api_key) == (DEFAULT_TARGET, None)


def test_a_context_is_chosen_by_name(env: dict[str, str]) -> None:
    for found in (
        resolve(context="production", environ=env | {"STATIONMASTER_TARGET": "localhost:3"}),
        resolve(environ=env | {"STATIONMASTER_CONTEXT": "production"}),
    ):
        assert (found.target, found.api_key, found.tls) == ("sm.example.com:443", "production-key", Tls())


def test_an_unknown_context_is_an_error_that_names_the_known_ones(env: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match=r"'x'.*production, test"):
        resolve(context="x", environ=env)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('api_key_fiel = "x.key"', "client.toml: context 'test' has an unknown field 'api_key_fiel'"),
        ('api_key_file = "/nowhere/x.key"', "client.toml: api_key_file of context 'test' names /nowhere/x.key"),
        ('ca = "/nowhere/ca.pem"', "client.toml: ca of context 'test' names /nowhere/ca.pem"),
        ('insecure = "no"', "client.toml: insecure of context 'test' must be true or false"),
    ],
)
def test_a_mistake_in_a_context_is_named_with_its_file_and_field(env: dict[str, str], line: str, told: str) -> None:
    file = Path(env["XDG_CONFIG_HOME"]) / "stationmaster" / "client.toml"
    file.write_text(f'current = "test"\n[contexts.test]\ntarget = "localhost:1"\n{line}\n')
    with pytest.raises(ConfigurationError, match=told):
        resolve(environ=env)


def test_a_target_and_a_context_cannot_both_be_given(env: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="not both"):
        resolve("localhost:1", context="test", environ=env)


def test_a_key_is_never_sent_to_another_target_than_its_own(env: dict[str, str], bare: dict[str, str]) -> None:
    assert resolve("localhost:9", environ=env).api_key is None
    assert resolve("localhost:9", environ=bare).api_key is None
    assert resolve(environ=bare | {"STATIONMASTER_TARGET": "localhost:9"}).api_key is None
    assert resolve("127.0.0.1:2", environ=bare).api_key == "local-key"
    assert resolve(environ=bare | {"STATIONMASTER_TARGET": "127.0.0.1:2"}).api_key == "local-key"


def test_other_hosts_are_spoken_to_encrypted_unless_told_otherwise() -> None:
    assert resolve("sm.example.com:443", environ={}).tls == Tls()
    assert resolve("sm.example.com:443", insecure=True, environ={}).tls is None
    assert resolve("sm.example.com:443", environ={"STATIONMASTER_INSECURE": "1"}).tls is None
    assert resolve("localhost:50151", environ={}).tls is None
    files = {"STATIONMASTER_TLS_CA": "/ca.pem"}
    assert resolve("localhost:50151", environ=files).tls == Tls(ca=Path("/ca.pem"))


@pytest.mark.parametrize("target", ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/x.sock", "dns:///localhost:1"])
def test_this_machine_is_known_by_its_names(target: str) -> None:
    assert is_local(target)


@pytest.mark.parametrize("target", ["example.com:1", "10.0.0.1:1", "localhost.example.com:1"])
def test_other_machines_are_not_taken_for_this_one(target: str) -> None:
    assert not is_local(target)


@pytest.mark.parametrize("target", ["127.0.0.1", "http://127.0.0.1:50151", "sm.example.com", "::1", "a b:1", "a:b"])
def test_what_is_no_target_is_told_so(target: str) -> None:
    with pytest.raises(ConfigurationError, match=r"is no target: write HOST:PORT"):
        resolve(target, environ={})
    with pytest.raises(ConfigurationError, match=r"\(environment\) is no target"):
        resolve(environ={"STATIONMASTER_TARGET": target})


@pytest.mark.parametrize("target", ["127.0.0.1:1", "sm.example.com:443", "[::1]:1", "unix:/run/x.sock", "dns:///a:1"])
def test_targets_are_hosts_with_ports_or_what_grpc_has_schemes_for(target: str) -> None:
    assert resolve(target, environ={}).target == target

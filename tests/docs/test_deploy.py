"""The files of `deploy/`: settings that are taken, names that exist, promises that they keep each other."""

from __future__ import annotations

import configparser
import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from stationmaster_server.config import Profile, load

from tests.docs.commands import ROOT
from tests.fixtures.forks import SERVER, run
from tests.fixtures.server import running, server_settings
from tests.rpc.certificates import Authority

DEPLOY = ROOT / "deploy"
GUIDE = ROOT / "docs" / "guides" / "deployment.md"
MANIFESTS = sorted((DEPLOY / "kubernetes").rglob("*.yaml"))
SECRETS = {
    "DATABASE_URL": "postgresql://stationmaster:x@127.0.0.1:1/stationmaster",
    "STATIONMASTER_CREDENTIALS__KEYS": "k1:MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
    "STATIONMASTER_AUDIT__SIGNING_KEYS": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
}
PLAIN = {"STATIONMASTER_SERVER__ALLOW_PLAINTEXT": "true"}
GRPC_PORT, ADMIN_PORT = 50151, 9464


@pytest.mark.parametrize("file", [DEPLOY / "stationmaster.toml", DEPLOY / "kubernetes" / "base" / "stationmaster.toml"])
async def test_the_settings_are_taken(file: Path, tmp_path: Path) -> None:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STATIONMASTER_")}
    ours = {**SECRETS, "STATIONMASTER_DATA_FOLDER": str(tmp_path)}
    if file.parent == DEPLOY:  # it has certificates
        files = zip(("CERTIFICATE", "KEY"), Authority(tmp_path).issue("localhost"), strict=True)
        ours |= {f"STATIONMASTER_SERVER__TLS__{name}": str(made) for name, made in files}
    code, out, err = await run(SERVER, ("config", "check", "--config", str(file)), clean | ours)
    assert code == 0, out + err


def documents() -> Iterator[dict[str, Any]]:
    """Every manifest and compose file, parsed."""
    for file in [*MANIFESTS, DEPLOY / "compose" / "compose.yaml"]:
        yield from yaml.safe_load_all(file.read_text())


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """Every mapping in a document."""
    if isinstance(value, dict):
        yield value
        for inner in value.values():
            yield from nodes(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from nodes(inner)


def test_probes_and_ports_are_those_of_the_server() -> None:
    found = [node for document in documents() for node in nodes(document)]
    grpc = [node["grpc"]["port"] for node in found if isinstance(node.get("grpc"), dict)]
    paths = {node["httpGet"]["path"] for node in found if isinstance(node.get("httpGet"), dict)}
    ports = {node["name"]: node["containerPort"] for node in found if "containerPort" in node}
    assert grpc == [GRPC_PORT] * 2
    assert paths == {"/healthz", "/readyz"}
    assert ports == {"grpc": GRPC_PORT, "admin": ADMIN_PORT}


async def test_every_variable_that_they_set_is_a_setting(tmp_path: Path) -> None:
    texts = [file.read_text() for file in DEPLOY.rglob("*") if file.is_file()]
    names = {name for text in texts for name in re.findall(r"STATIONMASTER_[A-Z_]+", text)}
    known = (ROOT / "docs" / "guides" / "settings.md").read_text()
    for name in names - {"STATIONMASTER_DB_PASSWORD", "STATIONMASTER_CONFIG"}:
        setting = name.removeprefix("STATIONMASTER_").lower().replace("__", ".")
        assert f"`{setting}`" in known, name


async def test_alerts_are_about_metrics_that_there_are(database_url: str, tmp_path: Path) -> None:
    groups = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    used = {name for rule in rules for name in re.findall(r"stationmaster_\w+", rule["expr"])}
    audit = {"copies": tmp_path.as_uri()}  # some are there for what is configured only
    async with running(server_settings(tmp_path / "data", database_url, audit=audit)) as server:
        families = {family.name for family in server.app.metrics.registry.collect()}
    for name in used:
        assert name in families or name.removesuffix("_total") in families, name
    assert all(rule["annotations"]["action"] for rule in rules)


def test_a_server_has_the_time_to_stop_in_order(tmp_path: Path) -> None:
    """Whoever ends it waits longer than it may take, in the profile that all of them have."""
    ours = {"profile": "production", "data_folder": str(tmp_path)}
    server = load(None, ours, environ=SECRETS | PLAIN).server
    takes = (server.drain_delay + server.shutdown_grace).total_seconds()
    unit = (DEPLOY / "systemd" / "stationmaster.service").read_text()
    patience = [int(seconds) for seconds in re.findall(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)]
    for node in (node for document in documents() for node in nodes(document)):
        patience += [node["terminationGracePeriodSeconds"]] if "terminationGracePeriodSeconds" in node else []
        patience += [60 * int(node["stop_grace_period"].removesuffix("m"))] if "stop_grace_period" in node else []
    assert len(patience) == 4
    assert min(patience) >= takes + 10


def unit_of_systemd() -> configparser.ConfigParser:
    """The unit, without what may be said twice in it."""
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign] # names of systemd have capitals
    unit.read(DEPLOY / "systemd" / "stationmaster.service")
    return unit


async def test_the_unit_does_not_repeat_what_settings_stop() -> None:
    """Exit codes keep systemd from a restart when they are the main process's, not those of ExecStartPre."""
    service = unit_of_systemd()["Service"]
    assert "ExecStartPre" not in service
    program, *command = service["ExecStart"].split()
    assert (Path(program).name, command) == ("stationmaster-server", ["serve"])
    kept = {int(code) for code in service["RestartPreventExitStatus"].split()}
    wrong = {**os.environ, "STATIONMASTER_SERVER__PROT": "1"}
    by_settings, _, _ = await run(SERVER, tuple(command), wrong)
    by_usage, _, _ = await run(SERVER, (*command, "--no-such-option"), dict(os.environ))
    assert kept == {by_settings, by_usage} == {78, 2}


def test_the_unit_gives_up_what_ends_at_once_and_not_a_database_that_is_away() -> None:
    unit = unit_of_systemd()
    service, limits = unit["Service"], unit["Unit"]
    assert service["Restart"] == "on-failure"
    starts, within = int(limits["StartLimitBurst"]), int(limits["StartLimitIntervalSec"])
    pause = float(service["RestartSec"])
    a_start = 5.0  # what it takes until a fault is found, and more
    assert starts * (pause + a_start) < within
    for profile in Profile:
        settings = load(None, {"profile": profile.value, "data_folder": "/"}, environ=SECRETS | PLAIN)
        assert starts * (pause + settings.database.connect_timeout.total_seconds()) > within, profile


def test_the_account_of_the_unit_is_the_one_that_is_made() -> None:
    unit = (DEPLOY / "systemd" / "stationmaster.service").read_text()
    account = (DEPLOY / "systemd" / "stationmaster.sysusers").read_text().splitlines()[-1].split()
    assert (f"\nUser={account[1]}\n" in unit, f"StateDirectory={Path(account[-1]).name}\n" in unit) == (True, True)


def test_what_manifests_name_is_there() -> None:
    """Secrets' keys, files of the kustomizations, ports by name, claims, labels that select."""
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for document in documents():
        by_kind.setdefault(document.get("kind", ""), []).append(document)
    secret = by_kind["Secret"][0]["stringData"]
    for document in (*by_kind["Deployment"], *by_kind["Job"]):
        for node in nodes(document):
            if isinstance(reference := node.get("secretKeyRef"), dict):
                assert reference["key"] in secret or reference.get("optional"), reference
    for file in (file for file in MANIFESTS if file.name == "kustomization.yaml"):
        kustomization = yaml.safe_load(file.read_text())
        named = [*kustomization["resources"], *(patch["path"] for patch in kustomization.get("patches", []))]
        named += [name for each in kustomization.get("configMapGenerator", []) for name in each["files"]]
        assert [name for name in named if not (file.parent / name).exists()] == []
    deployment = next(one for one in by_kind["Deployment"] if "selector" in one["spec"])
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    ports = {
        port["name"]
        for container in deployment["spec"]["template"]["spec"]["containers"]
        for port in container["ports"]
    }
    for service in (one for one in by_kind["Service"] if "selector" in one["spec"]):
        assert service["spec"]["selector"].items() <= labels
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    assert by_kind["PodDisruptionBudget"][0]["spec"]["selector"]["matchLabels"].items() <= labels
    claims = {claim["metadata"]["name"] for claim in by_kind["PersistentVolumeClaim"]}
    used = {node["claimName"] for node in nodes(deployment) if "claimName" in node}
    assert used == claims


def test_the_image_has_extras_that_there_are() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    container = (DEPLOY / "container" / "Containerfile").read_text()
    shown = re.findall(r"EXTRAS=([\w,]+)", container)
    shown += ["".join(found) for found in re.findall(r"EXTRAS=([\w,]+)|'\.\[([\w,]+)\]'", GUIDE.read_text())]
    assert len(shown) >= 4
    assert {extra for text in shown for extra in text.split(",")} <= extras.keys()
    for copied in re.findall(r"^COPY ([\w. ]+) \S+$", container, re.MULTILINE):
        assert [name for name in copied.split() if not (ROOT / name).exists()] == []

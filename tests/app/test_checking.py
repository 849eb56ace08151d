"""`config check` looks at what settings name, and tells by its setting what is missing, malformed or not writable."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from stationmaster_server.__main__ import cli
from typer.testing import CliRunner

from tests.rpc.certificates import Authority

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
# Root may write everywhere by a right of its own (CAP_DAC_OVERRIDE), unless it gave it up.
_AS_OTHERS = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)
os.execv(sys.executable, [sys.executable, "-m", "stationmaster_server", "config", "check"])
"""


def check(folder: Path, **variables: str) -> tuple[int, str]:
    """The exit code of `config check` with these settings, and what it says."""
    named = {f"STATIONMASTER_{name}": value for name, value in variables.items()}
    result = CliRunner().invoke(cli, ["config", "check"], env={"STATIONMASTER_DATA_FOLDER": str(folder)} | named)
    return result.exit_code, result.output


def test_what_is_there_and_well_formed_is_fine(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path).issue("localhost")
    code, told = check(
        tmp_path,
        AUDIT__COPIES=tmp_path.as_uri(),
        MAINTENANCE__ALERT_WEBHOOK="https://example.org/alerts",
        MAINTENANCE__ALERT_SECRET=SECRET,
        SERVER__TLS__CERTIFICATE=str(certificate),
        SERVER__TLS__KEY=str(key),
    )
    assert (code, "the settings are fine" in told) == (0, True), told


@pytest.mark.parametrize(
    ("variables", "hints"),
    [
        ({"MAINTENANCE__ALERT_SECRET": "s3cret"}, ("maintenance.alert_secret", "whsec_", "24 to 64 bytes")),
        ({"MAINTENANCE__ALERT_SECRET": "whsec_MDEy"}, ("maintenance.alert_secret", "24 to 64 bytes")),
        ({"AUDIT__COPIES": "nowhere://x"}, ("audit.copies", "nowhere")),
        ({"AUDIT__COPIES": "file:///not/there"}, ("audit.copies", "there is no folder /not/there", "make it")),
        ({"AUDIT__WITNESSES": '[{"url": "https://w.example", "key": "x"}]'}, ("audit.witnesses",)),
        ({"CREDENTIALS__KEYS": "k1:KEY"}, ("credentials.keys", "'k1'", "openssl rand -base64 32")),
        ({"DATA_FOLDER": "/dev/null/here"}, ("data_folder", "/dev/null/here cannot be written", "choose another")),
        ({"AUDIT__SIGNING_KEYS": "abc"}, ("audit.signing_keys", "openssl rand -base64 32")),
        ({"EMBEDDING__PROVIDER": "local"}, ("embedding.provider", "models fetch")),
        (
            {"SERVER__TLS__CERTIFICATE": "/not/there.pem", "SERVER__TLS__KEY": "/not/there.pem"},
            ("server.tls", "/not/there.pem", "cannot be read"),
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_told_by_its_setting(
    tmp_path: Path, variables: Mapping[str, str], hints: tuple[str, ...]
) -> None:
    code, told = check(tmp_path, **variables)
    assert code == 78, told
    assert all(hint in told for hint in hints), told
    assert "s3cret" not in told
    assert len(told.strip().splitlines()) == 1, told


def test_the_profile_that_is_to_be_served_is_checked(tmp_path: Path) -> None:
    command = ["config", "check", "--data-folder", str(tmp_path), "--profile"]
    development, production = (CliRunner().invoke(cli, [*command, name]) for name in ("development", "production"))
    assert development.exit_code == 0, development.output
    assert (production.exit_code, "database.url" in production.output) == (78, True), production.output


def test_an_extra_that_is_missing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.grpc.trace_exporter", None)
    code, told = check(tmp_path, TELEMETRY__OTLP_ENDPOINT="http://127.0.0.1:4317")
    assert (code, "telemetry.otlp_endpoint" in told, "stationmaster[otel]" in told) == (78, True, True), told


def test_a_folder_of_copies_that_cannot_be_written_is_told_with_whose_account_may_not(tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir(mode=0o500)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STATIONMASTER_")}
    environment = {
        **inherited,
        "STATIONMASTER_DATA_FOLDER": str(tmp_path / "data"),
        "STATIONMASTER_AUDIT__COPIES": copies.as_uri(),
    }
    for mode, code, hint in (
        (0o500, 78, f"the folder {copies} cannot be written by this account (uid {os.getuid()})"),
        (0o700, 0, "fine"),
    ):
        copies.chmod(mode)
        done = subprocess.run(
            [sys.executable, "-c", _AS_OTHERS], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done
        assert hint in done.stdout + done.stderr, done
    assert list(copies.iterdir()) == []

"""Settings: where they come from, and what stops a start."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError
from stationmaster_server.agents.prices import Tokens
from stationmaster_server.app.agents import prices_of
from stationmaster_server.config import Profile, SettingsError, load

URL = "postgresql://u:secret@db/app"


def written(folder: Path, text: str) -> Path:
    """A settings file."""
    file = folder / "settings.toml"
    file.write_text(text)
    return file


def fault(file: Path | None = None, **environ: str) -> str:
    """Why these settings are refused, in one line."""
    with pytest.raises(SettingsError) as raised:
        load(file, environ=environ)
    assert raised.value.exit_code == 78
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_nothing_said_is_development_on_loopback() -> None:
    settings = load(environ={})
    assert settings.profile is Profile.DEVELOPMENT
    assert settings.server.loopback
    assert settings.database.url is None


def test_command_line_wins_over_environment_over_file_over_profile(tmp_path: Path) -> None:
    file = written(tmp_path, 'profile = "low-resource"\n[server]\nport = 1\nmax_calls = 7\n[work]\nlease = "2m"\n')
    environ = {"STATIONMASTER_SERVER__PORT": "2", "STATIONMASTER_SERVER__HOST": "::1"}
    settings = load(file, {"server": {"port": 3}}, environ)
    assert (settings.server.port, settings.server.host, settings.server.max_calls) == (3, "::1", 7)
    assert settings.work.lease == timedelta(minutes=2)
    assert settings.work.slots == 8  # of the profile


def test_the_environment_names_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "[server]\nport = 4711\n")
    assert load(environ={"STATIONMASTER_CONFIG": str(file)}).server.port == 4711


def test_names_of_other_programs_are_understood() -> None:
    settings = load(environ={"DATABASE_URL": URL, "ANTHROPIC_API_KEY": "sk-1"})
    assert settings.database.url is not None
    assert settings.database.url.get_secret_value() == URL
    assert settings.models.anthropic.api_key is not None
    ours = load(environ={"DATABASE_URL": "postgresql://other", "STATIONMASTER_DATABASE__URL": URL})
    assert ours.database.url == settings.database.url


def test_the_crawler_s_names_are_understood() -> None:
    settings = load(environ={"CRAWLER_RATE_LIMIT": "2.5", "CRAWLER_TIMEOUT": "45"})
    assert settings.crawl.rate_limit == timedelta(seconds=2.5)
    assert settings.crawl.timeout == timedelta(seconds=45)
    ours = load(environ={"CRAWLER_TIMEOUT": "45", "STATIONMASTER_CRAWL__TIMEOUT": "1m"})
    assert ours.crawl.timeout == timedelta(minutes=1)
    assert "crawl.timeout" in fault(CRAWLER_TIMEOUT="soon")


def test_a_proxy_of_the_crawler_is_checked_and_does_not_show() -> None:
    settings = load(environ={"STATIONMASTER_CRAWL__PROXIES": '["http://u:very-secret@proxy:3128"]'})
    assert settings.crawl.proxies[0].get_secret_value().endswith("proxy:3128")
    assert "very-secret" not in repr(settings)
    for wrong in ("socks5://u:very-secret@proxy", "http://u:very-secret@proxy/path", "http://u:very-secret@proxy:x"):
        refusal = fault(STATIONMASTER_CRAWL__PROXIES=f'["{wrong}"]')
        assert "crawl.proxies.0" in refusal
        assert "very-secret" not in refusal


def test_secrets_do_not_show() -> None:
    shown = repr(load(environ={"DATABASE_URL": URL, "OPENAI_API_KEY": "sk-very-secret"}))
    assert "secret" not in shown.replace("SecretStr", "").replace("alert_secret", "")


def test_settings_cannot_be_changed() -> None:
    settings = load(environ={})
    with pytest.raises(ValidationError):
        settings.server.port = 1


def test_an_unknown_setting_names_itself_and_what_was_meant(tmp_path: Path) -> None:
    assert fault(STATIONMASTER_DATABASE__POL_SIZE="3") == (
        "unknown environment variable STATIONMASTER_DATABASE__POL_SIZE; did you mean STATIONMASTER_DATABASE__POOL_SIZE?"
    )
    assert fault(STATIONMASTER_PORT="3").endswith("did you mean STATIONMASTER_SERVER__PORT?")
    assert fault(written(tmp_path, "port = 3\n")).endswith("did you mean server.port?")
    file = written(tmp_path, "[server]\nprot = 3\n")
    assert fault(file) == f"unknown setting 'server.prot' in {file}; did you mean server.port?"


def test_all_unknown_settings_are_told_at_once(tmp_path: Path) -> None:
    told = fault(written(tmp_path, "a = 1\nb = 2\n"), STATIONMASTER_C="3")
    assert all(name in told for name in ("'a'", "'b'", "STATIONMASTER_C"))


def test_what_the_client_reads_is_no_unknown_setting() -> None:
    load(environ={"STATIONMASTER_API_KEY": "k", "STATIONMASTER_TARGET": "t", "STATIONMASTER_CONTEXT": "c"})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[database]\npool_size = 0", "database.pool_size"),
        ("[database]\nurl = 'mysql://x'", "must begin with postgresql://"),
        ("[server]\nport = 70000", "server.port"),
        ("[server]\nshutdown_grace = '5 parsecs'", "write a duration such as 15s"),
        ("[server.tls]\ncertificate = '/c.pem'", "certificate and key are needed together"),
        ("[server]\nhost = '0.0.0.0'", "server.tls.certificate"),
        ("[work]\nlease = '10ms'", "must be at least 1s"),
        ("[models.compatible.mine]\nmodels = ['a']", "mine needs a base_url"),
        ("profile = 'prod'", "'development', 'production' or 'low-resource'"),
        ("profile = 'production'", "needs database.url"),
        (
            "[maintenance]\nalert_webhook = 'hooks'",
            "maintenance.alert_webhook: is no URL: it must begin with http:// or",
        ),
        (
            "[embedding.openai]\nbase_url = 'https://a.example/v1?x'",
            "base_url: has more than it may: it must match ^https?",
        ),
        ("nonsense", "is not TOML"),
    ],
)
def test_an_impossible_setting_names_itself(tmp_path: Path, text: str, told: str) -> None:
    assert told in fault(written(tmp_path, text))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in fault(tmp_path / "no.toml")


def test_production_is_strict() -> None:
    settings = load(environ={"STATIONMASTER_PROFILE": "production", "DATABASE_URL": URL})
    assert not settings.identity.local_admin
    assert not settings.server.open_reflection
    assert not settings.models.demo


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("1h30m", 5400), ("250ms", 0.25), ("2", 2), ("1.5m", 90), ("1d 2h", 93600)]
)
def test_durations_are_written_as_people_write_them(text: str, seconds: float) -> None:
    settings = load(environ={"STATIONMASTER_SERVER__DRAIN_DELAY": text})
    assert settings.server.drain_delay == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("issuers", "client_ca", "told"),
    [
        ("a, b", False, "set organization of a, b"),
        ("a", True, "set organization of a"),
        ("a@home, b@home, a@home", False, "different names"),
        ("mtls", False, "none of them mtls"),
        ("a|b", False, "identity.jwt_issuers"),
    ],
)
def test_issuers_that_could_speak_for_each_others_users_stop_the_start(
    tmp_path: Path, issuers: str, client_ca: bool, told: str
) -> None:
    assert told in fault(written(tmp_path, accepting(issuers, client_ca)))


@pytest.mark.parametrize(("issuers", "client_ca"), [("a", False), ("a, b@home", False), ("a@home, b@home", True)])
def test_issuers_that_cannot_are_accepted(tmp_path: Path, issuers: str, client_ca: bool) -> None:
    settings = load(written(tmp_path, accepting(issuers, client_ca)), environ={})
    assert len(settings.identity.jwt_issuers) == len(issuers.split(","))


def accepting(issuers: str, client_ca: bool) -> str:
    """A settings file that accepts these issuers, each perhaps `@home`, and perhaps client certificates."""
    text = '[server.tls]\ncertificate = "c"\nkey = "k"\nclient_ca = "ca"\n' if client_ca else ""
    for issuer in issuers.split(", "):
        name, _, home = issuer.partition("@")
        text += f'[[identity.jwt_issuers]]\nissuer = "{name}"\naudience = "us"\n'
        text += f'organization = "{home}"\n' if home else ""
    return text


def test_prices_are_dollars_and_an_unknown_one_is_not_nothing(tmp_path: Path) -> None:
    text = '[models.prices."local:llama3"]\ninput = 0.2\noutput = 0.6\n[models.unknown_price]\ninput = 1\n'
    prices = prices_of(load(written(tmp_path, text), environ={}).models)
    assert prices.cost("local:llama3", Tokens(1_000_000, 1_000_000)) == (800_000, False)
    assert prices.cost("local:other", Tokens(1_000_000, 1_000_000)) == (26_000_000, True)
    assert "unknown_price" in fault(written(tmp_path, "[models.unknown_price]\noutput = 0\n"))
    assert "prices" in fault(written(tmp_path, '[models.prices."x"]\ninput = -1\noutput = 1\n'))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("127.0.0.1:8931", ("127.0.0.1:8931",)),
        ("a.example.com, *.b.example.com,", ("a.example.com", "*.b.example.com")),
        ('["a.example.com"]', ("a.example.com",)),
        ("[]", ()),
    ],
)
def test_lists_in_the_environment_are_parts_between_commas_or_json(text: str, value: tuple[str, ...]) -> None:
    assert load(environ={"STATIONMASTER_OUTBOUND__ALLOW": text}).outbound.allow == value


@pytest.mark.parametrize(
    ("variable", "text", "setting"),
    [
        ("STATIONMASTER_OUTBOUND__ALLOW", '["a.example.com"', "outbound.allow"),
        ("STATIONMASTER_OUTBOUND__ALLOW", "5", "outbound.allow"),
        ("STATIONMASTER_MODELS__PRICES", "cheap", "models.prices"),
        ("STATIONMASTER_IDENTITY__JWT_ISSUERS", "https://id.example.com", "identity.jwt_issuers"),
        ("STATIONMASTER_MODELS", "cheap", "models"),
    ],
)
def test_what_is_no_list_in_the_environment_is_refused_by_name(variable: str, text: str, setting: str) -> None:
    assert f"setting {setting}" in fault(None, **{variable: text})

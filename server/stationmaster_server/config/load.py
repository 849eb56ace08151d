"""Reads the settings: command line over environment over file over profile. Nothing else reads the environment."""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource

from stationmaster_server.config.model import Profile, Settings
from stationmaster_server.config.profiles import PROFILES
from stationmaster_server.config.startup import SettingsError

PREFIX = "STATIONMASTER_"
CONFIG_VARIABLE = "STATIONMASTER_CONFIG"
CLIENT_VARIABLES = frozenset(
    f"{PREFIX}{name}" for name in ("CONTEXT", "TARGET", "API_KEY", "INSECURE", "TLS_CA", "TLS_CERTIFICATE", "TLS_KEY")
)
"""What the client and the command line read: set on the same machine, none of the server's business."""

# Names that other programs give these settings.
_PLAIN_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "DATABASE_URL": ("database", "url"),
    "ANTHROPIC_API_KEY": ("models", "anthropic", "api_key"),
    "ANTHROPIC_BASE_URL": ("models", "anthropic", "base_url"),
    "OPENAI_API_KEY": ("models", "openai", "api_key"),
    "OPENAI_BASE_URL": ("models", "openai", "base_url"),
    "AWS_REGION": ("credentials", "kms_region"),
    "AWS_ACCESS_KEY_ID": ("credentials", "kms_access_key_id"),
    "AWS_SECRET_ACCESS_KEY": ("credentials", "kms_access_key"),
    "AWS_SESSION_TOKEN": ("credentials", "kms_session_token"),
    "AWS_CONTAINER_CREDENTIALS_FULL_URI": ("credentials", "kms_container_url"),
    # ECS gives a path, and AWS's own libraries have it win over a whole URL.
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI": ("credentials", "kms_container_url"),
    "AWS_CONTAINER_AUTHORIZATION_TOKEN": ("credentials", "kms_container_token"),
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": ("credentials", "kms_container_token_file"),
    "CRAWLER_RATE_LIMIT": ("crawl", "rate_limit"),
    "CRAWLER_TIMEOUT": ("crawl", "timeout"),
}

_NO_URL = "is no URL: it must begin with http:// or https://"
_OPEN = ("identity.jwt_issuers", "models.compatible", "models.prices")
"""Settings whose inner names are the user's; what is wrong inside is refused by their types."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Settings from one place; a layer above wins. `names`: what some of them are called there."""

    origin: str
    values: Mapping[str, Any]
    names: Mapping[str, str] = field(default_factory=dict)

    def origin_of(self, name: str) -> str:
        """Where exactly a setting is said."""
        return self.names.get(name, self.origin)


def load(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Settings:
    """Return the settings of this start.

    `overrides` is nested like the file and wins over everything. Raises SettingsError for a setting that is unknown,
    malformed or impossible with the others.
    """
    return load_layers(config_file, overrides, environ)[0]


def load_layers(
    config_file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> tuple[Settings, list[Layer]]:
    """As `load`; also where the settings come from, the lowest layer first."""
    environ = os.environ if environ is None else environ
    file_name = config_file or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    from_file = _read_file(file_name) if file_name else {}
    _refuse_unknown(from_file, environ, file_name)
    layers = [
        Layer(str(file_name), from_file),
        Layer("environment", _read_plain(environ), {".".join(path): name for name, path in _PLAIN_VARIABLES.items()}),
        Layer("environment", _read_environment(environ), {name: _variable(name) for name in _names(Settings)}),
        Layer("command line", overrides or {}),
    ]
    profile = next((layer.values["profile"] for layer in reversed(layers) if layer.values.get("profile")), "")
    layers.insert(0, Layer(f"profile {profile}", _profile_defaults(profile)))
    merged: dict[str, Any] = {}
    for layer in layers:
        merged = _merge(merged, layer.values)
    try:
        return Settings.model_validate(merged), layers
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(error))) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"settings file {path} cannot be read: {error.strerror or error}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"settings file {path} is not TOML: {error}") from None


def _read_plain(environ: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for variable, path in _PLAIN_VARIABLES.items():
        if value := environ.get(variable):
            found = _merge(found, _nest(path, value))
    return found


def _read_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    source = _Environment(Settings, env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True)
    source.env_vars = {name.lower(): value for name, value in environ.items()}
    return source()


class _Environment(EnvSettingsSource):
    """Takes lists as people write them in an environment, and leaves what is wrong to the settings, which name it."""

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """JSON; else the parts between commas, for a list; else the text as it is."""
        try:
            return json.loads(value)
        except ValueError:
            is_list = get_origin(field.annotation) is tuple and not value.lstrip().startswith("[")
            return [part.strip() for part in value.split(",") if part.strip()] if is_list else value


def _profile_defaults(name: object) -> Mapping[str, Any]:
    try:
        return PROFILES[Profile(str(name or Profile.DEVELOPMENT))]
    except ValueError:
        return {}  # Settings refuses the name and lists the known ones.


def _refuse_unknown(from_file: Mapping[str, Any], environ: Mapping[str, str], file_name: Path | None) -> None:
    known = frozenset(_names(Settings))
    faults = [
        f"unknown setting {name!r} in {file_name}{_near(name, known)}"
        for name in _leaves(from_file)
        if not _is_known(name, known)
    ]
    for variable in environ:
        upper = variable.upper()
        if not upper.startswith(PREFIX) or upper == CONFIG_VARIABLE or upper in CLIENT_VARIABLES:
            continue
        name = upper.removeprefix(PREFIX).lower().replace("__", ".")
        if not _is_known(name, known) and not any(other.startswith(f"{name}.") for other in known):
            variables = frozenset(_variable(other) for other in known)
            faults.append(f"unknown environment variable {variable}{_near(upper, variables)}")
    if faults:
        raise SettingsError("; ".join(faults))


def _variable(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def _is_known(name: str, known: frozenset[str]) -> bool:
    return name in known or any(name.startswith(f"{other}.") for other in _OPEN)


def _near(name: str, known: frozenset[str]) -> str:
    last = name.removeprefix(PREFIX)
    inner = [other for other in known if other.endswith((f".{last}", f"__{last}"))]  # the group was left out
    if inner:
        return f"; did you mean {min(inner, key=lambda other: ('server' not in other.lower(), other))}?"
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""


def _names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, entry in model.model_fields.items():
        if isinstance(entry.annotation, type) and issubclass(entry.annotation, BaseModel):
            yield from _names(entry.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _nest(path: tuple[str, ...], value: object) -> dict[str, Any]:
    nested: Any = value
    for name in reversed(path):
        nested = {name: nested}
    return dict(nested)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        merged[name] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _explain(error: ValidationError) -> Iterator[str]:
    for fault in error.errors(include_url=False):
        name = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if fault["type"] == "string_pattern_mismatch" and "https?://" in fault["ctx"]["pattern"]:
            begins = str(fault["input"]).startswith(("http://", "https://"))
            message = f"has more than it may: it must match {fault['ctx']['pattern']}" if begins else _NO_URL
        yield f"setting {name}: {message}" if name else message

"""Secrets of payloads, apart from them and together again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, SecretStr
from stationmaster_server.errors import InvalidArgument
from stationmaster_server.tasks.kinds.base import Payload
from stationmaster_server.tasks.secrets import MASK, join, mask_of, part


class Account(Payload):
    """Nested, and perhaps within itself."""

    name: str = ""
    password: SecretStr | None = None
    others: tuple[Account, ...] = ()


class Hiding(Payload):
    """Secrets in every place that a payload has."""

    key: SecretStr | None = None
    account: Account | None = None
    keys: tuple[SecretStr, ...] = ()
    headers: dict[str, SecretStr] = Field(default_factory=dict)
    token: str = Field(default="", json_schema_extra={"writeOnly": True})


SCHEMA = Hiding.model_json_schema()
WHOLE: dict[str, Any] = {
    "key": "k-1",
    "account": {"name": "a", "password": "p-1", "others": [{"name": "b", "password": "p-2"}, {"name": "c"}]},
    "keys": ["k-2", "k-3"],
    "headers": {"x/y~z": "h-1"},
    "token": "t-1",
}


def test_every_secret_is_taken_out_and_put_back() -> None:
    masked, secrets = part(SCHEMA, WHOLE, "payload")
    assert sorted(secrets.values()) == ["h-1", "k-1", "k-2", "k-3", "p-1", "p-2", "t-1"]
    assert not any(value in str(masked) for value in secrets.values())
    assert masked["account"]["others"][1] == {"name": "c"}
    assert join(masked, secrets) == WHOLE
    Hiding.model_validate(WHOLE)


def test_masks_keep_what_was_there_and_nothing_else() -> None:
    masked, secrets = part(SCHEMA, WHOLE, "payload")
    assert part(SCHEMA, masked, "payload", secrets) == (masked, secrets)
    changed, kept = part(SCHEMA, masked | {"key": "new", "keys": []}, "payload", secrets)
    assert join(changed, kept) == WHOLE | {"key": "new", "keys": []}
    with pytest.raises(InvalidArgument, match=r"payload\.account\.password: \*+ stands for a secret"):
        part(SCHEMA, {"account": {"password": MASK}}, "payload")


def test_secrets_are_no_templates() -> None:
    with pytest.raises(InvalidArgument, match=r"payload\.keys\.1: a secret cannot be a template"):
        part(SCHEMA, {"keys": ["plain", "{{ variable }}"]}, "payload")


def test_payload_without_secrets_stays_as_it_is() -> None:
    payload = {"account": {"name": "a"}, "unknown": {"key": "k"}}
    assert part(SCHEMA, payload, "payload") == (payload, {})


def test_what_a_kind_says_is_cleaned_of_secrets_and_of_what_follows_a_scheme() -> None:
    mask = mask_of({"/headers/authorization": "Bearer 0123456789", "/key": "abcdefgh", "/number": 17})
    assert mask.value({"a": ["0123456789", "xabcdefghx"], "b": 17}) == {"a": ["***", "x***x"], "b": 17}

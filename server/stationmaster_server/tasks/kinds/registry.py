"""The kinds that this server knows: those it comes with and those of plug-ins."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel, ValidationError

from stationmaster_server.db.caller import Caller
from stationmaster_server.errors import FieldViolation, InvalidArgument
from stationmaster_server.tasks import secrets
from stationmaster_server.tasks.kinds.base import Guarded, Kind, LooksAhead, SendsCredentials
from stationmaster_server.templating.templates import is_template
from stationmaster_server.wire.faults import violations

MAX_PAYLOAD_BYTES = 256 * 1024
NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_OPTION = "-p"


class Kinds:
    """Kinds by name."""

    def __init__(self, kinds: Iterable[Kind[Any]]) -> None:
        self._kinds: dict[str, Kind[Any]] = {}
        self._secret: dict[str, dict[str, Any]] = {}
        self._guarded: dict[str, Guarded] = {}
        self._looking_ahead: dict[str, LooksAhead] = {}
        for kind in kinds:
            if not NAME.fullmatch(kind.name) or kind.name in self._kinds:
                raise ValueError(f"the kind {kind.name!r} has a bad name, or there are two of it")
            self._kinds[kind.name] = kind
            if schema := _secret_schema(kind.payload):
                self._secret[kind.name] = schema
            if isinstance(kind, Guarded):
                self._guarded[kind.name] = kind
            if isinstance(kind, LooksAhead):
                self._looking_ahead[kind.name] = kind

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def get(self, name: str, field: str = "kind") -> Kind[Any]:
        """The kind of a name. Raises InvalidArgument, naming those there are."""
        kind = self._kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(self._kinds))
            raise InvalidArgument.field(field, f"there is no kind {name!r} on this server; there are: {known}")
        return kind

    def admit(self, caller: Caller, name: str, payload: Mapping[str, Any]) -> None:
        """Whether the caller may have this done; templates in the payload may stand. Raises PermissionDenied."""
        self.get(name)
        if kind := self._guarded.get(name):
            kind.admit(caller, payload)

    def sends_credentials(self, name: str, payload: Mapping[str, Any]) -> bool:
        """Whether credentials of its owner are sent somewhere; templates in the payload may stand."""
        kind = self.get(name)
        return isinstance(kind, SendsCredentials) and kind.sends_credentials(payload)

    async def look_ahead(self, caller: Caller, name: str, payload: Mapping[str, Any], field: str) -> None:
        """Whether what a payload names is there. Raises InvalidArgument naming all that is not."""
        kind = self._looking_ahead.get(name)
        if kind is not None and (found := await kind.faults(caller, payload)):
            raise InvalidArgument.fields([FieldViolation(f"{field}.{one.field}", one.description) for one in found])

    def is_guarded(self, name: str) -> bool:
        """Whether not every caller may have this done."""
        return name in self._guarded

    def part(
        self, name: str, payload: Mapping[str, Any], field: str, before: secrets.Secrets | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """A payload with masks for its secrets, and these, as `secrets.part`. Raises InvalidArgument."""
        self.get(name, _beside(field))
        schema = self._secret.get(name)
        return secrets.part(schema, payload, field, before) if schema else (dict(payload), {})

    def parse(self, name: str, payload: Mapping[str, Any], field: str) -> BaseModel:
        """The payload as its kind's. Raises InvalidArgument naming the path of all that is wrong."""
        kind = self.get(name, _beside(field))
        try:
            return kind.payload.model_validate(payload)
        except ValidationError as error:
            wrong = violations(field, kind.payload, error.errors(include_url=False), option=_OPTION)
            raise InvalidArgument.fields(wrong) from None

    def check(self, name: str, payload: Mapping[str, Any], field: str) -> None:
        """The same of a payload with templates: what they will make is taken for good."""
        kind = self.get(name, _beside(field))
        try:
            kind.payload.model_validate(payload)
        except ValidationError as error:
            found = error.errors(include_url=False)
            if wrong := violations(field, kind.payload, found, option=_OPTION, taken_for_good=_is_template):
                raise InvalidArgument.fields(wrong) from None


def _is_template(value: object) -> bool:
    return isinstance(value, str) and is_template(value)


def _beside(field: str) -> str:
    """The field of the kind: `task.kind` beside `task.payload`."""
    before, dot, _ = field.rpartition(".")
    return f"{before}{dot}kind"


@cache
def _secret_schema(payload: type[BaseModel]) -> dict[str, Any] | None:
    """The schema of a payload that may have secrets."""
    schema = payload.model_json_schema()
    return schema if secrets.any_in(schema) else None

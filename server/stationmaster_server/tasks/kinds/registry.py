"""The kinds that this server knows: those it comes with and those of plug-ins."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from pydantic import BaseModel, ValidationError

from stationmaster_server.errors import FieldViolation, InvalidArgument, Reason
from stationmaster_server.tasks.kinds.base import Kind

ENTRY_POINTS = "stationmaster.task_kinds"
"""The group of entry points: each names a class that implements `Kind` and needs no arguments."""
MAX_PAYLOAD_BYTES = 256 * 1024

logger = logging.getLogger(__name__)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
_TEMPLATE = re.compile(r"\{\{|\{%")


class Kinds:
    """Kinds by name."""

    def __init__(self, kinds: Iterable[Kind[Any]]) -> None:
        self._kinds: dict[str, Kind[Any]] = {}
        for kind in kinds:
            if not _NAME.fullmatch(kind.name) or kind.name in self._kinds:
                raise ValueError(f"the kind {kind.name!r} has a bad name, or there are two of it")
            self._kinds[kind.name] = kind

    def __iter__(self) -> Iterator[str]:
        return iter(self._kinds)

    def get(self, name: str, field: str = "kind") -> Kind[Any]:
        """The kind of a name. Raises InvalidArgument, naming those there are."""
        kind = self._kinds.get(name)
        if kind is None:
            known = ", ".join(sorted(self._kinds))
            raise InvalidArgument.field(field, f"there is no kind {name!r} on this server; there are: {known}")
        return kind

    def parse(self, name: str, payload: Mapping[str, Any], field: str) -> BaseModel:
        """The payload as its kind's. Raises InvalidArgument naming the path of all that is wrong."""
        try:
            return self.get(name).payload.model_validate(payload)
        except ValidationError as error:
            raise _refused(field, error, error.errors(include_url=False)) from None

    def check(self, name: str, payload: Mapping[str, Any], field: str) -> None:
        """The same of a payload with templates: what they will make is taken for good."""
        try:
            self.get(name).payload.model_validate(payload)
        except ValidationError as error:
            wrong = [one for one in error.errors(include_url=False) if not _is_template(one.get("input"))]
            if wrong:
                raise _refused(field, error, wrong) from None


def installed() -> list[Kind[Any]]:
    """The kinds of plug-ins. One that cannot be loaded is left out, and the log says why."""
    kinds: list[Kind[Any]] = []
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda point: point.name):
        try:
            kinds.append(point.load()())
        except Exception:
            logger.exception("the task kind %r of %r cannot be loaded", point.name, point.value)
    return kinds


def _is_template(value: object) -> bool:
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def _refused(field: str, error: ValidationError, wrong: Iterable[Any]) -> InvalidArgument:
    violations = [
        FieldViolation(".".join((field, *(str(part) for part in one["loc"]))), str(one["msg"])) for one in wrong
    ]
    text = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:10])
    return InvalidArgument(Reason.INVALID_FIELD, text, *violations[:50])

"""Credentials, versions, grants, keys: what they are, and which changes of labels and states are legal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from stationmaster_server.errors import FailedPrecondition, PreconditionViolation, Reason

CREDENTIAL_NAME = "credentials/{credential}"


class State(StrEnum):
    """How a credential stands."""

    ACTIVE = "ACTIVE"
    EXPIRED = "EXPIRED"
    DELETED = "DELETED"


class VersionState(StrEnum):
    """How a version stands."""

    ENABLED = "ENABLED"
    DISABLED = "DISABLED"
    DESTROYED = "DESTROYED"


class Label(StrEnum):
    """What points to a version."""

    CURRENT = "CURRENT"
    PREVIOUS = "PREVIOUS"
    PENDING = "PENDING"


class Trial(StrEnum):
    """How the trial of a pending version went."""

    NONE = ""
    PASSED = "PASSED"
    FAILED = "FAILED"


class Step(StrEnum):
    """A step of a rotation."""

    REPLACE = "REPLACE"
    BEGIN = "BEGIN"
    REPORT = "REPORT"
    FINISH = "FINISH"
    ABORT = "ABORT"
    ROLLBACK = "ROLLBACK"


class Source(StrEnum):
    """Where a value came from."""

    VERSION = "VERSION"
    ENVIRONMENT = "ENVIRONMENT"


class OnExisting(StrEnum):
    """What an import does about credentials that exist."""

    SKIP = "SKIP"
    ADD_VERSION = "ADD_VERSION"
    FAIL = "FAIL"


@dataclass(frozen=True, slots=True)
class Labels:
    """The versions that the labels point to; they change together or not at all."""

    current: int | None = None
    previous: int | None = None
    pending: int | None = None

    def of(self, version: int) -> Label | None:
        """The label that points to a version."""
        for label, pointed in zip(Label, (self.current, self.previous, self.pending), strict=True):
            if pointed == version:
                return label
        return None

    def replaced_by(self, version: int) -> Labels:
        """After a version became current; what was pending and is current now is pending no more."""
        pending = None if self.pending == version else self.pending
        return Labels(version, self.current, pending)

    def without(self, version: int) -> Labels:
        """After a version was destroyed."""
        kept = [None if pointed == version else pointed for pointed in (self.current, self.previous, self.pending)]
        return Labels(*kept)


@dataclass(frozen=True, slots=True)
class Credential:
    """A secret or a setting without its secret. `expired`: by the database's clock."""

    credential_id: str
    uid: UUID
    owner_id: UUID
    display_name: str = ""
    description: str = ""
    category: str = ""
    tags: tuple[str, ...] = ()
    encrypted: bool = True
    environment_variable: str = ""
    expires_at: datetime | None = None
    labels: Labels = field(default_factory=Labels)
    setting: Any = None
    """The current value of a setting."""
    etag: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    deleted_at: datetime | None = None
    purge_at: datetime | None = None
    expired: bool = False

    @property
    def name(self) -> str:
        """`credentials/{credential}`."""
        return f"credentials/{self.credential_id}"

    @property
    def state(self) -> State:
        """How it stands."""
        if self.deleted_at is not None:
            return State.DELETED
        return State.EXPIRED if self.expired else State.ACTIVE


@dataclass(frozen=True, slots=True)
class Version:
    """One value without its secret."""

    credential_id: str
    version: int
    state: VersionState
    label: Label | None
    creator_id: UUID
    created_at: datetime
    setting: Any = None
    is_setting: bool = False
    expires_at: datetime | None = None
    grace_ends_at: datetime | None = None
    trial: Trial = Trial.NONE
    key_id: str = ""
    destroyed_at: datetime | None = None

    @property
    def name(self) -> str:
        """`credentials/{credential}/versions/{n}`."""
        return f"credentials/{self.credential_id}/versions/{self.version}"


@dataclass(frozen=True, slots=True)
class Value:
    """A value that comes in: a secret's text, or a setting. Its text never shows."""

    secret: str = field(default="", repr=False)
    setting: Any = field(default=None, repr=False)
    has_setting: bool = False

    def __bool__(self) -> bool:
        return bool(self.secret) or self.has_setting


@dataclass(frozen=True, slots=True)
class Grant:
    """Who else may have the value: `principal` is the name of a user, a key or an agent."""

    id: UUID
    credential_id: str
    principal: str
    purposes: tuple[str, ...]
    expires_at: datetime | None
    creator_id: UUID
    created_at: datetime | None = None

    @property
    def name(self) -> str:
        """`credentials/{credential}/grants/{id}`."""
        return f"credentials/{self.credential_id}/grants/{self.id}"


@dataclass(frozen=True, slots=True)
class Accessed:
    """A value that goes out."""

    credential_id: str
    source: Source
    version: int | None
    secret: str = field(repr=False)
    setting: Any = field(repr=False)
    is_setting: bool
    expires_at: datetime | None


class RotationState(StrEnum):
    """How a rotation of the encryption key stands."""

    RUNNING = "RUNNING"
    STOPPED = "STOPPED"
    DONE = "DONE"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """What the database knows of a key."""

    key_id: str
    provider: str
    is_primary: bool
    canary: bytes = field(repr=False)
    material: bytes = field(repr=False)
    wraps: int
    created_at: datetime


@dataclass(frozen=True, slots=True)
class ShownKey:
    """What operators are told of a key."""

    key_id: str
    provider: str
    primary: bool
    present: bool
    versions: int
    wraps: int
    created_at: datetime
    retired_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class KeyRotation:
    """A rotation of the encryption key."""

    state: RotationState
    target_key_id: str
    total: int
    done: int
    remaining: int
    started_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The installation's encryption keys."""

    keys: tuple[ShownKey, ...]
    rotation: KeyRotation | None = None
    problem: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rotation:
    """One step of a rotation, as it was asked for."""

    step: Step
    value: Value = field(default_factory=Value)
    expires_at: datetime | None = None
    trial: Trial = Trial.NONE
    skip_trial: bool = False
    grace: timedelta | None = None


_VERSION_TRANSITIONS: Mapping[VersionState, frozenset[VersionState]] = {
    VersionState.ENABLED: frozenset({VersionState.DISABLED, VersionState.DESTROYED}),
    VersionState.DISABLED: frozenset({VersionState.ENABLED, VersionState.DESTROYED}),
    VersionState.DESTROYED: frozenset(),
}


def check_transition(name: str, old: VersionState, new: VersionState) -> None:
    """Raises FailedPrecondition(ILLEGAL_TRANSITION) that names both states."""
    if new in _VERSION_TRANSITIONS[old]:
        return
    text = f"{name} is {old}: it cannot become {new}"
    error = FailedPrecondition(Reason.ILLEGAL_TRANSITION, text, PreconditionViolation("VERSION_STATE", name, text))
    error.metadata = {"from": old.value, "to": new.value}
    raise error


def unusable(kind: str, subject: str, why: str, reason: Reason = Reason.CREDENTIAL_UNUSABLE) -> FailedPrecondition:
    """The refusal of what a credential's state forbids; `kind` is for programs."""
    return FailedPrecondition(reason, f"{subject} {why}", PreconditionViolation(kind, subject, why))

"""Credentials, versions, grants and keys: protobuf to model and back."""

from __future__ import annotations

from collections.abc import Set
from typing import Any
from uuid import UUID

from google.protobuf.struct_pb2 import Struct
from google.protobuf.struct_pb2 import Value as JsonValue
from stationmaster.v1 import credential_pb2 as pb

from stationmaster_server.credentials.access import Request
from stationmaster_server.credentials.importing import Import, Imported
from stationmaster_server.credentials.key_choice import NAME as KEY_STATUS
from stationmaster_server.credentials.model import (
    CREDENTIAL_NAME,
    Accessed,
    Credential,
    Grant,
    KeyRotation,
    KeyStatus,
    Label,
    OnExisting,
    Rotation,
    RotationState,
    Source,
    State,
    Step,
    Trial,
    Value,
    Version,
    VersionState,
)
from stationmaster_server.credentials.service import New
from stationmaster_server.wire.fields import mapping, moment, span, struct, timestamp
from stationmaster_server.wire.names import parse

VERSION_NAME = "credentials/{credential}/versions/{version}"
GRANT_NAME = "credentials/{credential}/grants/{grant}"
FIELDS = frozenset({"display_name", "description", "category", "tags", "environment_variable", "expire_time"})
_TEXTS = ("display_name", "description", "category", "environment_variable")

_STATES = {state: pb.CredentialState.Value(f"CREDENTIAL_STATE_{state}") for state in State}
_VERSION_STATES = {
    state: pb.CredentialVersionState.Value(f"CREDENTIAL_VERSION_STATE_{state}") for state in VersionState
}
_LABELS = {label: pb.CredentialLabel.Value(f"CREDENTIAL_LABEL_{label}") for label in Label}
_LABEL_OF = {number: label for label, number in _LABELS.items()}
_SOURCES = {source: pb.CredentialSource.Value(f"CREDENTIAL_SOURCE_{source}") for source in Source}
_TRIALS = {trial: pb.RotationTrial.Value(f"ROTATION_TRIAL_{trial or 'UNSPECIFIED'}") for trial in Trial}
_TRIAL_OF = {number: trial for trial, number in _TRIALS.items()}
_STEP_OF = {pb.RotationStep.Value(f"ROTATION_STEP_{step}"): step for step in Step}
_ON_EXISTING_OF = {pb.OnExisting.Value(f"ON_EXISTING_{what}"): what for what in OnExisting}
_ROTATION_STATES = {state: pb.KeyRotationState.Value(f"KEY_ROTATION_STATE_{state}") for state in RotationState}


def id_of(name: str, field: str = "name") -> str:
    """The id in a credential's name."""
    return parse(CREDENTIAL_NAME, name, str, field=field)


def new_credential(request: pb.CreateCredentialRequest) -> New:
    """What is to be created."""
    message = request.credential
    encrypted = message.encrypted if message.HasField("encrypted") else True
    fields = {field for field in FIELDS if field == "expire_time" or getattr(message, field)}
    nobody = UUID(int=0)
    credential = Credential(request.credential_id, nobody, nobody, encrypted=encrypted, **changes(message, fields))
    return New(credential, value_of(request))


def changes(message: pb.Credential, fields: Set[str]) -> dict[str, Any]:
    """The new values of these fields, by their names in `Credential`."""
    found: dict[str, Any] = {name: getattr(message, name) for name in _TEXTS if name in fields}
    if "tags" in fields:
        found["tags"] = tuple(message.tags)
    if "expire_time" in fields:
        found["expires_at"] = moment(message, "expire_time")
    return found


def value_of(
    request: pb.CreateCredentialRequest | pb.AddCredentialVersionRequest | pb.RotateCredentialRequest,
) -> Value:
    """The value in a request."""
    if not request.HasField("setting"):
        return Value(request.value)
    return Value(request.value, mapping(Struct(fields={"setting": request.setting}), "setting")["setting"], True)


def rotation(request: pb.RotateCredentialRequest) -> Rotation:
    """The step that is asked for."""
    return Rotation(
        _STEP_OF.get(request.step, Step.REPLACE),
        value_of(request),
        moment(request, "expire_time"),
        _TRIAL_OF.get(request.trial, Trial.NONE),
        request.skip_trial,
        span(request, "grace"),
    )


def access_request(request: pb.AccessCredentialRequest) -> Request:
    """The value that is asked for."""
    label = _LABEL_OF.get(request.label, Label.CURRENT)
    return Request(id_of(request.name), request.version, label, request.purpose)


def new_grant(message: pb.CredentialGrant) -> Grant:
    """The grant that is to be made."""
    nobody = UUID(int=0)
    return Grant(
        nobody, "", message.principal, tuple(message.purposes), moment(message, "expire_time"), creator_id=nobody
    )


def import_of(request: pb.ImportEnvironmentRequest) -> Import:
    """What is to be imported."""
    return Import(
        request.prefix,
        dict(request.variables),
        request.strip_prefix,
        request.category,
        _ON_EXISTING_OF.get(request.on_existing, OnExisting.SKIP),
    )


def credential_to_proto(credential: Credential) -> pb.Credential:
    """A credential as its message; a setting with its value."""
    labels = credential.labels
    shows = not credential.encrypted and labels.current is not None
    return pb.Credential(
        name=credential.name,
        uid=str(credential.uid),
        display_name=credential.display_name,
        description=credential.description,
        category=credential.category,
        tags=credential.tags,
        encrypted=credential.encrypted,
        setting=_json(credential.setting) if shows else None,
        environment_variable=credential.environment_variable,
        expire_time=timestamp(credential.expires_at),
        state=_STATES[credential.state],
        owner=f"users/{credential.owner_id}",
        current_version=_version_name(credential, labels.current),
        previous_version=_version_name(credential, labels.previous),
        pending_version=_version_name(credential, labels.pending),
        etag=credential.etag,
        create_time=timestamp(credential.created_at),
        update_time=timestamp(credential.updated_at),
        delete_time=timestamp(credential.deleted_at),
        purge_time=timestamp(credential.purge_at),
    )


def version_to_proto(version: Version) -> pb.CredentialVersion:
    """A version as its message; of a setting with its value."""
    return pb.CredentialVersion(
        name=version.name,
        state=_VERSION_STATES[version.state],
        label=_LABELS[version.label] if version.label else pb.CREDENTIAL_LABEL_UNSPECIFIED,
        setting=_json(version.setting) if version.is_setting else None,
        expire_time=timestamp(version.expires_at),
        grace_end_time=timestamp(version.grace_ends_at),
        trial=_TRIALS[version.trial],
        encryption_key_id=version.key_id,
        creator=f"users/{version.creator_id}",
        create_time=timestamp(version.created_at),
        destroy_time=timestamp(version.destroyed_at),
    )


def grant_to_proto(grant: Grant) -> pb.CredentialGrant:
    """A grant as its message."""
    return pb.CredentialGrant(
        name=grant.name,
        principal=grant.principal,
        purposes=grant.purposes,
        expire_time=timestamp(grant.expires_at),
        creator=f"users/{grant.creator_id}",
        create_time=timestamp(grant.created_at),
    )


def accessed_to_proto(accessed: Accessed) -> pb.AccessCredentialResponse:
    """A value that goes out."""
    name = "" if accessed.version is None else f"credentials/{accessed.credential_id}/versions/{accessed.version}"
    return pb.AccessCredentialResponse(
        version=name,
        value=accessed.secret,
        setting=_json(accessed.setting) if accessed.is_setting else None,
        source=_SOURCES[accessed.source],
        expire_time=timestamp(accessed.expires_at),
    )


def imported_to_proto(imported: Imported) -> pb.ImportEnvironmentResponse:
    """What an import came to."""
    made = [credential_to_proto(credential) for credential in imported.credentials]
    return pb.ImportEnvironmentResponse(credentials=made, skipped=imported.skipped)


def status_to_proto(status: KeyStatus) -> pb.KeyStatus:
    """The keys as operators are told of them."""
    keys = [
        pb.EncryptionKey(
            key_id=key.key_id,
            provider=key.provider,
            primary=key.primary,
            present=key.present,
            versions=key.versions,
            wraps=key.wraps,
            create_time=timestamp(key.created_at),
            retire_time=timestamp(key.retired_at),
        )
        for key in status.keys
    ]
    return pb.KeyStatus(
        name=KEY_STATUS,
        keys=keys,
        rotation=_rotation_to_proto(status.rotation),
        problem=status.problem,
        warnings=status.warnings,
    )


def _rotation_to_proto(rotation: KeyRotation | None) -> pb.KeyRotation | None:
    if rotation is None:
        return None
    return pb.KeyRotation(
        state=_ROTATION_STATES[rotation.state],
        target_key_id=rotation.target_key_id,
        total=rotation.total,
        done=rotation.done,
        remaining=rotation.remaining,
        start_time=timestamp(rotation.started_at),
        end_time=timestamp(rotation.ended_at),
    )


def _version_name(credential: Credential, version: int | None) -> str:
    return "" if version is None else f"{credential.name}/versions/{version}"


def _json(value: Any) -> JsonValue:
    return struct({"value": value}).fields["value"]

"""Credentials, versions, grants and keys for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from stationmaster_client.cli.output import moment, plain
from stationmaster_client.names import last
from stationmaster_client.structs import whole

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Value
    from stationmaster.v1 import credential_pb2

    from stationmaster_client.cli.output import Output


def state_of(credential: credential_pb2.Credential) -> str:
    """`active`, `expired` or `deleted`."""
    from stationmaster.v1 import credential_pb2

    return plain(credential_pb2.CredentialState.Name(credential.state), "CREDENTIAL_STATE")


def setting_of(value: Value) -> str:
    """The JSON of a setting."""
    from google.protobuf.json_format import MessageToDict

    return json.dumps(whole(MessageToDict(value)), ensure_ascii=False)


def describe(out: Output, credential: credential_pb2.Credential) -> None:
    """Print one credential."""
    if out.as_json:
        out.json(credential)
        return
    shown = setting_of(credential.setting) if credential.HasField("setting") else ""
    out.details(
        [
            ("credential", credential.name),
            ("name", credential.display_name),
            ("description", credential.description),
            ("kind", "secret" if credential.encrypted else "setting"),
            ("value", shown),
            ("category", credential.category),
            ("tags", ", ".join(credential.tags)),
            ("variable", credential.environment_variable),
            ("state", state_of(credential)),
            ("current", last(credential.current_version)),
            ("previous", last(credential.previous_version)),
            ("pending", last(credential.pending_version)),
            ("expires", moment(credential.expire_time)),
            ("owner", credential.owner),
            ("created", moment(credential.create_time)),
            ("changed", moment(credential.update_time)),
            ("deleted", moment(credential.delete_time)),
            ("purged", moment(credential.purge_time)),
        ]
    )


def describe_version(out: Output, version: credential_pb2.CredentialVersion) -> None:
    """Print one version."""
    if out.as_json:
        out.json(version)
        return
    out.details(
        list(zip(("version", "state", "label", "expires", "readable until"), version_row(version), strict=False))
    )


def version_row(version: credential_pb2.CredentialVersion) -> tuple[str, ...]:
    """A version as a row."""
    from stationmaster.v1 import credential_pb2

    label = credential_pb2.CredentialLabel.Name(version.label) if version.label else ""
    return (
        last(version.name),
        plain(credential_pb2.CredentialVersionState.Name(version.state), "CREDENTIAL_VERSION_STATE"),
        plain(label, "CREDENTIAL_LABEL"),
        moment(version.expire_time),
        moment(version.grace_end_time),
        version.encryption_key_id,
        moment(version.create_time),
    )


def grant_row(grant: credential_pb2.CredentialGrant) -> tuple[str, ...]:
    """A grant as a row."""
    purposes = ", ".join(grant.purposes) or "any"
    return last(grant.name), grant.principal, purposes, moment(grant.expire_time), moment(grant.create_time)


def describe_keys(out: Output, status: credential_pb2.KeyStatus) -> None:
    """Print the encryption keys."""
    from stationmaster.v1 import credential_pb2

    if out.as_json:
        out.json(status)
        return
    rows = []
    for key in status.keys:
        state = "retired" if key.HasField("retire_time") else "primary" if key.primary else "in use"
        here = "" if key.HasField("retire_time") else "yes" if key.present else "NO"
        rows.append((key.key_id, key.provider, state, here, str(key.versions), str(key.wraps), moment(key.create_time)))
    columns = ("KEY", "PROVIDER", "STATE", "HERE", "VERSIONS#", "WRAPS#", "SINCE")
    out.table(columns, rows, empty="No encryption keys.")
    if status.HasField("rotation"):
        rotation = status.rotation
        state = plain(credential_pb2.KeyRotationState.Name(rotation.state), "KEY_ROTATION_STATE")
        text = f"rotation to {rotation.target_key_id}: {state}, {rotation.done} done, {rotation.remaining} remain"
        out.print(text)
    for text in (*([status.problem] if status.problem else []), *status.warnings):
        out.note(f"! {text}")

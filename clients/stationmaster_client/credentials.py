"""Credentials: secrets and settings by name, their versions, who may have them, the keys they are encrypted with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias, Unpack

from google.protobuf.field_mask_pb2 import FieldMask
from stationmaster.v1 import credential_pb2, credential_pb2_grpc

from stationmaster_client.calls import Calls
from stationmaster_client.names import full
from stationmaster_client.paging import Listing, Query
from stationmaster_client.times import to_duration, to_timestamp
from stationmaster_client.values import to_value

Label: TypeAlias = credential_pb2.CredentialLabel.ValueType
CURRENT, PREVIOUS, PENDING = (
    credential_pb2.CREDENTIAL_LABEL_CURRENT,
    credential_pb2.CREDENTIAL_LABEL_PREVIOUS,
    credential_pb2.CREDENTIAL_LABEL_PENDING,
)
_NOTHING: Any = object()
"""No setting: `None` is one."""


class Credentials:
    """`credentials/…`. Every method takes the name or the bare id. Only `access` and `value` return a secret."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._stub = credential_pb2_grpc.CredentialServiceStub(calls.channel)

    async def create(
        self,
        credential_id: str,
        value: str = "",
        *,
        credential: credential_pb2.Credential | None = None,
        setting: Any = _NOTHING,
        validate_only: bool = False,
        request_id: str = "",
    ) -> credential_pb2.Credential:
        """Create a secret, or with `setting` (any JSON value) a setting that is stored and shown as it is."""
        wanted = credential_pb2.Credential()
        if credential is not None:
            wanted.CopyFrom(credential)
        if setting is not _NOTHING:
            wanted.encrypted = False
        request = credential_pb2.CreateCredentialRequest(
            credential_id=credential_id,
            credential=wanted,
            value=value,
            setting=None if setting is _NOTHING else to_value(setting),
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.CreateCredential, request)

    async def get(self, name: str) -> credential_pb2.Credential:
        """Return one credential, without its secret."""
        request = credential_pb2.GetCredentialRequest(name=full("credentials", name))
        return await self._calls.unary(self._stub.GetCredential, request)

    def list(
        self, *, show_deleted: bool = False, **query: Unpack[Query]
    ) -> Listing[credential_pb2.Credential, credential_pb2.ListCredentialsResponse]:
        """List the credentials that you see, without their secrets; settings with their values."""

        async def fetch(token: str) -> credential_pb2.ListCredentialsResponse:
            request = credential_pb2.ListCredentialsRequest(page_token=token, show_deleted=show_deleted, **query)
            return await self._calls.unary(self._stub.ListCredentials, request)

        return Listing(fetch, lambda page: page.credentials)

    async def update(
        self,
        credential: credential_pb2.Credential,
        paths: Iterable[str] = (),
        *,
        validate_only: bool = False,
        request_id: str = "",
    ) -> credential_pb2.Credential:
        """Change the fields named by `paths`, or all that are set. With its `etag` a stale credential is refused."""
        mask = FieldMask(paths=paths)
        request = credential_pb2.UpdateCredentialRequest(
            credential=credential,
            update_mask=mask if mask.paths else None,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.UpdateCredential, request)

    async def delete(self, name: str, *, etag: str = "", request_id: str = "") -> credential_pb2.Credential:
        """Delete a credential; it can be undeleted until it is purged."""
        request = credential_pb2.DeleteCredentialRequest(
            name=full("credentials", name), etag=etag, request_id=request_id
        )
        return await self._calls.unary(self._stub.DeleteCredential, request)

    async def undelete(self, name: str, *, request_id: str = "") -> credential_pb2.Credential:
        """Take a deletion back."""
        request = credential_pb2.UndeleteCredentialRequest(name=full("credentials", name), request_id=request_id)
        return await self._calls.unary(self._stub.UndeleteCredential, request)

    async def access(
        self, name: str, *, version: int = 0, label: Label = CURRENT, purpose: str = ""
    ) -> credential_pb2.AccessCredentialResponse:
        """Return a value. The access is in the audit trail, with its purpose, before the answer comes."""
        request = credential_pb2.AccessCredentialRequest(
            name=full("credentials", name), version=version, label=label, purpose=purpose
        )
        return await self._calls.unary(self._stub.AccessCredential, request)

    async def value(self, name: str, *, purpose: str = "") -> str:
        """Return the current secret."""
        return (await self.access(name, purpose=purpose)).value

    async def add_version(
        self,
        name: str,
        value: str = "",
        *,
        setting: Any = _NOTHING,
        expire_time: datetime | None = None,
        pending: bool = False,
        grace: timedelta | None = None,
        request_id: str = "",
    ) -> credential_pb2.CredentialVersion:
        """Add a version; it becomes the current one, unless `pending`."""
        request = credential_pb2.AddCredentialVersionRequest(
            parent=full("credentials", name),
            value=value,
            setting=None if setting is _NOTHING else to_value(setting),
            expire_time=to_timestamp(expire_time),
            pending=pending,
            grace=to_duration(grace),
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.AddCredentialVersion, request)

    def versions(
        self, name: str, **query: Unpack[Query]
    ) -> Listing[credential_pb2.CredentialVersion, credential_pb2.ListCredentialVersionsResponse]:
        """List the versions, newest first, without their secrets."""

        async def fetch(token: str) -> credential_pb2.ListCredentialVersionsResponse:
            parent = full("credentials", name)
            request = credential_pb2.ListCredentialVersionsRequest(parent=parent, page_token=token, **query)
            return await self._calls.unary(self._stub.ListCredentialVersions, request)

        return Listing(fetch, lambda page: page.versions)

    async def disable_version(
        self, name: str, version: int, *, enable: bool = False, request_id: str = ""
    ) -> credential_pb2.CredentialVersion:
        """Disable a version, or with `enable` enable it again."""
        request = credential_pb2.DisableCredentialVersionRequest(
            name=_version(name, version), enable=enable, request_id=request_id
        )
        return await self._calls.unary(self._stub.DisableCredentialVersion, request)

    async def destroy_version(
        self, name: str, version: int, *, request_id: str = ""
    ) -> credential_pb2.CredentialVersion:
        """Erase a version for good."""
        request = credential_pb2.DestroyCredentialVersionRequest(name=_version(name, version), request_id=request_id)
        return await self._calls.unary(self._stub.DestroyCredentialVersion, request)

    async def step(self, request: credential_pb2.RotateCredentialRequest) -> credential_pb2.Credential:
        """Take one step of a rotation."""
        return await self._calls.unary(self._stub.RotateCredential, request)

    async def rotate(
        self,
        name: str,
        value: str = "",
        *,
        setting: Any = _NOTHING,
        test: Callable[[str], Awaitable[bool]] | None = None,
        expire_time: datetime | None = None,
        grace: timedelta | None = None,
    ) -> credential_pb2.Credential:
        """Replace the value: at once, or, with `test`, only after that found that the new value works.

        `test` gets the new secret as the server stored it. When it returns false or raises, the new value is destroyed
        and the old one stays; what it raised is raised.
        """
        request = credential_pb2.RotateCredentialRequest(
            name=full("credentials", name),
            value=value,
            setting=None if setting is _NOTHING else to_value(setting),
            expire_time=to_timestamp(expire_time),
            step=credential_pb2.ROTATION_STEP_REPLACE if test is None else credential_pb2.ROTATION_STEP_BEGIN,
            grace=to_duration(grace),
        )
        begun = await self.step(request)
        if test is None:
            return begun
        passed = False
        try:
            passed = await test((await self.access(name, label=PENDING)).value)
        finally:
            if not passed:
                await self._step(name, credential_pb2.ROTATION_STEP_REPORT, trial=credential_pb2.ROTATION_TRIAL_FAILED)
                begun = await self._step(name, credential_pb2.ROTATION_STEP_ABORT)
        if not passed:
            return begun
        await self._step(name, credential_pb2.ROTATION_STEP_REPORT, trial=credential_pb2.ROTATION_TRIAL_PASSED)
        return await self._step(name, credential_pb2.ROTATION_STEP_FINISH, grace=to_duration(grace))

    async def grant(
        self,
        name: str,
        principal: str,
        *,
        purposes: Iterable[str] = (),
        expire_time: datetime | None = None,
        request_id: str = "",
    ) -> credential_pb2.CredentialGrant:
        """Let `users/…`, `apiKeys/…` or `agents/…` have the value."""
        grant = credential_pb2.CredentialGrant(
            principal=principal, purposes=purposes, expire_time=to_timestamp(expire_time)
        )
        request = credential_pb2.GrantAccessRequest(
            parent=full("credentials", name), grant=grant, request_id=request_id
        )
        return await self._calls.unary(self._stub.GrantAccess, request)

    async def revoke(self, name: str, *, request_id: str = "") -> None:
        """Take a grant (`credentials/…/grants/…`) back."""
        await self._calls.unary(
            self._stub.RevokeAccess, credential_pb2.RevokeAccessRequest(name=name, request_id=request_id)
        )

    def grants(
        self, name: str, **query: Unpack[Query]
    ) -> Listing[credential_pb2.CredentialGrant, credential_pb2.ListGrantsResponse]:
        """List who else may have the value."""

        async def fetch(token: str) -> credential_pb2.ListGrantsResponse:
            request = credential_pb2.ListGrantsRequest(parent=full("credentials", name), page_token=token, **query)
            return await self._calls.unary(self._stub.ListGrants, request)

        return Listing(fetch, lambda page: page.grants)

    async def rotate_key(
        self,
        key_id: str = "",
        *,
        action: credential_pb2.KeyAction.ValueType = credential_pb2.KEY_ACTION_START,
        make_new: bool = False,
        request_id: str = "",
    ) -> credential_pb2.KeyStatus:
        """Change the encryption key of the installation, stop that, or retire a key. For operators.

        Without `make_new` a `key_id` that the server does not know is refused.
        """
        request = credential_pb2.RotateEncryptionKeyRequest(
            action=action, key_id=key_id, make_new=make_new, request_id=request_id
        )
        return await self._calls.unary(self._stub.RotateEncryptionKey, request)

    async def key_status(self) -> credential_pb2.KeyStatus:
        """Tell which encryption keys there are and how far a rotation is. For operators."""
        return await self._calls.unary(self._stub.GetKeyStatus, credential_pb2.GetKeyStatusRequest())

    async def import_environment(
        self,
        variables: Mapping[str, str] | None = None,
        *,
        prefix: str = "",
        strip_prefix: bool = False,
        category: str = "",
        on_existing: credential_pb2.OnExisting.ValueType = credential_pb2.ON_EXISTING_SKIP,
        validate_only: bool = False,
        request_id: str = "",
    ) -> credential_pb2.ImportEnvironmentResponse:
        """Make credentials of variables: of those that are given, or, for operators, of the server's own."""
        request = credential_pb2.ImportEnvironmentRequest(
            prefix=prefix,
            variables=dict(variables or {}),
            strip_prefix=strip_prefix,
            category=category,
            on_existing=on_existing,
            validate_only=validate_only,
            request_id=request_id,
        )
        return await self._calls.unary(self._stub.ImportEnvironment, request)

    async def _step(
        self, name: str, step: credential_pb2.RotationStep.ValueType, **fields: Any
    ) -> credential_pb2.Credential:
        return await self.step(
            credential_pb2.RotateCredentialRequest(name=full("credentials", name), step=step, **fields)
        )


def _version(name: str, version: int) -> str:
    return f"{full('credentials', name)}/versions/{version}"

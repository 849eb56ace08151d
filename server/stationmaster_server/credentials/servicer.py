"""CredentialService: messages in, the services, messages out."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import grpc
from google.protobuf.empty_pb2 import Empty
from stationmaster.v1 import credential_pb2 as pb
from stationmaster.v1 import credential_pb2_grpc

from stationmaster_server.credentials import convert
from stationmaster_server.credentials.access import Access
from stationmaster_server.credentials.grants import Grants
from stationmaster_server.credentials.importing import Importing
from stationmaster_server.credentials.key_service import Keys
from stationmaster_server.credentials.service import Credentials
from stationmaster_server.credentials.versions import Versions
from stationmaster_server.wire.caller import caller_of, current_caller
from stationmaster_server.wire.fields import masked, moment, span
from stationmaster_server.wire.names import parse_pair
from stationmaster_server.wire.paging import PageTokens

Context = grpc.aio.ServicerContext[Any, Any]


class CredentialServicer(credential_pb2_grpc.CredentialServiceServicer):
    """The methods of CredentialService."""

    def __init__(
        self,
        credentials: Credentials,
        versions: Versions,
        access: Access,
        grants: Grants,
        keys: Keys,
        importing: Importing,
        tokens: PageTokens,
    ) -> None:
        self._credentials = credentials
        self._versions = versions
        self._access = access
        self._grants = grants
        self._keys = keys
        self._importing = importing
        self._tokens = tokens

    async def CreateCredential(self, request: pb.CreateCredentialRequest, context: Context) -> pb.Credential:
        """A new credential."""
        new = convert.new_credential(request)
        made = await self._credentials.create(caller_of(request), new, validate_only=request.validate_only)
        return convert.credential_to_proto(made)

    async def GetCredential(self, request: pb.GetCredentialRequest, context: Context) -> pb.Credential:
        """One credential."""
        found = await self._credentials.get(current_caller(), convert.id_of(request.name))
        return convert.credential_to_proto(found)

    async def ListCredentials(self, request: pb.ListCredentialsRequest, context: Context) -> pb.ListCredentialsResponse:
        """A page of credentials."""
        asked = self._tokens.read(request)
        page = await self._credentials.list(
            current_caller(), request.filter, request.order_by, asked, deleted=request.show_deleted
        )
        credentials, token = self._tokens.page(request, page, convert.credential_to_proto)
        return pb.ListCredentialsResponse(credentials=credentials, next_page_token=token)

    async def UpdateCredential(self, request: pb.UpdateCredentialRequest, context: Context) -> pb.Credential:
        """A credential changed."""
        message = request.credential
        changed = await self._credentials.update(
            caller_of(request),
            convert.id_of(message.name, "credential.name"),
            convert.changes(message, masked(request, convert.FIELDS)),
            message.etag,
            validate_only=request.validate_only,
        )
        return convert.credential_to_proto(changed)

    async def DeleteCredential(self, request: pb.DeleteCredentialRequest, context: Context) -> pb.Credential:
        """A credential deleted."""
        deleted = await self._credentials.delete(caller_of(request), convert.id_of(request.name), request.etag)
        return convert.credential_to_proto(deleted)

    async def UndeleteCredential(self, request: pb.UndeleteCredentialRequest, context: Context) -> pb.Credential:
        """A deletion taken back."""
        return convert.credential_to_proto(
            await self._credentials.undelete(caller_of(request), convert.id_of(request.name))
        )

    async def AddCredentialVersion(
        self, request: pb.AddCredentialVersionRequest, context: Context
    ) -> pb.CredentialVersion:
        """A new version."""
        added = await self._versions.add(
            caller_of(request),
            convert.id_of(request.parent, "parent"),
            convert.value_of(request),
            moment(request, "expire_time"),
            pending=request.pending,
            grace=span(request, "grace"),
        )
        return convert.version_to_proto(added)

    async def ListCredentialVersions(
        self, request: pb.ListCredentialVersionsRequest, context: Context
    ) -> pb.ListCredentialVersionsResponse:
        """A page of versions."""
        asked, credential_id = self._tokens.read(request), convert.id_of(request.parent, "parent")
        page = await self._versions.list(current_caller(), credential_id, request.filter, request.order_by, asked)
        versions, token = self._tokens.page(request, page, convert.version_to_proto)
        return pb.ListCredentialVersionsResponse(versions=versions, next_page_token=token)

    async def AccessCredential(
        self, request: pb.AccessCredentialRequest, context: Context
    ) -> pb.AccessCredentialResponse:
        """A value."""
        accessed = await self._access.access(current_caller(), convert.access_request(request))
        return convert.accessed_to_proto(accessed)

    async def DisableCredentialVersion(
        self, request: pb.DisableCredentialVersionRequest, context: Context
    ) -> pb.CredentialVersion:
        """A version disabled, or enabled."""
        credential_id, number = parse_pair(convert.VERSION_NAME, request.name, str, int)
        moved = await self._versions.disable(caller_of(request), credential_id, number, enable=request.enable)
        return convert.version_to_proto(moved)

    async def DestroyCredentialVersion(
        self, request: pb.DestroyCredentialVersionRequest, context: Context
    ) -> pb.CredentialVersion:
        """A version destroyed."""
        credential_id, number = parse_pair(convert.VERSION_NAME, request.name, str, int)
        return convert.version_to_proto(await self._versions.destroy(caller_of(request), credential_id, number))

    async def RotateCredential(self, request: pb.RotateCredentialRequest, context: Context) -> pb.Credential:
        """A step of a rotation taken."""
        rotated = await self._versions.rotate(
            caller_of(request), convert.id_of(request.name), convert.rotation(request), request.etag
        )
        return convert.credential_to_proto(rotated)

    async def GrantAccess(self, request: pb.GrantAccessRequest, context: Context) -> pb.CredentialGrant:
        """A new grant."""
        credential_id = convert.id_of(request.parent, "parent")
        made = await self._grants.grant(caller_of(request), credential_id, convert.new_grant(request.grant))
        return convert.grant_to_proto(made)

    async def RevokeAccess(self, request: pb.RevokeAccessRequest, context: Context) -> Empty:
        """A grant taken back."""
        credential_id, grant_id = parse_pair(convert.GRANT_NAME, request.name, str, UUID)
        await self._grants.revoke(caller_of(request), credential_id, grant_id)
        return Empty()

    async def ListGrants(self, request: pb.ListGrantsRequest, context: Context) -> pb.ListGrantsResponse:
        """A page of grants."""
        asked, credential_id = self._tokens.read(request), convert.id_of(request.parent, "parent")
        page = await self._grants.list(current_caller(), credential_id, request.filter, request.order_by, asked)
        grants, token = self._tokens.page(request, page, convert.grant_to_proto)
        return pb.ListGrantsResponse(grants=grants, next_page_token=token)

    async def RotateEncryptionKey(self, request: pb.RotateEncryptionKeyRequest, context: Context) -> pb.KeyStatus:
        """A rotation of the encryption key begun or stopped, or a key retired."""
        caller = caller_of(request)
        match request.action:
            case pb.KEY_ACTION_STOP:
                return convert.status_to_proto(await self._keys.stop(caller))
            case pb.KEY_ACTION_RETIRE:
                return convert.status_to_proto(await self._keys.retire(caller, request.key_id))
        return convert.status_to_proto(await self._keys.start(caller, request.key_id, make_new=request.make_new))

    async def GetKeyStatus(self, request: pb.GetKeyStatusRequest, context: Context) -> pb.KeyStatus:
        """The encryption keys."""
        return convert.status_to_proto(await self._keys.status(current_caller()))

    async def ImportEnvironment(
        self, request: pb.ImportEnvironmentRequest, context: Context
    ) -> pb.ImportEnvironmentResponse:
        """Credentials made of variables."""
        imported = await self._importing.run(
            caller_of(request), convert.import_of(request), validate_only=request.validate_only
        )
        return convert.imported_to_proto(imported)

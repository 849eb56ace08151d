"""Finds out who calls: by bearer key or token, or by client certificate."""

from __future__ import annotations

from collections.abc import Awaitable
from functools import lru_cache, partial
from typing import Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from stationmaster_server.identity.authentication import Certificate, Origin
from stationmaster_server.identity.model import Identity
from stationmaster_server.rpc.call import Call, Context
from stationmaster_server.rpc.interceptors.base import Before, Interceptor
from stationmaster_server.rpc.method import Method


class Authenticator(Protocol):
    """What identity's Authenticator does."""

    def authenticate(
        self, authorization: str | None, certificate: Certificate | None = None, *, origin: Origin | None = None
    ) -> Awaitable[Identity]:
        """Return who sends these credentials, or refuse."""
        ...


class Authentication(Interceptor):
    """Asks the authenticator about every call of a method that is not open."""

    def __init__(self, authenticator: Authenticator, *, client_certificates: bool = False) -> None:
        self._authenticator = authenticator
        self._client_certificates = client_certificates

    def before(self, method: Method) -> Before | None:
        """Return the question; None for an open method."""
        if method.open:
            return None
        authenticate, with_certificate = self._authenticator.authenticate, self._client_certificates

        async def ask(call: Call) -> None:
            peer = call.context.peer()
            certificate = certificate_of(call.context) if with_certificate else None
            origin = Origin(method.path, call.request_id, peer)
            ask_again = partial(authenticate, call.text("authorization") or None, certificate, origin=origin)
            call.authenticate = ask_again
            identity = await ask_again()
            call.caller = identity.caller(request_id=call.request_id, peer=peer, method=method.path)

        return ask


def certificate_of(context: Context) -> Certificate | None:
    """Return what the client's verified certificate says; None without one."""
    pem = next(iter(context.auth_context().get("x509_pem_cert", ())), None)
    return None if pem is None else _read(pem)


@lru_cache(maxsize=4096)
def _read(pem: bytes) -> Certificate:
    certificate = x509.load_pem_x509_certificate(pem)
    try:
        san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        alternative = (
            *san.get_values_for_type(x509.UniformResourceIdentifier),
            *san.get_values_for_type(x509.RFC822Name),
            *san.get_values_for_type(x509.DNSName),
        )
    except x509.ExtensionNotFound:
        alternative = ()
    common = tuple(str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME))
    organizations = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    return Certificate((*alternative, *common), str(organizations[0].value) if organizations else "")

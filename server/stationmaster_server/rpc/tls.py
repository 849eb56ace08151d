"""Server credentials from PEM files, read again when they change: a renewed certificate needs no restart."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import cast

import grpc
import structlog

from stationmaster_server.config import SettingsError, TlsSettings

_log = structlog.get_logger(__name__)


def credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    """Return credentials that read the files anew when they change. With `client_ca`, clients need a certificate."""
    files = _Files(tls)
    first = files.read()
    # The stubs forget that the second argument may return None, which means: nothing has changed.
    look = cast("Callable[[], grpc.ServerCertificateConfiguration]", files.read_if_changed)
    return grpc.dynamic_ssl_server_credentials(first, look, require_client_authentication=tls.client_ca is not None)


class _Files:
    def __init__(self, tls: TlsSettings) -> None:
        if tls.certificate is None or tls.key is None:
            raise ValueError("TLS is not configured")
        self._certificate, self._key, self._client_ca = tls.certificate, tls.key, tls.client_ca
        self._seen = self._stamps()

    def read(self) -> grpc.ServerCertificateConfiguration:
        pair = (_bytes_of(self._key, "server.tls.key"), _bytes_of(self._certificate, "server.tls.certificate"))
        roots = _bytes_of(self._client_ca, "server.tls.client_ca") if self._client_ca else None
        _check_pair(self._certificate, self._key)
        if self._client_ca:
            _check_roots(self._client_ca)
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)

    def read_if_changed(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by grpc at each handshake; None keeps what there is."""
        stamps = self._stamps()
        if stamps == self._seen:
            return None
        self._seen = stamps
        try:
            configuration = self.read()
        except SettingsError as error:
            _log.warning("the certificate changed but cannot be read; the old one stays", error=str(error))
            return None
        _log.info("the certificate was read anew", certificate=str(self._certificate))
        return configuration

    def _stamps(self) -> tuple[int, ...]:
        files = [file for file in (self._certificate, self._key, self._client_ca) if file is not None]
        return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)


def _bytes_of(file: Path, setting: str) -> bytes:
    try:
        content = file.read_bytes()
    except OSError as error:
        why = error.strerror or error
        raise SettingsError(f"{setting}: {file} cannot be read ({why}); check the path and who may read it") from None
    if b"-----BEGIN" not in content:
        raise SettingsError(f"{setting}: {file} is not a PEM file")
    return content


def _check_pair(certificate: Path, key: Path) -> None:
    """What grpc only tells of when it cannot listen, or in each handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")  # how strong they must be is not looked at here
    try:
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except OSError as error:
        raise SettingsError(
            f"server.tls.certificate: {certificate} and the key {key} are no pair that can be used ({_why(error)});"
            " the key must be the certificate's own, without a password"
        ) from None


def _check_roots(client_ca: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(client_ca)
    except OSError as error:
        raise SettingsError(f"server.tls.client_ca: {client_ca} has no certificates to trust ({_why(error)})") from None


def _why(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)

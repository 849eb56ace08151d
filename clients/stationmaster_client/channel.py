"""Opens the channel: retries, keepalive, limits and encryption."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from stationmaster_client.connection import ConfigurationError, Connection, Tls

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

DEFAULT_ATTEMPTS = 5
"""gRPC makes at most so many."""


def service_config(attempts: int) -> dict[str, Any]:
    """How calls are retried (AIP-194: UNAVAILABLE only), and when a client stops so that it buries nobody.

    A stream is retried up to its first message; after that, resuming is `stream.py`'s part. An upload is not sent again
    as it was: it goes on where the server is, which is the part of `uploads.py`.
    """
    policy = {
        "maxAttempts": attempts,
        "initialBackoff": "0.1s",
        "maxBackoff": "2s",
        "backoffMultiplier": 3,
        "retryableStatusCodes": ["UNAVAILABLE"],
    }
    method = {"name": [{}], **({"retryPolicy": policy} if attempts > 1 else {})}
    upload = {"name": [{"service": "stationmaster.v1.StorageService", "method": "UploadFile"}]}
    return {"methodConfig": [method, upload], "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.5}}


def client_version() -> str:
    """The version of the installed distribution."""
    try:
        return version("stationmaster")
    except PackageNotFoundError:
        return "0"


def options(attempts: int = DEFAULT_ATTEMPTS) -> list[tuple[str, Any]]:
    """The channel's options."""
    return [
        ("grpc.service_config", json.dumps(service_config(attempts))),
        ("grpc.enable_retries", 1),
        ("grpc.per_rpc_retry_buffer_size", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        # A connection that broke without a word is noticed while a stream is open.
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.keepalive_permit_without_calls", 0),
        ("grpc.http2.max_pings_without_data", 0),
        # A restarted server is found within seconds; the default waits for up to two minutes.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 3_000),
        ("grpc.primary_user_agent", f"stationmaster-python/{client_version()}"),
    ]


def open_channel(
    connection: Connection, attempts: int = DEFAULT_ATTEMPTS, interceptors: Sequence[aio.ClientInterceptor] = ()
) -> aio.Channel:
    """Make a channel; it connects with the first call. Raises ConfigurationError when a TLS file cannot be read."""
    if connection.tls is None:
        return aio.insecure_channel(connection.target, options=options(attempts), interceptors=interceptors)
    settings = options(attempts)
    if connection.tls.server_name:
        settings.append(("grpc.ssl_target_name_override", connection.tls.server_name))
    credentials = _credentials(connection.tls)
    return aio.secure_channel(connection.target, credentials, options=settings, interceptors=interceptors)


def _credentials(tls: Tls) -> grpc.ChannelCredentials:
    if (tls.certificate is None) != (tls.key is None):
        raise ConfigurationError("TLS: certificate and key are needed together")
    return grpc.ssl_channel_credentials(_read(tls.ca), _read(tls.key), _read(tls.certificate))


def _read(file: Path | None) -> bytes | None:
    if file is None:
        return None
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"TLS: {file} cannot be read: {error.strerror}") from error

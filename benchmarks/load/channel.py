"""Connections of the load, and calls on them that carry bytes as they are."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

DEADLINE = 60.0
Metadata = Sequence[Sequence[str]]
Pairs = tuple[tuple[str, str], ...]
Unary = grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
Stream = grpc.aio.UnaryStreamMultiCallable[bytes, bytes]
Upload = grpc.aio.StreamUnaryMultiCallable[bytes, bytes]


def channel(target: str) -> grpc.aio.Channel:
    """A connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 64 << 20)]
    return grpc.aio.insecure_channel(target, options=options)


def unary_call(connection: grpc.aio.Channel, method: str) -> Unary:
    """A method with one answer."""
    call: Unary = connection.unary_unary(method)
    return call


def stream_call(connection: grpc.aio.Channel, method: str) -> Stream:
    """A method with a stream of answers."""
    call: Stream = connection.unary_stream(method)
    return call


def upload_call(connection: grpc.aio.Channel, method: str) -> Upload:
    """A method that takes a stream."""
    call: Upload = connection.stream_unary(method)
    return call


def pairs(metadata: Metadata) -> Pairs:
    """Metadata as it is once read from JSON."""
    return tuple((key, value) for key, value in metadata)

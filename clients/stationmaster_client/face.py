"""A part of the async client as blocking code sees it: its methods, run in a private event loop."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Concatenate, Generic, ParamSpec, TypeVar

from stationmaster_client.portal import Portal, Stream

F = TypeVar("F")
P = ParamSpec("P")
T = TypeVar("T")


class Face(Generic[F]):
    """A part of the client, seen from blocking code."""

    def __init__(self, portal: Portal, part: F) -> None:
        self._portal = portal
        self._part = part


def blocking(method: Callable[Concatenate[F, P], Awaitable[T]]) -> Callable[Concatenate[Face[F], P], T]:
    """The method, waiting for its answer."""

    def call(self: Face[F], /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._portal.call(lambda: method(self._part, *args, **kwargs))

    call.__doc__ = method.__doc__
    return call


def iterating(method: Callable[Concatenate[F, P], AsyncIterable[T]]) -> Callable[Concatenate[Face[F], P], Stream[T]]:
    """The method, giving a stream for `for`, and for `with` when not all of it is wanted."""

    def iterate(self: Face[F], /, *args: P.args, **kwargs: P.kwargs) -> Stream[T]:
        return self._portal.iterate(lambda: aiter(method(self._part, *args, **kwargs)))

    iterate.__doc__ = method.__doc__
    return iterate

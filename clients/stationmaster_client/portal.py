"""A private event loop in a thread, through which blocking code runs async code."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from concurrent.futures import Future
from contextvars import copy_context
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")


class Stream(Generic[T]):
    """Items for `for`. Leave it by `with` or `close()` when not all are wanted; a dropped one closes itself."""

    def __init__(self, items: Generator[T, None, None]) -> None:
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        return next(self._items)

    def close(self) -> None:
        """End the call; iterating further ends at once."""
        self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Portal:
    """Runs coroutines in its own loop, in the caller's context, and waits for them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stationmaster-client", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call `function` in the loop and wait for what it returns. An interrupt here cancels it there."""
        done: Future[T] = Future()
        started: Future[asyncio.Task[None]] = Future()

        async def run() -> None:
            try:
                done.set_result(await function())
            except BaseException as error:  # noqa: BLE001 - handed over to the waiting thread
                done.set_exception(error)

        context = copy_context()
        self._loop.call_soon_threadsafe(lambda: started.set_result(self._loop.create_task(run(), context=context)))
        try:
            return done.result()
        except BaseException:
            if not done.done():
                self._loop.call_soon_threadsafe(started.result().cancel)
            raise

    def iterate(self, open_stream: Callable[[], AsyncIterator[T]]) -> Stream[T]:
        """Iterate an async iterator; it is opened by the first step."""
        return Stream(self._items(open_stream))

    def _items(self, open_stream: Callable[[], AsyncIterator[T]]) -> Generator[T, None, None]:

        async def opened() -> AsyncIterator[T]:
            return aiter(open_stream())

        stream = self.call(opened)

        async def following() -> tuple[T, ...]:
            # StopAsyncIteration cannot pass through a future.
            async for item in stream:
                return (item,)
            return ()

        try:
            while item := self.call(following):
                yield item[0]
        finally:
            close = getattr(stream, "aclose", None)
            if close is not None:
                self.call(close)

    def close(self) -> None:
        """Stop the loop; nothing may be running in it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

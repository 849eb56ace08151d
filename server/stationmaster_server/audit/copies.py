"""Copies of checkpoints in an object store, each written once."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url


class ObjectStore:
    """A folder of an object store, by its URL: `s3://bucket/prefix`, `gs://…`, `az://…`, `file:///…`."""

    def __init__(self, url: str) -> None:
        """Credentials come from the environment, as the store's own tools take them. Raises ValueError."""
        if url.startswith("file:") and (folder := _folder(url)).is_dir() and not os.access(folder, os.W_OK | os.X_OK):
            raise ValueError(
                f"the folder {folder} cannot be written by this account (uid {os.getuid()}): let it write there,"
                " or name another folder"
            )
        try:
            self._store = from_url(url)
        except BaseError as error:
            raise ValueError(_refusal(url, error)) from None

    async def write(self, name: str, note: str) -> str | None:
        """See `Copies.write`. Raises OSError."""
        path = f"{name}.checkpoint"
        try:
            try:
                await self._store.put_async(path, note.encode(), mode="create")
            except AlreadyExistsError:
                found = await self._store.get_async(path)
                return bytes(await found.bytes_async()).decode()
        except BaseError as error:
            raise OSError(str(error)) from None
        return None


def _folder(url: str) -> Path:
    return Path(url2pathname(urlsplit(url).path))


def _refusal(url: str, error: BaseError) -> str:
    if url.startswith("file:") and not (folder := _folder(url)).is_dir():
        return f"there is no folder {folder}: make it, for the server's account to write in"
    return str(error).partition("\n")[0]

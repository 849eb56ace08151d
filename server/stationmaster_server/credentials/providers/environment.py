"""Keys from the settings, which take them from the environment: `credentials.keys`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from stationmaster_server.credentials.model import StoredKey
from stationmaster_server.credentials.providers.base import NewKey, read_keys, wanted


class EnvironmentKeys:
    """`id:base64` of each key, between commas; the last one is the newest."""

    name = "environment"

    def __init__(self, text: str) -> None:
        self._text = text

    async def keys(self, stored: Sequence[StoredKey]) -> Mapping[str, bytes]:
        """See `KeyProvider.keys`."""
        return self.read()

    async def make(self, key_id: str, known: Collection[str], *, new: bool = True) -> NewKey | None:
        """See `KeyProvider.make`: one that is in the settings."""
        return wanted(self.name, self.read(), key_id, known)

    def read(self) -> dict[str, bytes]:
        """The keys of the text. Raises KeysUnreadable."""
        return read_keys([part for part in self._text.split(",") if part.strip()], "credentials.keys")

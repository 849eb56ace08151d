"""Downloads of files, as streams that resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from grpc import aio
from stationmaster.v1 import storage_pb2

from stationmaster_client.errors import DataLoss, StationmasterError, Unavailable


class FileSource:
    """The bytes of a file after those that were taken; its sequence is their number."""

    def __init__(
        self,
        request: storage_pb2.DownloadFileRequest,
        download: Callable[[storage_pb2.DownloadFileRequest], aio.UnaryStreamCall[Any, Any]],
    ) -> None:
        self.last_sequence = request.offset
        self.finished = False
        self.file: storage_pb2.File | None = None
        """What is downloaded, once the first piece has come."""
        self._name = request.name
        self._etag = request.etag
        self._download = download
        self._whole = hashlib.sha256() if request.offset == 0 else None
        self._sent = hashlib.sha256()
        self._announced = ""

    def open(self) -> aio.UnaryStreamCall[Any, Any]:
        """Ask for what is missing of the same file."""
        self._sent, self._announced = hashlib.sha256(), ""
        return self._download(
            storage_pb2.DownloadFileRequest(name=self._name, offset=self.last_sequence, etag=self._etag)
        )

    def take(self, batch: storage_pb2.DownloadFileResponse) -> Sequence[bytes]:
        """The piece, if it is the next one."""
        if batch.HasField("file"):
            self.file, self._etag = batch.file, batch.file.etag
        if batch.offset != self.last_sequence:
            raise DataLoss(f"the server sent the bytes from {batch.offset} on instead of {self.last_sequence}")
        self._sent.update(batch.data)
        if self._whole is not None:
            self._whole.update(batch.data)
        self._announced = batch.sha256
        self.last_sequence += len(batch.data)
        return [batch.data] if batch.data else []

    def must_reopen(self) -> bool:
        """Pieces that are missing are noticed at once."""
        return False

    def end(self) -> StationmasterError | None:
        """The server has sent everything; whether that is everything can be told."""
        if self.file is None or self.last_sequence < self.file.size_bytes:
            return Unavailable("the download ended before the file did")
        wanted = self.file.sha256 if self._whole is not None else ""
        if self._sent.hexdigest() != self._announced or (wanted and self._whole_sum() != wanted):
            return DataLoss(f"what was downloaded of {self.file.name} is not what was sent: download it again")
        self.finished = True
        return None

    def _whole_sum(self) -> str:
        return "" if self._whole is None else self._whole.hexdigest()

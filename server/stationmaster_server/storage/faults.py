"""What a place for files raises, as callers are told."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from stationmaster_server.errors import (
    FailedPrecondition,
    NotFound,
    PreconditionViolation,
    QuotaViolation,
    Reason,
    ResourceExhausted,
)
from stationmaster_server.storage.paths import PathRefused
from stationmaster_server.storage.places.place import NotEmpty

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def told(name: str) -> Iterator[None]:
    """Translates what is raised in the body, of a file of this name.

    Raises NotFound, FailedPrecondition(FILE_REFUSED, NOT_EMPTY), ResourceExhausted(STORAGE_FULL).
    """
    try:
        yield
    except PathRefused as refused:
        text = f"{name!r} cannot be used: {refused}"
        violation = PreconditionViolation("FILE", name, "name a plain file, or remove what is in the way")
        raise FailedPrecondition(Reason.FILE_REFUSED, text, violation) from None
    except NotEmpty:
        violation = PreconditionViolation("FILE", name, "delete what is in it first")
        raise FailedPrecondition(Reason.NOT_EMPTY, f"the folder {name!r} is not empty", violation) from None
    except FileNotFoundError:
        raise NotFound("File", name) from None
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise ResourceExhausted(
            Reason.STORAGE_FULL,
            f"the disk has no room for {name!r}; ask the operator of the server to make some",
            QuotaViolation("server", "the disk is full"),
            retry_after=timedelta(minutes=1),
        ) from error

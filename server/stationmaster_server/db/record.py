"""The type of a row, for stores, which do not know the driver."""

from __future__ import annotations

import asyncpg

Record = asyncpg.Record

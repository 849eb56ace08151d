"""What events are filtered and ordered by."""

from __future__ import annotations

from datetime import datetime

from stationmaster_server.audit.model import Category, Outcome
from stationmaster_server.db.listing import Field, Listing

LISTING = Listing(
    {
        "create_time": Field("e.created_at", datetime),
        "category": Field("e.category", Category),
        "action": Field("e.action", str),
        "outcome": Field("e.outcome", Outcome),
        "actor": Field("e.actor", str),
        "resource": Field("e.resource", str),
        "method": Field("e.method", str),
        "request_id": Field("e.request_id", str),
    },
    key="e.id",
    default_order="create_time desc",
    order_fields=["create_time"],
)

"""Loads the fixtures; they start the real thing."""

import gc

pytest_plugins = [
    "tests.fixtures.buckets",
    "tests.fixtures.database",
    "tests.fixtures.outage",
    "tests.fixtures.server",
    "tests.sessions.turn_fixtures",
]


def pytest_collection_finish() -> None:
    """Thousands of tests and all libraries stay until the end: collecting garbage need not look at them each time."""
    gc.collect()
    gc.freeze()

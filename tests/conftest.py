"""Loads the fixtures; they start the real thing."""

pytest_plugins = [
    "tests.fixtures.buckets",
    "tests.fixtures.database",
    "tests.fixtures.outage",
    "tests.fixtures.server",
    "tests.sessions.turn_fixtures",
]

"""Loads the fixtures; they start the real thing."""

pytest_plugins = ["tests.fixtures.database"]

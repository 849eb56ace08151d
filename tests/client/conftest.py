"""A server whose tasks can be steered, as the tests of tasks have it."""

from tests.tasks.conftest import station, steered

__all__ = ["station", "steered"]

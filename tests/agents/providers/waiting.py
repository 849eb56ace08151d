"""How long a test waits for what should come at once."""

LIMIT = 10.0

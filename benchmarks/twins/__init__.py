"""The same calls in the plain way: an ORM and its pool."""

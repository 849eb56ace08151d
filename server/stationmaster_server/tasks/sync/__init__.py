"""Tasks and their dependencies, kept in step in other places: each has a cursor, and ends exactly as the source is."""

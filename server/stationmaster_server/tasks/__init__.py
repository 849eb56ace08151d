"""Tasks: what is to be done, when, and every execution of it."""

"""Background services that are more than a function."""

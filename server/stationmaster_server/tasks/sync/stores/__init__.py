"""Targets that are databases of their own, embedded in the server: files beside its data."""

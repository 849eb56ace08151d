"""Exports: what a caller sees, as files."""

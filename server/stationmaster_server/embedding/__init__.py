"""Texts as vectors, so that those of like meaning lie near each other."""

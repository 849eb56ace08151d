"""Keeps faults from spreading: circuit breakers and rate limits."""

"""Credentials: secrets and settings by name, encrypted at rest, handed out with an audit event or not at all."""

"""What verifies an audit trail offline: trees, signed notes and bundles. It trusts nothing that a server says."""

from stationmaster_client.transparency.bundle import Tampered, Verified, verify_bundle, verify_extends
from stationmaster_client.transparency.note import Checkpoint, NoteError, VerifierKey, open_checkpoint

__all__ = [
    "Checkpoint",
    "NoteError",
    "Tampered",
    "Verified",
    "VerifierKey",
    "open_checkpoint",
    "verify_bundle",
    "verify_extends",
]

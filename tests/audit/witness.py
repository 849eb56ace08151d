"""A witness: a small server that speaks C2SP tlog-witness, and cosigns what is consistent with what it has seen."""

from __future__ import annotations

import threading
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stationmaster_client.transparency import NoteError, VerifierKey, open_checkpoint
from stationmaster_client.transparency.tree import verify_consistency
from stationmaster_server.audit import notes

from tests.audit.test_notes import cosignature

TIME = 1_800_000_000


class Witness:
    """`logs`: the keys it trusts. `down`: it answers with an error. `more`: what it adds to its answers."""

    def __init__(self, name: str, seed: int) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
        self._key = notes.VerifierKey(name, notes.COSIGNATURE, self._private.public_key().public_bytes_raw())
        self._lock = threading.Lock()
        self.key = VerifierKey.parse(str(self._key))
        self.vkey = str(self._key)
        self.logs: list[VerifierKey] = []
        self.seen: dict[str, tuple[int, bytes]] = {}
        self.answers: list[int] = []
        self.down = False
        self.more = ""
        self.url = ""

    def add_checkpoint(self, body: str) -> tuple[int, str]:
        """The answer to a submission: its status and text."""
        head, _, note = body.partition("\n\n")
        old_line, *proof_lines = head.split("\n")
        old = int(old_line.removeprefix("old "))
        try:
            checkpoint = open_checkpoint(note, self.logs)
        except NoteError:
            return 403, "not signed by a log that is known here"
        size, root = self.seen.get(checkpoint.origin, (0, b""))
        if old > checkpoint.size:
            return 400, "the old size is larger"
        if old != size:
            return 409, f"{size}\n"
        proof = [b64decode(line) for line in proof_lines]
        if old and not verify_consistency(old, checkpoint.size, root, checkpoint.root, proof):
            return 422, "not consistent"
        if not old and proof:
            return 422, "a proof from nothing"
        self.seen[checkpoint.origin] = (checkpoint.size, checkpoint.root)
        return 200, cosignature(note, self._key, self._private, TIME)

    def answer(self, body: str) -> tuple[int, str]:
        """`add_checkpoint`, one at a time."""
        with self._lock:
            status, text = (500, "down") if self.down else self.add_checkpoint(body)
            self.answers.append(status)
            return status, text + self.more


@contextmanager
def serving(witness: Witness) -> Iterator[Witness]:
    """The witness on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            status, text = witness.answer(body) if self.path == "/prefix/add-checkpoint" else (404, "")
            self.send_response(status)
            self.send_header("content-type", "text/x.tlog.size" if status == 409 else "text/plain")
            self.send_header("content-length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    witness.url = f"http://127.0.0.1:{server.server_port}/prefix"
    try:
        yield witness
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

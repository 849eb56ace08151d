"""What others wrote verifies what we make: `aics-tlog`, a verifier for C2SP logs, and `aics-witness`.

They need a newer Python than the oldest of ours, so they are no dependency: whoever has them installed runs this.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from stationmaster.v1 import audit_pb2 as pb
from stationmaster_server.identity.model import Caller
from stationmaster_server.wire.caller import calling

from tests.audit.conftest import Server
from tests.audit.test_bundles import fill
from tests.audit.test_proofs import leaf_of
from tests.audit.test_witness import publish
from tests.audit.verified import signed

tlog: Any = pytest.importorskip("aics_tlog", reason="aics-tlog is not installed")
NO_CONTEXT: Any = None


async def test_checkpoints_and_proofs_verify_with_a_verifier_of_others(server: Server, caller: Caller) -> None:
    await fill(server, caller, 7)
    servicer = server.servicer
    with calling(caller):
        first = await servicer.GetCheckpoint(pb.GetCheckpointRequest(), NO_CONTEXT)
        for _ in range(50):
            await server.change(caller)
        await signed(server, caller, 57)
        second = await servicer.GetCheckpoint(pb.GetCheckpointRequest(), NO_CONTEXT)
        proof = await servicer.GetConsistencyProof(pb.GetConsistencyProofRequest(first_size=first.size), NO_CONTEXT)
        events = await servicer.ListAuditEvents(pb.ListAuditEventsRequest(page_size=57), NO_CONTEXT)
        inclusions = [
            await servicer.GetInclusionProof(pb.GetInclusionProofRequest(name=event.name), NO_CONTEXT)
            for event in events.audit_events
        ]
    key = tlog.parse_vkey(second.keys[0].verifier_key)
    for each in (first, second):
        result = tlog.verify_checkpoint(tlog.parse_note(each.note), key, expected_origin=key.name)
        assert result.ok, result
    assert tlog.verify_consistency(first.size, second.size, first.root_hash, second.root_hash, list(proof.hashes))
    for event, included in zip(events.audit_events, inclusions, strict=True):
        leaf = tlog.leaf_hash(leaf_of(event.name, included))
        assert tlog.verify_inclusion(leaf, included.sequence - 1, second.size, list(included.hashes), second.root_hash)


async def test_a_witness_of_others_cosigns(server: Server, caller: Caller, tmp_path: Path) -> None:
    service: Any = pytest.importorskip("aics_witness.service", reason="aics-witness is not installed")
    store: Any = pytest.importorskip("aics_witness.store")
    config: Any = pytest.importorskip("aics_witness.config")
    await fill(server, caller, 5)
    with calling(caller):
        checkpoint = await server.servicer.GetCheckpoint(pb.GetCheckpointRequest(), NO_CONTEXT)
    vkey = checkpoint.keys[0].verifier_key
    log = config.LogConfig.from_strings(vkey.partition("+")[0], [vkey])
    theirs = service.Witness(
        "witness.example/others",
        Ed25519PrivateKey.generate(),
        store.WitnessStore(tmp_path / "witness.db", create=True),
        [log],
    )
    http = service.make_server(theirs)
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    try:
        asked: Any = type("Theirs", (), {"url": http.url, "vkey": theirs.vkey_text})()
        assert (await publish(server, [asked])).cosigned == 1
        for _ in range(20):
            await server.change(caller)
        await signed(server, caller, 25)
        assert (await publish(server, [asked])).cosigned == 1
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
        theirs.store.close()

"""Executions that are queued and not begun, for their time is far off."""

from __future__ import annotations

import time
import uuid

from stationmaster.v1 import task_pb2

from benchmarks.load.channel import DEADLINE, Metadata, channel, pairs, unary_call
from benchmarks.stats import percentile

SERVICE = "/stationmaster.v1.TaskService"
_FAR_OFF = 86_400


def execution() -> task_pb2.ExecutionSpec:
    """One of the kind `prompt`."""
    spec = task_pb2.ExecutionSpec(kind="prompt")
    spec.payload.update({"prompt": "/say 1", "model": "demo"})
    spec.run_time.FromSeconds(int(time.time()) + _FAR_OFF)
    return spec


async def batch_submit(*, target: str, count: int, repeats: int, metadata: Metadata = ()) -> dict[str, float]:
    """Executions submitted a second, `count` in a call; the median of some calls, one after another."""
    request = task_pb2.BatchSubmitExecutionsRequest(executions=[execution()] * count)
    rates = []
    async with channel(target) as one:
        submit = unary_call(one, f"{SERVICE}/BatchSubmitExecutions")
        for _ in range(repeats + 1):
            request.request_id = str(uuid.uuid4())
            body = request.SerializeToString()
            began = time.perf_counter()
            answer = await submit(body, metadata=pairs(metadata), timeout=DEADLINE)
            rates.append(count / (time.perf_counter() - began))
            made = task_pb2.BatchSubmitExecutionsResponse.FromString(answer)
            if len(made.names) != count:
                raise RuntimeError(f"{len(made.names)} of {count} executions were submitted")
    return {"rate": percentile(rates[1:], 0.5)}

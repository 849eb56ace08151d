"""Prompts to render."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from stationmaster.v1 import prompt_pb2 as pb

from benchmarks.load.channel import DEADLINE, Metadata, channel, pairs, unary_call

SERVICE = "/stationmaster.v1.PromptService"
_TEMPLATE = """You review code written in {{ language }} for {{ team }}.
{% if strict %}Be strict: name every fault.{% else %}Name the worst faults.{% endif %}
Answer in {{ answer_language | default("English") }}.

{{ code }}"""
_VARIABLES: dict[str, Any] = {
    "language": "Python",
    "team": "the platform team",
    "strict": True,
    "code": "def hello():\n    print('Hello')\n",
}


async def make_prompts(*, target: str, count: int, metadata: Metadata = ()) -> dict[str, object]:
    """Make prompts with a label; the requests that render them by it (base64), and the size of an answer."""
    sent = pairs(metadata)
    requests = []
    async with channel(target) as one:
        create, render = (unary_call(one, f"{SERVICE}/{method}") for method in ("CreatePrompt", "RenderPrompt"))
        for number in range(count):
            new = pb.CreatePromptRequest(
                prompt_id=f"review-{number}", prompt=pb.Prompt(template=_TEMPLATE), labels=["production"]
            )
            await create(new.SerializeToString(), metadata=sent, timeout=DEADLINE)
            request = pb.RenderPromptRequest(name=f"prompts/review-{number}", label="production")
            request.variables.update(_VARIABLES)
            requests.append(request.SerializeToString())
        answers = [await render(request, metadata=sent, timeout=DEADLINE) for request in requests]
    assert all(b"You review code" in answer for answer in answers)
    return {"requests": [b64encode(request).decode() for request in requests], "answer_bytes": len(answers[0])}

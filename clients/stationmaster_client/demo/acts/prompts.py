"""A prompt under version control: who moves its label, moves what everybody says."""

from __future__ import annotations

from stationmaster.v1 import prompt_pb2 as pb
from stationmaster.v1.task_pb2 import VARIABLE_TYPE_INTEGER, VARIABLE_TYPE_STRING, VariableDeclaration

from stationmaster_client.demo.stage import Stage
from stationmaster_client.errors import InvalidArgument

NAME, LABEL = "announcement", "production"
VARIABLES = {"train": "Aurora", "platform": 7}


async def play(stage: Stage) -> None:
    """Two versions, a label that moves, and a variable that is missing."""
    client, programme = stage.client, stage.programme
    programme.act("A prompt with versions")
    train = VariableDeclaration(name="train", type=VARIABLE_TYPE_STRING, required=True)
    platform = VariableDeclaration(name="platform", type=VARIABLE_TYPE_INTEGER, required=True)
    first = pb.Prompt(template="{{ train }} leaves from {{ platform }}.", variables=[train, platform])
    await client.prompts.create(NAME, first, labels=[LABEL], message="short")
    text = "Please note: {{ train }} leaves from platform {{ platform }}."
    second = pb.Prompt(name=f"prompts/{NAME}", template=text, message="polite")
    changed = await client.prompts.update(second)
    before = await client.prompts.render(NAME, VARIABLES, label=LABEL)
    await client.prompts.label(NAME, LABEL, changed.latest_version)
    after = await client.prompts.render(NAME, VARIABLES, label=LABEL)
    moved = (before.text, after.text) == (
        "Aurora leaves from 7.",
        "Please note: Aurora leaves from platform 7.",
    )
    programme.check("Prompt", "a label that moved is seen by the next render", moved, f"“{after.text}”")
    lacking: list[str] = []
    try:
        answer = f"it was filled in: “{(await client.prompts.render(NAME, {'train': 'Aurora'}, label=LABEL)).text}”"
    except InvalidArgument as error:
        lacking = [violation.subject for violation in error.violations]
        answer = ", ".join(lacking)
    programme.check("Prompt", "what a template lacks is named", lacking == ["variables.platform"], answer)

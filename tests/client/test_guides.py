"""What the commands of guides answer; tests/docs runs all of them."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.client.cli.program import Program
from tests.fixtures.server import RunningServer

ROOT = Path(__file__).parents[2]
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guides" / "python-client.md"


async def test_the_first_task_of_the_guide_works_as_it_stands(server: RunningServer, tmp_path: Path) -> None:
    guide = GUIDE.with_name("tasks.md").read_text()
    block = guide.partition("## The first one")[2].partition("```\n")[2].partition("```")[0]
    commands = [shlex.split(line)[1:] for line in block.splitlines()]
    report = commands[2].index("sums.pdf")
    commands[2][report] = str(tmp_path / "sums.pdf")
    results = await Program(tmp_path, server.target, server.admin_key).many(commands)
    assert [result.code for result in results] == [0] * 5, results
    assert results[1].out == "math.evaluate says: 42\n"
    assert results[2].out == "math.evaluate says: 1024\n"
    assert (tmp_path / "sums.pdf").read_bytes().startswith(b"%PDF")
    assert "07:30:00" in results[4].out


async def test_the_file_of_the_guide_makes_a_task(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "nightly.yaml"
    file.write_text(GUIDE.with_name("tasks.md").read_text().partition("```yaml\n")[2].partition("```")[0])
    helper = ("agents", "create", "helper", "--model", "demo")
    made = await Program(tmp_path, server.target, server.admin_key).many(
        [helper, ("tasks", "create", "--file", str(file)), ("tasks", "run", "nightly", "--watch")]
    )
    assert [result.code for result in made] == [0] * 3, made


async def test_the_commands_of_the_guide_of_prompts_work_as_they_stand(server: RunningServer, tmp_path: Path) -> None:
    guide = GUIDE.with_name("prompts.md").read_text()
    blocks = re.findall(r"^```\n(stationmaster.*?)^```", guide, re.DOTALL | re.MULTILINE)
    commands = [shlex.split(line)[1:] for block in blocks for line in block.splitlines()]
    question = ["prompts", "create", "question", "-t", "/say {{ topic }}"]
    stationmaster = Program(tmp_path, server.target, server.admin_key)
    results = await stationmaster.many([question, *commands, ["tasks", "run", "hello", "--watch", "-v", "topic=3"]])
    assert [result.code for result in results] == [0] * len(results), results
    assert results[2].out == "Hello Ada.\n"
    assert results[5].out == "Dear Ada,\n"
    assert "production of prompts/greeting points to version 2" in results[6].out
    rules = tmp_path / "rules.yaml"
    rules.write_text(guide.partition("```yaml\n")[2].partition("```")[0].replace("id: greeting", "id: ruled"))
    wrong = await stationmaster("prompts", "create", "--file", str(rules))
    assert "prompt.rules[1].version: there is no version" in wrong.err  # of a prompt that has one only

"""A task of each kind from the command line, with its reports opened; and faults that are told by their place."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.client.cli.program import Program
from tests.fixtures.server import running, server_settings
from tests.tasks.crawl.site import Site, page, response, serving
from tests.tasks.reports.test_formats import text_of_html, text_of_pdf


@pytest_asyncio.fixture
async def site() -> AsyncIterator[Site]:
    """Two pages to crawl, and a receiver of webhooks."""
    pages = {
        "/": page("Trains", ["/trams"]),
        "/trams": page("Trams"),
        "/hook": response(b"received", kind="text/plain"),
    }
    async with serving(Site(dict(pages))) as site:
        yield site


@pytest_asyncio.fixture
async def stationmaster(database_url: str, tmp_path: Path) -> AsyncIterator[Program]:
    """The command line, of a server that may reach loopback."""
    settings = server_settings(
        tmp_path / "server", database_url, outbound={"allow": ["127.0.0.1"]}, crawl={"min_rate_limit": "0s"}
    )
    async with running(settings) as server:
        yield Program(tmp_path, server.target, server.admin_key)


KINDS: dict[str, tuple[list[str], list[str]]] = {
    "prompt": (["model=demo", "prompt=what is {{ sum }}", "tools[]=math.*"], ["what is 6*7", "math.evaluate", "42"]),
    "crawl": (["start_urls[]=SITE/", "rate_limit_seconds:=0"], ["SITE/trams", "Trams"]),
    "process": (["text=# Zoo\n\nPenguins eat fish.", "source=handbook"], ["handbook", "Documents"]),
    "webhook": (["url=SITE/hook", "body=hello"], ["SITE/hook", "received"]),
    "export": (["what[]=sessions"], ["sessions.jsonl", "Files"]),
    "cleanup": (["targets[]=executions", "older_than_days:=30", "dry_run:=true"], ["dry_run", "executions"]),
}


@pytest.mark.parametrize("kind", KINDS)
async def test_a_task_of_each_kind_runs_and_its_reports_tell_of_it(
    stationmaster: Program, site: Site, tmp_path: Path, kind: str
) -> None:
    here = f"http://127.0.0.1:{site.port}"
    payload, told = ([text.replace("SITE", here) for text in texts] for texts in KINDS[kind])
    variables = ("-v", "sum=6*7") if kind == "prompt" else ()
    given = [part for one in payload for part in ("-p", one)]
    created = await stationmaster("tasks", "create", "mine", "--kind", kind, *given, *variables)
    assert (created.code, created.err) == (0, "")
    files = [tmp_path / f"report.{suffix}" for suffix in ("json", "md", "html", "pdf")]
    wanted = [part for file in files for part in ("--report", str(file))]
    run = await stationmaster("tasks", "run", "mine", "--watch", *wanted)
    assert run.code == 0, run.err
    assert "succeeded" in run.err
    data, markdown, html, pdf = (file.read_bytes() for file in files)
    assert (json.loads(data)["kind"], json.loads(data)["state"]) == (kind, "SUCCEEDED")
    # Long words are broken where lines end: spaces do not count.
    for text in (data.decode(), markdown.decode().replace("\\", ""), text_of_html(html), text_of_pdf(pdf)):
        written = "".join(text.split()).replace("\u200b", "")
        assert [words for words in told if "".join(words.split()) not in written] == []


PROMPT = ("-k", "prompt", "-p", "model=demo")


@pytest.mark.parametrize(
    ("command", "places"),
    [
        (("tasks", "create", "bad", *PROMPT, "-p", "prompt=hi", "--cron", "61 7 * * *"), ["cron", "minute", "61"]),
        (("tasks", "create", "bad", *PROMPT, "-p", "prompt=hi {{ name"), ["task.payload.prompt", "line 1"]),
        (
            ("tasks", "create", "bad", *PROMPT, "-p", "prompt=hi {{ nam }}", "-v", "name=x"),
            ["task.payload.prompt", "nam"],
        ),
        (("tasks", "run", "good", "-v", "other=1"), ["variables.other"]),
        (("tasks", "create", "bad", *PROMPT, "-p", "prompt=hi", "-p", "colour=red"), ["task.payload.colour"]),
        (("executions", "submit", *PROMPT, "-p", "prompt:=17"), ["execution.payload.prompt"]),
        (("tasks", "depend", "good", "third"), ["tasks/good -> tasks/third -> tasks/second -> tasks/good"]),
    ],
    ids=["cron", "template", "variable of a template", "variables", "payload", "payload of an execution", "cycle"],
)
async def test_what_is_wrong_is_told_by_its_place(
    stationmaster: Program, command: tuple[str, ...], places: list[str]
) -> None:
    for name in ("good", "second", "third"):
        made = await stationmaster("tasks", "create", name, *PROMPT, "-p", "prompt=hi {{ name }}", "-v", "name=x")
        assert made.code == 0, made.err
    for edge in (("second", "good"), ("third", "second")):
        assert (await stationmaster("tasks", "depend", *edge)).code == 0
    refused = await stationmaster(*command)
    assert refused.code not in (0, 1)
    assert [place for place in places if place not in " ".join(refused.err.split())] == []

"""What each text takes for granted, and what of it cannot be here as it stands there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.commands import ROOT
from tests.docs.stage import First, Setting

_HELPER = "stationmaster agents create helper --model demo --tool 'files.*' --tool 'math.*'"
_ORDERLY = Path(__file__).parents[1] / "mcp" / "orderly.py"
MCP = ("--command", sys.executable, "--argument=-I", "--argument=-S", f"--argument={_ORDERLY}")
_MCP = " ".join(MCP)
_MCP_VALUES = {
    "--url https://docs.example.com/mcp --header-file docs.headers": _MCP,
    "--url https://docs.example.com/mcp --header Authorization=DOCS_TOKEN": _MCP,
    "--url https://docs.example.com/mcp --credential 'Authorization=Bearer {credentials/docs}'": _MCP,
    "--command /usr/local/bin/git-mcp --argument=--readonly": _MCP,
    "--command /usr/local/bin/git-mcp": _MCP,
    'search \'{"text": "platform 4"}\'': 'add \'{"a": 4, "b": 4}\'',
}
_TYPED_TWICE = ("(not shown): ", "a secret of ours", "again: ", "a secret of ours")
_TASK = "stationmaster tasks create {} -k prompt -p model=demo -p prompt='what is 6*7' -p 'tools[]=math.*'"
_ASKING = "stationmaster agents create asking --model demo --tool 'files.*' --ask files.write"
_ASKED = "stationmaster chat -a asking -m 'write hello to {}.txt'; test $? -eq 5"  # a permission is needed
_SIGNING = ("not shown): ", "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=")
_AGENT = """
id = "from-file"
[spec]
model = "demo"
tools = ["files.*", "math.evaluate"]
mcp_servers = ["board"]
tool_policies = [{ pattern = "files.write", effect = "ask" }]
"""
_TASK_FILE = '{"id": "from-file", "kind": "prompt", "payload": {"model": "demo", "prompt": "what is 6*7"}}'
_FAILS = "stationmaster executions submit -k prompt -p model=demo -p 'prompt=/fail auth' --attempts 1 --watch || true"

SETTINGS: dict[str, Setting] = {
    "README.md": Setting(
        typed={"stationmaster credentials create openai": _TYPED_TWICE},
        codes={"stationmaster chat -a helper": 5},  # it says how to answer
        values={
            'DATA=…; KEY=$(cat "$DATA/admin.key")': "KEY=$STATIONMASTER_API_KEY",
            "http://127.0.0.1:50151": "http://$STATIONMASTER_TARGET",
            "sessions/…": First("stationmaster sessions list -f 'state = ACTIVE'"),
        },
        endless=("stationmaster sessions watch", "stationmaster audit tail", "stationmaster queue --watch"),
    ),
    "approvals.md": Setting(
        before=(_ASKING, *[_ASKED.format(name) for name in "abcd"]),
        values={"0054279b3327": First("stationmaster permissions list")},
        typed={"stationmaster organizations webhook": _SIGNING},
    ),
    "archives.md": Setting(before=(_HELPER,), files={"notes.txt": "hello"}),
    "audit.md": Setting(
        before=(_HELPER, "stationmaster users create Ann --email ann@example.com"),
        endless=("stationmaster audit tail",),
    ),
    "background-services.md": Setting(
        before=(_TASK.format("nightly"),),
        values={"task-graph-store-sync": "task-graph-sync"},  # the stores are optional
    ),
    "command-line.md": Setting(
        before=(
            f"stationmaster mcp-servers add board {_MCP}",
            *[_TASK.format(task) for task in ("nightly", "summary")],
            "stationmaster tasks update nightly --cron '30 7 * * MON-FRI'",
            "stationmaster tasks run nightly --watch --report first.html",
            "stationmaster audit key > log.key",
            "stationmaster audit export -o trail.bundle",
        ),
        values={
            **_MCP_VALUES,
            "board.departures": "board.add",
            "SESSION": First("stationmaster sessions list --all -f 'state = TERMINATED'"),
            "webhook https://…": "webhook https://hooks.example.com/p",
            "organizations/…": First("stationmaster organizations list"),
        },
        typed={
            "stationmaster organizations webhook": _SIGNING,
            "stationmaster credentials create db": _TYPED_TWICE,
            "stationmaster credentials rotate db": _TYPED_TWICE,
        },
        endless=("stationmaster sessions watch", "stationmaster queue --watch", "stationmaster audit tail"),
        environment={"APP_TOKEN": "x", "DOCS_TOKEN": "x", "GIT_TOKEN": "x"},
        files={"letter.txt": "what is 6*7", "helper.toml": _AGENT, "nightly.yaml": _TASK_FILE},
    ),
    "credentials.md": Setting(
        before=tuple(
            f"printf x | stationmaster credentials create {name} --value-file -" for name in ("docs", "git", "openai")
        ),
        values=_MCP_VALUES,
        typed={
            "stationmaster credentials create db": _TYPED_TWICE,
            "stationmaster credentials rotate db$": _TYPED_TWICE,
            "stationmaster credentials rotate db --step begin": _TYPED_TWICE,
        },
        endless=("stationmaster audit tail",),
    ),
    "deployment.md": Setting(
        before=(f"ln -s {ROOT}/deploy deploy; mkdir -p root/etc/systemd/system root/usr/lib/sysusers.d",),
        values={" /etc": " root/etc", " /usr/lib": " root/usr/lib"},
    ),
    "experiments.md": Setting(
        before=(
            "stationmaster prompts create greeting -t 'Hello {{ name }}.' -l production",
            "stationmaster prompts update greeting -t 'Dear {{ name }},'",
        ),
        values={"EXPERIMENT": First("stationmaster experiments list")},
    ),
    "files.md": Setting(before=(_HELPER,), files={"notes.txt": "hello"}),
    "identity.md": Setting(
        before=("stationmaster keys create ci-2026 --scope 'sessions.*'",),
        values={"91be04": First("stationmaster keys list -f 'display_name = \"ci-2026\"'")},
    ),
    "mcp-server.md": Setting(
        endless=("stationmaster mcp --http$",),
        values={"mcp --http$": "mcp --http --port 0"},  # the port of the guide may be somebody else's here
    ),
    "mcp.md": Setting(values=_MCP_VALUES, environment={"GIT_TOKEN": "x"}),
    "prompts.md": Setting(before=("stationmaster prompts create question -t '/say {{ topic }}'",)),
    "reports.md": Setting(
        before=(_TASK.format("sums"), "stationmaster tasks run sums --watch --report sums.html"),
        values={
            "executions/…": First("stationmaster executions list"),
            "3f2a91": First("stationmaster reports list"),
            "| less": "| cat",
        },
    ),
    "sessions.md": Setting(endless=("stationmaster sessions watch",)),
    "tasks.md": Setting(
        before=(
            *[_TASK.format(task) for task in ("nightly", "collect", "weather", "summary")],
            "stationmaster tasks update nightly --cron '30 7 * * MON-FRI'",
            _FAILS,
        ),
        endless=("stationmaster queue --watch",),
        values={
            "3f2a91 --after 120": First("stationmaster executions list", more=" --after 1"),
            "3f2a91": First("stationmaster executions list"),
            "retry -$": First("stationmaster executions list -f 'state = FAILED'", before="retry "),
        },
    ),
}

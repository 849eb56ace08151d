"""The commands that a text shows, line by line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
_NOT_RUN = re.compile(r"^ *<!-- not run: (.+?) \| (.+) -->$", re.MULTILINE)
_LANGUAGES = {"", "console", "sh", "bash", "shell"}
PROGRAMS = (
    *("stationmaster", "stationmaster-server", ".venv/bin/stationmaster", "make", "git", "pip", "buf", "printf"),
    *("export", "podman", "docker", "kubectl", "systemctl", "systemd-sysusers", "psql", "install", "openssl", "curl"),
    *("python3", "/opt/stationmaster/bin/pip", "/opt/stationmaster/bin/uv"),
    *("deploy/backup/backup.sh", "deploy/backup/restore.sh", "STATIONMASTER_DB_PASSWORD=…"),
)
_ASSIGNMENT = re.compile(r"""^[A-Za-z_]+=("[^"]*"|\S*|\$\(.*\))$""")


@dataclass(frozen=True, slots=True)
class Command:
    """A command as somebody who reads the text would paste it, without its comment."""

    text: str
    line: int

    @property
    def is_plain(self) -> bool:
        """Whether no shell is needed: one program with its arguments."""
        words = shlex.split(self.text)
        quoted = re.sub(r"'[^']*'|\"[^\"$]*\"", "", self.text)
        return words[0].startswith("stationmaster") and not re.search(r"[|<>$;&*?`]", quoted)


def commands_of(file: Path) -> list[Command]:
    """The commands of its blocks, in their order."""
    text = file.read_text()
    found = []
    for block in _BLOCK.finditer(text):
        if block[2] in _LANGUAGES and shows_commands(block[3]):
            found += _commands(block[3], text[: block.start(3)].count("\n") + 1)
    return found


def not_run_in(file: Path) -> dict[str, str]:
    """Beginnings of the commands that a text marks as those that no test of guides can run, with the reason.

    `<!-- not run: stationmaster permissions watch | at a terminal -->`; with a `$` at its end the whole command.
    """
    return {found[1]: found[2] for found in _NOT_RUN.finditer(file.read_text())}


def shows_commands(block: str) -> bool:
    """Whether a block without a language is commands: its first line is one."""
    first = without_comment(block.strip().partition("\n")[0].removeprefix("$ "))
    return bool(_ASSIGNMENT.match(first)) or (first.split(maxsplit=1)[:1] != [] and first.split()[0] in PROGRAMS)


def _commands(block: str, first_line: int) -> list[Command]:
    found: list[Command] = []
    begun, begun_at, variables = "", 0, ""
    for number, line in enumerate(block.splitlines(), first_line):
        text = without_comment(line.strip().removeprefix("$ "))
        if not text:
            continue
        begun, begun_at = (f"{begun} {text}", begun_at) if begun else (text, number)
        if begun.endswith("\\"):
            begun = begun[:-1].rstrip()
            continue
        if _ASSIGNMENT.match(begun):  # for the commands that follow
            variables += f"{begun}; "
        else:
            found.append(Command(variables + begun, begun_at))
        begun = ""
    return found


def without_comment(line: str) -> str:
    """The line up to a `#` that begins a word outside quotes."""
    quote = ""
    for place, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (place == 0 or line[place - 1].isspace()):
            return line[:place].rstrip()
    return line.rstrip()

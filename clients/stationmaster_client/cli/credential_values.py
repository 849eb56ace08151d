"""Where a secret comes from: a hidden prompt, standard input or a file, never an argument, which others can see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from stationmaster_client.cli.command import Run
from stationmaster_client.cli.errors import CommandError
from stationmaster_client.cli.options import piped, text_of
from stationmaster_client.cli.terminal import Left, ask_secret

_HELP = (
    "A file with the secret; - is standard input. Without it the secret is asked for. One newline at its end is cut."
)
ValueFile = Annotated[str, typer.Option("--value-file", metavar="FILE", help=_HELP)]
Setting = Annotated[
    str, typer.Option("--setting", metavar="JSON", help="A setting, which is no secret: shown and stored as it is.")
]
Expires = Annotated[str, typer.Option("--expires", metavar="TIME", help="Until when, such as 2026-12-31 or +90d.")]
Grace = Annotated[
    str, typer.Option("--grace", metavar="SPAN", help="How long the replaced value stays readable, such as 2h.")
]


_EMPTY = "the secret is empty, and nothing was stored; `create ID --empty` makes a credential without a value for now"


def read_secret(run: Run, file: str) -> str:
    """The secret from a file, standard input or the terminal."""
    if file:
        return _trimmed(piped() if file == "-" else text_of(Path(file)))
    if not run.out.interactive:
        raise CommandError(
            "there is no terminal to ask for the secret at: use --value-file FILE, or - for standard input"
        )
    try:
        first = ask_secret("secret (not shown): ")
        if not first:
            raise CommandError(_EMPTY)
        if first != ask_secret("again: "):
            raise CommandError("the two differ")
    except Left:
        raise KeyboardInterrupt from None
    return first


def read_setting(text: str) -> Any:
    """The JSON value of a setting."""
    try:
        return json.loads(text)
    except ValueError:
        raise CommandError(f"--setting: {text!r} is no JSON; a text is written '\"text\"'") from None


def content(run: Run, file: str, setting: str, *, without: str = "") -> dict[str, Any]:
    """The arguments of a call that takes a value; `without`: the option that says there is none for now."""
    if setting and file:
        raise CommandError("--setting and --value-file exclude each other")
    if without:
        if given := "--value-file" if file else "--setting" if setting else "":
            text = f"{without} is for a credential without a value: leave {given} out, or leave {without} out"
            raise CommandError(f"{text}; `stationmaster credentials add-version` gives it a value later")
        return {}
    return {"setting": read_setting(setting)} if setting else {"value": read_secret(run, file)}


def _trimmed(text: str) -> str:
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise CommandError(_EMPTY)
    return secret

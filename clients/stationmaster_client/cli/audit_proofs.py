"""stationmaster audit: checkpoints, keys, exports, and their verification without a server."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stationmaster_client.cli.command import Run, command
from stationmaster_client.cli.download import free
from stationmaster_client.cli.errors import CommandError, ExitCode
from stationmaster_client.cli.output import Output, moment

if TYPE_CHECKING:
    from stationmaster_client.transparency import Checkpoint, Verified, VerifierKey

Cosigned = Annotated[bool, typer.Option("--cosigned", help="The newest that witnesses cosigned, not the newest.")]
Target = Annotated[str, typer.Option("--output", "-o", metavar="FILE", help="The file to write; - is standard output.")]
_FORMATS = {"jsonl": "JSON_LINES", "csv": "CSV", "bundle": "BUNDLE"}


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    command(app, "export")(export)
    command(app, "checkpoint")(checkpoint)
    command(app, "key")(key)
    app.command("verify", context_settings={"help_option_names": ["-h", "--help"]})(verify)


async def export(
    run: Run,
    form: Annotated[str, typer.Option("--format", metavar="FORMAT", help="bundle, jsonl or csv.")] = "bundle",
    output: Target = "-",
    condition: Annotated[
        str, typer.Option("--filter", "-f", metavar="EXPRESSION", help="Only what matches; not for bundles.")
    ] = "",
    after: Annotated[int, typer.Option("--after", min=0, help="Only events after this sequence.")] = 0,
    cosigned: Annotated[bool, typer.Option("--cosigned", help="Up to the newest cosigned checkpoint.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Export the trail: a bundle to verify, JSON lines or CSV to work with."""
    from contextlib import aclosing

    from stationmaster.v1 import audit_pb2

    if form not in _FORMATS:
        raise CommandError(f"--format: {form!r} is none of {', '.join(_FORMATS)}")
    chosen = audit_pb2.AuditExportFormat.Value(f"AUDIT_EXPORT_FORMAT_{_FORMATS[form]}")
    lines = run.client.audit.export(chosen, condition=condition, after=after, cosigned=cosigned)
    if output == "-":
        async with aclosing(lines):
            async for line in lines:
                sys.stdout.buffer.write(line.encode())
        sys.stdout.buffer.flush()
        return
    target = free(output, force=force)
    aside = target.with_name(f".{target.name}.part")
    count = 0
    try:
        with aside.open("wb") as file:
            async with aclosing(lines):
                async for line in lines:
                    file.write(line.encode())
                    count += 1
        aside.replace(target)
    except OSError as error:
        raise CommandError(f"{target} cannot be written: {error.strerror}") from None
    finally:
        aside.unlink(missing_ok=True)
    run.out.note(f"{target}: {count} lines")


async def checkpoint(run: Run, cosigned: Cosigned = False) -> None:
    """Print the newest signed checkpoint: keep it where the server cannot write."""
    found = await run.client.audit.checkpoint(cosigned=cosigned)
    if run.out.as_json:
        run.out.json(found)
    else:
        sys.stdout.write(found.note)
        signed = f", signed {moment(found.sign_time)}" if found.HasField("sign_time") else ""
        run.out.note(f"{found.size} events{signed}")


async def key(run: Run) -> None:
    """Print the keys that checkpoints are verified with, the one that signs first."""
    found = await run.client.audit.checkpoint()
    if run.out.as_json:
        run.out.json(found)
        return
    for each in found.keys:
        sys.stdout.write(f"{each.verifier_key}\n")
        if each.HasField("retire_time"):
            run.out.note(f"  it signed until {moment(each.retire_time)}")


def verify(
    bundle: Annotated[str, typer.Argument(help="The bundle's file; - is standard input.", metavar="BUNDLE")],
    keys: Annotated[
        list[str], typer.Option("--key", "-k", metavar="KEY", help="The log's key, or a file of keys. May be repeated.")
    ],
    witnesses: Annotated[
        list[str] | None, typer.Option("--witness", "-w", metavar="KEY", help="A witness that has to have cosigned.")
    ] = None,
    previous: Annotated[
        str, typer.Option("--previous", "-p", metavar="FILE", help="A checkpoint that was kept from before.")
    ] = "",
    deleted_until: Annotated[
        str, typer.Option("--deleted-until", metavar="TIME", help="What is older may be deleted, such as 2026-01-31.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
) -> None:
    """Verify an exported bundle with the public key alone: no server is asked. Exit code 1: it does not verify."""
    out = Output(as_json=as_json)
    try:
        trusted, cosigners = _log_keys(keys), _witness_keys(witnesses or [])
        before = _previous(previous, [*trusted, *cosigners]) if previous else None
        verified = _verify(bundle, [*trusted, *cosigners], before, _time(deleted_until))
        _require(cosigners, verified.checkpoint)
    except ImportError as error:
        out.error([f"{error.name} is not installed. Install: pip install 'stationmaster[audit]'"])
        raise typer.Exit(ExitCode.USAGE) from None
    except CommandError as error:
        out.error(str(error).splitlines())
        raise typer.Exit(error.code) from None
    _tell(out, verified)


def _verify(
    bundle: str, keys: list[VerifierKey], previous: Checkpoint | None, deleted_until: datetime | None
) -> Verified:
    from stationmaster_client.transparency import Tampered, verify_bundle

    try:
        with sys.stdin.buffer if bundle == "-" else Path(bundle).open("rb") as file:
            return verify_bundle(file, keys, previous, deleted_until=deleted_until)
    except Tampered as error:
        raise CommandError(f"the bundle does not verify: {error}", ExitCode.UNEXPECTED) from None
    except OSError as error:
        raise CommandError(f"{bundle} cannot be read: {error.strerror}") from None


def _log_keys(texts: list[str]) -> list[VerifierKey]:
    keys = [key for text in texts for key in _keys(text, "--key")]
    # Their file came from the server: it must not bring its own witnesses.
    for key in keys:
        if key.is_witness:
            raise CommandError(f"--key: {key.name} is a witness's key: give it with --witness, if you trust it")
    return keys


def _witness_keys(texts: list[str]) -> list[VerifierKey]:
    keys = [key for text in texts for key in _keys(text, "--witness")]
    for key in keys:
        if not key.is_witness:
            raise CommandError(f"--witness: {key.name} is a log's key, not a witness's (type cosignature/v1)")
    return keys


def _keys(text: str, option: str) -> list[VerifierKey]:
    """The key of a text, or those of a file: at least one."""
    from stationmaster_client.transparency import NoteError, VerifierKey

    file = Path(text)
    lines = _text(file).splitlines() if "+" not in text or file.is_file() else [text]
    try:
        found = [VerifierKey.parse(line) for line in lines if line.strip()]
    except NoteError as error:
        raise CommandError(f"{option}: {error}") from None
    if not found:
        raise CommandError(f"{option}: there is no key in {text!r}")
    return found


def _previous(file: str, keys: list[VerifierKey]) -> Checkpoint:
    from stationmaster_client.transparency import NoteError, open_checkpoint

    try:
        return open_checkpoint(_text(Path(file)), keys)
    except NoteError as error:
        raise CommandError(f"the checkpoint in {file} does not verify: {error}", ExitCode.UNEXPECTED) from None


def _text(file: Path) -> str:
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise CommandError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandError(f"{file} is no text") from None


def _time(text: str) -> datetime | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise CommandError(
            f"--deleted-until: {text!r} is no time, such as 2026-01-31 or 2026-01-31T12:00+01:00"
        ) from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _require(witnesses: list[VerifierKey], checkpoint: Checkpoint) -> None:
    signed = {each.key for each in checkpoint.signatures}
    lacking = [key.name for key in witnesses if key not in signed]
    if lacking:
        raise CommandError(f"no cosignature by {', '.join(lacking)}", ExitCode.UNEXPECTED)


def _tell(out: Output, verified: Verified) -> None:
    checkpoint = verified.checkpoint
    cosigned = [f"{each.name} at {each.time:%Y-%m-%d %H:%M:%S}Z" for each in checkpoint.signatures if each.time]
    if out.as_json:
        import json

        shown = {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "rootHash": checkpoint.root.hex(),
            "events": verified.events,
            "after": verified.after,
            "deleted": verified.deleted,
            "previousSize": verified.previous.size if verified.previous else None,
            "cosigned": cosigned,
            "unchecked": list(checkpoint.unknown),
        }
        sys.stdout.write(json.dumps(shown, indent=2) + "\n")
        return
    out.details(
        [
            ("verified", f"events {verified.after + 1} to {checkpoint.size}: nothing was changed, left out or put in"),
            ("log", checkpoint.origin),
            ("root", checkpoint.root.hex()),
            ("deleted", f"{verified.deleted} by retention; their places are kept" if verified.deleted else ""),
            ("goes on from", f"the checkpoint of {verified.previous.size} events" if verified.previous else ""),
            ("cosigned by", ", ".join(cosigned)),
            ("not checked", f"signatures by {', '.join(checkpoint.unknown)}" if checkpoint.unknown else ""),
        ]
    )
    if verified.previous is None and not cosigned:
        out.note(
            "Who holds the signing key could have signed another trail: compare with a checkpoint that you kept"
            " (--previous), or that a witness cosigned (--witness)."
        )

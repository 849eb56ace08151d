"""Write docs/guides/settings.md from the settings themselves; `--check` fails when it differs."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stationmaster_server.config.profiles import PROFILES

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "server/stationmaster_server/config"
TARGET = ROOT / "docs/guides/settings.md"
INTRODUCTION = """# Settings

Made by `make generate` from `config/`; do not edit.

A setting comes from the environment, else from the TOML file that `--config` or `STATIONMASTER_CONFIG` names, else
from the profile, else it has its default. `database.pool_size` is `STATIONMASTER_DATABASE__POOL_SIZE` in the
environment and in the file

```toml
[database]
pool_size = 20
```

`stationmaster-server config show` prints what is in effect and where each setting comes from, `config check` what is
wrong. Durations are written `500ms`, `15s`, `10m`, `2h`; yes and no `true` and `false`; sizes in bytes. In the
environment a list is written `a,b`, or as JSON, as groups are. An unknown or impossible setting stops the start and
names itself.

The environment may also hold `DATABASE_URL` (`database.url`), `ANTHROPIC_API_KEY`, `ANTHROPIC_BASE_URL`,
`OPENAI_API_KEY` and `OPENAI_BASE_URL` (`models.anthropic.api_key` and so on), `CRAWLER_RATE_LIMIT` and
`CRAWLER_TIMEOUT` (`crawl.rate_limit` and `crawl.timeout`), and what AWS calls `AWS_REGION`, `AWS_ACCESS_KEY_ID`,
`AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` (it wins) or `…_FULL_URI`,
`AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` or `AWS_CONTAINER_AUTHORIZATION_TOKEN` (`credentials.kms_…`); a name with
`STATIONMASTER_` wins over them. The data
folder is `STATIONMASTER_DATA_FOLDER`.
"""


def main() -> int:
    """Write the guide, or compare it."""
    modules = [ast.parse(path.read_text()) for path in sorted(SOURCES.glob("*.py"))]
    text = INTRODUCTION + "".join(sections(modules)) + "".join(profiles())
    if "--check" in sys.argv:
        if not TARGET.exists() or TARGET.read_text() != text:
            print("docs/guides/settings.md is not what the settings say: run make generate", file=sys.stderr)
            return 1
        return 0
    TARGET.write_text(text)
    return 0


def sections(modules: Iterable[ast.Module]) -> Iterator[str]:
    """A section for each group of settings, those of the root first."""
    groups = {node.name: node for module in modules for node in module.body if isinstance(node, ast.ClassDef)}
    yield from section(groups, groups["Settings"], "")


def profiles() -> Iterator[str]:
    """What each profile sets."""
    yield "\n## Profiles\n\nWhat each profile sets in place of the defaults; `development` sets nothing.\n"
    yield "\n| profile | setting | value |\n| --- | --- | --- |\n"
    for profile, groups in PROFILES.items():
        for name, value in _leaves(groups):
            yield f"| `{profile}` | `{name}` | {_shown(repr(value))} |\n"
    yield "\n`production` also refuses to start without `database.url`.\n"


def _leaves(groups: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in groups.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def section(groups: dict[str, ast.ClassDef], group: ast.ClassDef, prefix: str) -> Iterator[str]:
    """The table of one group, then its groups."""
    rows, inner = [], []
    for field, description in fields(group):
        name = str(ast.unparse(field.target))
        kind = ast.unparse(field.annotation)
        if kind in groups and not _is_enum(groups[kind]):
            inner.append((groups[kind], f"{prefix}{name}."))
        else:
            rows.append(f"| `{prefix}{name}` | {_default(field)} | {description} |\n")
    title = f"`{prefix[:-1]}`" if prefix else "General"
    about = (ast.get_docstring(group) or "").splitlines()[0]
    if rows:
        yield f"\n## {title}\n\n{about}\n\n| setting | default | meaning |\n| --- | --- | --- |\n" + "".join(rows)
    for node, deeper in inner:
        yield from section(groups, node, deeper)


def fields(group: ast.ClassDef) -> Iterator[tuple[ast.AnnAssign, str]]:
    """Each field with the docstring that follows it."""
    for field, after in zip(group.body, [*group.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            text = str(after.value.value) if documented else ""  # type: ignore[union-attr]
            yield field, " ".join(text.split()).replace("|", "\\|")


def _default(field: ast.AnnAssign) -> str:
    if field.value is None:
        return "required"
    text = ast.unparse(field.value)
    if text in ("None", "{}", "()", "timedelta()", "Field(default_factory=dict)"):
        return "none" if text != "timedelta()" else "0"
    if text.startswith("Decimal("):
        return f"`{text.removeprefix('Decimal(').rstrip(')')}`"
    if text.startswith("timedelta("):
        unit, _, amount = text.removeprefix("timedelta(").rstrip(")").partition("=")
        return f"`{amount} {unit}`" if amount else f"`{text}`"
    if text.startswith("Field("):
        return "computed"
    if member := re.fullmatch(r"[A-Z][A-Za-z]+\.([A-Z_0-9]+)", text):  # values are as their members are called
        return f"`{member[1].lower()}`"
    return _shown(text)


def _shown(value: str) -> str:
    if value.startswith("("):
        return ", ".join(f"`{part}`" for part in ast.literal_eval(value)) or "none"
    if value in ("True", "False"):
        return "yes" if value == "True" else "no"
    if value.endswith(" * 1024 * 1024"):
        return f"{value.partition(' ')[0]} MiB"
    return f"`{value.strip(chr(39))}`"


def _is_enum(group: ast.ClassDef) -> bool:
    return any("Enum" in ast.unparse(base) for base in group.bases)


if __name__ == "__main__":
    sys.exit(main())

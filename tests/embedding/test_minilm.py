"""What the encoder with the real model promises."""

from __future__ import annotations

import asyncio
import math
import os
import shutil
from datetime import timedelta
from pathlib import Path

import pytest
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.embedding.embedder import LocalEmbedder
from stationmaster_server.embedding.encoder import DIMENSIONS, Encoder
from stationmaster_server.embedding.minilm import MAX_TOKENS, MiniLmEncoder
from stationmaster_server.embedding.model_files import ModelFilesError
from stationmaster_server.errors import FailedPrecondition
from stationmaster_server.resilience.pools import Pools

from tests.embedding.model import model_folder
from tests.embedding.reference import reference_vector

PUBLISHED = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
"""With these similarities: https://sbert.net/docs/quickstart.html"""


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return MiniLmEncoder(model_folder())


def similarity(encoder: Encoder, left: str, right: str) -> float:
    one, other = encoder.encode([left, right])
    return dot(one, other)


def dot(one: list[float], other: list[float]) -> float:
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("text", ["Crème brûlée, unbelievably good!", PUBLISHED[1], "x", "backups of databases"])
def test_vectors_are_those_of_a_plain_computation(encoder: Encoder, text: str) -> None:
    (vector,) = encoder.encode([text])
    assert vector == pytest.approx(reference_vector(model_folder(), text), abs=2e-6)


def test_similarities_are_those_that_were_published(encoder: Encoder) -> None:
    vectors = encoder.encode(PUBLISHED)
    pairs = [(0, 1), (0, 2), (1, 2)]
    assert [dot(vectors[a], vectors[b]) for a, b in pairs] == pytest.approx([0.6660, 0.1046, 0.1411], abs=5e-5)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("car", "automobile", "cartoon"),
        ("the invoice was not paid", "the customer's bill is overdue", "the voice was not loud"),
        ("users cannot sign in", "login fails since the password was reset", "users can sing along"),
    ],
)
def test_meaning_counts_and_not_spelling(encoder: Encoder, text: str, near: str, far: str) -> None:
    assert similarity(encoder, text, near) > encoder.unrelated
    assert similarity(encoder, text, near) > similarity(encoder, text, far) + 0.1


def test_what_has_nothing_to_do_with_each_other_is_unrelated(encoder: Encoder) -> None:
    assert similarity(encoder, "a recipe for apple pie", "the database is locked") < encoder.unrelated


def test_texts_together_have_the_vectors_that_each_has_alone(encoder: Encoder) -> None:
    texts = ["short", "", "a somewhat longer text about birds " * 4, "word " * 600, "!", "short"] * 3
    together = encoder.encode(texts)
    for text, vector in zip(texts[:6], together, strict=False):
        assert vector == pytest.approx(encoder.encode([text])[0], abs=2e-6)
    assert together[0] == pytest.approx(together[5], abs=2e-6)


def test_a_text_of_nothing_has_a_vector_of_nothing(encoder: Encoder) -> None:
    for vector in encoder.encode(["", "  \n\t"]):
        assert vector == [0.0] * DIMENSIONS


def test_all_others_have_length_one(encoder: Encoder) -> None:
    for vector in encoder.encode(["one", "データベースのバックアップ", "🎉" * 50, "a" * 100_000, "\0\ud800"]):
        assert len(vector) == DIMENSIONS
        assert math.hypot(*vector) == pytest.approx(1, abs=1e-5)


def test_only_the_beginning_of_a_long_text_counts(encoder: Encoder) -> None:
    beginning = "word " * (MAX_TOKENS - 2)
    one, other, less = encoder.encode([beginning, beginning + "and this is the end", beginning[:500]])
    assert one == pytest.approx(other, abs=2e-6)
    assert dot(one, less) < 0.9999


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = copied(tmp_path)
    with (folder / name).open("r+b") as file:
        file.seek(300)
        file.write(b"\x00\x01")
    with pytest.raises(ModelFilesError, match=rf"{name} is not the file.*models fetch"):
        MiniLmEncoder(folder).encode(["text"])


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ModelFilesError, match=r"tokenizer.json is missing: stationmaster-server models fetch"):
        MiniLmEncoder(folder).encode(["text"])


async def test_a_process_of_the_pool_loads_the_model_once_and_keeps_little_of_it(encoder: Encoder) -> None:
    pools = Pools(PoolSettings(processes=1))
    try:
        embedder = LocalEmbedder(encoder, pools.cpu)
        texts = [f"text number {n}" for n in range(40)]
        for vector, here in zip(await embedder.embed(texts), encoder.encode(texts), strict=True):
            assert vector == pytest.approx(here, abs=2e-6)
        first = await pools.cpu(own_memory, timeout=timedelta(seconds=10))
        await asyncio.gather(*(embedder.embed(["word " * 300] * 20) for _ in range(2)))
        pid, anonymous = await pools.cpu(own_memory, timeout=timedelta(seconds=10))
        assert pid == first[0], "the process is kept, and the model in it"
        assert anonymous < 90 * 1024**2, "the weights are mapped, not copied"
    finally:
        await pools.close(timedelta(0))


async def test_a_damaged_model_is_told_of_across_the_pool(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    (folder / "config.json").write_text("{}")
    pools = Pools(PoolSettings(processes=1))
    try:
        with pytest.raises(FailedPrecondition, match="models fetch"):
            await LocalEmbedder(MiniLmEncoder(folder), pools.cpu).embed(["text"])
    finally:
        await pools.close(timedelta(0))


def own_memory() -> tuple[int, int]:
    """The process, and the bytes of its memory that no file backs."""
    status = Path("/proc/self/status").read_text()
    return os.getpid(), int(status.partition("RssAnon:")[2].split()[0]) * 1024


def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder(), tmp_path / "model"))

"""What the encoder without a model promises."""

from __future__ import annotations

import hashlib
import math
import subprocess
import sys
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from stationmaster_server.config.pools import PoolSettings
from stationmaster_server.embedding.embedder import AT_ONCE, LocalEmbedder
from stationmaster_server.embedding.encoder import DIMENSIONS, Encoder
from stationmaster_server.embedding.hashing import HashingEncoder
from stationmaster_server.resilience.pools import Pools

ENCODER: Encoder = HashingEncoder()
TEXT = "Retries with exponential backoff. Повторы. 再試行する。 " * 3


def similarity(left: str, right: str) -> float:
    one, other = ENCODER.encode([left, right])
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def fingerprint(text: str) -> str:
    (vector,) = ENCODER.encode([text])
    return hashlib.sha256(" ".join(f"{each:.9f}" for each in vector).encode()).hexdigest()


@given(st.text(max_size=300))
def test_every_text_has_a_vector_of_length_one_or_zero(text: str) -> None:
    (vector,) = ENCODER.encode([text])
    assert len(vector) == DIMENSIONS
    length = math.sqrt(math.fsum(each * each for each in vector))
    assert length == pytest.approx(1) or not any(vector)


def test_the_vector_does_not_depend_on_the_process() -> None:
    program = f"from tests.embedding.test_hashing import fingerprint; print(fingerprint({TEXT!r}))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path), "PYTHONHASHSEED": "7"},
    )
    assert done.stdout.strip() == fingerprint(TEXT)


@pytest.mark.parametrize(
    ("text", "near", "far"),
    [
        ("back up the database every night", "nightly backups of databases", "paint the kitchen wall blue"),
        ("connection refused by the server", "the server refuses connections", "a recipe for apple cake"),
        ("Die Datensicherung läuft nachts", "Datensicherungen in der Nacht", "Rezept für einen Apfelkuchen"),
        ("резервное копирование базы данных", "резервные копии баз данных", "рецепт яблочного пирога"),
        ("数据库备份计划", "备份数据库", "苹果蛋糕食谱"),
        ("データベースのバックアップ", "バックアップするデータベース", "りんごのケーキの作り方"),
        ("authentication", "authenticate with a tokne", "watering the plants"),
    ],
)
def test_texts_that_share_words_or_parts_of_words_are_near(text: str, near: str, far: str) -> None:
    assert similarity(text, near) > similarity(text, far) + 0.1
    assert similarity(text, near) > ENCODER.unrelated


def test_case_and_unicode_form_do_not_matter() -> None:
    assert similarity("CAFÉ au lait", "cafe\u0301 AU LAIT") == pytest.approx(1)


async def test_texts_are_encoded_in_processes_in_their_order() -> None:
    pools = Pools(PoolSettings(processes=1))
    texts = [f"text number {n}" for n in range(2 * AT_ONCE + 1)]
    assert await LocalEmbedder(ENCODER, pools.cpu).embed(texts) == ENCODER.encode(texts)
    await pools.close(timedelta(0))

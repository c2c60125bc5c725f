"""RedisVL's real packages on the same cache as ours: what one writes, the other reads."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from redisvl_packages import OLD, VERSIONS, WITH_CONTENT, RedisVL, redisvl
from servers import Server

from embedcache import NEVER, EmbeddingsCache

MODEL = "a/model"
VECTOR = [0.1, -1.5, 2.0, 3e-7]
METADATA = {"category": "ai", "tags": ["a", {"b": None}], "n": 1, "ratio": 0.5, "ok": True, "ü": "世界"}
PAGE = (Path(__file__).parent.parent / "docs" / "redisvl.md").read_text()
IMAGE = b"\xff\x00\xd8 image"


@pytest.fixture(scope="module", params=VERSIONS)
def theirs(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Iterator[RedisVL]:
    """Each version's cache, with no default TTL."""
    with redisvl(request.param, start_server("valkey9").url, "c") as cache:
        yield cache


@pytest.fixture
def ours(valkey: Server) -> Iterator[EmbeddingsCache]:
    """Our cache of that name, float64 as RedisVL's numbers are."""
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", dtype="float64", stats=False) as cache:
        yield cache


def item(theirs: RedisVL, text: Any, **fields: Any) -> dict[str, Any]:
    return {theirs.text_field: text, "model_name": MODEL, "embedding": VECTOR, **fields}


def without_time(entry: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in entry.items() if name != "inserted_at"}


# ------------------------------------------------------------------------------------------------ they write, we read


def test_we_read_what_redisvl_wrote(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    key = theirs.set("What is it?", MODEL, VECTOR, METADATA)
    assert key == ours.key_for("What is it?", MODEL)
    for entry in (ours.get("What is it?", MODEL), ours.get_by_key(key), *ours.mget(["What is it?"], MODEL)):
        assert entry["embedding"].tolist() == VECTOR
        assert (entry["text"], entry["model_name"], entry["metadata"]) == ("What is it?", MODEL, METADATA)
        assert (entry["key"], entry["entry_id"], entry["ttl"]) == (key, key[-64:], None)
        assert entry["inserted_at"] == theirs.get("What is it?", MODEL)["inserted_at"]
    matrix, mask = ours.mget_embeddings(["What is it?", "nothing"], MODEL)
    assert matrix[0].tolist() == VECTOR
    assert mask.tolist() == [True, False]
    assert ours.exists("What is it?", MODEL) is True
    assert ours.exists("What is it?", "another/model") is False
    assert ours.why("What is it?", MODEL).is_hit


def test_we_read_a_batch_of_theirs(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    texts = [f"text {number}" for number in range(300)]
    keys = theirs.mset([item(theirs, text, embedding=[float(n), 0.5]) for n, text in enumerate(texts)])
    assert [entry["embedding"][0] for entry in ours.mget(texts, MODEL)] == list(range(300))
    assert [entry["text"] for entry in ours.mget_by_keys(keys)] == texts
    assert ours.mdrop(texts[:100], MODEL) == 100
    assert theirs.mexists_by_keys(keys) == [False] * 100 + [True] * 200


@pytest.mark.parametrize("text", ["Grüße, 世界 🌍", "line\nline\0nul", " padded ", "616263", "a:b"])
def test_any_text_of_theirs_is_found(theirs: RedisVL, ours: EmbeddingsCache, text: str) -> None:
    assert theirs.set(text, MODEL, VECTOR) == ours.key_for(text, MODEL)
    assert ours.get(text, MODEL)["text"] == text


@pytest.mark.parametrize("numbers", [[1, 2, 3], [0.5, 1], [1e300, 1.0], [-0.0, 5e-324]])
def test_any_numbers_of_theirs_are_read(theirs: RedisVL, ours: EmbeddingsCache, numbers: list[float]) -> None:
    theirs.set("a", MODEL, numbers)
    assert ours.get("a", MODEL)["embedding"].tolist() == numbers


def test_a_float32_cache_reads_their_numbers_rounded(theirs: RedisVL, valkey: Server, ours: EmbeddingsCache) -> None:
    del ours
    theirs.set("a", MODEL, VECTOR)
    theirs.set("too large", MODEL, [1e300])
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        assert cache.get("a", MODEL)["embedding"].tolist() == np.array(VECTOR, np.float32).tolist()
        assert cache.get("a", MODEL)["embedding"].dtype == np.float32
        assert cache.get("too large", MODEL) is None


# ------------------------------------------------------------------------------------------------ we write, they read


def test_redisvl_reads_what_we_wrote(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    key = ours.set("What is it?", MODEL, VECTOR, METADATA)
    expected = {
        "entry_id": key[-64:],
        theirs.text_field: "What is it?",
        "model_name": MODEL,
        "embedding": VECTOR,
        "metadata": METADATA,
    }
    for entry in (theirs.get("What is it?", MODEL), theirs.get_by_key(key), *theirs.mget(["What is it?"], MODEL)):
        assert without_time(entry) == expected
        assert entry["inserted_at"] == ours.get_by_key(key)["inserted_at"]
    assert theirs.exists("What is it?", MODEL) is True
    assert theirs.drop("What is it?", MODEL) is None
    assert ours.exists_by_key(key) is False


def test_redisvl_reads_a_batch_of_ours(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    texts = [f"text {number}" for number in range(1_200)]
    ours.mset([{"text": text, "model_name": MODEL, "embedding": [n, 0.5]} for n, text in enumerate(texts)], ttl=500)
    found = theirs.mget(texts, MODEL)
    assert [entry["embedding"][0] for entry in found] == list(range(1_200))
    assert all("metadata" not in entry for entry in found)


def test_redisvl_reads_the_very_numbers_of_float32(theirs: RedisVL, valkey: Server) -> None:
    vector = np.random.default_rng(3).standard_normal(384).astype(np.float32)
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        cache.set("a", MODEL, vector)
    assert theirs.get("a", MODEL)["embedding"] == vector.astype(np.float64).tolist()


def test_redisvl_reads_metadata_that_we_changed(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    key = theirs.set("a", MODEL, VECTOR, {"version": 1})
    assert ours.set_metadata(key, METADATA) is True
    assert theirs.get_by_key(key)["metadata"] == METADATA
    assert ours.set_metadata(key, None) is True
    assert "metadata" not in theirs.get_by_key(key)


# ------------------------------------------------------------------------------------------------ bytes


@pytest.fixture(params=WITH_CONTENT)
def newer(request: pytest.FixtureRequest, valkey: Server) -> Iterator[RedisVL]:
    """Each version that knows bytes."""
    with redisvl(request.param, valkey.url, "c") as cache:
        yield cache


@pytest.mark.parametrize("image", [IMAGE, b"abc"])
def test_bytes_are_found_by_both(newer: RedisVL, ours: EmbeddingsCache, image: bytes) -> None:
    key = newer.set(image, MODEL, VECTOR)
    assert key == ours.key_for(image, MODEL)
    assert ours.get(image, MODEL)["text"] == image
    assert ours.get_by_key(key)["text"] == image
    assert ours.get_by_key(key)["embedding"].tolist() == VECTOR
    newer.drop(image, MODEL)
    assert ours.mset([{"text": image, "model_name": MODEL, "embedding": [5.0]}]) == [key]
    assert newer.get(image, MODEL)["embedding"] == [5.0]


def test_bytes_and_their_digits_never_answer_for_each_other(newer: RedisVL, ours: EmbeddingsCache) -> None:
    key = newer.set(b"abc", MODEL, VECTOR)
    assert ours.key_for("616263", MODEL) == key
    assert ours.get("616263", MODEL) is None
    assert ours.exists("616263", MODEL) is False
    ours.set("616263", MODEL, [5.0])
    assert ours.get(b"abc", MODEL) is None
    assert ours.get("616263", MODEL)["embedding"].tolist() == [5]


def test_what_is_left_over_of_another_text_is_never_taken_for_the_vectors(
    newer: RedisVL, ours: EmbeddingsCache, valkey: Server
) -> None:
    ours.set("616263", MODEL, [5.0])
    newer.set(b"abc", MODEL, VECTOR)  # over the fields of the str, of which `text` stays
    assert ours.get("616263", MODEL) is None
    assert ours.get(b"abc", MODEL) is None
    with redisvl(OLD, valkey.url, "c") as older:
        newer.drop(b"abc", MODEL)
        newer.set(b"abc", MODEL, VECTOR)
        older.set("616263", MODEL, [5.0])  # and here `content` stays
    assert ours.get("616263", MODEL) is None
    assert ours.get(b"abc", MODEL) is None
    ours.set(b"abc", MODEL, [6.0])
    assert ours.get(b"abc", MODEL)["embedding"].tolist() == [6]
    assert newer.get(b"abc", MODEL)["embedding"] == [6.0]


def test_two_texts_of_one_key_are_told_apart(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    ours.set("a:b", "c", [1.0])
    theirs.set("a", "b:c", [2.0])
    assert ours.get("a:b", "c") is None
    assert ours.get("a", "b:c")["embedding"].tolist() == [2]
    assert ours.get_by_key(ours.key_for("a", "b:c"))["text"] == "a"


# ------------------------------------------------------------------------------------------------ TTL


def test_redisvls_ttl_is_what_remains(theirs: RedisVL, ours: EmbeddingsCache) -> None:
    key = theirs.set("a", MODEL, VECTOR, None, 500)
    assert ours.get("a", MODEL)["ttl"] is None
    assert 495 <= ours.remaining_ttl(key) <= 500
    assert ours.remaining_ttl(theirs.set("b", MODEL, VECTOR)) is NEVER


def test_our_ttl_is_theirs(theirs: RedisVL, ours: EmbeddingsCache, valkey: Server) -> None:
    key = ours.set("a", MODEL, VECTOR, ttl=500)
    assert 495_000 < valkey.pttl(key) <= 500_000
    assert theirs.get("a", MODEL)["embedding"] == VECTOR
    ours.set("a", MODEL, VECTOR)
    assert valkey.pttl(key) == -1


@pytest.mark.parametrize(
    ("given", "left"), [(100, 1_000), (5_000, 5_000), (None, None)], ids=["shorter", "longer", "never"]
)
def test_a_hit_prolongs_their_entry_to_the_default_and_never_shortens_it(
    theirs: RedisVL, valkey: Server, given: int | None, left: int | None
) -> None:
    key = theirs.set("a", MODEL, VECTOR, None, given)
    with EmbeddingsCache("c", ttl=1_000, redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        for read in (lambda: cache.get("a", MODEL), lambda: cache.mget(["a"] * 100, MODEL)):
            read()
            assert valkey.pttl(key) == -1 if left is None else left - 5 < valkey.pttl(key) / 1_000 <= left


def test_a_ttl_left_over_from_our_entry_is_not_theirs(theirs: RedisVL, ours: EmbeddingsCache, valkey: Server) -> None:
    key = ours.set("a", MODEL, VECTOR, ttl=50)
    theirs.set("a", MODEL, [9.0], None, 5_000)
    assert ours.get("a", MODEL)["ttl"] is None
    assert valkey.pttl(key) > 4_900_000


# ------------------------------------------------------------------------------------------------ both packages


def test_the_packages_are_the_versions_that_are_meant(theirs: RedisVL, valkey: Server) -> None:
    key = theirs.set("a", MODEL, VECTOR)
    fields = {name.decode() for name in valkey.raw.hkeys(key)}
    assert theirs.text_field in fields
    assert len({"text", "content"} & fields) == 1
    assert json.loads(valkey.raw.hget(key, "embedding")) == VECTOR


# ------------------------------------------------------------------------------------------------ the docs


def test_the_docs_python_prints_what_it_says(
    valkey: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    exec(code, {})  # noqa: S102 - it is ours
    assert capsys.readouterr().out == "{'source': 'faq'}\n1 0 0\n"


def test_the_docs_fields_are_those_that_are_written(ours: EmbeddingsCache, valkey: Server) -> None:
    key = ours.set("a", MODEL, VECTOR, METADATA, ttl=500)
    written = {name.decode() for name in valkey.raw.hkeys(key)}
    assert set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == written

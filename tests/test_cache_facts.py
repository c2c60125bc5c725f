"""One cache in facts: what its entries are, how they are stored, when they leave."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC

import pytest
from clicking import HOSTILE
from looking import redisvl_hash
from servers import Server

from embedcache import EmbeddingsCache, walking
from pages.ui import cache_facts, wording


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as opened:
        yield opened


def facts_of(cache: EmbeddingsCache) -> dict[str, str]:
    return cache_facts.facts(walking.index_cache(cache.connection, cache.name, lambda *_: None), UTC)


def test_a_cache_of_one_kind_is_told_without_numbers(cache: EmbeddingsCache) -> None:
    cache.set("text", "m", [1.0, 2.0])
    found = facts_of(cache)
    assert found["Entries"] == "1"
    assert (found["Models"], found["Vectors"], found["Own TTL"]) == ("`m`", "2 numbers as float32", "none")
    assert found["Next to leave"] == "none: all stay"
    assert found["Stored"].startswith("on ")
    assert found["Memory"].startswith("about ")


def test_a_cache_of_many_kinds_names_most_first(cache: EmbeddingsCache, valkey: Server) -> None:
    cache.mset([{"text": f"t{i}", "model_name": "m", "embedding": [1.0] * 3} for i in range(5)], ttl=3_600)
    cache.set("hostile", HOSTILE, [1.0], ttl=60)
    for dtype in ("int8", "float16"):
        with EmbeddingsCache("c", redis_url=valkey.url, stats=False, dtype=dtype) as other:
            other.mset([{"text": f"{dtype} {i}", "model_name": dtype, "embedding": [1.0] * 3} for i in range(2)])
    client = cache.connection.client()
    client.hset(cache.key_for("theirs", "r"), mapping=redisvl_hash("theirs", model_name="r"))
    client.set("c:" + "0" * 64, "damaged")
    found = facts_of(cache)
    assert found["Entries"] == "12"
    assert found["Models"] == (f"`m` (5), `float16` (2), `int8` (2), {wording.code_span(HOSTILE, 80)} (1) and 1 more")
    assert found["Vectors"].startswith("3 numbers as float32 (5), ")
    assert {"3 numbers as int8 (2)", "3 numbers as float16 (2)"} < set(found["Vectors"].split(", "))
    assert found["Layout"] == "embedcache's own (10), RedisVL's hashes (1), unreadable (1)"
    assert found["Own TTL"] == "none (5), 1 h (5), 1 min (1)"
    assert found["Next to leave"].startswith("in 1 min; ") or found["Next to leave"].startswith("in 59 s; ")
    assert found["Next to leave"].endswith("; 6 entries stay")
    assert found["Last read or written"] == "just now"

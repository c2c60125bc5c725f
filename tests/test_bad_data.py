"""Bad values under wanted keys: each is a miss, counted as corrupt, and spoils neither its batch nor a vector.

Ten thousand values made from good ones and from nothing, by a fixed seed: cut at every length, every bit of an entry
flipped, of other versions, random, other entries' values, other types. `make_bad` says of each what it is.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from calling import Caller
from servers import Server
from toy_model import Both, Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, codec, doctor

MODEL = "a/model"
SEED = 20_260
ROUND = 500
"""Bad values on the server at a time, each beside a good one."""
FUZZED = 10_000
TTLS = [None, 500]
LIST, HASH, SET, SORTED_SET, STREAM = "list", "hash", "set", "sorted set", "stream"


# ------------------------------------------------------------------------------------------------ bad values


def text_of(number: int) -> str:
    return f"text {number}"


def stored_vector(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(16).astype(np.float32)


def good_values(server: Server, dtype: str) -> list[bytes]:
    """Packed values as a cache writes them, with metadata and TTLs of several kinds."""
    with EmbeddingsCache("made", redis_url=server.url, dtype=dtype, stats=False) as cache:
        metadata = [None, {"page": 3}, {"tags": ["a", "b"], "score": 0.5}]
        keys = [
            cache.set(text_of(n), MODEL, stored_vector(n), metadata[n % 3], ttl=[None, 60][n % 2]) for n in range(6)
        ]
        return [value for value in server.raw.mget(keys) if value is not None]


def flip(value: bytes, bit: int) -> bytes:
    changed = bytearray(value)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def rewritten(value: bytes, change: Callable[[bytearray], object]) -> bytes:
    """A value that somebody changed on purpose: the checksum fits what it holds."""
    changed = bytearray(value)
    change(changed)
    changed[8:12] = struct.pack("<I", codec.checksum(bytes(changed[12:])))
    return bytes(changed)


def set_offset(offset: int) -> Callable[[bytearray], object]:
    return lambda value: value.__setitem__(slice(12, 16), struct.pack("<I", offset))


def unreadable_values(value: bytes, chance: random.Random) -> Iterator[bytes]:
    """Every damage to one value that there is a word for."""
    yield from (value[:length] for length in range(len(value)))
    in_ttl = range(8 * 4, 8 * 8)  # before the checked part, so that the server can change it in place
    yield from (flip(value, bit) for bit in range(8 * len(value)) if bit not in in_ttl)
    yield from (value[:3] + bytes([version]) + value[4:] for version in range(256) if version != 1)
    yield from (value + bytes(more) for more in (1, 2, 3, 4, 8, 100))
    yield from (chance.randbytes(chance.randrange(3 * len(value))) for _ in range(500))
    yield from (codec.MAGIC + chance.randbytes(chance.randrange(2 * len(value))) for _ in range(500))
    for _ in range(500):  # several bytes at once
        changed = bytearray(value)
        for _ in range(chance.randrange(2, 20)):
            changed[chance.randrange(8, len(value))] ^= chance.randrange(1, 256)
        yield bytes(changed)


def unusable_values(value: bytes) -> Iterator[bytes]:
    """Values whose checksum fits, and that are no entry all the same."""
    size = len(value)
    yield from (rewritten(value, set_offset(offset)) for offset in (size, size + 1, 2**31, 2**32 - 1))
    for code in (0, 5, 6, 15):
        yield rewritten(value, lambda each, code=code: each.__setitem__(16, each[16] & 0xF0 | code))
    offset = struct.unpack_from("<I", value, 12)[0]
    yield rewritten(value[:offset], lambda _: None)
    if (width := {1: 4, 2: 8, 3: 2, 4: 1}[value[16] & 0x0F]) > 1:
        yield from (rewritten(value[:-cut], lambda _: None) for cut in range(1, width))


OTHERS = {
    LIST: lambda raw, key: raw.rpush(key, "x"),
    HASH: lambda raw, key: raw.hset(key, "text", "x"),
    SET: lambda raw, key: raw.sadd(key, "x"),
    SORTED_SET: lambda raw, key: raw.zadd(key, {"x": 1}),
    STREAM: lambda raw, key: raw.xadd(key, {"a": "b"}),
}


def put(server: Server, key: str, bad: bytes | str) -> None:
    server.raw.delete(key)
    if isinstance(bad, str):
        OTHERS[bad](server.raw, key)
    else:
        server.raw.set(key, bad)


def corrupt_values(server: Server) -> list[bytes | str]:
    """Ten thousand and more of them, those of other types spread among the rest."""
    chance = random.Random(SEED)  # noqa: S311 - the same in every run
    found: list[bytes | str] = list(unreadable_values(good_values(server, "float32")[5], chance))
    for dtype in ("float64", "float16", "int8"):
        value = good_values(server, dtype)[4]
        found += [value[:length] for length in range(len(value))]
        found += [flip(value, chance.randrange(64, 8 * len(value))) for _ in range(300)]
    found += [kind for kind in OTHERS for _ in range(50)]
    while len(found) < FUZZED:
        value = chance.choice(good_values(server, "float32")) if len(found) % 500 == 0 else found[0] or b"EMB"
        found.append(chance.randbytes(chance.randrange(200)) + (value if isinstance(value, bytes) else b""))
    chance.shuffle(found)
    return found


@pytest.fixture(scope="module")
def bad_values(start_server: Callable[[str], Server]) -> list[bytes | str]:
    server = start_server("valkey9")
    server.raw.flushall()
    found = corrupt_values(server)
    assert len(found) >= FUZZED
    return found


def rounds(bad: list[bytes | str]) -> Iterator[list[bytes | str]]:
    return (bad[start : start + ROUND] for start in range(0, len(bad), ROUND))


# ------------------------------------------------------------------------------------------------ packed


def stored_pairs(cache: Caller, server: Server, bad: list[bytes | str]) -> tuple[list[str], list[str]]:
    """Good entries at the even places of a batch, bad values at the odd ones; returns the texts and their keys."""
    texts = [text_of(number) for number in range(2 * len(bad))]
    items = [
        {"text": text, "model_name": MODEL, "embedding": stored_vector(number)} for number, text in enumerate(texts)
    ]
    keys = cache.mset(items)
    server.raw.mset({key: value for key, value in zip(keys[1::2], bad, strict=True) if isinstance(value, bytes)})
    for key, value in zip(keys[1::2], bad, strict=True):
        if isinstance(value, str):
            put(server, key, value)
    return texts, keys


def check_round(cache: Caller, texts: list[str], keys: list[str]) -> None:
    """All ways to look the batch up tell the good from the bad, and no vector is another's."""
    vectors = [stored_vector(number) for number in range(len(texts))]
    for found in (cache.mget(texts, MODEL), cache.mget_by_keys(keys)):
        assert [entry is not None for entry in found] == [True, False] * (len(texts) // 2)
        for entry, text, vector in zip(found[::2], texts[::2], vectors[::2], strict=True):
            assert entry["text"] == text
            assert np.array_equal(entry["embedding"], vector)
    for dimension in (None, 16):
        matrix, mask = cache.mget_embeddings(texts, MODEL, dimension=dimension)
        assert mask.tolist() == [True, False] * (len(texts) // 2)
        assert np.array_equal(matrix[::2], np.array(vectors[::2]))
        assert np.isnan(matrix[1::2]).all()
    for exists in (cache.mexists(texts, MODEL), cache.mexists_by_keys(keys)):
        assert all(exists[::2])  # of the others, a look at their heads may say either


@pytest.mark.parametrize("ttl", TTLS)
def test_ten_thousand_bad_values_are_misses_counted_as_corrupt(
    valkey: Server, caller: Callable[[EmbeddingsCache], Caller], bad_values: list[bytes | str], ttl: int | None
) -> None:
    cache = caller(EmbeddingsCache("c", ttl=ttl, redis_url=valkey.url))
    expected = 0
    for bad in rounds(bad_values):
        texts, keys = stored_pairs(cache, valkey, bad)
        check_round(cache, texts, keys)
        expected += 4 * len(bad)
        found = cache.stats("all")  # hands over what was counted
        assert (found.corrupt, found.misses, found.hits) == (expected, expected, expected)
        assert found.errors == 0


@pytest.mark.parametrize("ttl", TTLS)
def test_one_bad_value_alone_is_a_miss(
    server: Server, caller: Callable[[EmbeddingsCache], Caller], bad_values: list[bytes | str], ttl: int | None
) -> None:
    cache = caller(EmbeddingsCache("c", ttl=ttl, redis_url=server.url))
    key = cache.key_for("text", MODEL)
    chosen = [*bad_values[::250], *OTHERS, b"", codec.MAGIC]
    for bad in chosen:
        put(server, key, bad)
        assert cache.get("text", MODEL) is None
        assert cache.get_by_key(key) is None
        assert cache.exists("text", MODEL) in (True, False)
        assert cache.remaining_ttl(key) is not None
        assert cache.set_metadata(key, {"a": 1}) is False
        cache.expire(key, 50)
        assert isinstance(cache.why("text", MODEL).reason.value, str)
        cache.flush_stats()
    assert cache.stats("all").corrupt == 2 * len(chosen)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_a_fitting_checksum_makes_no_entry_of_what_is_none(
    valkey: Server, caller: Callable[[EmbeddingsCache], Caller], dtype: str
) -> None:
    cache = caller(EmbeddingsCache("c", redis_url=valkey.url, dtype=dtype))
    key = cache.set(text_of(0), MODEL, stored_vector(0))
    good = valkey.raw.get(key)
    for value in unusable_values(good):
        valkey.raw.set(key, value)
        assert cache.get_by_key(key) is None, value
        assert cache.get(text_of(0), MODEL) is None, value
        matrix, mask = cache.mget_embeddings([text_of(0), "none"], MODEL)
        assert mask.tolist() == [False, False]
        assert np.isnan(matrix).all()
    for offset in range(len(good)):  # a writer that errs, and signs it: no exception
        valkey.raw.set(key, rewritten(good, set_offset(offset)))
        cache.get(text_of(0), MODEL)
        cache.get_by_key(key)
        cache.mget_embeddings([text_of(0), "none"], MODEL)


def test_another_entrys_whole_value_is_a_miss(server: Server, caller: Callable[[EmbeddingsCache], Caller]) -> None:
    """As after a RENAME or a COPY by hand: it is sound, and the vector of another text."""
    cache = caller(EmbeddingsCache("c", redis_url=server.url))
    keys = cache.mset([{"text": text, "model_name": MODEL, "embedding": [1.0, 2.0]} for text in ("a", "b")])
    server.raw.set(keys[0], server.raw.get(keys[1]))
    assert cache.get("a", MODEL) is None
    assert cache.get_by_key(keys[0]) is None
    assert cache.mexists(["a", "b"], MODEL) == [False, True]
    _, mask = cache.mget_embeddings(["a", "b"], MODEL)
    assert mask.tolist() == [False, True]


# ------------------------------------------------------------------------------------------------ the doctor

UNREADABLE = {doctor.Kind.CORRUPT, doctor.Kind.FOREIGN_VALUES, doctor.Kind.OTHER_VERSION}


def check_doctor(server: Server, cache: EmbeddingsCache, bad: set[str]) -> set[doctor.Kind]:
    """All of them are found, as many are listed as a finding names, and all are removed: they, and nothing else."""
    others = {key.decode() for key in server.plain_keys()} - bad
    found = doctor.examine(cache).findings
    assert sum(each.count for each in found) == len(bad)
    assert bad >= {key for each in found for key in each.sample}
    for each in found:
        assert len(each.sample) == min(each.count, doctor.SAMPLED)
        assert doctor.repair(cache, each, "ada", pace=1).changed == each.count
    assert {key.decode() for key in server.plain_keys()} - others == {audit_key(server)}
    assert doctor.examine(cache).is_well
    return {each.kind for each in found}


def audit_key(server: Server) -> str:
    (key,) = (key for key in server.plain_keys() if b":audit:" in key)
    return key.decode()


def test_the_doctor_lists_and_removes_ten_thousand_bad_values(valkey: Server, bad_values: list[bytes | str]) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, stats=False) as cache:
        texts, keys = stored_pairs(cache, valkey, bad_values)
        assert check_doctor(valkey, cache, set(keys[1::2])) == UNREADABLE
        matrix, mask = cache.mget_embeddings(texts, MODEL)
        assert mask.tolist() == [True, False] * len(bad_values)
        assert np.array_equal(matrix[::2], np.array([stored_vector(number) for number in range(0, len(texts), 2)]))


# ------------------------------------------------------------------------------------------------ a vectorizer's cache


@pytest.mark.parametrize("layout", ["packed", "redisvl"])
def test_a_vectorizer_computes_what_is_bad_and_stores_it_anew(
    valkey: Server, bad_values: list[bytes | str], layout: Any
) -> None:
    for way in ("sync", "async"):
        with asyncio.Runner() as runner, EmbeddingsCache(way, redis_url=valkey.url, layout=layout) as cache:
            model = Model()
            both = Both(
                CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model), runner if way == "async" else None
            )
            texts = [text_of(number) for number in range(200)]
            both.embed_many(texts)
            keys = sorted(key.decode() for key in valkey.raw.scan_iter(f"{way}:*") if len(key) == len(way) + 65)
            for key, bad in zip(keys[::2], bad_values, strict=False):
                put(valkey, key, bad)
            model.asked.clear()
            vectors = both.embed_many(texts)
            assert np.array_equal(np.array(vectors), np.array([vector_of(text) for text in texts]))
            assert len(model.asked) == 100
            model.asked.clear()
            both.embed_many(texts)
            assert model.asked == []
            runner.run(cache.aclose())


# ------------------------------------------------------------------------------------------------ RedisVL's hashes

FIELDS = ("embedding", "content", "text", "model_name", "inserted_at", "metadata", "entry_id")


def bad_hashes(good: dict[bytes, bytes], chance: random.Random, count: int) -> Iterator[dict[bytes, bytes]]:
    """Fields cut, changed, left out and exchanged, of which a reader needs at least one."""
    needed = [b"embedding", b"model_name", b"inserted_at"]
    for name in needed:
        yield {field: value for field, value in good.items() if field != name}
    yield {field: value for field, value in good.items() if field not in (b"content", b"text")}
    vector = good[b"embedding"]
    yield from ({**good, b"embedding": vector[:length]} for length in range(len(vector)))
    wrong = [b"", b"{}", b"null", b"[]", b"[[1]]", b'["a"]', b"[NaN]", b"[1e999]", b"[null]", b"7", b"[true]", b"\xff"]
    yield from ({**good, b"embedding": value} for value in wrong)
    yield from ({**good, b"inserted_at": value} for value in (b"", b"x", b"nan", b"inf", b"\xff"))
    yield from ({**good, b"metadata": value} for value in (b"{", b"[1]", b"7", b"\xff", b"[" * 100_000))
    for _ in range(count):
        name = chance.choice([b"model_name", b"inserted_at"])
        yield {**good, name: b"x" + chance.randbytes(chance.randrange(20))}
        at = chance.randrange(len(vector))
        yield {**good, b"embedding": vector[:at] + b"x" + vector[at + 1 :]}


@pytest.mark.parametrize("ttl", TTLS)
def test_bad_hashes_are_misses_counted_as_corrupt(
    server: Server, caller: Callable[[EmbeddingsCache], Caller], ttl: int | None
) -> None:
    cache = caller(EmbeddingsCache("c", ttl=ttl, redis_url=server.url, layout="redisvl"))
    texts, vector = ["a", "b", "c"], stored_vector(1)
    keys = cache.mset([{"text": text, "model_name": MODEL, "embedding": vector} for text in texts])
    good = server.raw.hgetall(keys[1])
    chance = random.Random(SEED)  # noqa: S311 - the same in every run
    bad = [*bad_hashes(good, chance, 60), b"", b"x", codec.MAGIC, LIST, SET, SORTED_SET, STREAM]
    for each in bad:
        if isinstance(each, dict):
            server.raw.delete(keys[1])
            server.raw.hset(keys[1], mapping=each)
        else:
            put(server, keys[1], each)
        for found in (cache.mget(texts, MODEL), cache.mget_by_keys(keys)):
            assert [entry is not None for entry in found] == [True, False, True], each
            assert np.array_equal(found[2]["embedding"], vector)
        matrix, mask = cache.mget_embeddings(texts, MODEL)
        assert mask.tolist() == [True, False, True], each
        assert np.array_equal(matrix[2], vector)
        assert cache.get("b", MODEL) is None
        cache.mexists(texts, MODEL)
        cache.mexists_by_keys(keys)
    found = cache.stats("all")
    assert (found.corrupt, found.misses, found.hits) == (4 * len(bad), 4 * len(bad), 6 * len(bad))


def test_the_doctor_lists_and_removes_bad_hashes(valkey: Server) -> None:
    with EmbeddingsCache("c", redis_url=valkey.url, layout="redisvl", stats=False) as cache:
        (key,) = cache.mset([{"text": "a", "model_name": MODEL, "embedding": stored_vector(1)}])
        good = valkey.raw.hgetall(key)
        chance = random.Random(SEED)  # noqa: S311 - the same in every run
        bad = {f"c:{number:064x}": fields for number, fields in enumerate(bad_hashes(good, chance, 60))}
        for each, fields in bad.items():
            valkey.raw.hset(each, mapping=fields)
        check_doctor(valkey, cache, set(bad))
        assert cache.get("a", MODEL) is not None

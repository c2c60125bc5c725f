"""What is missing of a corpus is computed once and stored; how far it is, is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from servers import Server
from toy_model import Model, vector_of
from warmed import FORMATS, MODEL, computed, settings_of, texts_of, write

from embedcache import NEVER, CustomVectorizer, EmbeddingsCache
from embedcache.errors import (
    CacheUnavailableError,
    InvalidInputError,
    InvalidTTLError,
    ReadOnlyError,
    ServerReplyError,
    WarmingStoppedError,
)
from embedcache.warming import CacheSettings, VectorizerSettings, WarmProgress, warm
from embedcache.warming.progress import Counts, Progress

BATCH = 64


@pytest.fixture
def cache(valkey: Server) -> Any:
    with EmbeddingsCache("w", redis_url=valkey.url) as cache:
        yield cache


def toy(cache: EmbeddingsCache | None, model: Callable[..., Any] | None = None, **options: Any) -> CustomVectorizer:
    return CustomVectorizer(vector_of, MODEL, cache, embed_many_callable=model or Model(), **options)


# ------------------------------------------------------------------------------------------------ what is done


@pytest.mark.parametrize("ending", FORMATS)
def test_each_format_is_embedded_once(cache: EmbeddingsCache, tmp_path: Path, ending: str) -> None:
    texts, model = texts_of(1_500), Model()
    path = write(tmp_path / f"c.{ending}", texts)
    first = warm(path, toy(cache, model))
    assert (first.rows, first.computed, first.missing, first.hits, first.failed) == (1_500, 1_500, 1_500, 0, 0)
    matrix, hits = cache.mget_embeddings(texts, MODEL)
    assert hits.all()
    np.testing.assert_array_equal(matrix, [vector_of(text) for text in texts])
    again = warm(path, toy(cache, model))
    assert (again.rows, again.computed, again.missing, again.hits) == (1_500, 0, 0, 1_500)
    assert set(model.times.values()) == {1}


def test_only_what_is_missing_is_computed(cache: EmbeddingsCache, tmp_path: Path) -> None:
    texts, model = texts_of(100), Model()
    toy(cache).embed_many(texts[::2])
    report = warm(write(tmp_path / "c.txt", texts), toy(cache, model))
    assert (report.computed, report.hits) == (50, 50)
    assert model.asked == texts[1::2]


@pytest.mark.parametrize("mode", ["process", "shared", None])
def test_a_text_that_comes_twice_is_computed_once(cache: EmbeddingsCache, tmp_path: Path, mode: Any) -> None:
    texts, model = texts_of(1_200), Model()
    path = write(tmp_path / "c.txt", [*texts, *texts, texts[-1], texts[-1]])
    report = warm(path, toy(cache, model, single_flight=mode), batch=BATCH)
    assert (report.rows, report.computed, report.hits) == (2_402, 1_200, 1_202)
    assert set(model.times.values()) == {1}


def test_metadata_and_ttl_go_with_what_is_computed(cache: EmbeddingsCache, tmp_path: Path) -> None:
    cache.set("old", MODEL, vector_of("old"), metadata={"page": 0}, ttl=50)
    path = write(tmp_path / "c.jsonl", ["old", "new", "new"], page=[1, 2, 3])
    warm(path, toy(cache), metadata=["page"], ttl=500)
    old, new = cache.mget(["old", "new"], MODEL)
    assert old is not None
    assert new is not None
    assert (old["metadata"], old["ttl"]) == ({"page": 0}, 50)
    assert (new["metadata"], new["ttl"]) == ({"page": 2}, 500)


def test_a_ttl_may_be_never(valkey: Server, tmp_path: Path) -> None:
    with EmbeddingsCache("w", ttl=60, redis_url=valkey.url) as cache:
        warm(write(tmp_path / "a.txt", ["a"]), toy(cache))
        warm(write(tmp_path / "b.txt", ["b"]), toy(cache), ttl=NEVER)
        assert cache.remaining_ttl(cache.key_for("a", MODEL)) == 60
        assert cache.remaining_ttl(cache.key_for("b", MODEL)) is NEVER


def test_what_is_there_is_not_touched_and_no_lookup_is_counted(cache: EmbeddingsCache, tmp_path: Path) -> None:
    key = cache.set("old", MODEL, vector_of("old"), ttl=500)
    cache.connection.drive(_expire_soon(key))
    warm(write(tmp_path / "c.txt", ["old", "new"]), toy(cache))
    assert cache.remaining_ttl(key) in range(1, 101)
    stats = cache.stats()
    assert (stats.hits, stats.misses) == (0, 0)


def _expire_soon(key: str) -> Any:
    yield [("EXPIRE", key, 100)]


def test_documents_have_entries_of_their_own_where_the_model_has(cache: EmbeddingsCache, tmp_path: Path) -> None:
    class Apart(CustomVectorizer):
        def model_name_for(self, input_type: Any) -> str:
            return MODEL if input_type is None else f"{MODEL}?as={input_type}"

    vectorizer = Apart(vector_of, MODEL, cache)
    warm(write(tmp_path / "c.txt", ["a"]), vectorizer, input_type="document")
    assert cache.exists("a", f"{MODEL}?as=document")
    assert not cache.exists("a", MODEL)


def test_a_dry_run_counts_distinct_texts_and_does_nothing(
    cache: EmbeddingsCache, tmp_path: Path, valkey: Server
) -> None:
    texts, model = texts_of(2_000), Model()
    toy(cache).embed_many(texts[:500])
    cache.flush_stats()
    before = sorted(valkey.raw.keys())
    report = warm(write(tmp_path / "c.txt", texts * 3), toy(cache, model), dry_run=True, processes=2)
    assert report.dry_run
    assert (report.rows, report.missing, report.hits, report.computed) == (6_000, 1_500, 4_500, 0)
    assert model.asked == []
    cache.flush_stats()
    assert sorted(valkey.raw.keys()) == before


def test_a_dry_run_needs_no_right_to_write(valkey: Server, tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", ["a"])
    with EmbeddingsCache("w", redis_url=valkey.url, read_only=True) as cache:
        assert warm(path, toy(cache), dry_run=True).missing == 1
        with pytest.raises(ReadOnlyError):
            warm(path, toy(cache))


def test_bad_rows_are_named_and_the_others_are_embedded(cache: EmbeddingsCache, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text('{"text": "one"}\nnonsense\n{"text": ""}\n{"text": "two"}\n')
    report = warm(tmp_path / "c.jsonl", toy(cache))
    assert (report.rows, report.computed, report.failed) == (4, 2, 2)
    assert [(bad.number, bad.reason) for bad in report.bad_rows] == [
        (2, "it is not a line of JSON"),
        (3, "the text is empty or blank"),
    ]
    assert cache.mexists(["one", "two"], MODEL) == [True, True]


def test_a_hundred_bad_rows_are_named_and_all_are_counted(cache: EmbeddingsCache, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_text("{\n" * 150)
    report = warm(tmp_path / "c.jsonl", toy(cache))
    assert (report.failed, [bad.number for bad in report.bad_rows]) == (150, list(range(1, 101)))


# ------------------------------------------------------------------------------------------------ how far it is


def test_progress_is_told_after_each_batch_and_ends_whole(cache: EmbeddingsCache, tmp_path: Path) -> None:
    texts = texts_of(640)
    toy(cache).embed_many(texts[:128])
    told: list[WarmProgress] = []
    warm(write(tmp_path / "c.txt", texts), toy(cache), batch=BATCH, tell=told.append)
    assert [each.computed for each in told] == [0, *range(BATCH, 513, BATCH), 512]
    assert [each.done for each in told] == [128, *range(128 + BATCH, 641, BATCH), 640]
    assert told[0].fraction == pytest.approx(0.2)
    assert (told[-1].fraction, told[-1].hits, told[-1].seconds_left) == (1.0, 128, 0.0)
    assert all(each.rate > 0 for each in told)


def test_rate_and_time_left_go_by_the_last_half_minute() -> None:
    now = 0.0
    told: list[WarmProgress] = []
    progress = Progress(told.append, clock=lambda: now)

    def done(rows: int, fraction: float) -> WarmProgress:
        progress.update(0, Counts(rows=rows, fraction=fraction))
        return told[-1]

    assert (done(0, 0.0).rate, told[-1].seconds_left) == (0.0, None)
    now = 1.0  # half of it was cached, and takes a second
    assert done(50_000, 0.5) == WarmProgress(50_000, 0, 0, 0, 0.5, 1.0, 50_000.0, 1.0)
    for now in range(2, 62):  # a percent a minute from then on: 10 texts a second
        done(50_000 + 10 * (now - 1), 0.5 + 0.01 * (now - 1) / 60)
    assert told[-1].rate == pytest.approx(10)
    assert told[-1].seconds_left == pytest.approx(49 * 60)


def test_the_time_that_loading_the_model_takes_is_not_expected_again() -> None:
    now = 0.0
    told: list[WarmProgress] = []
    progress = Progress(told.append, clock=lambda: now)
    progress.update(0, Counts())
    now = 20.0
    progress.update(0, Counts(rows=10, computed=10, fraction=0.1))
    assert (told[-1].rate, told[-1].seconds_left) == (0.5, None)
    now = 21.0
    progress.update(0, Counts(rows=20, computed=20, fraction=0.2))
    assert (told[-1].rate, told[-1].seconds_left) == (10, pytest.approx(8))


def test_parts_are_added_up() -> None:
    told: list[WarmProgress] = []
    progress = Progress(told.append, parts=2)
    progress.update(0, Counts(rows=10, hits=4, missing=6, computed=5, failed=1, fraction=1.0))
    progress.update(1, Counts(rows=3, hits=3, fraction=0.5))
    assert (told[-1].done, told[-1].hits, told[-1].computed, told[-1].failed) == (13, 7, 5, 1)
    assert told[-1].fraction == 0.75
    report = progress.report(dry_run=False)
    assert (report.rows, report.hits, report.missing, report.computed, report.failed) == (13, 7, 6, 5, 1)


# ------------------------------------------------------------------------------------------------ how it ends early


def test_what_tell_raises_ends_it_and_what_was_stored_stays(cache: EmbeddingsCache, tmp_path: Path) -> None:
    class CancelledError(Exception):
        pass

    def cancel(progress: WarmProgress) -> None:
        if progress.computed == 2 * BATCH:
            raise CancelledError

    path = write(tmp_path / "c.txt", texts_of(640))
    with pytest.raises(CancelledError):
        warm(path, toy(cache), batch=BATCH, tell=cancel)
    report = warm(path, toy(cache))
    assert (report.hits, report.computed) == (2 * BATCH, 640 - 2 * BATCH)


def test_texts_that_the_model_refuses_are_bad_rows(valkey: Server, tmp_path: Path) -> None:
    texts = texts_of(100)
    texts[7], texts[70] = "a nasty one", "another nasty one"
    settings = settings_of(valkey.url, tmp_path / "log", refuses="nasty")
    report = warm(write(tmp_path / "c.txt", texts), settings)
    assert (report.computed, report.failed) == (98, 2)
    assert [(bad.number, bad.reason) for bad in report.bad_rows] == [
        (8, "the model refuses it: it does not like it"),
        (71, "the model refuses it: it does not like it"),
    ]
    assert computed(tmp_path / "log").keys() == {text for text in texts if "nasty" not in text}


def test_a_model_that_refuses_all_is_given_up(valkey: Server, tmp_path: Path) -> None:
    settings = settings_of(valkey.url, tmp_path / "log", refuses="text")
    with pytest.raises(WarmingStoppedError, match="refused 20 texts in a row, the last with: it does not like it"):
        warm(write(tmp_path / "c.txt", texts_of(200)), settings)


def test_a_model_that_breaks_is_one_of_our_errors(cache: EmbeddingsCache, tmp_path: Path) -> None:
    model = Model()
    model.fails_at = texts_of(200)[150]
    with pytest.raises(WarmingStoppedError, match="the model failed with RuntimeError: the model broke"):
        warm(write(tmp_path / "c.txt", texts_of(200)), toy(cache, model), batch=BATCH)
    assert cache.mexists(texts_of(200), MODEL).count(True) == 2 * BATCH


def test_a_server_that_is_full_ends_it(cache: EmbeddingsCache, valkey: Server, tmp_path: Path) -> None:
    model = Model()

    def fill(progress: WarmProgress) -> None:
        if progress.computed:
            valkey.raw.config_set("maxmemory", 1)

    valkey.raw.config_set("maxmemory-policy", "noeviction")
    try:
        with pytest.raises(ServerReplyError, match="OOM"):
            warm(write(tmp_path / "c.txt", texts_of(640)), toy(cache, model), batch=BATCH, tell=fill)
    finally:
        valkey.raw.config_set("maxmemory", 0)
    assert len(model.asked) == 2 * BATCH  # and not all of it, for nothing


def test_a_server_that_is_away_ends_it_before_anything_is_computed(tmp_path: Path) -> None:
    model = Model()
    with EmbeddingsCache("w", redis_url=f"unix://{tmp_path}/nothing") as cache, pytest.raises(CacheUnavailableError):
        warm(write(tmp_path / "c.txt", ["a"]), toy(cache, model))
    assert model.asked == []


# ------------------------------------------------------------------------------------------------ input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"processes": 0}, "processes is a whole number above zero, not 0"),
        ({"processes": True}, "processes is a whole number above zero, not True"),
        ({"processes": 2}, "several processes need VectorizerSettings"),
        ({"batch": 0}, "batch is a whole number above zero"),
        ({"metadata": "page"}, r"names of columns, as in \['page'\], not 'page'"),
        ({"input_type": "tweet"}, "'query', 'document' or None"),
    ],
)
def test_what_cannot_be_meant_is_told(
    cache: EmbeddingsCache, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        warm(write(tmp_path / "c.csv", ["a"], page=["b"]), toy(cache), **options)
    assert not cache.exists("a", MODEL)


def test_a_ttl_is_checked_before_anything_is_computed(cache: EmbeddingsCache, tmp_path: Path) -> None:
    model = Model()
    with pytest.raises(InvalidTTLError):
        warm(write(tmp_path / "c.txt", ["a"]), toy(cache, model), ttl=0)
    assert model.asked == []


def test_a_vectorizer_needs_a_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "c.txt", ["a"])
    with pytest.raises(InvalidInputError, match="has no cache to be warmed"):
        warm(path, toy(None))
    with pytest.raises(InvalidInputError, match="is a BaseVectorizer or its settings, not str"):
        warm(path, "all-MiniLM-L6-v2")  # type: ignore[arg-type]


def test_settings_hold_plain_values_and_show_no_secrets() -> None:
    settings = VectorizerSettings(
        "m", "openai", {"api_key": "the-key"}, CacheSettings("c", redis_url="redis://:the-password@h")
    )
    assert "the-" not in repr(settings)
    assert VectorizerSettings.from_json(settings.to_json()) == settings
    with pytest.raises(InvalidInputError, match="options are plain values"):
        VectorizerSettings(options={"client": object()})
    with pytest.raises(InvalidInputError, match="connection_kwargs are plain values"):
        CacheSettings(connection_kwargs={"retry": object()})
    with pytest.raises(InvalidInputError, match="huggingface, openai or module:function, not 'cohere'"):
        VectorizerSettings(kind="cohere")


@pytest.mark.parametrize("kind", ["not_there:make", "warmed:not_there", "os:getcwdb"])
def test_a_function_that_is_none_is_told(kind: str) -> None:
    with pytest.raises(InvalidInputError):
        VectorizerSettings(kind=kind, cache=CacheSettings(redis_url="redis://nowhere")).open()


def test_one_vectorizer_is_shared_in_a_process(valkey: Server, tmp_path: Path) -> None:
    settings = settings_of(valkey.url, tmp_path / "log", gate=str(os.getpid()))
    same = settings_of(valkey.url, tmp_path / "log", gate=str(os.getpid()))
    vectorizer = settings.shared()
    assert same.shared() is vectorizer
    assert settings_of(valkey.url, tmp_path / "log").open() is not vectorizer
    assert vectorizer.cache is not None
    vectorizer.cache.close()

"""The sample data: sentences that are worth looking at, and their way into a cache."""

import collections
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from remembering import RememberingModel

from embedcache import EmbeddingsCache
from pages.ui import sample_data
from pages.ui.jobs import JobCancelledError, Progress


def test_the_sentences() -> None:
    samples = sample_data.samples()
    texts = [sample.text for sample in samples]
    assert 280 <= len(texts) == len(set(texts)) <= 350
    assert all(text == text.strip() and text.isprintable() and len(text) < 120 for text in texts)
    assert all(set(sample.metadata) == {"topic", "language", "source", "sample"} for sample in samples)
    topics = collections.Counter(sample.metadata["topic"] for sample in samples)
    languages = collections.Counter(sample.metadata["language"] for sample in samples)
    assert len(topics) >= 12
    assert min(topics.values()) >= 10
    assert len(languages) >= 8
    assert languages["en"] < len(samples)


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache(redis_url=f"embedded://{tmp_path}/server", ttl=600, stats=False) as opened:
        yield opened


@pytest.mark.model
def test_loading(cache: EmbeddingsCache) -> None:
    model, progress = RememberingModel(), Progress()
    samples = sample_data.samples()
    assert sample_data.load(cache, model, progress) == len(samples)
    assert (progress.done, progress.total) == (len(samples), len(samples))
    entries = cache.mget([sample.text for sample in samples], model.model_name)
    for sample, entry in zip(samples, entries, strict=True):
        assert entry is not None
        assert entry["metadata"] == sample.metadata
        assert entry["ttl"] == 600
    vectors, hits = cache.mget_embeddings(["What is machine learning?"], model.model_name)
    assert hits.all()
    assert vectors[0] == pytest.approx(model.embed("What is machine learning?"), abs=1e-5)


@pytest.mark.model
def test_what_is_there_is_not_loaded_again(cache: EmbeddingsCache) -> None:
    model = RememberingModel()
    first, *others = [sample.text for sample in sample_data.samples()]
    cache.set(first, model.model_name, [0.5] * 384, {"mine": 1})
    assert sample_data.load(cache, model, Progress()) == len(others)
    assert model.computed == others
    entry = cache.get(first, model.model_name)
    assert entry is not None
    assert entry["metadata"] == {"mine": 1}
    assert sample_data.load(cache, model, Progress()) == 0


@pytest.mark.model
def test_looking_them_up_counts_misses_and_then_hits(tmp_path: Path) -> None:
    count = len(sample_data.samples())
    with EmbeddingsCache(redis_url=f"embedded://{tmp_path}/server") as counting:
        assert sample_data.load(counting, RememberingModel(), Progress(), looked_up=True) == count
        found = counting.stats("1h")
    assert (found.texts, found.hits, found.misses) == (2 * count, count, count)


@pytest.mark.model
def test_nothing_is_stored_when_it_is_cancelled(cache: EmbeddingsCache, monkeypatch: pytest.MonkeyPatch) -> None:
    model, progress = RememberingModel(), Progress()
    compute = RememberingModel._compute

    def cancel(self: RememberingModel, texts: Sequence[Any]) -> Any:
        progress.cancel()
        return compute(self, texts)

    monkeypatch.setattr(RememberingModel, "_compute", cancel)
    with pytest.raises(JobCancelledError):
        sample_data.load(cache, model, progress)
    assert 0 < len(model.computed) < len(sample_data.samples())
    assert not any(cache.mexists([sample.text for sample in sample_data.samples()], model.model_name))

"""`verify`: cached vectors beside those that the model gives now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from calling import Caller
from servers import Server

from embedcache import CustomVectorizer, EmbeddingsCache, HFTextVectorizer, InvalidInputError, OpenAITextVectorizer
from embedcache.errors import CacheUnavailableError, EmbeddingFailedError, InvalidTextError, ModelUnavailableError
from embedcache.vectorizers import DriftReport

DIMENSIONS = 16
SENTENCES = [
    f"{who} {does} {what}."
    for who in ("The cache", "A vector", "My neighbour", "The old server", "Nobody")
    for does in ("keeps", "finds", "forgets", "paints", "sells")
    for what in ("an answer", "the blue house", "two prices")
]


def vector_of(text: str | bytes) -> np.ndarray:
    seed = np.frombuffer(text if isinstance(text, bytes) else text.encode(), np.uint8).tolist()
    return np.random.default_rng(seed).normal(size=DIMENSIONS)


class Toy:
    """A model that refuses a text, and counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str | bytes] = []
        self.refuses: list[str | bytes] = []

    def __call__(self, texts: Sequence[str | bytes]) -> np.ndarray:
        self.asked += texts
        for text in texts:
            if text in self.refuses:
                raise InvalidTextError(f"too strange: {text!r}")
        return np.array([vector_of(text) for text in texts])


@pytest.fixture
def cache(valkey: Server) -> Iterator[EmbeddingsCache]:
    with EmbeddingsCache("d", redis_url=valkey.url) as cache:
        yield cache


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture(params=["sync", "async"])
def call(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], Any]]:
    """Calls vectorizers sync, or async by their twins."""
    if request.param == "sync":
        yield lambda vectorizer: Caller(vectorizer, None)
        return
    with asyncio.Runner() as runner:
        yield lambda vectorizer: Caller(vectorizer, runner)


def toy_vectorizer(toy: Toy, cache: EmbeddingsCache | None) -> CustomVectorizer:
    return CustomVectorizer(vector_of, "toy", cache, embed_many_callable=toy)


def texts_of(entries: Sequence[Any]) -> list[str | bytes]:
    return [entry.text for entry in entries]


# ------------------------------------------------------------------------------------------------ a real model


@pytest.fixture(scope="module")
def model() -> HFTextVectorizer:
    vectorizer = HFTextVectorizer()
    vectorizer.load()
    return vectorizer


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8"])
def test_what_the_model_stored_raises_no_alarm(valkey: Server, model: HFTextVectorizer, dtype: str) -> None:
    """Whatever the dtype, and whatever texts were embedded beside it."""
    with EmbeddingsCache("d", redis_url=valkey.url, dtype=dtype) as cache:
        model.cache = cache
        for text in SENTENCES[:3]:
            model.embed(text)
        model.embed_many(SENTENCES)
        report = model.verify()
    assert report.ok, str(report)
    assert (report.checked, report.dimension, report.whole) == (75, 384, True)
    assert report.distances.shape == report.allowed.shape == (75,)
    assert np.all(report.distances < 1e-4)  # far from the limit
    assert np.all(report.allowed >= report.tolerance)
    assert str(report) == "75 entries checked: all agree with the model."
    if dtype == "int8":
        assert np.median(report.distances) > 1e-6
        assert np.all(report.allowed > 1.1e-3)


@pytest.mark.model
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_vector_of_another_text_is_found(
    valkey: Server, model: HFTextVectorizer, dtype: str, call: Callable[[Any], Any]
) -> None:
    with EmbeddingsCache("d", redis_url=valkey.url, dtype=dtype) as cache:
        model.cache = cache
        model.embed_many(SENTENCES)
        wrong, other = SENTENCES[7], SENTENCES[8]
        cache.set(wrong, model.model_name, model.embed(other), metadata={"from": "a bug"})
        report: DriftReport = call(model).verify()
    assert not report.ok
    (outlier,) = report.outliers
    assert (outlier.text, outlier.metadata, outlier.dtype) == (wrong, {"from": "a bug"}, dtype)
    assert outlier.key == cache.key_for(wrong, model.model_name)
    assert outlier == report.worst[0]
    assert len(report.worst) == 10
    true_distance = 1 - model.embed(wrong, skip_cache=True) @ model.embed(other, skip_cache=True)
    assert outlier.distance == pytest.approx(true_distance, abs=2e-3)
    assert str(report) == (
        "75 entries checked: not all agree with the model. 1 has another vector than the model gives, at a cosine"
        f" distance of up to {outlier.distance:.3g}."
    )


@pytest.mark.model
def test_half_of_the_entries_by_another_revision_are_all_found(cache: EmbeddingsCache, model: HFTextVectorizer) -> None:
    """A prompt stands for it: it changes every vector, most of them a little."""
    other = HFTextVectorizer(prompt="query: ")
    model.cache = cache
    model.embed_many(SENTENCES)
    half = SENTENCES[::2]
    cache.mset(
        [
            {"text": text, "model_name": model.model_name, "embedding": vector}
            for text, vector in zip(half, other.embed_many(half), strict=True)
        ]
    )
    report = model.verify()
    assert sorted(texts_of(report.outliers)) == sorted(half)
    farthest = [entry.distance for entry in report.outliers]
    assert farthest == sorted(farthest, reverse=True)


@pytest.mark.model
def test_another_dimension_is_told_as_such(cache: EmbeddingsCache, model: HFTextVectorizer) -> None:
    model.cache = cache
    model.embed_many(SENTENCES[:20])
    cache.set("from before", model.model_name, np.ones(768))
    report = model.verify()
    assert not report.ok
    assert [(entry.text, entry.dimension, entry.distance) for entry in report.wrong_dimension] == [
        ("from before", 768, None)
    ]
    assert (report.dimension, report.checked, report.outliers) == (384, 20, ())
    assert "1 has another dimension than the model's." in str(report)


@pytest.mark.model
def test_queries_and_documents_are_each_compared_as_what_they_are(cache: EmbeddingsCache) -> None:
    vectorizer = HFTextVectorizer(cache=cache, prompts={"query": "query: ", "document": ""})
    vectorizer.embed_documents(SENTENCES[:8])
    for text in SENTENCES[:4]:
        vectorizer.embed_query(text)
    told: list[tuple[int, int]] = []
    report = vectorizer.verify(on_progress=lambda done, total: told.append((done, total)))
    assert report.ok, str(report)
    assert set(report.model_names) == {vectorizer.model_name, vectorizer.model_name_for("query")}
    assert (report.checked, told) == (12, [(8, 12), (12, 12)])
    query = vectorizer.model_name_for("query")
    cache.set(SENTENCES[2], query, vectorizer.embed_documents(SENTENCES[2:3])[0])  # kept as what it is not
    (outlier,) = vectorizer.verify().outliers
    assert (outlier.text, outlier.model_name) == (SENTENCES[2], query)


# ------------------------------------------------------------------------------------------------ a toy


def test_entries_of_every_kind_are_compared(toy: Toy, cache: EmbeddingsCache, call: Callable[[Any], Any]) -> None:
    """Bytes, metadata, TTLs, and texts that were kept as a function made them."""
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed(b"\x89PNG\r\n")
    vectorizer.embed("a", metadata={"page": 3}, ttl=60)
    vectorizer.embed("  B ", preprocess=lambda text: text.strip().lower())
    cache.set("a", "another model", np.ones(3))
    report: DriftReport = call(vectorizer).verify()
    assert report.ok
    assert sorted(map(str, texts_of(report.worst))) == ["a", "b", r"b'\x89PNG\r\n'"]
    assert {entry.text: entry.metadata for entry in report.worst}["a"] == {"page": 3}
    assert report.model_names == ("toy",)


@pytest.mark.parametrize("read_only", [False, True])
def test_nothing_is_changed(
    toy: Toy, cache: EmbeddingsCache, valkey: Server, call: Callable[[Any], Any], read_only: bool
) -> None:
    toy_vectorizer(toy, cache).embed_many(SENTENCES, ttl=1_000)
    cache.set(SENTENCES[3], "toy", np.ones(DIMENSIONS), ttl=1_000)  # an outlier is not put right either
    cache.flush_stats()
    for key in valkey.plain_keys():
        valkey.raw.expire(key, 300)
    before = {key: valkey.raw.dump(key) for key in valkey.raw.scan_iter()}
    with EmbeddingsCache("d", redis_url=valkey.url, read_only=read_only) as looked_at:
        report: DriftReport = call(toy_vectorizer(toy, looked_at)).verify()
        looked_at.flush_stats()
    assert texts_of(report.outliers) == [SENTENCES[3]]
    assert {key: valkey.raw.dump(key) for key in valkey.raw.scan_iter()} == before
    assert all(valkey.raw.ttl(key) <= 300 for key in valkey.plain_keys())


def test_texts_that_the_model_refuses_are_listed(toy: Toy, cache: EmbeddingsCache, call: Callable[[Any], Any]) -> None:
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed_many(SENTENCES)
    toy.refuses = [SENTENCES[5], SENTENCES[60]]
    report: DriftReport = call(vectorizer).verify()
    assert report.checked == 73
    assert {entry.text: entry.reason for entry in report.refused} == {
        text: f"too strange: {text!r}" for text in toy.refuses
    }
    assert not report.ok
    assert "2 have a text that the model refuses." in str(report)


def test_a_model_that_is_not_there_is_an_error(cache: EmbeddingsCache, call: Callable[[Any], Any]) -> None:
    vectorizer = OpenAITextVectorizer("m", cache, base_url="http://127.0.0.1:9/v1", max_retries=0)
    cache.set("a", vectorizer.model_name, [1.0, 2.0])
    with pytest.raises(ModelUnavailableError, match="does not answer"):
        call(vectorizer).verify()


def test_a_model_that_changes_its_mind_is_an_error(cache: EmbeddingsCache) -> None:
    lengths = iter([3, 4])

    def embed_many(texts: Sequence[str | bytes]) -> np.ndarray:
        return np.ones((len(texts), next(lengths)))

    cache.mset([{"text": f"{n}", "model_name": "toy", "embedding": [1, 1, 1]} for n in range(300)])
    with pytest.raises(EmbeddingFailedError, match="of 3 components, and then of 4"):
        CustomVectorizer(vector_of, "toy", cache, embed_many_callable=embed_many).verify(300)


def test_a_seed_chooses_the_entries(toy: Toy, cache: EmbeddingsCache) -> None:
    vectorizer = toy_vectorizer(toy, cache)
    texts = [f"text {n}" for n in range(400)]
    vectorizer.embed_many(texts)
    chosen: list[set[str | bytes]] = []
    for seed in (1, 1, 2, None, None):
        toy.asked.clear()
        report = vectorizer.verify(40, seed=seed)
        assert (report.checked, report.whole) == (40, False)
        chosen.append(set(toy.asked))
    assert all(len(each) == 40 for each in chosen)
    assert chosen[0] == chosen[1]
    assert chosen[1] != chosen[2] != chosen[3] != chosen[4]


def test_more_than_there_are_is_all(toy: Toy, cache: EmbeddingsCache) -> None:
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed_many(SENTENCES)
    seen: list[tuple[int, int]] = []
    report = vectorizer.verify(20_000, on_progress=lambda done, total: seen.append((done, total)))
    assert (report.checked, report.whole) == (75, True)
    assert seen == [(75, 75)]


def test_vectors_of_another_length_are_told(toy: Toy, cache: EmbeddingsCache) -> None:
    """As where some were normalised: their direction is right, and dot products with them are wrong."""
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed_many(SENTENCES)
    text = SENTENCES[4]
    cache.set(text, "toy", vector_of(text) / np.linalg.norm(vector_of(text)))
    report = vectorizer.verify()
    assert (texts_of(report.other_length), report.outliers, report.ok) == ([text], (), False)
    assert "1 has a longer or shorter vector than the model gives." in str(report)


def test_a_zero_vector_lies_farthest_off(toy: Toy, cache: EmbeddingsCache) -> None:
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed_many(SENTENCES)
    cache.set(SENTENCES[4], "toy", np.zeros(DIMENSIONS))
    (outlier,) = vectorizer.verify().outliers
    assert (outlier.text, outlier.distance) == (SENTENCES[4], 2.0)


def test_another_dtype_is_told_and_is_no_fault(toy: Toy, cache: EmbeddingsCache, valkey: Server) -> None:
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed_many(SENTENCES[:10])
    with EmbeddingsCache("d", redis_url=valkey.url, dtype="float16") as before:
        toy_vectorizer(toy, before).embed_many(SENTENCES[10:13])
    report = vectorizer.verify()
    assert report.ok
    assert {(entry.text, entry.dtype) for entry in report.other_dtype} == {
        (text, "float16") for text in SENTENCES[10:13]
    }
    assert "3 have another dtype than the cache's." in str(report)


def test_a_dtype_that_is_too_coarse_for_the_model_is_told(valkey: Server) -> None:
    """One large component takes all of int8's steps: the others become zero, in every vector alike."""

    def spiked(text: str | bytes) -> np.ndarray:
        return np.concatenate([[1_000.0], 3 * np.sign(vector_of(text)), np.full(2_000, 3.0)])

    with EmbeddingsCache("d", redis_url=valkey.url, dtype="int8") as cache:
        vectorizer = CustomVectorizer(spiked, "spiked", cache)
        vectorizer.embed_many(SENTENCES[:10])
        report = vectorizer.verify()
    assert report.too_coarse == ("int8",)
    assert not report.ok
    assert report.outliers == ()  # each is as near as its dtype lets it be
    assert "For this model's vectors, int8 is too coarse." in str(report)


def test_a_tolerance_of_ones_own(toy: Toy, cache: EmbeddingsCache) -> None:
    vectorizer = toy_vectorizer(toy, cache)
    vectorizer.embed_many(SENTENCES)
    text = SENTENCES[4]
    turned = vector_of(text) + 0.01 * np.linalg.norm(vector_of(text)) * np.eye(DIMENSIONS)[0]
    cache.set(text, "toy", turned)
    assert vectorizer.verify().ok
    assert texts_of(vectorizer.verify(tolerance=1e-6).outliers) == [text]


def test_an_empty_cache(toy: Toy, cache: EmbeddingsCache, call: Callable[[Any], Any]) -> None:
    report: DriftReport = call(toy_vectorizer(toy, cache)).verify()
    assert (report.checked, report.ok, report.dimension, toy.asked) == (0, True, None, [])
    assert str(report) == "There is no entry of 'toy' to check."


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sample": 0}, "from 1 to 20,000 entries, not 0"),
        ({"sample": 20_001}, "from 1 to 20,000"),
        ({"sample": 2.5}, "not 2.5"),
        ({"tolerance": -0.1}, "from 0 to 2, not -0.1"),
        ({"tolerance": float("nan")}, "from 0 to 2"),
    ],
)
def test_arguments_are_checked(
    toy: Toy, cache: EmbeddingsCache, call: Callable[[Any], Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InvalidInputError, match=says):
        call(toy_vectorizer(toy, cache)).verify(**options)


def test_without_a_cache_or_its_server(toy: Toy, call: Callable[[Any], Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"pass cache=… to the vectorizer"):
        call(toy_vectorizer(toy, None)).verify()
    with EmbeddingsCache("d", redis_url="unix:///nowhere.sock") as gone, pytest.raises(CacheUnavailableError):
        call(toy_vectorizer(toy, gone)).verify()

"""What a benchmark compares: scenarios, each of some variants of the same work, on caches that are gone afterwards."""

from __future__ import annotations

import copy
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, count
from statistics import fmean
from typing import Any, Final, Protocol

import numpy as np

from embedcache import inspector
from embedcache.arguments import check_text, check_whole
from embedcache.benchmark.records import OperationName
from embedcache.cache import EmbeddingsCache
from embedcache.entry import CacheItem
from embedcache.entry_layout import LayoutName
from embedcache.errors import InvalidInputError
from embedcache.keyspace import check_batch, encode_texts
from embedcache.vectorizers.base import BaseVectorizer

MAX_ITERATIONS: Final = 10_000
MAX_BATCH: Final = 10_000
MAX_TEXTS: Final = 1_000
MAX_CHARACTERS: Final = 4_000
"""Of one text. A batch of `MAX_BATCH` such texts is 40 MB."""
MAX_DIMENSION: Final = 4_096
FEW_TEXTS: Final = 10
DTYPE_TEXTS: Final = 100

TTL_SECONDS: Final = 3_600
"""For entries that a process which was killed could not drop."""
NEAR_PATIENCE_SECONDS: Final = 0.5
_MODEL: Final = "embedcache-benchmark"

SENTENCES: Final = (
    "What is machine learning?",
    "How do I reset my password?",
    "The parcel left our warehouse on Tuesday and should reach you within three working days.",
    "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "Please summarise the minutes of yesterday's meeting in five short points.",
    "Which of your plans includes support by telephone?",
    "The orchestra tuned, the lights went down, and for a moment nobody in the hall so much as breathed.",
    "Water boils at a lower temperature on a mountain, because the air pressure is lower there.",
    "Error 504: the upstream server did not answer in time.",
    "A cache keeps the results of work that was done once, so that nobody does it again: it pays where the work is "
    "dear, the results are small, and the same questions come back.",
)
"""Ten sentences of various lengths, for those who bring no texts of their own."""


class Tell(Protocol):
    """Is told how far a benchmark is; what it raises ends the benchmark, which then cleans up."""

    def __call__(self, done: int, total: int, note: str) -> None:
        """`done` of `total` timings are taken; `note` says in a few words what is at work."""


# ------------------------------------------------------------------------------------------------ settings


@dataclass(frozen=True, slots=True)
class Settings:
    """What to measure.

    Attributes:
        texts: What is embedded and looked up, repeated ones once.
        iterations: Timings taken of each variant.
        scenarios: Keys of `SCENARIOS`.
        batch_sizes: For the scenario ``sizes``: entries per call.
        dimension: Length of the vectors where no vectorizer makes them.

    Raises:
        InvalidInputError: One of them cannot be used; the message gives the limits.
    """

    texts: tuple[str, ...] = SENTENCES
    iterations: int = 50
    scenarios: tuple[str, ...] = ("cache", "batch", "sizes", "dtypes", "layouts", "near")
    batch_sizes: tuple[int, ...] = (1, 10, 100, 1_000)
    dimension: int = 384

    def __post_init__(self) -> None:
        _check_texts(self.texts)
        check_whole("iterations", self.iterations, 1, MAX_ITERATIONS)
        check_whole("dimension", self.dimension, 1, MAX_DIMENSION)
        check_batch(self.scenarios, "scenarios")
        for key in self.scenarios:
            check_text("a scenario", key)
        check_batch(self.batch_sizes, "batch sizes")
        if not len(self.scenarios):
            raise InvalidInputError("no scenario is chosen; choose at least one")
        if unknown := sorted(set(self.scenarios) - set(SCENARIOS)):
            raise InvalidInputError(f"there is no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}")
        if "sizes" in self.scenarios and not len(self.batch_sizes):
            raise InvalidInputError("no batch size is chosen; choose at least one")
        for size in self.batch_sizes:
            check_whole("a batch size", size, 1, MAX_BATCH)


def _check_texts(texts: Sequence[str]) -> None:
    encode_texts(texts)
    if not texts:
        raise InvalidInputError("there is no text to measure with; give at least one")
    if len(texts) > MAX_TEXTS:
        raise InvalidInputError(f"a benchmark takes up to {MAX_TEXTS:,} texts, not {len(texts):,}")
    if (longest := max(map(len, texts))) > MAX_CHARACTERS:
        raise InvalidInputError(f"a benchmark's texts have up to {MAX_CHARACTERS:,} characters, not {longest:,}")


# ------------------------------------------------------------------------------------------------ the bench


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing to time. `call` takes the round's number; `complete` says whether its reply held all that was asked."""

    name: str
    operation: OperationName
    texts: int
    call: Callable[[int], Any]
    complete: Callable[[Any], bool] = bool
    bytes_per_entry: float | None = None


class Bench:
    """What the variants work on: texts, vectors, and caches that are gone when it is left."""

    def __init__(
        self, url: str | None, settings: Settings, vectorizer: BaseVectorizer | None, tell: Tell, *, read_only: bool
    ) -> None:
        self.settings = settings
        self.texts = list(dict.fromkeys(settings.texts))
        self.dimension = settings.dimension if vectorizer is None else vectorizer.dims
        self._vectorizer = vectorizer
        self._url = url
        self._tell = tell
        self._read_only = read_only
        self._name = f"embedcache-benchmark-{secrets.token_hex(6)}"
        self._kept = ExitStack()

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *error: object) -> None:
        self._kept.close()

    def items(self, number: int) -> list[CacheItem]:
        """So many entries to store: the texts, numbered where there are more, with random vectors."""
        vectors = np.random.default_rng(0).standard_normal((number, self.dimension)).astype(np.float32)
        texts = _varied(self.texts, number)
        return [
            {"text": text, "model_name": _MODEL, "embedding": vector}
            for text, vector in zip(texts, vectors, strict=True)
        ]

    def cache_of(
        self, items: Sequence[CacheItem], dtype: str = "float32", layout: LayoutName = "packed"
    ) -> EmbeddingsCache:
        """A cache that holds these entries until the bench is left."""
        cache = self._open(dtype, layout)
        self._drop_later(cache, [item["text"] for item in items], _MODEL)
        cache.mset(items)
        return cache

    def near_cache_of(self, items: Sequence[CacheItem]) -> EmbeddingsCache:
        """A cache like `cache_of` whose entries this process keeps, too."""
        cache = self._open("float32", near_cache=len(items))
        self._drop_later(cache, [item["text"] for item in items], _MODEL)
        cache.mset(items)
        cache.get(items[0]["text"], _MODEL)  # from now on the server tells of writes, unless it refuses
        started = time.monotonic()
        while not _is_tracked(cache) and time.monotonic() - started < NEAR_PATIENCE_SECONDS:
            time.sleep(0.01)
        cache.mget([item["text"] for item in items], _MODEL)
        return cache

    def vectorizer(self) -> BaseVectorizer:
        """The vectorizer over a cache that holds all the texts until the bench is left."""
        if self._vectorizer is None:
            raise InvalidInputError('the scenario "cache" needs a vectorizer')
        mine = copy.copy(self._vectorizer)  # the other one's cache is its owner's
        mine.cache = self._open("float32")
        self._drop_later(mine.cache, self.texts, mine.model_name)
        mine.embed_many(self.texts, on_progress=lambda done, total: self._tell(done, total, "Embedding the texts"))
        return mine

    def _open(self, dtype: str, layout: LayoutName = "packed", near_cache: int = 0) -> EmbeddingsCache:
        # Without restarting TTLs, a read is what it is in a cache that has none, which is the default.
        cache = EmbeddingsCache(
            f"{self._name}-{layout}-{dtype}",
            ttl=TTL_SECONDS,
            redis_url=self._url,
            dtype=dtype,
            layout=layout,
            refresh_ttl=False,
            stats=False,
            near_cache=near_cache,
            near_ttl=TTL_SECONDS,
            read_only=self._read_only,
        )
        self._kept.callback(cache.close)
        return cache

    def _drop_later(self, cache: EmbeddingsCache, texts: Sequence[str | bytes], model_name: str) -> None:
        # By their texts, for `clear` walks over all of the server's keys.
        self._kept.callback(cache.mdrop, texts, model_name)


def _is_tracked(cache: EmbeddingsCache) -> bool:
    state = cache.near_state
    return state is not None and state.tracked


def _varied(texts: Sequence[str], number: int) -> list[str]:
    found: dict[str, None] = {}
    for text in chain(texts, (f"{text} ({again})" for again in count(2) for text in texts)):
        if len(found) == number:
            break
        found[text] = None
    return list(found)


# ------------------------------------------------------------------------------------------------ scenarios


@dataclass(frozen=True, slots=True)
class Scenario:
    """Variants worth comparing.

    Attributes:
        key: Names it in `Settings` and results.
        title: Names it for people.
        question: What it answers, in a sentence.
        needs_model: Whether it takes a vectorizer.
        prepare: Makes its variants; the first one of each operation is what the others are compared with.
    """

    key: str
    title: str
    question: str
    needs_model: bool
    prepare: Callable[[Bench], list[Variant]]


def _with_and_without(bench: Bench) -> list[Variant]:
    vectorizer, texts = bench.vectorizer(), bench.texts
    return [
        Variant(
            "Without the cache",
            "embed",
            1,
            lambda turn: vectorizer.embed_report([texts[turn % len(texts)]], skip_cache=True),
            lambda report: not report.hits.any(),
        ),
        Variant(
            "With the cache",
            "embed",
            1,
            lambda turn: vectorizer.embed_report([texts[turn % len(texts)]]),
            lambda report: bool(report.hits.all()),
        ),
    ]


def _singly_and_at_once(bench: Bench) -> list[Variant]:
    items = bench.items(max(len(bench.texts), FEW_TEXTS))
    texts = [item["text"] for item in items]
    cache = bench.cache_of(items)
    return [
        Variant("One call per text", "read", len(texts), lambda _: [cache.get(text, _MODEL) for text in texts], all),
        Variant("One call for all", "read", len(texts), lambda _: cache.mget(texts, _MODEL), all),
        Variant(
            "One call per text",
            "write",
            len(texts),
            lambda _: [cache.set(item["text"], _MODEL, item["embedding"]) for item in items],
        ),
        Variant("One call for all", "write", len(texts), lambda _: cache.mset(items)),
    ]


def _batch_sizes(bench: Bench) -> list[Variant]:
    sizes = sorted(set(bench.settings.batch_sizes))
    items = bench.items(sizes[-1])
    cache = bench.cache_of(items)
    return [variant for size in sizes for variant in _reads_and_writes(f"{size:,}", cache, items[:size])]


def _dtypes(bench: Bench) -> list[Variant]:
    items = bench.items(DTYPE_TEXTS)
    variants: list[Variant] = []
    for dtype in ("float32", "float64", "float16", "int8"):
        cache = bench.cache_of(items, dtype)
        memory = _bytes_per_entry(cache, items)
        variants += _reads_and_writes(dtype, cache, items, memory)
    return variants


def _layouts(bench: Bench) -> list[Variant]:
    items = bench.items(DTYPE_TEXTS)
    variants: list[Variant] = []
    layouts: dict[str, LayoutName] = {"RedisVL": "redisvl", "Packed": "packed"}
    for name, layout in layouts.items():
        cache = bench.cache_of(items, layout=layout)
        variants += _reads_and_writes(name, cache, items, _bytes_per_entry(cache, items))
    return variants


def _server_and_near(bench: Bench) -> list[Variant]:
    items = bench.items(max(len(bench.texts), FEW_TEXTS))
    texts = [item["text"] for item in items]
    far, near = bench.cache_of(items), bench.near_cache_of(items)
    return [
        Variant("From the server", "read", len(texts), lambda _: [far.get(text, _MODEL) for text in texts], all),
        Variant("From the near cache", "read", len(texts), lambda _: [near.get(text, _MODEL) for text in texts], all),
    ]


def _reads_and_writes(
    name: str, cache: EmbeddingsCache, items: list[CacheItem], memory: float | None = None
) -> list[Variant]:
    texts = [item["text"] for item in items]
    return [
        Variant(name, "read", len(items), lambda _: cache.mget(texts, _MODEL), all, memory),
        Variant(name, "write", len(items), lambda _: cache.mset(items), bytes_per_entry=memory),
    ]


def _bytes_per_entry(cache: EmbeddingsCache, items: Sequence[CacheItem]) -> float | None:
    keys = [cache.key_for(item["text"], _MODEL) for item in items]
    found = [each.memory_bytes for each in inspector.summarise(cache.connection, keys) if each is not None]
    return fmean(found) if found else None


SCENARIOS: Final = {
    scenario.key: scenario
    for scenario in (
        Scenario(
            "cache",
            "Without and with the cache",
            "What a text costs where the model computes it, and where the cache holds it.",
            True,
            _with_and_without,
        ),
        Scenario(
            "batch",
            "Singly and in a batch",
            "What the same texts cost in one call each, and in one call for all of them.",
            False,
            _singly_and_at_once,
        ),
        Scenario(
            "sizes",
            "Batch sizes",
            "How many entries a second are read and written, by how many go into one call.",
            False,
            _batch_sizes,
        ),
        Scenario(
            "dtypes",
            "Dtypes",
            f"What the number type of stored vectors changes: memory, and time in batches of {DTYPE_TEXTS}.",
            False,
            _dtypes,
        ),
        Scenario(
            "layouts",
            "Layouts",
            f"What sharing a cache with RedisVL programs costs: memory, and time in batches of {DTYPE_TEXTS}.",
            False,
            _layouts,
        ),
        Scenario(
            "near",
            "Without and with the near cache",
            "What a text costs where the server is asked for it, and where this process still has it.",
            False,
            _server_and_near,
        ),
    )
}

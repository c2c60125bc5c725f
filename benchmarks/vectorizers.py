"""What a vectorizer adds to the cache and the model below it: a hit beside a raw GET, a batch beside its model.

The share of a batch that is spent outside the model is measured twice: by the clock, with the bundled model, and as
this process's CPU time over many more texts, with a model that costs nothing, set against what the bundled one would
have taken for them. The second is the surer one on a busy machine.

    python benchmarks/vectorizers.py [--rounds 40] [--texts 2000] [--many 10000]
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import redis
from core import SINGLES, Measure, time_rounds

from embedcache import CustomVectorizer, EmbeddingsCache, HFTextVectorizer
from embedcache.server import EmbeddedServer
from embedcache.vectorizers.base import CHUNK_TEXTS, SingleFlightMode

MAX_HIT_RATIO = 1.5
MAX_OUTSIDE = 0.03
MODES: tuple[SingleFlightMode | None, ...] = (None, "process", "shared")


class TimedModel(HFTextVectorizer):
    """The bundled model, which adds up what it takes."""

    seconds = 0.0

    def _compute(self, texts: Sequence[Any]) -> Any:
        start = time.perf_counter()
        try:
            return super()._compute(texts)
        finally:
            self.seconds += time.perf_counter() - start


def sentences(count: int) -> list[str]:
    """So many different texts of about a dozen words."""
    return [
        f"What does sentence number {number} of this benchmark say about caches and their hits?"
        for number in range(count)
    ]


def hit_ratio(socket: Path, rounds: int) -> None:
    """An `embed` hit beside a raw GET of the same bytes, and beside `get`."""
    with EmbeddingsCache("hits", redis_url=f"unix://{socket}") as cache:
        vectorizer = HFTextVectorizer(cache=cache)
        (text,) = sentences(1)
        key = cache.set(text, vectorizer.model_name, np.random.default_rng(0).standard_normal(384).astype(np.float32))
        raw = redis.Redis(unix_socket_path=str(socket))
        group = [
            Measure("raw GET", lambda: raw.get(key), repeat=SINGLES),
            Measure("get", lambda: cache.get(text, vectorizer.model_name), repeat=SINGLES),
            Measure("embed, a hit", lambda: vectorizer.embed(text), repeat=SINGLES),
        ]
        seconds = time_rounds(group, rounds)
        print(f"{'':22}{'µs':>8}{'of raw GET':>12}{'bound':>7}")
        for measure in group:
            ratio = seconds[measure.name] / seconds["raw GET"]
            line = f"{measure.name:22}{seconds[measure.name] * 1e6:8.1f}{ratio:12.2f}"
            bounded = measure.name.startswith("embed")
            print(line + (f"{MAX_HIT_RATIO:7.2f}  {verdict(ratio <= MAX_HIT_RATIO)}" if bounded else ""))
        raw.close()
    print()


def outside_by_the_clock(socket: Path, texts: int) -> float:
    """The share with the bundled model, half of the texts cached; returns the seconds it takes for a text."""
    with EmbeddingsCache("clock", redis_url=f"unix://{socket}") as cache:
        vectorizer = TimedModel(cache=cache)
        asked = sentences(texts)
        vectorizer.embed_many(asked[::2])  # the model is loaded here
        vectorizer.seconds = 0.0
        start = time.perf_counter()
        vectorizer.embed_many(asked)
        spent = time.perf_counter() - start
    print_share(f"{texts:,} texts, by the clock", spent - vectorizer.seconds, spent)
    return vectorizer.seconds / (texts // 2)


def outside_by_cpu(socket: Path, texts: int, seconds_per_text: float, mode: SingleFlightMode | None) -> None:
    """The share of CPU time outside of a model that would take so many seconds for a text."""
    asked = sentences(texts)
    vectors = np.random.default_rng(0).standard_normal((texts, 384)).astype(np.float32)
    spent = []
    for number in range(5):
        with EmbeddingsCache(f"cpu-{mode}-{number}", redis_url=f"unix://{socket}") as cache:
            rows = iter(range(0, texts, CHUNK_TEXTS))

            def given(chunk: Sequence[Any], rows: Iterator[int] = rows) -> np.ndarray:
                start = next(rows)
                return vectors[start : start + len(chunk)]

            cache.mset([{"text": text, "model_name": "m", "embedding": vectors[0]} for text in asked[::2]])
            free = CustomVectorizer(np.zeros, "m", cache, embed_many_callable=given, single_flight=mode)
            start = time.process_time()
            free.embed_many(asked)
            spent.append(time.process_time() - start)
    outside = statistics.median(spent)
    print_share(f"{texts:,} texts, CPU, {mode}", outside, outside + seconds_per_text * (texts // 2))


def print_share(what: str, outside: float, total: float) -> None:
    """One line: milliseconds outside the model, and their share."""
    share = outside / total
    print(f"{what:34}{outside * 1e3:8.1f} ms{share:9.2%}{MAX_OUTSIDE:8.0%}  {verdict(share <= MAX_OUTSIDE)}")


def verdict(is_reached: bool) -> str:
    """As `benchmarks/core.py` says it."""
    return "reached" if is_reached else "MISSED"


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--texts", type=int, default=2_000)
    parser.add_argument("--many", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="embedcache-bench-") as folder:
        server = EmbeddedServer.attach(Path(folder))
        try:
            hit_ratio(server.socket_path, options.rounds)
            print(f"{'embed_many, half cached':34}{'outside':>11}{'share':>9}{'bound':>8}")
            seconds_per_text = outside_by_the_clock(server.socket_path, options.texts)
            for mode in MODES:
                outside_by_cpu(server.socket_path, options.many, seconds_per_text, mode)
            print(f"\nthe model takes {seconds_per_text * 1e3:.2f} ms for a text")
        finally:
            server.detach()


if __name__ == "__main__":
    main()

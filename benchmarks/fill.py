"""Fills a cache with many entries, for looking at pages and scans at scale: varied sentences, random vectors, no model.

    python benchmarks/fill.py [--url embedded:///tmp/big/data] [--name big] [--entries 1000000] [--dimension 384]

The same numbers make the same texts, models, metadata and ages. Entries are spread over the last 90 days; a third never
expires, the others leave within an hour, a day, a week or a month. Running it again writes them anew.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

import numpy as np

from embedcache import EmbeddingsCache, codec
from embedcache.metadata import pack_metadata
from embedcache.operations import Command, checked_all

BATCH = 1_000
DAY = 86_400
SPREAD_DAYS = 90
MODELS = (
    ("sentence-transformers/all-MiniLM-L6-v2", 60),
    ("redis/langcache-embed-v1", 25),
    ("BAAI/bge-small-en-v1.5", 12),
    ("intfloat/multilingual-e5-small", 3),
)
TTLS = ((None, 34), (3_600, 6), (DAY, 15), (7 * DAY, 20), (30 * DAY, 25))
OPENINGS = """
How do I|Why can I not|When should I|Is it possible to|What happens if I|Who may|Please help me to|Where can customers
Do I have to|Can my team|Is there a fee to|In which cases may I
"""
VERBS = """
change|cancel|download|renew|share|translate|print|return|repair|compare|book|insure|track|merge|archive|upgrade|delete
export|recover|sign
"""
THINGS = """
my order|the monthly invoice|a train ticket|the shared calendar|my password|an old contract|the user manual
two accounts|a damaged parcel|the course notes|my travel insurance|the quarterly report|a library card|the photo album
my tax statement|a recipe for bread|the warranty|a season pass|the meeting minutes|a video call
"""
PLACES = """
in Lisbon|from abroad|on my phone|after the deadline|for a friend|without a printer|at the weekend|in winter
before the next release|over a slow connection|while travelling|in another language|with a screen reader|on a Sunday
for the whole family|by post|through the app|at short notice|in large print|for my company
"""
PARTS = [words.strip().replace("\n", "|").split("|") for words in (OPENINGS, VERBS, THINGS, PLACES)]
TOPICS = ("billing", "travel", "support", "learning", "home")
LANGUAGES = ("en", "de", "pt")


def sentence(number: int) -> str:
    """A text of its own for each number."""
    words = []
    for part in PARTS:
        number, choice = divmod(number, len(part))
        words.append(part[choice])
    question = f"{' '.join(words)}?"
    return f"{question} My case number is {number:,}." if number else question


def entries(cache: EmbeddingsCache, count: int, dimension: int, now: float) -> Iterator[list[Command]]:
    """Batches of the commands that write the entries, oldest and newest mixed."""
    chance = random.Random(0)  # noqa: S311  # the same entries every time, not a secret
    rng = np.random.default_rng(0)
    dtype = codec.stored_dtype("float32")
    names, name_weights = zip(*MODELS, strict=True)
    ttls, ttl_weights = zip(*TTLS, strict=True)
    for start in range(0, count, BATCH):
        size = min(BATCH, count - start)
        vectors = rng.standard_normal((size, dimension), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        models, lives = chance.choices(names, name_weights, k=size), chance.choices(ttls, ttl_weights, k=size)
        packed = codec.encode_vectors(vectors, dtype)
        batch: list[Command] = []
        for offset, (model, ttl, vector) in enumerate(zip(models, lives, packed, strict=True)):
            number = start + offset
            text, name = sentence(number).encode(), model.encode()
            age = chance.random() * min(SPREAD_DAYS * DAY, 0.97 * ttl if ttl else SPREAD_DAYS * DAY)
            tag = codec.tag_prefix(len(text), len(name), False) + (identity := text + b":" + name)
            rest = codec.pack_rest(now - age, pack_metadata(metadata(number)))
            key = f"{cache.name}:{sha256(identity).hexdigest()}"
            value = codec.encode(tag, vector or b"", dtype, ttl, rest)
            batch.append(("SET", key, value) if ttl is None else ("SET", key, value, "EX", max(1, int(ttl - age))))
        yield batch


def metadata(number: int) -> dict[str, Any] | None:
    """What is stored beside an entry: nothing for every other one."""
    if number % 2:
        return None
    return {
        "topic": TOPICS[number // 2 % len(TOPICS)],
        "page": number % 500,
        "source": {"language": LANGUAGES[number // 2 % len(LANGUAGES)], "checked": number % 8 == 0},
    }


def fill(url: str | None, name: str, count: int, dimension: int) -> None:
    """Fills the cache, and prints how fast."""
    started, done = time.monotonic(), 0
    with EmbeddingsCache(name, redis_url=url, stats=False) as cache:
        for batch in entries(cache, count, dimension, time.time()):
            cache.connection.drive(checked_all(*batch))
            done += len(batch)
            if done % 100_000 < BATCH or done == count:
                rate = done / (time.monotonic() - started)
                print(f"{done:>11,} of {count:,} entries, {rate:,.0f} a second", flush=True)
        print(f"{time.monotonic() - started:,.1f} s")


@contextmanager
def filled(url: str | None, name: str, count: int, dimension: int) -> Iterator[str]:
    """The URL of a server that holds the entries: the one given, filled before, or one with a folder of its own."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="embedcache-") as folder:
        started = f"embedded://{folder}/data"
        fill(started, name, count, dimension)
        yield started


def main() -> None:
    """Fills a cache as told on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="the server's; $EMBEDCACHE_URL, else the embedded server, without it")
    parser.add_argument("--name", default="big")
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    options = parser.parse_args()
    fill(options.url, options.name, options.entries, options.dimension)


if __name__ == "__main__":
    main()

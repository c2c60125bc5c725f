"""A few hundred sentences with metadata, to try every page with. Knows no streamlit.

They are ours, written for this: twelve topics and more, nine languages, questions asked twice in other words, and some
that differ in case alone, so that there is something to find for lookups, heat maps and maps.
"""

from __future__ import annotations

import json
from functools import cache as once
from pathlib import Path
from typing import Final, NamedTuple

from embedcache import EmbeddingsCache, HFTextVectorizer
from embedcache.entry import CacheItem, Metadata
from pages.ui.jobs import Progress

_FILE: Final = Path(__file__).with_name("sample_sentences.json")
_BATCH_TEXTS: Final = 64  # how often progress is told


class Sample(NamedTuple):
    """A sentence, and the metadata that it is stored with: ``topic``, ``language``, ``source`` and ``sample``: true."""

    text: str
    metadata: Metadata


@once
def samples() -> tuple[Sample, ...]:
    """All of them, in the order of the file."""
    groups = json.loads(_FILE.read_text(encoding="utf-8"))
    return tuple(
        Sample(text, {name: group[name] for name in ("topic", "language", "source")} | {"sample": True})
        for group in groups
        for text in group["texts"]
    )


def load(cache: EmbeddingsCache, vectorizer: HFTextVectorizer, progress: Progress, *, looked_up: bool = False) -> int:
    """Embeds the sentences that the cache does not hold, and stores them with their metadata and the default TTL.

    All at once in the end, for a page that is empty is another one as soon as the first entry is there.

    Args:
        cache: Where to.
        vectorizer: Computes the vectors. Its own cache is neither read nor written.
        progress: Told how many of the sentences are embedded.
        looked_up: Whether they are looked up before and after, as programs do that embed them twice: the cache counts
            that.

    Returns:
        How many were stored.

    Raises:
        EmbedcacheError: The model cannot be loaded, or the server refuses or is not there.
        JobCancelledError: Somebody cancelled; nothing was stored.
    """
    everything = samples()
    texts = [sample.text for sample in everything]
    present = cache.mexists(texts, vectorizer.model_name)
    missing = [sample for sample, there in zip(everything, present, strict=True) if not there]
    done = len(everything) - len(missing)
    if missing:
        progress.tell(done, len(everything), "" if vectorizer.loaded else "loading the model")
        vectorizer.load()
    items: list[CacheItem] = []
    for start in range(0, len(missing), _BATCH_TEXTS):
        progress.tell(done + start, len(everything), "")
        batch = missing[start : start + _BATCH_TEXTS]
        vectors = vectorizer.embed_many([sample.text for sample in batch], skip_cache=True)
        items += [
            {"text": text, "model_name": vectorizer.model_name, "embedding": vector, "metadata": metadata}
            for (text, metadata), vector in zip(batch, vectors, strict=True)
        ]
    progress.tell(len(everything), len(everything), "")
    if looked_up:
        cache.mget_embeddings(texts, vectorizer.model_name)
    if items:
        cache.mset(items)
    if looked_up:
        cache.mget_embeddings(texts, vectorizer.model_name)
    return len(items)

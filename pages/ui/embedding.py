"""Embedding as long work: what the thread does, and what it leaves for the page to draw. Knows no streamlit."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from embedcache import EmbeddingsCache, HFTextVectorizer
from embedcache.entry import TTL
from embedcache.vectorizers import EmbedReport
from pages.ui import frames
from pages.ui.jobs import Progress


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one press of Embed gave.

    Attributes:
        cache_name: The cache that was asked.
        model_name: The model.
        texts: In the order given.
        report: Their vectors, and how each came about.
        table: `frames.report_frame` of them, made once: of 100,000 texts it takes a while.
    """

    cache_name: str
    model_name: str
    texts: list[str]
    report: EmbedReport
    table: pd.DataFrame


def embed(
    cache: EmbeddingsCache,
    shared: HFTextVectorizer,
    texts: Sequence[str],
    metadata: Mapping[str, Any] | None,
    ttl: TTL,
    progress: Progress,
) -> Outcome:
    """Embeds texts through a cache. Cancelled, it ends after the chunk that it is at, and all chunks before are stored.

    Args:
        cache: One user's.
        shared: The model, everyone's; loaded where a text is missing.
        texts: What to embed.
        metadata: Stored with each vector that is computed.
        ttl: Of these.
        progress: Told how many distinct texts are done.

    Raises:
        EmbedcacheError: As `HFTextVectorizer.embed_report` does.
        JobCancelledError: Somebody cancelled.
    """
    progress.tell(0, len(set(texts)), "looking them up")
    if not shared.loaded and not all(cache.mexists(texts, shared.model_name)):
        progress.tell(0, note="loading the model")
        shared.load()  # before it is copied, or the copy loads a model of its own
    progress.tell(0, note="")
    mine = copy.copy(shared)  # `.cache` is this user's
    mine.cache = cache
    report = mine.embed_report(texts, metadata=metadata, ttl=ttl, on_progress=progress.tell)
    return Outcome(cache.name, mine.model_name, list(texts), report, frames.report_frame(texts, report))

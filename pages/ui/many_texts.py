"""Many texts looked up at once: which are there, and why the others are not. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from embedcache import EmbeddingsCache, EntrySummary, inspector
from embedcache.explain import Explanation, Reason
from pages.ui.inputs import UnusableInputError, lines_of
from pages.ui.wording import one_line, size, until

MAX_TEXTS: Final = 1_000
MAX_EXPLAINED: Final = 50
"""Misses that are explained at once: each is some round trips."""

FOUND: Final = "Found"
MISSED: Final = "Missed"
_NOT_ASKED: Final = "tick it to see"

SHORT_REASONS: Final = {
    Reason.HIT: "stored this moment",
    Reason.CORRUPT: "damaged",
    Reason.OTHER_ENTRY: "another text has its key",
    Reason.EXPIRED: "expired",
    Reason.GONE: "evicted or removed",
    Reason.OTHER_OPTIONS: "under other options",
    Reason.OTHER_MODEL: "under another model",
    Reason.OTHER_SPELLING: "spelt otherwise",
    Reason.NEVER_STORED: "never stored",
}


@dataclass(frozen=True, slots=True)
class Looked:
    """One text that was looked up.

    Attributes:
        text: The text.
        key: Its key, whether or not there is an entry.
        summary: Its entry without the vector, or None where it missed.
    """

    text: str
    key: str
    summary: EntrySummary | None


def texts_of(lines: str) -> tuple[str, ...]:
    """The distinct texts, one per line that holds something.

    Raises:
        UnusableInputError: There are none, or too many.
    """
    texts = tuple(dict.fromkeys(lines_of(lines)[0]))
    if not texts:
        raise UnusableInputError("There is no text here yet. Type the texts to look up, one per line.")
    if len(texts) > MAX_TEXTS:
        raise UnusableInputError(
            f"These are {len(texts):,} texts, and {MAX_TEXTS:,} can be looked up at once. Look them up in parts."
        )
    return texts


def look_up(cache: EmbeddingsCache, texts: Sequence[str], model_name: str) -> list[Looked]:
    """Looks up texts without moving their vectors, in a few round trips."""
    keys = [cache.key_for(text, model_name) for text in texts]
    there = cache.mexists(texts, model_name)
    summaries = iter(inspector.summarise(cache.connection, [key for key, hit in zip(keys, there, strict=True) if hit]))
    return [
        Looked(text, key, next(summaries) if hit else None) for text, key, hit in zip(texts, keys, there, strict=True)
    ]


def explain(cache: EmbeddingsCache, looked: Sequence[Looked], model_name: str) -> dict[str, Explanation]:
    """Why the first `MAX_EXPLAINED` misses missed, by key; without a walk over the cache for each."""
    missed = [each for each in looked if each.summary is None]
    return {each.key: cache.why(each.text, model_name, max_scan=0) for each in missed[:MAX_EXPLAINED]}


def frame(looked: Sequence[Looked], whys: Mapping[str, Explanation]) -> pd.DataFrame:
    """A row per text, in order: ``result`` (a list, for chips), ``text``, ``why``, ``expires``, ``memory``, ``model``.

    The model is that of the entry, or of one that is stored instead; empty where there is none.
    """
    return pd.DataFrame(
        {
            "result": [[MISSED if each.summary is None else FOUND] for each in looked],
            "text": [one_line(each.text) for each in looked],
            "why": [_why(each, whys) for each in looked],
            "expires": ["" if each.summary is None else until(each.summary.expires_in) for each in looked],
            "memory": ["" if each.summary is None else size(each.summary.memory_bytes) for each in looked],
            "model": [one_line(_model(each, whys)) for each in looked],
        },
        index=pd.RangeIndex(1, len(looked) + 1, name="#"),
    )


def _why(looked: Looked, whys: Mapping[str, Explanation]) -> str:
    if looked.summary is not None:
        return ""
    explanation = whys.get(looked.key)
    return _NOT_ASKED if explanation is None else SHORT_REASONS[explanation.reason]


def _model(looked: Looked, whys: Mapping[str, Explanation]) -> str:
    if looked.summary is not None:
        return looked.summary.model_name
    explanation = whys.get(looked.key)
    return explanation.similar[0][1] if explanation is not None and explanation.similar else ""

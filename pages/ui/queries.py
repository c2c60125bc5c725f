"""What a user looked up. Here and not on the page, whose classes are made anew at each run of it.

Knows no streamlit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """One entry that was looked up.

    Attributes:
        cache_name: The cache that is asked.
        key: The entry's key.
        text: The text, or None where the key was given.
        model_name: The model, or None where the key was given.
    """

    cache_name: str
    key: str
    text: str | None = None
    model_name: str | None = None


@dataclass(frozen=True, slots=True)
class ManyTexts:
    """Texts that were looked up at once, under one model of one cache."""

    cache_name: str
    texts: tuple[str, ...]
    model_name: str

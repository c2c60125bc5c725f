"""Whether vectors are well: norms, zeros, NaN, the same vector twice, texts spelt twice. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedcache.entry import Text
from embedcache.explain import fold
from embedcache.sampling import Vectors
from pages.ui.wording import count, counted, share, size, visible

UNIT_TOLERANCE: Final = 0.01
"""How far from 1 the norm of a vector may be that counts as of length 1: float16 and int8 round that much."""
_SHOWN_SPELLINGS: Final = 3
_SPELLING_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class Health:
    """What was found in the vectors of some entries. Rows are positions among these.

    Attributes:
        entries: How many there are.
        finite: Which rows have no NaN and no infinity, bool, shape (n,).
        norms: The Euclidean norms of the finite ones, shape (m,).
        unit: How many have a norm of 1, give or take 1 %.
        zero: How many are zero throughout.
        constant: How many of the d positions hold the same number in every vector.
        duplicates: Groups of rows whose vectors are the same, though their texts are not only spelt differently.
        spellings: Groups of rows of one model whose texts differ in case, white space or Unicode form alone.
        saved_entries: How many entries would go if each of these were one.
        saved_bytes: The length of their values; of each group, the longest stays.
    """

    entries: int
    finite: npt.NDArray[np.bool_]
    norms: npt.NDArray[np.float64]
    unit: int
    zero: int
    constant: int
    duplicates: tuple[tuple[int, ...], ...]
    spellings: tuple[tuple[int, ...], ...]
    saved_entries: int
    saved_bytes: int

    @property
    def not_finite(self) -> int:
        """How many have NaN or infinity in them."""
        return self.entries - int(np.count_nonzero(self.finite))

    @property
    def duplicated(self) -> int:
        """How many entries share their vector with another text."""
        return sum(map(len, self.duplicates))


def examine(vectors: Vectors) -> Health:
    """Looks for what is wrong with vectors, or wasteful."""
    matrix = vectors.matrix
    finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(matrix), axis=1)
    well = matrix if finite.all() else matrix[finite]
    norms = np.sqrt(np.einsum("ij,ij->i", well, well, dtype=np.float64))
    folded = [fold(text) for text in vectors.texts]
    spellings = _groups(zip(vectors.model_names, folded, strict=True))
    sizes = vectors.value_bytes
    constant = int(np.count_nonzero(well.min(axis=0) == well.max(axis=0))) if len(well) > 1 else 0
    return Health(
        entries=len(vectors),
        finite=finite,
        norms=norms,
        unit=int(np.count_nonzero(np.abs(norms - 1) <= UNIT_TOLERANCE)),
        zero=int(np.count_nonzero(norms == 0)),
        constant=constant,
        duplicates=_duplicates(vectors, finite, folded),
        spellings=spellings,
        saved_entries=sum(len(rows) - 1 for rows in spellings),
        saved_bytes=sum(int(sizes[list(rows)].sum() - sizes[list(rows)].max()) for rows in spellings),
    )


def _groups(keys: Iterable[Hashable]) -> tuple[tuple[int, ...], ...]:
    """The positions of keys that are there more than once, largest groups first."""
    rows: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    shared = [tuple(each) for each in rows.values() if len(each) > 1]
    return tuple(sorted(shared, key=lambda each: -len(each)))


def _duplicates(vectors: Vectors, finite: npt.NDArray[np.bool_], folded: list[Text]) -> tuple[tuple[int, ...], ...]:
    # Digests and not the vectors themselves, which would be held twice.
    digests = (blake2b(row.tobytes(), digest_size=16).digest() for row in vectors.matrix)
    groups = _groups(zip(vectors.model_names, digests, strict=True))
    return tuple(
        rows
        for rows in groups
        if finite[rows[0]] and vectors.matrix[rows[0]].any() and len({folded[row] for row in rows}) > 1
    )


# ------------------------------------------------------------------------------------------------ in words


def findings(health: Health, unreadable: int) -> pd.DataFrame:
    """One row per check, in our own words alone: ``Check``, ``Found`` and ``What it means``, and what to do.

    Args:
        health: From `examine`.
        unreadable: Values under the cache's keys that are no entries.
    """
    rows = [
        ("Length 1", share(health.unit / max(health.entries, 1)), _unit_meaning(health)),
        (
            "Zero vectors",
            count(health.zero),
            "None, as it should be."
            if not health.zero
            else "A zero vector is similar to nothing: a search never finds it. Drop these entries and embed their "
            "texts again; if they come back, the model fails on them.",
        ),
        (
            "NaN or infinity",
            count(health.not_finite),
            "None, as it should be."
            if not health.not_finite
            else "Any sum with NaN is NaN, so one such vector can spoil a whole search. Another program wrote them: "
            "drop these entries, and check what it computes. They are not on the map.",
        ),
        (
            "Shared vectors",
            count(health.duplicated),
            "None, as it should be."
            if not health.duplicates
            else f"So many entries share {counted(len(health.duplicates), 'vector')}, though their texts are not only "
            "spelt differently. A model that cuts long texts gives all that begin alike the same vector; else a "
            "program mixed up its rows. Compare the texts below.",
        ),
        (
            "Positions that never change",
            count(health.constant),
            "None, as it should be."
            if not health.constant
            else "They hold the same number in every vector, so they cost memory and tell nothing apart. A few are "
            "harmless; many mean that vectors were padded or cut.",
        ),
        (
            "Unreadable values",
            count(unreadable),
            "None, as it should be."
            if not unreadable
            else "They lie under the cache's keys and are damaged, or were written by something else. A lookup of "
            "their texts is a miss, and embedding the texts again replaces them.",
        ),
    ]
    return pd.DataFrame(rows, columns=["Check", "Found", "What it means"])


def _unit_meaning(health: Health) -> str:
    if health.unit == health.entries:
        return "All have a norm of 1, give or take 1%: dot product and cosine similarity are the same."
    if health.unit == 0:
        return "None has a norm of 1: compare them by cosine similarity, or normalize them before using dot products."
    return (
        f"{count(health.entries - health.unit)} of {count(health.entries)} have another norm, as if two programs wrote "
        "them. Dot products favour the longer ones: compare by cosine similarity, or normalize all."
    )


def saving(health: Health, whole: bool, entries_in_cache: int) -> str:
    """What merging spellings would save, in our own words.

    Args:
        health: From `examine`.
        whole: Whether it is of all entries, and not of a sample.
        entries_in_cache: How many there are in all, or 0 where that is not known.
    """
    if not health.spellings:
        return "No two texts differ in case, white space or Unicode form alone. There is nothing to merge."
    found = (
        f"{counted(len(health.spellings), 'text')} {'is' if len(health.spellings) == 1 else 'are'} stored in several "
        f"spellings. One entry each would save {_entries(health.saved_entries)} and {size(health.saved_bytes)}"
    )
    advice = "To merge them, make texts alike before they are embedded: trim them, join white space, and lower case "
    advice += "where it makes no difference to you."
    if whole or entries_in_cache <= health.entries:
        return f"{found}. {advice}"
    times = entries_in_cache / health.entries
    about = (
        f"about {_entries(_rounded(health.saved_entries * times))} and {size(_rounded(health.saved_bytes * times))} "
        f"among the {count(entries_in_cache)} of the whole cache, or more: a sample misses pairs of which it drew one"
    )
    return f"{found} in this sample; {about}. {advice}"


def _entries(number: int) -> str:
    return counted(number, "entry", "entries")


def _rounded(number: float) -> int:
    """An estimate to two digits: 1,234 is as good as 1,200."""
    return int(float(f"{number:.1e}"))


def groups_frame(vectors: Vectors, groups: Sequence[Sequence[int]], most: int = 50) -> pd.DataFrame:
    """One row per group of rows, in order: ``entries``, ``open``, a link to one, and ``texts`` as they are spelt."""
    chosen = groups[:most]
    return pd.DataFrame(
        {
            "entries": [len(rows) for rows in chosen],
            "open": [lookup_link(vectors.keys[rows[0]]) for rows in chosen],
            "texts": [
                "  |  ".join(spelt(vectors.texts[row]) for row in rows[:_SHOWN_SPELLINGS])
                + (f"  |  and {count(len(rows) - _SHOWN_SPELLINGS)} more" if len(rows) > _SHOWN_SPELLINGS else "")
                for rows in chosen
            ],
        }
    )


def spelt(text: Text) -> str:
    """A text with its white space to be seen, where there is any but single spaces between words."""
    shown = visible(text, _SPELLING_CHARACTERS)
    more = "…" if len(text) > _SPELLING_CHARACTERS else ""
    words = shown.split(" ")
    marked = shown if all(words) and shown.isprintable() else shown.replace(" ", "␣")
    return marked.replace("\n", "⏎").replace("\t", "⇥") + more


def lookup_link(key: str) -> str:
    """Where Lookup shows an entry, from any other page."""
    return f"lookup?key={quote(key, safe='')}"

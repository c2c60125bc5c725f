"""Whether vectors are well: norms, zeros, NaN, the same vector twice, texts spelt twice. Knows no streamlit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

import numpy as np
import numpy.typing as npt
import pandas as pd
from xxhash import xxh3_64_intdigest

from embedcache.entry import Text
from embedcache.explain import fold
from embedcache.sampling import Vectors
from pages.ui.wording import count, counted, share, size, visible

UNIT_TOLERANCE: Final = 0.01
"""How far from 1 the norm of a vector may be that counts as of length 1: float16 and int8 round that much."""
_MOST_GROUPS: Final = 50
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
    examination = Examination()
    examination.add(vectors)
    return examination.result()


class Examination:
    """As `examine`, of more vectors than fit in memory at once: some are added, looked at and let go."""

    def __init__(self) -> None:
        self._finite: list[npt.NDArray[np.bool_]] = []
        self._norms: list[npt.NDArray[np.float64]] = []
        self._sizes: list[npt.NDArray[np.int64]] = []
        # 64 bits of each vector and text tell a million of them apart, and sort in no time.
        self._marks: list[npt.NDArray[np.uint64]] = []
        self._folded: list[npt.NDArray[np.uint64]] = []
        self._lowest: npt.NDArray[np.float32] | None = None
        self._highest: npt.NDArray[np.float32] | None = None

    def add(self, vectors: Vectors) -> None:
        """Looks at vectors, all of the dimension of those before. Their rows follow on those of these."""
        matrix = vectors.matrix
        finite: npt.NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(matrix), axis=1)
        well = matrix if finite.all() else matrix[finite]
        seeds = [xxh3_64_intdigest(_as_bytes(name)) for name in vectors.model_names]
        self._finite.append(finite)
        self._norms.append(np.sqrt(np.einsum("ij,ij->i", well, well, dtype=np.float64)))
        self._sizes.append(vectors.value_bytes)
        self._marks.append(_marks(map(np.ndarray.tobytes, matrix), seeds))
        self._folded.append(_marks(map(_as_bytes, map(fold, vectors.texts)), seeds))
        if len(well):
            lowest, highest = well.min(axis=0), well.max(axis=0)
            self._lowest = lowest if self._lowest is None else np.minimum(lowest, self._lowest)
            self._highest = highest if self._highest is None else np.maximum(highest, self._highest)

    def result(self) -> Health:
        """What was found in all of them."""
        finite = np.concatenate([np.empty(0, np.bool_), *self._finite])
        norms = np.concatenate([np.empty(0), *self._norms])
        sizes = np.concatenate([np.empty(0, np.int64), *self._sizes])
        marks, folded = (np.concatenate([np.empty(0, np.uint64), *parts]) for parts in (self._marks, self._folded))
        whole_norms = np.zeros(len(finite))
        whole_norms[finite] = norms
        spellings = _groups(folded, np.ones(len(folded), np.bool_))
        return Health(
            entries=len(finite),
            finite=finite,
            norms=norms,
            unit=int(np.count_nonzero(np.abs(norms - 1) <= UNIT_TOLERANCE)),
            zero=int(np.count_nonzero(norms == 0)),
            constant=self._constant(len(norms)),
            duplicates=tuple(rows for rows in _groups(marks, whole_norms > 0) if len(set(folded[list(rows)])) > 1),
            spellings=spellings,
            saved_entries=sum(len(rows) - 1 for rows in spellings),
            saved_bytes=sum(int(sizes[list(rows)].sum() - sizes[list(rows)].max()) for rows in spellings),
        )

    def _constant(self, finite: int) -> int:
        if self._lowest is None or finite < 2:  # noqa: PLR2004 - one vector varies in nothing
            return 0
        return int(np.count_nonzero(self._lowest == self._highest))


def _marks(values: Iterable[bytes], seeds: Sequence[int]) -> npt.NDArray[np.uint64]:
    """64 bits of each value and its seed."""
    return np.array([xxh3_64_intdigest(value, seed) for value, seed in zip(values, seeds, strict=True)], np.uint64)


def _as_bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else b"str:" + text.encode(errors="surrogatepass")


def _groups(marks: npt.NDArray[np.uint64], wanted: npt.NDArray[np.bool_]) -> tuple[tuple[int, ...], ...]:
    """The wanted rows whose marks are there more than once, largest groups first, then by their first rows."""
    rows = np.flatnonzero(wanted)
    _, codes, counts = np.unique(marks[rows], return_inverse=True, return_counts=True)
    shared = counts[codes] > 1
    rows, codes = rows[shared], codes[shared]
    rows = rows[np.argsort(codes, kind="stable")]
    groups = [tuple(part.tolist()) for part in np.split(rows, np.cumsum(counts[counts > 1])[:-1]) if len(part)]
    return tuple(sorted(groups, key=lambda each: (-len(each), each)))


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


def named_rows(health: Health) -> list[int]:
    """The rows whose keys or texts `groups_frame` needs, ascending."""
    groups = (*health.duplicates[:_MOST_GROUPS], *health.spellings[:_MOST_GROUPS])
    return sorted({row for rows in groups for row in rows[:_SHOWN_SPELLINGS]})


def groups_frame(entries: Mapping[int, tuple[str, Text]], groups: Sequence[Sequence[int]]) -> pd.DataFrame:
    """One row per group of rows, in order, of the first 50: how many, a link to one, and how they are spelt.

    Args:
        entries: Key and text of each of `named_rows`.
        groups: Rows that are alike.

    Returns:
        ``entries``, ``open`` and ``texts``.
    """
    chosen = groups[:_MOST_GROUPS]
    return pd.DataFrame(
        {
            "entries": [len(rows) for rows in chosen],
            "open": [lookup_link(entries[rows[0]][0]) for rows in chosen],
            "texts": [
                "  |  ".join(spelt(entries[row][1]) for row in rows[:_SHOWN_SPELLINGS])
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

"""What is found where cached entries are compared with the model at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache.entry import Metadata, Text

Distances: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class DriftEntry:
    """One entry of the sample.

    Attributes:
        key: The Redis key.
        text: Its text.
        model_name: The name under which it is kept.
        metadata: The JSON object stored beside it, or None.
        inserted_at: When it was stored, in Unix seconds by the writer's clock.
        dtype: How its vector is stored; ``json`` in RedisVL's layout.
        dimension: Length of its vector.
        distance: Cosine distance from the new vector, 0 to 2; 2 where the stored one is zero or not finite; None where
            the two differ in dimension, or there is no new one.
        reason: Why the model refused the text; empty where it did not.
    """

    key: str
    text: Text
    model_name: str
    metadata: Metadata | None
    inserted_at: float
    dtype: str
    dimension: int
    distance: float | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class DriftReport:
    """What became of a sample of entries when their texts were embedded anew.

    Attributes:
        model_names: The names under which entries were looked for.
        checked: How many entries were compared, ``n``.
        distances: Cosine distances, float64, shape ``(n,)``.
        allowed: How far each might lie off, float64, shape ``(n,)``.
        worst: The entries that lie farthest off, whether too far or not; at most 10, farthest first.
        outliers: The entries that lie too far off, farthest first: another model made their vectors, or another
            revision, prompt or text.
        other_length: The entries whose vectors point the right way and are too long or too short, as where one was
            normalised and the other not.
        wrong_dimension: The entries of another dimension than the model's.
        refused: The entries whose texts the model refuses.
        other_dtype: The entries that are stored with another dtype than the cache's own. They are read as they should
            be, and may be right.
        too_coarse: The dtypes that turn vectors of this model by more than the tolerance when they are stored.
        dimension: The model's; None where it embedded nothing.
        tolerance: The cosine distance that is let pass, before that of the dtype.
        unreadable: Values that were met on the way and are no whole entries.
        whole: Whether the entries are all that there are under these names.
    """

    model_names: tuple[str, ...]
    checked: int
    distances: Distances
    allowed: Distances
    worst: tuple[DriftEntry, ...]
    outliers: tuple[DriftEntry, ...]
    other_length: tuple[DriftEntry, ...]
    wrong_dimension: tuple[DriftEntry, ...]
    refused: tuple[DriftEntry, ...]
    other_dtype: tuple[DriftEntry, ...]
    too_coarse: tuple[str, ...]
    dimension: int | None
    tolerance: float
    unreadable: int
    whole: bool

    @property
    def ok(self) -> bool:
        """Whether every entry of the sample is what the model gives; True where there was none."""
        return not (self.outliers or self.other_length or self.wrong_dimension or self.refused or self.too_coarse)

    def __str__(self) -> str:
        sampled = self.checked + len(self.wrong_dimension) + len(self.refused)
        if not sampled:
            return f"There is no entry of {' or '.join(map(repr, self.model_names))} to check."
        found = [
            (len(self.outliers), f"{_have(self.outliers)} another vector than the model gives{self._up_to()}"),
            (len(self.other_length), f"{_have(self.other_length)} a longer or shorter vector than the model gives"),
            (len(self.wrong_dimension), f"{_have(self.wrong_dimension)} another dimension than the model's"),
            (len(self.refused), f"{_have(self.refused)} a text that the model refuses"),
            (len(self.other_dtype), f"{_have(self.other_dtype)} another dtype than the cache's"),
        ]
        sentences = [f"{count:,} {words}." for count, words in found if count]
        if self.too_coarse:
            sentences.append(f"For this model's vectors, {' and '.join(self.too_coarse)} is too coarse.")
        first = "all agree with the model" if self.ok else "not all agree with the model"
        return " ".join([f"{sampled:,} {'entry' if sampled == 1 else 'entries'} checked: {first}.", *sentences])

    def _up_to(self) -> str:
        farthest = self.outliers[0].distance if self.outliers else None
        return "" if farthest is None else f", at a cosine distance of up to {farthest:.3g}"


def _have(entries: Sequence[DriftEntry]) -> str:
    return "has" if len(entries) == 1 else "have"

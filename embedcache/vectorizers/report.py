"""`EmbedReport`: the vectors of a batch, and how each came about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Vector: TypeAlias = npt.NDArray[np.float32]
Matrix: TypeAlias = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class EmbedReport:
    """The vectors of a batch, and how each came about.

    Attributes:
        vectors: float32, shape ``(n, d)``, row i that of text i.
        hits: bool, shape ``(n,)``: whether the text was in the cache when it was asked for.
        seconds: float64, shape ``(n,)``: the text's share of the look-up, and where it was missing, of the computation
            or of the wait for another caller's.
        lookup_seconds: What reading the cache took.
        compute_seconds: What the model took.
        store_seconds: What writing to the cache took.
        unstored: Distinct texts whose vectors were computed but not kept, because the cache's server did not answer or
            refused them.
        withheld: Distinct texts whose vectors were computed but not kept, because the cache is read-only.
        flights_saved: Distinct texts that were missing and not computed here, because another caller computed them.
        wait_seconds: What waiting for other callers took.
        cache_failure: What the cache's server refused this call with, or that it did not answer; None where it did all
            that it was asked.
    """

    vectors: Matrix
    hits: npt.NDArray[np.bool_]
    seconds: npt.NDArray[np.float64]
    lookup_seconds: float
    compute_seconds: float
    store_seconds: float
    unstored: int
    withheld: int = 0
    flights_saved: int = 0
    wait_seconds: float = 0.0
    cache_failure: str | None = None

"""The same work for all: texts, and random vectors of length one in the forms that caches ask for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

MODEL = "sentence-transformers/all-MiniLM-L6-v2"


@dataclass(frozen=True)
class Workload:
    """So many entries of one dimension. The same numbers make the same entries."""

    entries: int
    dimension: int

    @cached_property
    def texts(self) -> list[str]:
        """One text for each entry."""
        return [f"What does sentence number {i} of the benchmark say?" for i in range(self.entries)]

    @cached_property
    def vectors(self) -> npt.NDArray[np.float32]:
        """A matrix (entries, dimension)."""
        vectors = np.random.default_rng(0).standard_normal((self.entries, self.dimension)).astype(np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    @cached_property
    def lists(self) -> list[list[float]]:
        """The vectors as lists, for caches that take no arrays. Making lists of arrays is not timed."""
        return self.vectors.tolist()

    @cached_property
    def items(self) -> list[dict[str, Any]]:
        """The entries as `EmbeddingsCache.mset` takes them."""
        return [
            {"text": text, "model_name": MODEL, "embedding": vector}
            for text, vector in zip(self.texts, self.vectors, strict=True)
        ]

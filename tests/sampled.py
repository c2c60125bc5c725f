"""Entries as a sample has them, without a server."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedcache.sampling import Vectors


def vectors_of(matrix: Any, **columns: Any) -> Vectors:
    n = len(matrix)
    given = {
        "keys": tuple(f"c:{row:064x}" for row in range(n)),
        "texts": tuple(f"text {row}" for row in range(n)),
        "model_names": ("m",) * n,
        "metadata": (None,) * n,
        "inserted_at": np.full(n, 1_000.0),
        "value_bytes": np.full(n, 100),
        "matrix": matrix,
    }
    return Vectors(**{**given, **columns})

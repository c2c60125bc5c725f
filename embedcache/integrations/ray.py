"""A vectorizer in the shape that Ray Data's ``map_batches`` takes: a class that an actor makes once, and calls often.

::

    ray.data.read_parquet("corpus/").map_batches(
        EmbedBatch, fn_constructor_kwargs={"settings": settings, "column": "body"}, concurrency=4, batch_size=256
    )

Ray itself is not imported. What is sent to actors are settings alone; each process makes one vectorizer and one
connection of them (https://docs.ray.io/en/latest/data/api/doc/ray.data.Dataset.map_batches.html).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from embedcache.arguments import check_kind, check_text
from embedcache.entry import TTL
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.planning import wanted
from embedcache.vectorizers.prompts import InputType, check_input_type
from embedcache.warming import VectorizerSettings


class EmbedBatch:
    """Batches of texts to batches with vectors, in Ray's ``numpy`` format: a dict of columns.

    Args:
        settings: How an actor's process makes its vectorizer.
        column: The column of the texts.
        into: The column of the vectors: float32, shape ``(n, d)``.
        input_type: What the texts are, as of `BaseVectorizer.embed_many`.
        ttl: Seconds that what is computed lives, as there.

    Raises:
        InvalidInputError: A setting cannot be used.
    """

    def __init__(
        self,
        settings: VectorizerSettings,
        column: str = "text",
        into: str = "embedding",
        input_type: InputType | None = None,
        ttl: TTL = None,
    ) -> None:
        check_text("column", column)
        check_text("into", into)
        check_input_type(input_type)
        wanted(None, ttl, input_type)
        self._vectorizer = check_kind("settings", settings, VectorizerSettings).shared()
        self._column = column
        self._into = into
        self._input_type = input_type
        self._ttl = ttl

    def __call__(self, batch: dict[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """The batch with its vectors.

        Raises:
            InvalidInputError: There is no such column, or a text cannot be used; the error names its index.
        """
        if not isinstance(batch, Mapping) or not isinstance(batch.get(self._column), np.ndarray):
            raise InvalidInputError(f"a batch is a dict of numpy columns, {self._column!r} among them")
        texts = batch[self._column].tolist()
        vectors = self._vectorizer.embed_many(texts, input_type=self._input_type, ttl=self._ttl)
        return {**batch, self._into: np.asarray(vectors, np.float32)}

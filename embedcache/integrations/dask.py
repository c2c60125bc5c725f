"""Vectorizers and warming for the partitions of Dask's bags and data frames, on as many machines as it has.

::

    settings = VectorizerSettings(cache=CacheSettings("docs", redis_url="redis+cluster://10.0.0.1:6379"))
    texts = dask.bag.read_text("corpus/*.txt").str.strip().filter(bool)
    vectors = texts.map_partitions(EmbedTexts(settings))
    report = add_up(texts.map_partitions(WarmTexts(settings)))
    frame = embed_frame(dask.dataframe.read_parquet("corpus/"), settings, column="body", into="vector")

What is sent to workers are settings alone. A worker makes one vectorizer and one connection of them, which all its
partitions and threads share; a text that several workers lack at the same time is computed by one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from embedcache.arguments import check_kind, check_text, gone_through
from embedcache.entry import TTL, Text
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.planning import wanted
from embedcache.vectorizers.prompts import InputType, check_input_type
from embedcache.vectorizers.report import Vector
from embedcache.warming import VectorizerSettings, WarmReport, add_up, warm_texts
from embedcache.warming.corpora import check_names

if TYPE_CHECKING:
    from dask.dataframe import DataFrame

__all__ = ["EmbedFrame", "EmbedTexts", "WarmTexts", "add_up", "embed_frame"]

Frame = TypeVar("Frame")
"""A pandas data frame."""


@dataclass(frozen=True, slots=True)
class EmbedTexts:
    """Texts to vectors, for `dask.bag.Bag.map_partitions`.

    Args:
        settings: How a worker makes its vectorizer.
        input_type: What the texts are, as of `BaseVectorizer.embed_many`.
        ttl: Seconds that what is computed lives, as there.
    """

    settings: VectorizerSettings
    input_type: InputType | None = None
    ttl: TTL = None

    def __post_init__(self) -> None:
        check_kind("settings", self.settings, VectorizerSettings)
        check_input_type(self.input_type)
        wanted(None, self.ttl, self.input_type)

    def __call__(self, texts: Iterable[Text]) -> list[Vector]:
        """The vectors of a partition's texts, in order: float32, shape ``(d,)`` each."""
        asked = list(gone_through("texts", texts))
        if not asked:
            return []
        vectorizer = self.settings.shared()
        return list(vectorizer.embed_many(asked, input_type=self.input_type, ttl=self.ttl))


@dataclass(frozen=True, slots=True)
class EmbedFrame:
    """A data frame to one with a column of vectors more, for ``map_partitions``; `embed_frame` says it to Dask.

    Args:
        embed: What embeds the texts.
        column: The column of the texts.
        into: The column of the vectors.
    """

    embed: EmbedTexts
    column: str = "text"
    into: str = "embedding"

    def __post_init__(self) -> None:
        check_kind("embed", self.embed, EmbedTexts)
        check_text("column", self.column)
        check_text("into", self.into)

    def __call__(self, frame: Frame) -> Frame:
        """A partition with its vectors."""
        _check_column(frame, self.column)
        pandas: Any = frame  # which is not imported here
        vectors = pandas[self.column].astype(object)
        if len(pandas):
            vectors = type(vectors)(self.embed(pandas[self.column]), index=pandas.index, dtype=object)
        return cast("Frame", pandas.assign(**{self.into: vectors}))


def embed_frame(
    frame: DataFrame,
    settings: VectorizerSettings,
    *,
    column: str = "text",
    into: str = "embedding",
    input_type: InputType | None = None,
    ttl: TTL = None,
) -> DataFrame:
    """A Dask data frame with a column of vectors more; computed when Dask computes it.

    Args:
        frame: The frame.
        settings: How a worker makes its vectorizer.
        column: The column of the texts.
        into: The column of the vectors: float32, shape ``(d,)`` each.
        input_type: As of `EmbedTexts`.
        ttl: As of `EmbedTexts`.

    Raises:
        InvalidInputError: There is no such column.
    """
    embed = EmbedFrame(EmbedTexts(settings, input_type, ttl), column, into)
    _check_column(frame, column)
    # Told what comes out, Dask does not try it on texts of its own, which would be computed and stored.
    untyped: Any = frame
    return cast("DataFrame", untyped.map_partitions(embed, meta=embed(untyped._meta)))


def _check_column(frame: object, column: str) -> None:
    columns = getattr(frame, "columns", None)
    if columns is None or isinstance(frame, type):
        raise InvalidInputError(f"frame is a data frame, not {type(frame).__name__}")
    if column not in columns:
        raise InvalidInputError(f"the frame has no column {column!r}; it has {', '.join(map(repr, columns))}")


@dataclass(frozen=True, slots=True)
class WarmTexts:
    """Texts embedded into a cache, and no vector moved to anywhere else, for `dask.bag.Bag.map_partitions`.

    Args:
        settings: How a worker makes its vectorizer.
        column: Where partitions hold dicts: the key of the text.
        metadata: Of such dicts, what is kept beside the vectors.
        input_type: As of `EmbedTexts`.
        ttl: As of `EmbedTexts`.
    """

    settings: VectorizerSettings
    column: str = "text"
    metadata: tuple[str, ...] = ()
    input_type: InputType | None = None
    ttl: TTL = None

    def __post_init__(self) -> None:
        check_kind("settings", self.settings, VectorizerSettings)
        check_text("column", self.column)
        check_names(self.metadata)
        check_input_type(self.input_type)
        wanted(None, self.ttl, self.input_type)

    def __call__(self, texts: Iterable[str | Mapping[str, Any]]) -> list[WarmReport]:
        """One report, of this partition; rows count from 1 in each."""
        return [
            warm_texts(
                texts,
                self.settings.shared(),
                column=self.column,
                metadata=self.metadata,
                input_type=self.input_type,
                ttl=self.ttl,
            )
        ]

"""A corpus embedded into a cache before anybody asks for it: what is missing is computed once and stored.

::

    settings = VectorizerSettings(cache=CacheSettings("docs"))
    report = warm("corpus.csv", settings, column="body", processes=4)
    print(report.computed, report.hits, report.bad_rows)

A warming that was cancelled or killed goes on when it is begun again: what is done is what the cache holds
(`docs/warming.md`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

from embedcache.arguments import check_function, check_path, check_text, check_whole, gone_through
from embedcache.entry import TTL
from embedcache.errors import InvalidInputError
from embedcache.vectorizers.base import BaseVectorizer
from embedcache.vectorizers.prompts import InputType
from embedcache.warming.corpora import (
    BadRow,
    Corpus,
    CorpusFormat,
    Row,
    check_names,
    checked_row,
    picked_row,
)
from embedcache.warming.processes import warm_in_processes
from embedcache.warming.progress import BAD_ROWS_NAMED, Progress, Tell, WarmProgress, WarmReport, add_up, tell_nobody
from embedcache.warming.settings import CacheSettings, VectorizerSettings
from embedcache.warming.work import Part, Wants, warm_part, warm_rows

__all__ = [
    "BAD_ROWS_NAMED",
    "BadRow",
    "CacheSettings",
    "CorpusFormat",
    "Tell",
    "VectorizerSettings",
    "WarmProgress",
    "WarmReport",
    "add_up",
    "warm",
    "warm_texts",
]


def warm(
    corpus: str | os.PathLike[str],
    vectorizer: VectorizerSettings | BaseVectorizer,
    *,
    column: str = "text",
    metadata: Sequence[str] = (),
    limit: int | None = None,
    file_format: CorpusFormat | None = None,
    ttl: TTL = None,
    input_type: InputType | None = None,
    batch: int | None = None,
    processes: int = 1,
    dry_run: bool = False,
    tell: Tell = tell_nobody,
) -> WarmReport:
    """Embeds the texts of a file that a vectorizer's cache lacks.

    Entries that are there stay as they are, TTL and metadata included, and statistics count no lookups. A text that
    stands in the corpus twice is computed once, with the metadata of its first row.

    Args:
        corpus: The file, UTF-8: a text to a line (``.txt``), or a column of ``.csv``, ``.tsv``, ``.jsonl`` or
            ``.parquet``.
        vectorizer: How to make a vectorizer and its cache; or one that has a cache, for a single process.
        column: The column of the texts.
        metadata: Columns to keep beside the vectors that are computed, as metadata of the same names.
        limit: Only the first so many rows.
        file_format: None goes by the file's ending.
        ttl: Seconds that what is computed lives; None is the cache's default, `NEVER` never expires.
        input_type: What the texts are, for models that tell a ``query`` from a ``document``.
        batch: Texts computed and stored at a time, which is what a crash may lose; None is the vectorizer's own number.
        processes: How many processes compute. Each loads the model; the processor's cores are shared out among them.
        dry_run: Count what is missing, and compute nothing. Takes 8 bytes of memory for each missing text.
        tell: Told how far it is, after each batch. An error that it raises ends the work in order.

    Raises:
        InvalidInputError: An argument cannot be used, or the file has no such column; nothing was written.
        CorpusError: The file cannot be read; what was stored before stays, as it does in all that follows.
        ReadOnlyError: The cache was opened read-only.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It refuses, for lack of memory say.
        VectorizerError: The model cannot be loaded, or its server not be used. A text that it refuses is a bad row.
        WarmingStoppedError: The model failed or refused many texts in a row, or a process was ended.
    """
    check_whole("processes", processes)
    check_function("tell", tell)
    _check_vectorizer(vectorizer)
    wants = Wants(ttl, input_type, batch, dry_run)
    texts = Corpus(
        check_path("corpus", corpus), check_text("column", column), check_names(metadata), limit, file_format
    )
    with texts.reading():
        pass  # so that a file or column that is not there is told before a model is loaded
    if processes > 1 and not dry_run:
        if not isinstance(vectorizer, VectorizerSettings):
            raise InvalidInputError("several processes need VectorizerSettings, of which each makes a vectorizer")
        progress = Progress(tell, processes)
        warm_in_processes(texts, vectorizer, wants, processes, progress)
    else:
        progress = Progress(tell)
        _warm_here(texts, vectorizer, wants, progress)
    return progress.report(dry_run=dry_run)


def warm_texts(
    texts: Iterable[str | Mapping[str, Any]],
    vectorizer: BaseVectorizer,
    *,
    column: str = "text",
    metadata: Sequence[str] = (),
    ttl: TTL = None,
    input_type: InputType | None = None,
    batch: int | None = None,
    dry_run: bool = False,
    tell: Tell = tell_nobody,
) -> WarmReport:
    """As `warm`, of texts from anywhere: gone through once, and never all in memory.

    Args:
        texts: Texts, or dicts that hold one each.
        vectorizer: One with a cache.
        column: In such dicts, the key of the text.
        metadata: In such dicts, the keys of what is kept beside the vector.
        ttl: As of `warm`.
        input_type: As of `warm`.
        batch: As of `warm`.
        dry_run: As of `warm`.
        tell: As of `warm`. Where `texts` have no length, how much of them is done, and the time left, are not known.
    """
    if not isinstance(vectorizer, BaseVectorizer):
        raise InvalidInputError(f"a vectorizer is a BaseVectorizer, not {type(vectorizer).__name__}")
    picked = check_names(metadata)
    check_text("column", column)
    check_function("tell", tell)
    several = gone_through("texts", texts)
    taken = 0

    def rows() -> Iterator[Row | BadRow]:
        nonlocal taken
        for taken, given in enumerate(several, 1):
            if isinstance(given, Mapping):
                yield picked_row(taken, given, column, picked)
            else:
                yield checked_row(taken, given, None)

    def fraction() -> float:
        return taken / max(len(texts), 1) if isinstance(texts, Sized) else 0.0

    progress, wants = Progress(tell), Wants(ttl, input_type, batch, dry_run)
    warm_rows(rows(), vectorizer, wants, lambda counts: progress.update(0, counts), fraction)
    return progress.report(dry_run=dry_run)


def _check_vectorizer(vectorizer: object) -> None:
    if not isinstance(vectorizer, VectorizerSettings | BaseVectorizer):
        raise InvalidInputError(f"a vectorizer is a BaseVectorizer or its settings, not {type(vectorizer).__name__}")


def _warm_here(
    corpus: Corpus, vectorizer: VectorizerSettings | BaseVectorizer, wants: Wants, progress: Progress
) -> None:
    if isinstance(vectorizer, VectorizerSettings):
        with vectorizer.opened() as opened:
            _warm_here(corpus, opened, wants, progress)
        return
    warm_part(corpus, Part(), vectorizer, wants, lambda counts: progress.update(0, counts))

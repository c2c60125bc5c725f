"""Corpora to warm, and a model for other processes to load that keeps a list of what it was asked."""

from __future__ import annotations

import csv
import json
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from toy_model import vector_of

from embedcache import CustomVectorizer, EmbeddingsCache
from embedcache.errors import EmbeddingFailedError
from embedcache.warming import CacheSettings, VectorizerSettings

MODEL = "toy"
FORMATS = ["txt", "csv", "tsv", "jsonl", "parquet"]


def texts_of(count: int) -> list[str]:
    return [f"text {number}, with a comma and «quotes»" for number in range(count)]


def write(path: Path, texts: Iterable[str], **columns: Sequence[Any]) -> Path:
    """A corpus of the format that the path ends in."""
    rows = [dict(zip(["text", *columns], row, strict=True)) for row in zip(texts, *columns.values(), strict=True)]
    match path.suffix:
        case ".txt":
            path.write_text("".join(f"{row['text']}\n" for row in rows), encoding="utf-8")
        case ".csv" | ".tsv":
            with path.open("w", encoding="utf-8", newline="") as file:
                delimiter = "\t" if path.suffix == ".tsv" else ","
                writer = csv.DictWriter(file, ["text", *columns], delimiter=delimiter)
                writer.writeheader()
                writer.writerows(rows)
        case ".jsonl":
            path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        case ".parquet":
            import pyarrow as pa  # here and not above: the processes that compute need none of it
            import pyarrow.parquet as pq

            names = ["text", *columns]
            pq.write_table(pa.table({name: [row[name] for row in rows] for name in names}), path, row_group_size=700)
    return path


def make(model: str, cache: EmbeddingsCache, **options: Any) -> CustomVectorizer:
    """A vectorizer for `VectorizerSettings`; its options are those of `LoggedModel`."""
    return CustomVectorizer(vector_of, model, cache, embed_many_callable=LoggedModel(**options))


class LoggedModel:
    """Writes each text that it computes into a file of its process.

    Args:
        log: The folder of these files.
        gate: From the third batch on, it stands still as long as there is this file.
        refuses: Texts that have this in them are refused.
        dies_of: The process ends at once at a text that has this in it.
    """

    def __init__(
        self, log: str, gate: str | None = None, refuses: str | None = None, dies_of: str | None = None
    ) -> None:
        self._log = Path(log) / str(os.getpid())
        self._gate = gate
        self._refuses = refuses
        self._dies_of = dies_of
        self._batches = 0

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        self._batches += 1
        while self._gate and self._batches > 2 and Path(self._gate).exists():
            time.sleep(0.01)
        if self._dies_of and any(self._dies_of in text for text in texts):
            os._exit(9)
        if self._refuses and any(self._refuses in text for text in texts):
            raise EmbeddingFailedError("it does not like it")
        with self._log.open("a", encoding="utf-8") as file:
            file.writelines(f"{text}\n" for text in texts)
        return np.array([vector_of(text) for text in texts])


def settings_of(url: str, log: Path, cache: Mapping[str, Any] | None = None, **options: Any) -> VectorizerSettings:
    log.mkdir(exist_ok=True)
    return VectorizerSettings(
        MODEL,
        kind="warmed:make",
        options={"log": str(log)} | options,
        cache=CacheSettings("w", redis_url=url, **cache or {}),
    )


def computed(log: Path) -> Counter[str]:
    """How often each text was computed, by all processes together."""
    return Counter(text for file in log.iterdir() for text in file.read_text(encoding="utf-8").splitlines())


def workers(log: Path) -> list[int]:
    """The processes that have computed something."""
    return [int(file.name) for file in log.iterdir()]

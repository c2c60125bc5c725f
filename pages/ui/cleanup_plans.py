"""What a cleanup is going to do, found out before anything is touched; and doing it. Knows no streamlit."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np

from embedcache import apart, inspector, removal, walking
from embedcache.columns import Layout
from embedcache.connection import RedisConnection
from embedcache.entry import TTL, EntrySummary
from embedcache.errors import EmbedcacheError
from embedcache.filtering import EntryFilter
from embedcache.index import EntryIndex, Positions
from embedcache.removal import RemovalPlan, RemovalReport, RemovalStoppedError
from pages.ui.jobs import JobCancelledError, Progress
from pages.ui.wording import code_span, count, counted

Task = Literal["remove", "ttl"]

SAMPLED: Final = 20
_MODELS_NAMED: Final = 5
_log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------------------ plans


@dataclass(frozen=True, slots=True, eq=False)
class Planned:
    """A plan, and what people want to know before they say yes.

    Attributes:
        plan: The frozen keys.
        chosen: The filter that found them.
        whole: How many entries the cache has in all.
        by_model: How many of the plan's entries each model has, most first; None for those that cannot be read.
        oldest: When the oldest was stored, in Unix seconds; None where none can be read.
        newest: When the newest was.
        sample: Some of them as they are, from all over the plan; None for one that cannot be read.
        sample_keys: Their keys.
    """

    plan: RemovalPlan
    chosen: EntryFilter
    whole: int
    by_model: tuple[tuple[str | None, int], ...]
    oldest: float | None
    newest: float | None
    sample: tuple[EntrySummary | None, ...]
    sample_keys: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Its memory in bytes."""
        return self.plan.nbytes

    @property
    def share(self) -> float:
        """The plan's part of the cache, from 0 to 1."""
        return len(self.plan) / self.whole if self.whole else 0.0


def make(
    connection: RedisConnection, url: str, cache_name: str, chosen: EntryFilter, words: str, progress: Progress
) -> Planned:
    """Finds what a filter matches now, and freezes it. Nothing is changed.

    Args:
        connection: The server.
        url: The connection's, password and all.
        cache_name: The cache.
        chosen: Which entries. Where damaged ones are asked for, all values are read.
        words: The filter in plain words, for the audit log.
        progress: Told how far it is.

    Raises:
        EmbedcacheError: The server does not answer, or refuses.
        JobCancelledError: Somebody cancelled.
    """

    def indexing(done: int, total: int | None) -> None:
        progress.tell(done, total, "finding the keys" if total is None else "reading what is beside the vectors")

    index = apart.index_cache(connection, url, cache_name, indexing)
    if chosen.unreadable:
        progress.tell(0, len(index), "reading whole values")
        index = index.with_unreadable(walking.find_unreadable(connection, index, progress.tell).positions)
        positions = index.where(chosen)
    else:
        progress.tell(0, len(index), "comparing")
        positions = walking.match(connection, index, chosen, progress.tell)
    return _planned(connection, index, positions, chosen, words)


def _planned(
    connection: RedisConnection, index: EntryIndex, positions: Positions, chosen: EntryFilter, words: str
) -> Planned:
    inserted_at = index.inserted_at[positions]
    plan = RemovalPlan.of(
        index.name,
        index.digests[positions],
        inserted_at,
        index.value_bytes[positions],
        hashes=index.layouts[positions] == Layout.REDISVL,
        words=words,
        chosen_by=chosen.to_dict(),
        made_at=index.taken_at,
    )
    known = inserted_at[np.isfinite(inserted_at)]
    # The index lies in the order of hashes, so that entries at equal distances are as good as drawn.
    drawn = np.linspace(0, len(positions) - 1, min(SAMPLED, len(positions))).astype(np.int64)
    keys = tuple(index.keys(positions[drawn]))
    return Planned(
        plan=plan,
        chosen=chosen,
        whole=len(index),
        by_model=_by_model(index, positions),
        oldest=float(known.min()) if len(known) else None,
        newest=float(known.max()) if len(known) else None,
        sample=tuple(inspector.summarise(connection, keys)),
        sample_keys=keys,
    )


def _by_model(index: EntryIndex, positions: Positions) -> tuple[tuple[str | None, int], ...]:
    codes, counts = np.unique(index.model_codes[positions], return_counts=True)
    rows = [
        (None if code < 0 else index.models[code], int(number))
        for code, number in zip(codes.tolist(), counts, strict=True)
    ]
    return tuple(sorted(rows, key=lambda row: -row[1]))


def models_in_words(by_model: Sequence[tuple[str | None, int]]) -> str:
    """Entries by model in a sentence, in Markdown: the first few, and how many models more there are."""
    said = [
        f"{'cannot be read' if name is None else code_span(name, 60)}: {count(entries)}"
        for name, entries in by_model[:_MODELS_NAMED]
    ]
    if (more := len(by_model) - len(said)) > 0:
        said.append(f"and {counted(more, 'more model')}")
    return f"By model: {', '.join(said)}." if said else "It has no entries."


# ------------------------------------------------------------------------------------------------ doing it


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a cleanup.

    Attributes:
        report: What was done.
        words: Which entries were chosen, as plain text; empty where all were.
        copy: Where a copy of them was written before, or None.
        error: The server's error that ended it half-way, or None.
    """

    report: RemovalReport
    words: str = ""
    copy: str | None = None
    error: EmbedcacheError | None = None


def carry_out(
    connection: RedisConnection,
    planned: Planned,
    task: Task,
    ttl: TTL,
    actor: str,
    copy: str | None,
    progress: Progress,
) -> Outcome:
    """Does what was planned.

    Args:
        connection: The server.
        planned: The plan.
        task: To remove the entries, or to give them a TTL.
        ttl: That TTL.
        actor: Who does it, for the audit log.
        copy: Where a copy was written before, for the report.
        progress: Told how far it is.

    Raises:
        EmbedcacheError: The server could not be asked from the beginning: nothing was done.
    """
    plan = planned.plan
    if task == "ttl":
        tell = _telling(progress, "setting the TTL")
        return _outcome(lambda: removal.set_ttl(connection, plan, ttl, tell, actor), plan.words, copy)
    tell = _telling(progress, "removing")
    return _outcome(lambda: removal.carry_out(connection, plan, tell, actor), plan.words, copy)


def _telling(progress: Progress, doing: str) -> Callable[..., None]:
    """Passes on how far the work is, and how fast it went until now."""
    started = time.monotonic()

    def tell(done: int, total: int | None = None) -> None:
        seconds = time.monotonic() - started
        rate = f", {count(round(done / seconds))} a second" if done and seconds else ""
        progress.tell(done, total, doing + rate)

    return tell


def _outcome(work: Callable[[], RemovalReport], words: str, copy: str | None) -> Outcome:
    """The outcome of a removal, also of one that was cancelled or failed half-way."""
    try:
        return Outcome(work(), words, copy)
    except RemovalStoppedError as stopped:
        cause = stopped.__cause__
        if isinstance(cause, JobCancelledError):
            return Outcome(stopped.report, words, copy)
        if not isinstance(cause, EmbedcacheError):
            raise
        _log.warning("A cleanup stopped half-way", exc_info=cause)
        return Outcome(stopped.report, words, copy, cause)

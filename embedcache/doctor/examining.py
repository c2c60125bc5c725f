"""A cache looked through: its entries, the other keys under its name, and its server. Nothing is changed.

It takes the memory of an index of the cache, 74 bytes an entry, and of 8 MiB of values at a time. Each step holds the
server up for a few milliseconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from embedcache import inspector, walking
from embedcache.arguments import check_function, check_whole
from embedcache.cache import EmbeddingsCache
from embedcache.columns import DTYPES, UNREADABLE_CODE, Layout
from embedcache.doctor.findings import (
    SAMPLED,
    Convert,
    Examination,
    Finding,
    Fix,
    GiveTTL,
    Kind,
    RemoveEntries,
    RemoveKeys,
    SetPolicy,
    Severity,
)
from embedcache.doctor.namespace import Found, Others, find_others
from embedcache.errors import ServerReplyError
from embedcache.index import EntryIndex, Positions
from embedcache.keyspace import Keyspace
from embedcache.removal import RemovalPlan
from embedcache.walking import Flaw, Unreadable

Tell: TypeAlias = Callable[[str, int, int | None], object]
"""Told which part is under way, how much of it is done, and of how much where that is known. What it raises ends it."""

BIG_TEXT_BYTES: Final = 64 * 1024
"""Texts of embedding models are a few KiB at most: what is longer was cut off by the model."""

_SEVERITIES: Final[tuple[Severity, ...]] = ("problem", "warning", "note")
_MODELS_NAMED: Final = 3
_NEARLY_ALL: Final = 0.9
"""Where so many entries have a TTL, those that have none are what a crash or an older program left."""
_WIDTHS: Final = np.zeros(max(dtype.code for dtype in DTYPES) + 1, np.int64)
for _dtype in DTYPES:
    _WIDTHS[_dtype.code] = _dtype.item.itemsize
_FLAWS: Final[dict[Flaw, Kind]] = {
    Flaw.DAMAGED: Kind.CORRUPT,
    Flaw.OTHER_KEY: Kind.CORRUPT,
    Flaw.UNDECODABLE: Kind.CORRUPT,
    Flaw.NO_ENTRY: Kind.FOREIGN_VALUES,
    Flaw.OTHER_VERSION: Kind.OTHER_VERSION,
}
_UNREADABLE: Final[dict[Kind, tuple[Severity, str]]] = {
    Kind.CORRUPT: (
        "problem",
        "each lookup of one is a miss; the values are damaged, or were copied from another key",
    ),
    Kind.FOREIGN_VALUES: (
        "problem",
        "something else lies under the keys of entries, so that each lookup of one is a miss",
    ),
    Kind.OTHER_VERSION: (
        "warning",
        "another version of embedcache wrote them, and this one takes them for misses; a version that is still in use"
        " may want them",
    ),
}


def _tell_nobody(_part: str, _done: int, _total: int | None) -> None: ...


def examine(cache: EmbeddingsCache, tell: Tell = _tell_nobody, *, big_text_bytes: int = BIG_TEXT_BYTES) -> Examination:
    """Looks for all that `Kind` lists; what is stored meanwhile may or may not be looked at.

    Args:
        cache: The cache, which may be read-only. What it is set to tells what is meant: its TTL, its layout.
        tell: Told after each round trip.
        big_text_bytes: From how many bytes on text and metadata are big.

    Raises:
        InvalidInputError: The bound is not a whole number above zero.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It forbids SCAN, or to read values. What else it forbids is in `Examination.not_told`.
    """
    big_text_bytes = check_whole("big_text_bytes", big_text_bytes)
    check_function("tell", tell)
    started = time.monotonic()
    connection = cache.connection
    index = walking.index_cache(connection, cache.name, lambda done, total: tell("entries", done, total))
    unreadable = walking.find_unreadable(connection, index, lambda done, total: tell("values", done, total))
    findings = list(_of_unreadable(index, unreadable))
    index = index.with_unreadable(unreadable.positions)
    findings += _of_entries(cache, index, big_text_bytes)
    not_told: list[str] = []
    try:
        others = connection.drive(
            find_others(Keyspace(cache.name), lambda done, total: tell("other keys", done, total))
        )
        findings += _of_others(cache.name, others)
    except ServerReplyError as error:
        not_told.append(f"keys beside the entries: {error}")
    try:
        findings += _of_server(cache, index)
    except ServerReplyError as error:
        not_told.append(f"the eviction policy: {error}")
    findings.sort(key=lambda each: _SEVERITIES.index(each.severity))
    return Examination(cache.name, len(index), tuple(findings), tuple(not_told), time.monotonic() - started)


# ------------------------------------------------------------------------------------------------ entries


def _of_unreadable(index: EntryIndex, unreadable: Unreadable) -> Iterator[Finding]:
    kinds = [_FLAWS[flaw] for flaw in unreadable.flaws]
    known_bad = index.with_unreadable(unreadable.positions)  # plans remove such values only while they are unreadable
    for kind, (severity, explanation) in _UNREADABLE.items():
        chosen = unreadable.positions[[each is kind for each in kinds]]
        if len(chosen):
            yield _of_plan(known_bad, chosen, kind, severity, explanation, RemoveEntries)


def _of_entries(cache: EmbeddingsCache, index: EntryIndex, big_text_bytes: int) -> Iterator[Finding]:
    readable = index.model_codes != UNREADABLE_CODE
    wanted, other = (Layout.PACKED, "redisvl") if cache.layout == "packed" else (Layout.REDISVL, "packed")
    misplaced = np.flatnonzero(readable & (index.layouts != wanted))
    if len(misplaced):
        # RedisVL's decimal numbers have the dtypes that its layout allows; the cache's own is what it would write.
        explanation = (
            f"they lie in the layout {other!r}, which this cache, of the layout {cache.layout!r}, takes for misses"
        )
        yield _finding(index, misplaced, Kind.OTHER_LAYOUT, "warning", explanation, Convert(cache.layout, cache.dtype))
    strays, words = _strays(index)
    if len(strays):
        explanation = (
            "lookups of a batch of vectors take entries of another dimension than the first hit's for misses; those of"
            f" the rarer dimension are meant: {words}"
        )
        yield _of_plan(index, strays, Kind.MIXED_DIMENSIONS, "problem", explanation, RemoveEntries)
    yield from _lasting(cache, index, readable)
    big = np.flatnonzero(readable & (_head_bytes(index) >= big_text_bytes))
    if len(big):
        explanation = (
            f"text and metadata of each take {big_text_bytes:,} bytes or more, all of which every lookup moves; models"
            " read a few thousand words at most"
        )
        yield _of_plan(index, big, Kind.BIG_TEXTS, "note", explanation, RemoveEntries)


def _lasting(cache: EmbeddingsCache, index: EntryIndex, readable: npt.NDArray[np.bool_]) -> Iterator[Finding]:
    """The entries that never expire, where the cache has a TTL."""
    lasting = np.flatnonzero(readable & np.isposinf(index.expires_at))
    ttl = cache.ttl or _usual_ttl(index, readable)
    if ttl is None or not len(lasting):
        return
    explanation = f"the cache's TTL is {ttl:,} s, and these were stored before it had one, or with NEVER"
    if cache.ttl is None:
        explanation = (
            f"the cache was opened without a TTL, and nearly all of its entries have one, {ttl:,} s more often than any"
            " other: these were stored without it, or with NEVER"
        )
    yield _of_plan(index, lasting, Kind.NO_TTL, "note", explanation, lambda plan: GiveTTL(plan, ttl))


def _usual_ttl(index: EntryIndex, readable: npt.NDArray[np.bool_]) -> int | None:
    """The TTL of those who write to the cache, as far as its entries tell: nearly all have one, and most often this."""
    own = index.ttl[readable & (index.ttl > 0)]
    if not len(own) or len(own) < _NEARLY_ALL * np.count_nonzero(readable):
        return None
    different, counts = np.unique(own, return_counts=True)
    return int(different[counts.argmax()])


def _strays(index: EntryIndex) -> tuple[Positions, str]:
    """The entries of each model that are not of its most frequent dimension, and those dimensions in words."""
    known = np.flatnonzero((index.model_codes != UNREADABLE_CODE) & (index.dimension > 0))
    pairs = np.stack([index.model_codes[known].astype(np.int64), index.dimension[known].astype(np.int64)], axis=1)
    different, inverse, counts = np.unique(pairs, axis=0, return_inverse=True, return_counts=True)
    stray = np.zeros(len(different), np.bool_)
    words: list[str] = []
    for code in np.flatnonzero(np.bincount(different[:, 0]) > 1).tolist() if len(different) else []:
        rows = np.flatnonzero(different[:, 0] == code)
        rows = rows[np.argsort(-counts[rows], kind="stable")]
        stray[rows[1:]] = True
        words.append(
            f"{index.models[code]!r} has "
            + ", ".join(f"{counts[row]:,} of {different[row, 1]:,} dimensions" for row in rows[:_MODELS_NAMED])
        )
    more = f"; and {len(words) - _MODELS_NAMED:,} more models" if len(words) > _MODELS_NAMED else ""
    return known[stray[inverse.ravel()]], "; ".join(words[:_MODELS_NAMED]) + more


def _head_bytes(index: EntryIndex) -> npt.NDArray[np.int64]:
    """About how many bytes of each value are text and metadata; 0 for RedisVL's, whose vectors' length is not known."""
    vectors = index.dimension.astype(np.int64) * _WIDTHS[index.dtype_codes]
    return np.where(index.dimension > 0, index.value_bytes.astype(np.int64) - vectors, 0)


def _of_plan(
    index: EntryIndex,
    positions: Positions,
    kind: Kind,
    severity: Severity,
    explanation: str,
    fix: Callable[[RemovalPlan], Fix],
) -> Finding:
    plan = RemovalPlan.of(
        index.name,
        index.digests[positions],
        index.inserted_at[positions],
        index.value_bytes[positions],
        hashes=index.layouts[positions] == Layout.REDISVL,
        words=kind.value,
        chosen_by={"found": kind.name.lower()},
        made_at=index.taken_at,
    )
    return _finding(index, positions, kind, severity, explanation, fix(plan))


def _finding(
    index: EntryIndex, positions: Positions, kind: Kind, severity: Severity, explanation: str, fix: Fix
) -> Finding:
    sample = tuple(index.keys(positions[:SAMPLED]))
    size = int(index.value_bytes[positions].sum(dtype=np.int64))
    return Finding(kind, severity, index.name, len(positions), size, sample, explanation, fix)


# ------------------------------------------------------------------------------------------------ other keys


def _of_others(name: str, others: Others) -> Iterator[Finding]:
    foreign = f"they start with {name + ':'!r} and are no cache's; another program may own them, so look at them first"
    orphaned = "statistics or locks without the expiry that they are written with: nothing will ever remove them"
    spoilt = "they have the names of the cache's bookkeeping and values of another type: what is counted there is lost"
    rows: Sequence[tuple[Found, Kind, Severity, str]] = [
        (others.spoilt, Kind.SPOILT_KEYS, "problem", spoilt),
        (others.orphaned, Kind.ORPHANED_KEYS, "warning", orphaned),
        (others.foreign, Kind.FOREIGN_KEYS, "note", foreign),
    ]
    for found, kind, severity, explanation in rows:
        if found.count:
            sample = tuple(key.decode(errors="backslashreplace") for key, _ in found.keys[:SAMPLED])
            yield Finding(kind, severity, name, found.count, 0, sample, explanation, RemoveKeys(tuple(found.keys)))


# ------------------------------------------------------------------------------------------------ the server

_EVICTS_BY_USE: Final = "allkeys-lru"


def _of_server(cache: EmbeddingsCache, index: EntryIndex) -> Iterator[Finding]:
    info = inspector.server_info(cache.connection)
    if not info.maxmemory_bytes:
        return
    policy, explanation = info.maxmemory_policy, None
    if policy.startswith("volatile-") and bool(np.isposinf(index.expires_at).any()):
        explanation = (
            "it evicts only what has a TTL: statistics go first, entries without a TTL never, and then writes fail"
        )
    elif policy in ("volatile-ttl", "volatile-random", "allkeys-random"):
        explanation = "it evicts without a look at what is in use, statistics as readily as entries that nobody wants"
    if explanation is not None:
        yield Finding(
            kind=Kind.EVICTION_POLICY,
            severity="problem",
            cache_name=cache.name,
            count=1,
            bytes=0,
            sample=(),
            explanation=f"maxmemory-policy is {policy}: {explanation}",
            fix=SetPolicy(_EVICTS_BY_USE),
        )

"""Counts in Redis: how they lie there, and the operations that add to them and read them back.

Each cache has a hash per minute, hour and day, and one for all time. A hash holds, for each model, ``<id>`` (the
model's name) and ``<id><code>`` (a number), where the id is the start of the name's SHA-256. Writers add to numbers and
never set them, so any number of processes may; the server's clock says to which hash. `docs/statistics.md` gives all
keys.

The keys begin with the cache's name, so that an ACL for ``name:*`` covers them, and lie outside every cache's
namespace, for none ends in 64 hex digits. The part in braces puts all keys of one cache on one node of a cluster.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any, Final, cast

import msgpack

from embedcache.counters import MAX_SLOW, SUMS, Batch, ByModel, Counts, Slow, add_by_model
from embedcache.errors import ServerReplyError
from embedcache.keyspace import Keyspace
from embedcache.operations import Command, Operation, ServerAbilities, checked, is_other_type, run_script
from embedcache.scripts import ADD_COUNTS

_DAY: Final = 86_400


@dataclass(frozen=True, slots=True)
class Resolution:
    """How long a bucket is, and for how long it is kept, both in seconds."""

    code: str
    seconds: int
    kept_seconds: int

    def start(self, at: float) -> int:
        """When the bucket began that holds this moment, in Unix seconds."""
        return int(at // self.seconds) * self.seconds


MINUTES: Final = Resolution("m", 60, 2 * _DAY)
HOURS: Final = Resolution("h", 3_600, 60 * _DAY)
DAYS: Final = Resolution("d", _DAY, 730 * _DAY)
RESOLUTIONS: Final = (MINUTES, HOURS, DAYS)

MAX_STORED: Final = 10_000
"""Writes that a cache remembers, so as to tell that an entry which is gone was there: the last ones."""
_SIDE_RECORDS_KEPT: Final = 90 * _DAY
_WRITER_KEPT: Final = 3_600
_READ_AT_ONCE: Final = 500

_CODES: Final = dict(zip(SUMS, "hmnsdxvcefrwtuk", strict=True))
_BY_CODE: Final = {code.encode(): name for name, code in _CODES.items()}
_LATENCY: Final = "l"
_LATENCY_CODE: Final = re.compile(rb"l\d{1,4}")
_AMOUNT: Final = re.compile(rb"\d{1,19}")
_ID_DIGITS: Final = 8
_NO_MODEL: Final = "-" * _ID_DIGITS


@dataclass(frozen=True, slots=True)
class SlowLookup:
    """A lookup that took longer than its cache's threshold.

    Attributes:
        at: When it ended, in Unix seconds by the server's clock.
        seconds: How long it took.
        model_name: The model asked for, or None where keys were asked.
        key: The first key asked for.
        texts: How many texts or keys were asked for.
        hits: How many of them were found.
        text: The start of the first text where the cache was told to keep it, else None.
        process: Which process asked, as ``host:pid``.
    """

    at: float
    seconds: float
    model_name: str | None
    key: str
    texts: int
    hits: int
    text: str | None
    process: str


_SLOW_FIELDS: Final = len(fields(SlowLookup))
"""A later version may have more."""


LAST_MOMENT: Final = 253_402_300_799
"""The end of the year 9999, beyond which no date is meant; milliseconds since 1970 are beyond it."""


def moment(found: Any) -> float:
    """Unix seconds as somebody has stored them; a ValueError or TypeError where they are no date."""
    seconds = float(found)
    if not 0 <= seconds <= LAST_MOMENT:
        raise ValueError(f"{seconds} are no Unix seconds")
    return seconds


def _key(space: Keyspace, *parts: object) -> str:
    tag = sha256(space.name.encode()).hexdigest()[:_ID_DIGITS]
    return ":".join([space.name, "stats", f"{{{tag}}}", *map(str, parts)])


TOTAL_PATTERN: Final = "*:stats:{????????}:total"
"""A glob for SCAN that finds every cache's counts of all time."""


def cache_of_total(key: str) -> str | None:
    """The name of the cache whose counts of all time lie under a key; None where it is no such key."""
    name = key.rsplit(":", 3)[0]
    return name if name.strip() and key == _key(Keyspace(name), "total") else None


def bucket_key(space: Keyspace, resolution: Resolution, start: int) -> str:
    """The key of one bucket's hash."""
    return _key(space, resolution.code, start)


# ------------------------------------------------------------------------------------------------ adding


def add_batch(
    space: Keyspace,
    able: ServerAbilities,
    batch: Batch,
    *,
    writer: str,
    number: int,
    process: str,
    value_type: bytes = b"string",
) -> Operation[None]:
    """Adds a batch's counts, once however often it is sent; where scripts are refused, once per answer that is lost.

    Args:
        space: The cache.
        able: What its server has not refused.
        batch: What was counted. Which of its misses were of entries that had been there, or of what is no entry, is
            found out here, where it costs no lookup anything.
        writer: Who counted, unlike any other.
        number: Of this writer's batches, from 1; a number not above the last one that was added is not added.
        process: The process for people, as ``host:pid``.
        value_type: What the server calls the type of the cache's entries.
    """
    moments = _Moments((yield from server_time()))
    counts: ByModel = {}
    add_by_model(counts, batch.counts)
    add_by_model(counts, (yield from _misses_explained(space, batch, moments, value_type)))
    ended = moments.at(batch.until)
    hashes = {_key(space, "total"): int(ended) + DAYS.kept_seconds}
    for resolution in RESOLUTIONS:
        start = resolution.start(ended)
        hashes[bucket_key(space, resolution, start)] = start + resolution.seconds + resolution.kept_seconds
    yield from _add_counts(space, able, hashes, counts, writer, number)
    if commands := [*_stored_commands(space, batch, moments), *_slow_commands(space, batch, moments, process)]:
        yield from checked(*commands)


class _Moments:
    """Turns this process's monotonic clock into the server's time, so that no two clocks need agree."""

    def __init__(self, server_now: float) -> None:
        self.now = server_now
        self._ahead = server_now - time.monotonic()

    def at(self, monotonic: float) -> float:
        """The server's Unix seconds at a moment of `time.monotonic`."""
        return monotonic + self._ahead


def server_time() -> Operation[float]:
    """The server's Unix seconds; this machine's where an ACL forbids TIME."""
    (reply,) = yield [("TIME",)]
    if isinstance(reply, ServerReplyError):
        return time.time()
    seconds, microseconds = reply
    return int(seconds) + int(microseconds) / 1e6


def _misses_explained(space: Keyspace, batch: Batch, moments: _Moments, value_type: bytes) -> Operation[ByModel]:
    """How many of a batch's misses were of entries that had been there, or of what is no entry, as far as is known."""
    if not batch.missed:
        return {}
    keys = [key for key, _, _ in batch.missed]
    scores, *types = yield [("ZMSCORE", _key(space, "stored"), *map(_member, keys)), *(("TYPE", key) for key in keys)]
    counts: ByModel = {}
    for (_, model_name, missed), write, kind in zip(batch.missed, _writes(scores, keys), types, strict=True):
        found = counts.setdefault(model_name, Counts())
        at = moments.at(missed)
        if isinstance(kind, bytes) and kind not in (b"none", value_type):
            found.corrupt += 1  # to MGET, another type is the same as nothing
        elif write is None or write.at + 1 > at:
            continue  # a write within the same second may have come after the miss
        elif write.is_over(at):
            found.expired += 1
        else:
            found.evicted += 1
    return counts


@dataclass(frozen=True, slots=True)
class Write:
    """The last write of an entry that is on record.

    Attributes:
        at: When it was, in whole Unix seconds by the server's clock.
        ends: When its TTL ran or runs out, unless hits put it off; None where it had none.
    """

    at: int
    ends: int | None

    def is_over(self, now: float) -> bool:
        """Whether the entry had expired by then."""
        return self.ends is not None and self.ends <= now


# A write is a sorted set's score: seconds since 2020, then 22 bits of TTL. A float holds that exactly until 2088, and
# the scores are in the order of writing. TTLs over 48 days are taken for that long.
_SINCE: Final = 1_577_836_800
_TTL_BITS: Final = 22
_LONGEST_TTL: Final = (1 << _TTL_BITS) - 1


def _score(at: float, ttl: int | None) -> int:
    return (int(at) - _SINCE) << _TTL_BITS | min(ttl or 0, _LONGEST_TTL)


def _write(score: float) -> Write:
    since, ttl = divmod(int(score), _LONGEST_TTL + 1)
    return Write(since + _SINCE, since + _SINCE + ttl if ttl else None)


def _writes(scores: object, keys: Sequence[str]) -> list[Write | None]:
    """The last write of each key; None for those not on record."""
    if not isinstance(scores, list):  # the server's refusal
        return [None] * len(keys)
    return [None if score is None else _write(float(score)) for score in scores]


def _member(key: str) -> bytes:
    return bytes.fromhex(key[-64:-48])  # 64 bits of the entry's id tell ten thousand apart


def _add_counts(
    space: Keyspace, able: ServerAbilities, hashes: Mapping[str, int], counts: ByModel, writer: str, number: int
) -> Operation[None]:
    names = {_model_id(model_name): model_name for model_name in counts if model_name is not None}
    numbers = {
        _model_id(model_name) + code: amount for model_name, each in counts.items() for code, amount in _amounts(each)
    }
    keys = [_key(space, "writer", writer), *hashes]
    args = [number, _WRITER_KEPT, *hashes.values(), len(names)]
    flat = [word.encode() for pair in names.items() for word in pair]
    flat += [str(word).encode() for pair in numbers.items() for word in pair]
    if (yield from run_script(able, ADD_COUNTS, keys, [*args, *flat])) is not None:
        return
    # Without scripts: what may be done twice goes first, for a refusal after the additions would have them repeated.
    set_names: list[Command] = [("HSET", key, *pair) for key in hashes for pair in names.items()]
    set_ends: list[Command] = [("EXPIREAT", key, expires) for key, expires in hashes.items()]
    yield from checked(*set_names, *set_ends)
    additions: list[Command] = [("HINCRBY", key, *pair) for key in hashes for pair in numbers.items()]
    replies = (yield [*additions, *set_ends])[: len(additions)]
    if replies and all(isinstance(reply, ServerReplyError) for reply in replies):
        raise replies[0]


def _amounts(counts: Counts) -> Iterator[tuple[str, int]]:
    for name, code in _CODES.items():
        if amount := getattr(counts, name):
            yield code, amount
    for slot, count in counts.latencies.items():
        yield f"{_LATENCY}{slot}", count


def _model_id(model_name: str | None) -> str:
    return _NO_MODEL if model_name is None else sha256(model_name.encode()).hexdigest()[:_ID_DIGITS]


def _stored_commands(space: Keyspace, batch: Batch, moments: _Moments) -> Iterator[Command]:
    """Remembers what was written, and forgets what was dropped."""
    key = _key(space, "stored")
    if batch.cleared:
        yield ("UNLINK", key)
    elif batch.dropped:
        yield ("ZREM", key, *map(_member, batch.dropped))
    if batch.stored:
        scores = [(_score(moments.at(at), ttl), _member(name)) for name, (at, ttl) in batch.stored.items()]
        yield ("ZADD", key, *(word for pair in scores for word in pair))
        yield ("ZREMRANGEBYRANK", key, 0, -MAX_STORED - 1)
        yield ("EXPIRE", key, _SIDE_RECORDS_KEPT)


def _slow_commands(space: Keyspace, batch: Batch, moments: _Moments, process: str) -> Iterator[Command]:
    if batch.slow:
        key = _key(space, "slow")
        yield ("LPUSH", key, *(_pack_slow(slow, moments, process) for slow in batch.slow))
        yield ("LTRIM", key, 0, MAX_SLOW - 1)
        yield ("EXPIRE", key, _SIDE_RECORDS_KEPT)


def _pack_slow(slow: Slow, moments: _Moments, process: str) -> bytes:
    rest = (slow.seconds, slow.model_name, slow.key, slow.texts, slow.hits, slow.text, process)
    return cast("bytes", msgpack.packb((moments.at(slow.at), *rest), unicode_errors="surrogatepass"))


# ------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds at the moment: read before a window, whose end it gives.

    Attributes:
        now: The server's Unix seconds.
        total: Counts of all time, by model.
        prices: Prices per 1,000 tokens, by model.
    """

    now: float
    total: ByModel
    prices: dict[str, float]


def read_standing(space: Keyspace) -> Operation[Standing]:
    """The server's time, the counts of all time, and the prices."""
    now = yield from server_time()
    total, prices = yield from _read_hashes([_key(space, "total"), _key(space, "prices")])
    return Standing(now, _unpack(total), _prices(prices))


def read_buckets(space: Keyspace, resolution: Resolution, starts: Sequence[int]) -> Operation[list[ByModel]]:
    """The counts of the buckets that begin at these Unix seconds, in order; none is an empty one."""
    found: list[ByModel] = []
    for first in range(0, len(starts), _READ_AT_ONCE):
        part = starts[first : first + _READ_AT_ONCE]
        found += map(_unpack, (yield from _read_hashes([bucket_key(space, resolution, start) for start in part])))
    return found


def _read_hashes(keys: Sequence[str]) -> Operation[list[Any]]:
    replies = yield [("HGETALL", key) for key in keys]
    for key, reply in zip(keys, replies, strict=True):
        if is_other_type(reply):
            raise ServerReplyError(f"WRONGTYPE {key} is no hash of counts; another program wrote there")
    return replies


def _pairs(reply: Any) -> dict[bytes, bytes]:
    return dict(reply) if isinstance(reply, Mapping) else dict(zip(reply[::2], reply[1::2], strict=True))


def _prices(reply: Any) -> dict[str, float]:
    """What is a price; what others have put beside them is passed over."""
    prices: dict[str, float] = {}
    for name, value in _pairs(reply).items():
        with suppress(ValueError):  # no UTF-8, or no number
            if (price := float(value)) >= 0:
                prices[name.decode()] = price
    return prices


def _unpack(reply: Any) -> ByModel:
    """One hash's counts. Fields of a later version are passed over, and what is no number."""
    found = _pairs(reply)
    names = {name: value.decode(errors="replace") for name, value in found.items() if len(name) == _ID_DIGITS}
    counts: ByModel = {}
    for name, value in found.items():
        model_id, code = name[:_ID_DIGITS], name[_ID_DIGITS:]
        if (code in _BY_CODE or _LATENCY_CODE.fullmatch(code)) and _AMOUNT.fullmatch(value):
            _count(counts.setdefault(names.get(model_id), Counts()), code.decode(), int(value))
    return counts


def _count(counts: Counts, code: str, amount: int) -> None:
    if name := _BY_CODE.get(code.encode()):
        setattr(counts, name, getattr(counts, name) + amount)
    else:
        slot = int(code[1:])
        counts.latencies[slot] = counts.latencies.get(slot, 0) + amount


def read_write(space: Keyspace, key: str) -> Operation[tuple[float, Write | None]]:
    """The server's Unix seconds, and the last write of this key; None where it is not on record."""
    now = yield from server_time()
    (scores,) = yield [("ZMSCORE", _key(space, "stored"), _member(key))]
    return now, _writes(scores, [key])[0]


def read_slow(space: Keyspace) -> Operation[list[SlowLookup]]:
    """The slow lookups on record, last first."""
    found = yield from checked(("LRANGE", _key(space, "slow"), 0, MAX_SLOW - 1))
    return [slow for each in found if (slow := _unpack_slow(each)) is not None]


def _unpack_slow(packed: bytes) -> SlowLookup | None:
    """One record, also with fields of a later version; None where it is none of ours."""
    try:
        fields = msgpack.unpackb(packed, unicode_errors="surrogatepass")
        at, seconds, model_name, key, texts, hits, text, process = fields[:_SLOW_FIELDS]
        if not isinstance(model_name, str | None) or not isinstance(text, str | None) or not 0 <= seconds < math.inf:
            return None
        return SlowLookup(moment(at), float(seconds), model_name, str(key), int(texts), int(hits), text, str(process))
    except (ValueError, TypeError, OverflowError, msgpack.exceptions.UnpackException):
        return None


def set_price(space: Keyspace, model_name: str, price: float | None) -> Operation[None]:
    """Sets what 1,000 tokens of a model cost; None forgets it."""
    key = _key(space, "prices")
    yield from checked(("HDEL", key, model_name) if price is None else ("HSET", key, model_name, repr(float(price))))

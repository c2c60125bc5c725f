"""Many entries removed, or given another TTL, so that nothing goes wrong: planned first, then carried out.

A plan holds the keys that somebody chose and when each entry was inserted. Carrying it out touches those and no others:
what was stored later stays, and so does what was written anew since. The work goes in small steps, with pauses between,
so that the server keeps answering others; it can be cancelled between steps; it counts again in the end; and what was
done is in the audit log (`embedcache.audit`), however it ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from embedcache import audit, flushing, unchanged
from embedcache.arguments import check_function, check_kind, check_text, is_number, shown
from embedcache.connection import RedisConnection
from embedcache.counters import MAX_TOLD
from embedcache.entry import NEVER, TTL
from embedcache.errors import EmbedcacheError, InvalidInputError
from embedcache.flushing import Outbox
from embedcache.index import check_positions
from embedcache.keyspace import Keyspace
from embedcache.metadata import pack_metadata
from embedcache.near_operations import dropping
from embedcache.operations import (
    CHUNK_BYTES,
    CHUNK_ENTRIES,
    NO_KEY,
    NO_TTL,
    Operation,
    ServerAbilities,
    checked,
    remaining_milliseconds,
)
from embedcache.pacing import HALF, STEP_KEYS, Pace
from embedcache.unchanged import Action, Fate, Kind, Remove, SetTTL
from embedcache.watched import sender

Tell = Callable[[int, int], None]
"""Told how many keys were looked at, and of how many. May raise, which ends the work there."""
TellSome = Callable[[int], None]

_DIGEST_BYTES: Final = 32
_TABLE: Final = 2
_AMEND_SECONDS: Final = 1.0


# ------------------------------------------------------------------------------------------------ plans


@dataclass(frozen=True, slots=True, eq=False)
class RemovalPlan:
    """Which entries somebody chose. Made by `of`; nothing on the server is touched by it.

    Attributes:
        cache_name: The cache.
        digests: The entries' ids, uint8, shape ``(n, 32)``.
        inserted_at: When each was inserted, in Unix seconds, float64, shape ``(n,)``; NaN for one that is unreadable.
        value_bytes: Length of each value, int64, shape ``(n,)``.
        kinds: A `Kind` for each, uint8, shape ``(n,)``.
        words: How they were chosen, for people.
        chosen_by: How they were chosen, as a JSON object: the filter.
        made_at: When, in Unix seconds.
    """

    cache_name: str
    digests: npt.NDArray[np.uint8]
    inserted_at: npt.NDArray[np.float64]
    value_bytes: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.uint8]
    words: str
    chosen_by: Mapping[str, Any]
    made_at: float

    @classmethod
    def of(
        cls,
        cache_name: str,
        digests: npt.NDArray[np.uint8],
        inserted_at: npt.NDArray[np.floating[Any]],
        value_bytes: npt.NDArray[np.integer[Any]],
        *,
        hashes: npt.NDArray[np.bool_] | None = None,
        words: str = "",
        chosen_by: Mapping[str, Any] | None = None,
        made_at: float | None = None,
    ) -> Self:
        """A plan for these entries, whose columns it copies.

        Args:
            cache_name: The cache.
            digests: As the attribute.
            inserted_at: As the attribute. Those that are NaN are removed only if they are unreadable still.
            value_bytes: As the attribute.
            hashes: Which entries are RedisVL's hashes, shape ``(n,)``; None is none of them.
            words: As the attribute.
            chosen_by: As the attribute.
            made_at: As the attribute; None is now.

        Raises:
            InvalidInputError: The name cannot be used, the columns are not of one length, or the filter is not JSON.
        """
        Keyspace(cache_name)
        pack_metadata(chosen_by)
        check_text("words", words, encodable=False)
        if made_at is not None and not is_number(made_at):
            raise InvalidInputError(f"made_at is a number of seconds or None, not {shown(made_at)}")
        check_kind("digests", digests, np.ndarray)
        if digests.ndim != _TABLE or digests.shape[1] != _DIGEST_BYTES or digests.dtype != np.uint8:
            raise InvalidInputError(f"digests are uint8 of shape (n, 32), not {digests.dtype} of {digests.shape}")
        rows = len(digests)
        _check_column("inserted_at", inserted_at, rows, np.floating)
        _check_column("value_bytes", value_bytes, rows, np.integer)
        if hashes is not None:
            _check_column("hashes", hashes, rows, np.bool_)
        kinds = np.where(np.isnan(inserted_at), Kind.UNREADABLE, Kind.PACKED)
        if hashes is not None:
            kinds[hashes & (kinds == Kind.PACKED)] = Kind.HASH
        return cls(
            cache_name=cache_name,
            digests=_frozen(digests, np.uint8),
            inserted_at=_frozen(inserted_at, np.float64),
            value_bytes=_frozen(value_bytes, np.int64),
            kinds=_frozen(kinds, np.uint8),
            words=words,
            chosen_by=dict(chosen_by or {}),
            made_at=time.time() if made_at is None else made_at,
        )

    def __len__(self) -> int:
        return len(self.digests)

    @property
    def nbytes(self) -> int:
        """Memory of the plan itself in bytes."""
        return self.digests.nbytes + self.inserted_at.nbytes + self.value_bytes.nbytes + self.kinds.nbytes

    @property
    def total_bytes(self) -> int:
        """Length of all values together; the server's bookkeeping comes on top."""
        return int(self.value_bytes.sum())

    @property
    def unreadable(self) -> int:
        """How many of the values are unreadable."""
        return int((self.kinds == Kind.UNREADABLE).sum())

    def keys(self, positions: slice | npt.NDArray[np.integer[Any]]) -> list[str]:
        """The keys at these positions.

        Raises:
            InvalidInputError: There is no such position.
        """
        chosen = positions if isinstance(positions, slice) else check_positions("positions", positions, len(self))
        digits = self.digests[chosen].tobytes().hex()
        step = 2 * _DIGEST_BYTES
        return [f"{self.cache_name}:{digits[start : start + step]}" for start in range(0, len(digits), step)]


def _check_column(name: str, column: npt.NDArray[Any], rows: int, kind: type[Any]) -> None:
    found = check_kind(name, column, np.ndarray)
    if not np.issubdtype(found.dtype, kind):
        raise InvalidInputError(f"{name} is {kind.__name__}, not {found.dtype}")
    if found.shape != (rows,):
        raise InvalidInputError(f"{name} has shape {found.shape}; there are {rows:,} entries")


def _frozen(column: npt.NDArray[Any], dtype: type) -> npt.NDArray[Any]:
    copied: npt.NDArray[Any] = np.array(column, dtype)
    copied.flags.writeable = False
    return copied


# ------------------------------------------------------------------------------------------------ reports

Outcome = Literal["running", "done", "cancelled", "failed"]


@dataclass(frozen=True, slots=True)
class RemovalReport:
    """What became of a plan.

    Attributes:
        action: ``remove``, ``set TTL`` or ``clear``.
        cache_name: The cache.
        outcome: ``done``, or how it ended half-way: ``cancelled`` or ``failed``.
        planned: Keys that were to be looked at; of ``clear``, those that were found.
        changed: Entries removed, or given the TTL.
        bytes: Length of their values.
        gone: Entries that were no longer there. One whose removal was done, and whose answer was lost, is among them.
        kept_newer: Entries left alone because they were written anew since the plan was made, or can be read again.
        skipped: Unreadable values that were to get a TTL, and have none to set.
        remaining: How many of the planned keys exist, counted again in the end; of ``clear``, how many of the cache's.
            None where that could not be counted.
        seconds: What it took, pauses included.
        recorded: Whether the audit log has all this. If not, it has what was done up to a second before.
        expiring: Of ``set TTL``, how many of the planned keys expire within that TTL, or never where that was set,
            counted again in the end. None where that could not be counted, and of the other actions.
    """

    action: str
    cache_name: str
    outcome: Outcome
    planned: int
    changed: int
    bytes: int
    gone: int
    kept_newer: int
    skipped: int
    remaining: int | None
    seconds: float
    recorded: bool
    expiring: int | None = None

    @property
    def untouched(self) -> int:
        """Keys that were not looked at, because it ended before."""
        return self.planned - self.changed - self.gone - self.kept_newer - self.skipped


class RemovalStoppedError(EmbedcacheError):
    """A plan was carried out in part. Its cause is what ended it: a server's error, or what `tell` raised.

    Attributes:
        report: What was done until then.
    """

    def __init__(self, report: RemovalReport, cause: BaseException) -> None:
        why = "was cancelled" if report.outcome == "cancelled" else f"stopped half-way ({cause})"
        of = f" of {report.planned:,}" if report.planned else ""
        log = "" if report.recorded else " The audit log may lack the last second of it."
        super().__init__(
            f"{_NOUNS[report.action]} {why}: {report.changed:,}{of} entries were {_PARTICIPLES[report.action]},"
            f" and stay so. Make a new plan for the rest.{log}"
        )
        self.report = report


_NOUNS: Final = {"remove": "the removal", "set TTL": "setting the TTL", "clear": "clearing the cache"}
_PARTICIPLES: Final = {"remove": "removed", "set TTL": "changed", "clear": "removed"}


# ------------------------------------------------------------------------------------------------ carrying out


def carry_out(
    connection: RedisConnection, plan: RemovalPlan, tell: Tell, actor: str, *, pace: float = HALF
) -> RemovalReport:
    """Removes a plan's entries, but for those that were written anew since.

    Args:
        connection: The server.
        plan: Which entries.
        tell: Called after each step; what it raises ends the work there.
        actor: Who does it, for the audit log.
        pace: How much of the server's time to take, at most: from 0 to 1, which makes no pauses.

    Raises:
        RemovalStoppedError: It ended half-way; its report says what was done.
        ReadOnlyError: The connection is read-only.
        CacheUnavailableError: The server could not be reached from the beginning; nothing was removed.
        ServerReplyError: It refuses the audit log; nothing was removed.
    """
    run = _Run(connection, check_kind("plan", plan, RemovalPlan).cache_name, "remove", actor, pace)
    return run.over_plan(plan, Remove(), tell, _described(plan))


def set_ttl(
    connection: RedisConnection, plan: RemovalPlan, ttl: TTL, tell: Tell, actor: str, *, pace: float = HALF
) -> RemovalReport:
    """Gives a plan's entries a TTL of their own, which begins now, but for those that were written anew since.

    Args:
        connection: The server.
        plan: Which entries. Unreadable ones are skipped.
        ttl: Seconds to live; None and `NEVER` never expire, for a plan knows of no cache's default.
        tell: As in `carry_out`.
        actor: As in `carry_out`.
        pace: As in `carry_out`.

    Raises:
        InvalidTTLError: The TTL is not a whole number of seconds above zero.
        RemovalStoppedError: As in `carry_out`, as are the others.
    """
    seconds = Keyspace(check_kind("plan", plan, RemovalPlan).cache_name).resolve_ttl(NEVER if ttl is None else ttl)
    run = _Run(connection, plan.cache_name, "set TTL", actor, pace)
    return run.over_plan(plan, SetTTL(seconds), tell, _described(plan) | {"ttl": seconds})


def clear_cache(
    connection: RedisConnection, cache_name: str, tell: TellSome, actor: str, *, pace: float = HALF
) -> RemovalReport:
    """Removes every key of a cache's namespace, whatever lies there; other caches, statistics and audit log stay.

    Args:
        connection: The server.
        cache_name: The cache.
        tell: Called after each step with how many were removed; what it raises ends the work there.
        actor: As in `carry_out`.
        pace: As in `carry_out`.

    Raises:
        InvalidNameError: The name cannot be used.
        RemovalStoppedError: As in `carry_out`, as are the others.
    """
    return _Run(connection, cache_name, "clear", actor, pace).over_cache(tell)


def _described(plan: RemovalPlan) -> dict[str, Any]:
    return {"planned": len(plan), "made_at": plan.made_at, "words": plan.words, "chosen_by": plan.chosen_by}


class _Step(NamedTuple):
    """What one step did: entries that it changed, the length of their values, and those left alone, by why."""

    changed: int
    size: int
    gone: int = 0
    kept_newer: int = 0
    skipped: int = 0


class _Left(NamedTuple):
    """What was counted again in the end, as in the report."""

    remaining: int | None = None
    expiring: int | None = None


class _Run:
    """One plan on its way: the sums so far, and everybody who is told of them."""

    def __init__(self, connection: RedisConnection, cache_name: str, action: str, actor: str, pace: float) -> None:
        self._connection = connection
        self._space = Keyspace(cache_name)
        self._able = ServerAbilities()
        self._action, self._actor = action, check_text("actor", actor, encodable=False)
        self._pace = Pace(pace)
        self._outbox = Outbox(sender(connection, self._space))
        self._untold = 0
        self._started = self._amended = time.monotonic()
        self._sums = dict.fromkeys(("changed", "bytes", "gone", "kept_newer", "skipped"), 0)

    @property
    def _looked_at(self) -> int:
        return sum(count for name, count in self._sums.items() if name != "bytes")

    # ---------------------------------------------------------------------------------------- the two ways

    def over_plan(self, plan: RemovalPlan, action: Action, tell: Tell, detail: Mapping[str, Any]) -> RemovalReport:
        check_function("tell", tell)

        def steps() -> Iterator[None]:
            tell(0, len(plan))
            for step in self._plan_steps(plan, action):
                self._take(step)
                tell(self._looked_at, len(plan))
                yield

        return self._carry(steps(), lambda: self._count_left(plan, action), detail)

    def over_cache(self, tell: TellSome) -> RemovalReport:
        check_function("tell", tell)

        def steps() -> Iterator[None]:
            tell(0)
            for step in self._cache_steps():
                self._take(step)
                self._outbox.counters.dropped(None, [], step.changed)
                tell(self._sums["changed"])
                yield
            self._outbox.counters.cleared()

        return self._carry(steps(), lambda: _Left(sum(map(len, self._scan()))), {})

    def _carry(
        self, steps: Iterable[None], count_left: Callable[[], _Left], detail: Mapping[str, Any]
    ) -> RemovalReport:
        self._detail = dict(detail)
        self._record = audit.record(
            self._connection, self._space.name, self._actor, self._action, detail=self._detail | {"outcome": "running"}
        )
        try:
            for _ in steps:
                self._amend_sometimes()
            left = count_left()
        except Exception as error:
            outcome: Outcome = "failed" if isinstance(error, EmbedcacheError) else "cancelled"
            raise RemovalStoppedError(self._ended(outcome, count_left), error) from error
        return self._ended("done", lambda: left)

    # ---------------------------------------------------------------------------------------- steps

    def _plan_steps(self, plan: RemovalPlan, action: Action) -> Iterator[_Step]:
        for kind in Kind:
            positions = np.flatnonzero(plan.kinds == kind)
            start = 0
            while start < len(positions):
                part = positions[start : start + STEP_KEYS]
                # Unreadable values are read whole, and may be large.
                part = part[: max(1, int((plan.value_bytes[part].cumsum() <= CHUNK_BYTES).sum()))]
                start += len(part)
                yield self._plan_step(plan, action, kind, part)

    def _plan_step(self, plan: RemovalPlan, action: Action, kind: Kind, part: npt.NDArray[np.intp]) -> _Step:
        keys = plan.keys(part)
        times = plan.inserted_at[part].tolist()
        found = self._drive(unchanged.act(self._space, self._able, action, kind, keys, times))
        fates = np.frombuffer(found, np.uint8)
        changed = fates == Fate.CHANGED
        self._tell_statistics([keys[index] for index in np.flatnonzero(changed)], action)
        counts = np.bincount(fates, minlength=max(Fate) + 1)
        return _Step(
            changed=int(counts[Fate.CHANGED]),
            size=int(plan.value_bytes[part][changed].sum()),
            gone=int(counts[Fate.GONE]),
            kept_newer=int(counts[Fate.KEPT]),
            skipped=int(counts[Fate.SKIPPED]),
        )

    def _cache_steps(self) -> Iterator[_Step]:
        for keys in self._scan():
            for start in range(0, len(keys), STEP_KEYS):
                part = keys[start : start + STEP_KEYS]
                removed, size = self._drive(unchanged.remove_all(self._able, part))
                yield _Step(removed, size)

    def _scan(self) -> Iterator[list[str]]:
        """The keys of the cache's namespace, batch by batch; SCAN may return one twice while others are removed."""
        cursor: int | None = 0
        while cursor is not None:
            command = ("SCAN", cursor, "MATCH", self._space.pattern, "COUNT", CHUNK_ENTRIES)
            following, found = self._drive(checked(command))
            names = [name.decode(errors="surrogateescape") for name in found]
            yield [name for name in names if self._space.owns(name)]
            cursor = int(following) or None

    def _count_left(self, plan: RemovalPlan, action: Action) -> _Left:
        parts = (plan.keys(slice(start, start + CHUNK_ENTRIES)) for start in range(0, len(plan), CHUNK_ENTRIES))
        if isinstance(action, Remove):
            return _Left(sum(int(self._drive(checked(("EXISTS", *keys)))) for keys in parts))
        there = expiring = 0
        for keys in parts:
            found = np.array(self._drive(remaining_milliseconds(self._able, keys)), np.int64)
            there += int((found != NO_KEY).sum())
            fits = found == NO_TTL if action.seconds is None else (found >= 0) & (found <= 1000 * action.seconds)
            expiring += int(fits.sum())
        return _Left(there, expiring)

    def _drive(self, operation: Operation[Any]) -> Any:
        with self._pace.step(), closing(dropping(self._space.name, operation)) as written:
            return self._connection.drive(written)

    # ---------------------------------------------------------------------------------------- telling

    def _take(self, step: _Step) -> None:
        self._sums["changed"] += step.changed
        self._sums["bytes"] += step.size
        self._sums["gone"] += step.gone
        self._sums["kept_newer"] += step.kept_newer
        self._sums["skipped"] += step.skipped

    def _tell_statistics(self, keys: list[str], action: Action) -> None:
        """What was dropped is not to be taken for evicted, nor what expires for what had no TTL."""
        counters = self._outbox.counters
        if self._untold + len(keys) > MAX_TOLD:
            with self._pace.step():
                self._outbox.try_to_flush()
            self._untold = 0
        self._untold += len(keys)
        if isinstance(action, Remove):
            counters.dropped(None, keys, len(keys))
            return
        for key in keys:
            counters.expires(key, action.seconds)

    def _amend_sometimes(self) -> None:
        if time.monotonic() - self._amended >= _AMEND_SECONDS:
            self._amend("running")

    def _amend(self, outcome: Outcome, **more: Any) -> None:
        sums = dict(self._sums)
        count, size = sums.pop("changed"), sums.pop("bytes")
        detail = self._detail | sums | more | {"outcome": outcome}
        self._record = audit.amend(self._connection, self._record, count=count, size=size, detail=detail)
        self._amended = time.monotonic()

    def _ended(self, outcome: Outcome, count_left: Callable[[], _Left]) -> RemovalReport:
        left = _Left()
        recorded = False
        try:
            self._outbox.try_to_flush()
            left = count_left()
            counted = {name: number for name, number in left._asdict().items() if number is not None}
            self._amend(outcome, **counted, seconds=time.monotonic() - self._started)
            recorded = True
        except EmbedcacheError:
            # What ended the work may end this, too: the report then says that it is not counted, or not on record.
            recorded = False
        flushing.let_go(self._outbox)
        return RemovalReport(
            action=self._action,
            cache_name=self._space.name,
            outcome=outcome,
            planned=self._detail.get("planned", self._looked_at),
            **self._sums,
            remaining=left.remaining,
            expiring=left.expiring,
            seconds=time.monotonic() - self._started,
            recorded=recorded,
        )

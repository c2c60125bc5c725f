"""A cache moved from one layout to the other, packed values or RedisVL's hashes, while others use it.

In place, each entry is replaced in one step of the server's, so that a process or a server that dies loses nothing, and
what others write meanwhile stays. Begun again, it goes on where it ended: what lies in the wanted layout is skipped. ::

    convert.convert_entries(cache.connection, "answers", "packed")
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, TypeAlias, get_args

from embedcache import audit, codec
from embedcache.arguments import check_choice, check_function
from embedcache.entry_layout import LayoutName
from embedcache.errors import EmbedcacheError, ReadOnlyError
from embedcache.index import keys_of
from embedcache.keyspace import Keyspace
from embedcache.near_operations import dropping
from embedcache.operations import Operation, ServerAbilities
from embedcache.pacing import HALF, STEP_KEYS, Pace
from embedcache.transfer import converting
from embedcache.transfer.converting import Conversion, Entry, Fate, ToPacked, ToRedisVL
from embedcache.walking import find_digests

if TYPE_CHECKING:
    from embedcache.connection import RedisConnection

Tell: TypeAlias = Callable[[int, int | None], object]
"""Told how many keys are done, and of how many once that is known. What it raises ends the work."""

LISTED: Final = 100
"""Unreadable keys that a report names."""

_TELL_SECONDS: Final = 1.0
_COUNTS: Final = ("skipped", "unreadable", "changed_meanwhile", "vanished")


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What a conversion did.

    Attributes:
        converted: Entries that lie in the wanted layout now, and did not before.
        skipped: Entries that were there already: in that layout, or under the key that they are to have.
        unreadable: Values left as they are: damaged, no entries, or with what the other layout cannot hold.
        unreadable_keys: The first `LISTED` of those.
        changed_meanwhile: Entries that somebody wrote while they were being converted. They are left as they are;
            converting again takes them.
        vanished: Keys under which there was nothing any more.
        seconds: How long it took.
        recorded: Whether the audit log has all this. If not, it has what was done up to a second before.
    """

    converted: int
    skipped: int
    unreadable: int
    unreadable_keys: tuple[str, ...]
    changed_meanwhile: int
    vanished: int
    seconds: float
    recorded: bool = True


def _tell_nobody(_done: int, _total: int | None) -> None: ...


def convert_entries(
    connection: RedisConnection,
    cache_name: str,
    layout: LayoutName,
    tell: Tell = _tell_nobody,
    *,
    to: RedisConnection | None = None,
    to_name: str | None = None,
    dtype: str = "float32",
    pace: float = HALF,
    actor: str | None = "embedcache",
) -> ConvertReport:
    """Moves a cache's entries into a layout: in place, or as copies to another server or under another name.

    Entries keep text, model, metadata, `inserted_at`, the TTL of their own and what remains of it. Statistics do not
    count them anew. Entries stored after it has begun are left for the next time.

    Args:
        connection: The server of the cache.
        cache_name: The cache.
        layout: The layout wanted: ``packed`` or ``redisvl``. What lies in it already is skipped, and not copied.
        tell: Told after each step.
        to: A server to copy to; None is the same.
        to_name: A name for the copy; None is the same. With neither, entries are replaced where they lie.
        dtype: How packed vectors are stored. RedisVL's decimal numbers have no dtype; ``float64`` keeps all of their
            digits.
        pace: How much of a server's time to take, at most: above 0, up to 1, which makes no pauses.
        actor: Who does it, for the audit log of the cache that is written to, which has it however it ends. None is for
            callers who keep a record of their own.

    Raises:
        InvalidInputError: A name, the layout, the dtype or the pace cannot be used.
        ReadOnlyError: The connection that would be written to is read-only; nothing was written.
        CacheUnavailableError: A server cannot be reached. What was converted until then stays so.
        ServerReplyError: It refused a write, for lack of memory say; the same holds.
    """
    started = time.monotonic()
    check_function("tell", tell)
    target = connection if to is None else to
    source_name, target_name = Keyspace(cache_name).name, Keyspace(cache_name if to_name is None else to_name).name
    in_place = to is None and target_name == source_name
    steps = Pace(pace)
    way = _way(cache_name, target_name, layout, dtype)
    if target.read_only:
        raise ReadOnlyError("the cache was opened read-only; open it with read_only=False to convert entries")
    run = _Run(connection, target, target_name, way, steps, in_place=in_place)
    detail = {"layout": layout} | ({} if in_place else {"from": cache_name})
    log = None if actor is None else _Log(target, target_name, actor, detail)
    outcome = "cancelled"
    try:
        digests = connection.drive(find_digests(Keyspace(cache_name), tell))
        for start in range(0, len(digests), STEP_KEYS):
            run.step(keys_of(cache_name, digests[start : start + STEP_KEYS]))
            if log is not None:
                log.tell_sometimes(run.report(time.monotonic() - started))
            tell(min(start + STEP_KEYS, len(digests)), len(digests))
        outcome = "done"
    except EmbedcacheError:
        outcome = "failed"
        raise
    finally:
        report = run.report(time.monotonic() - started)
        recorded = log is None or log.ended(report, outcome)
    return replace(report, recorded=recorded)


def _way(name: str, target_name: str, layout: str, dtype: str) -> Conversion:
    check_choice("layout", layout, get_args(LayoutName))
    if layout == "packed":
        return ToPacked(name, target_name, codec.stored_dtype(dtype))
    return ToRedisVL(name, target_name)


class _Log:
    """What the audit log has of a conversion: from its beginning on, and what was done up to a second ago."""

    def __init__(self, target: RedisConnection, name: str, actor: str, detail: dict[str, str]) -> None:
        self._target, self._detail = target, detail
        self._record = audit.record(target, name, actor, "convert", detail=detail | {"outcome": "running"})
        self._told = time.monotonic()

    def tell_sometimes(self, report: ConvertReport) -> None:
        """Writes down how far it is, once a second."""
        if time.monotonic() - self._told >= _TELL_SECONDS:
            self._tell(report, "running")

    def ended(self, report: ConvertReport, outcome: str) -> bool:
        """Writes down how it ended; returns whether that was possible. What ended it may end this, too."""
        try:
            self._tell(report, outcome)
        except EmbedcacheError:
            return False
        return True

    def _tell(self, report: ConvertReport, outcome: str) -> None:
        counts = {name: getattr(report, name) for name in _COUNTS}
        detail = self._detail | counts | {"seconds": report.seconds, "outcome": outcome}
        self._record = audit.amend(self._target, self._record, count=report.converted, size=0, detail=detail)
        self._told = time.monotonic()


class _Run:
    """A conversion on its way, and the sums so far."""

    def __init__(
        self,
        source: RedisConnection,
        target: RedisConnection,
        target_name: str,
        way: Conversion,
        pace: Pace,
        *,
        in_place: bool,
    ) -> None:
        self._source, self._target, self._target_name = source, target, target_name
        self._way, self._pace, self._able = way, pace, ServerAbilities()
        self._write = converting.replace if in_place else converting.copy
        self._fates: Counter[Fate] = Counter()
        self._unreadable: list[str] = []

    def step(self, keys: list[str]) -> None:
        """Converts what lies under these keys."""
        with self._pace.step():
            found = self._source.drive(self._way.read(keys))
            entries = [each for each in found if isinstance(each, Entry)]
            self._fates.update(each for each in found if isinstance(each, Fate))
            if entries:
                self._fates.update(self._drive(self._write(self._way, self._able, entries)))
        room = LISTED - len(self._unreadable)
        bad = [key for key, each in zip(keys, found, strict=True) if each is Fate.UNREADABLE]
        self._unreadable += bad[:room]

    def _drive(self, operation: Operation[list[Fate]]) -> list[Fate]:
        with closing(dropping(self._target_name, operation)) as written:
            return self._target.drive(written)

    def report(self, seconds: float) -> ConvertReport:
        """What was done."""
        return ConvertReport(
            converted=self._fates[Fate.CONVERTED],
            skipped=self._fates[Fate.SKIPPED],
            unreadable=self._fates[Fate.UNREADABLE],
            unreadable_keys=tuple(self._unreadable),
            changed_meanwhile=self._fates[Fate.CHANGED],
            vanished=self._fates[Fate.GONE],
            seconds=seconds,
        )

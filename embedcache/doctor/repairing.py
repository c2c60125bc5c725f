"""A finding's fix carried out: in short steps, only on what is as it was found, and on record."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from embedcache import audit, removal
from embedcache.arguments import check_function, check_text
from embedcache.cache import EmbeddingsCache
from embedcache.doctor.findings import (
    Convert,
    Finding,
    Fix,
    GiveTTL,
    Kind,
    RemoveEntries,
    RemoveKeys,
    Repair,
    SetPolicy,
)
from embedcache.doctor.namespace import remove_same
from embedcache.errors import EmbedcacheError, InvalidInputError, ReadOnlyError
from embedcache.operations import ServerAbilities, checked
from embedcache.pacing import HALF, STEP_KEYS, Pace
from embedcache.removal import RemovalReport, Tell
from embedcache.transfer.convert import convert_entries


def _tell_nobody(_done: int, _total: int) -> None: ...


def repair(
    cache: EmbeddingsCache, finding: Finding, actor: str, tell: Tell = _tell_nobody, *, pace: float = HALF
) -> Repair:
    """Carries a finding's fix out. What was written anew since stays as it is.

    Args:
        cache: The cache that was examined.
        finding: What was found.
        actor: Who does it, for the cache's audit log.
        tell: Told after each step.
        pace: How much of the server's time to take, at most: above 0, up to 1, which makes no pauses.

    Raises:
        InvalidInputError: The finding is of another cache, or the pace cannot be used.
        ReadOnlyError: The cache was opened read-only; nothing was sent.
        RemovalStoppedError: It ended half-way; its report says what was done.
        CacheUnavailableError: The server cannot be reached.
        ServerReplyError: It refuses.
    """
    if not isinstance(finding, Finding):
        raise InvalidInputError(f"a finding is one of an Examination, not {type(finding).__name__}")
    if finding.cache_name != cache.name:
        raise InvalidInputError(f"the finding is of cache {finding.cache_name!r}, and this one is {cache.name!r}")
    if cache.read_only:
        raise ReadOnlyError(f"cache {cache.name!r} was opened read-only; open it with read_only=False to repair it")
    Pace(pace)
    check_function("tell", tell)
    check_text("actor", actor, encodable=False)
    return _WAYS[type(finding.fix)](cache, finding, finding.fix, actor, tell, pace)


def _remove_entries(
    cache: EmbeddingsCache, finding: Finding, fix: RemoveEntries, actor: str, tell: Tell, pace: float
) -> Repair:
    return _of_report(finding.kind, removal.carry_out(cache.connection, fix.plan, tell, actor, pace=pace))


def _give_ttl(cache: EmbeddingsCache, finding: Finding, fix: GiveTTL, actor: str, tell: Tell, pace: float) -> Repair:
    report = removal.set_ttl(cache.connection, fix.plan, fix.ttl, tell, actor, pace=pace)
    return _of_report(finding.kind, report)


def _of_report(kind: Kind, report: RemovalReport) -> Repair:
    return Repair(kind, report.changed, report.planned - report.changed, report.recorded)


def _remove_keys(
    cache: EmbeddingsCache, finding: Finding, fix: RemoveKeys, actor: str, tell: Tell, pace: float
) -> Repair:
    record = _begun(cache, finding, fix, actor)
    able, steps = ServerAbilities(), Pace(pace)
    only_lasting = finding.kind is Kind.ORPHANED_KEYS
    removed = 0
    outcome = "failed"
    try:
        tell(0, len(fix.keys))
        for start in range(0, len(fix.keys), STEP_KEYS):
            part = fix.keys[start : start + STEP_KEYS]
            with steps.step():
                removed += cache.connection.drive(remove_same(able, part, only_lasting=only_lasting))
            tell(start + len(part), len(fix.keys))
        outcome = "done"
    finally:
        recorded = _ended(cache, record, removed, outcome)
    return Repair(finding.kind, removed, len(fix.keys) - removed, recorded)


def _convert(cache: EmbeddingsCache, finding: Finding, fix: Convert, actor: str, tell: Tell, pace: float) -> Repair:
    record = _begun(cache, finding, fix, actor)
    converted, outcome = 0, "failed"
    try:
        report = convert_entries(
            cache.connection,
            cache.name,
            fix.layout,
            lambda done, total: tell(done, finding.count if total is None else total),
            dtype=fix.dtype,
            pace=pace,
            actor=None,  # a repair is on record already
        )
        converted, outcome = report.converted, "done"
    finally:
        recorded = _ended(cache, record, converted, outcome)
    return Repair(finding.kind, converted, max(finding.count - converted, 0), recorded)


def _set_policy(
    cache: EmbeddingsCache, finding: Finding, fix: SetPolicy, actor: str, tell: Tell, pace: float
) -> Repair:
    del pace  # one command
    record = _begun(cache, finding, fix, actor)
    done = 0
    try:
        cache.connection.drive(checked(("CONFIG", "SET", "maxmemory-policy", fix.policy)))
        done = 1
        tell(1, 1)
    finally:
        recorded = _ended(cache, record, done, "done" if done else "failed")
    return Repair(finding.kind, done, 0, recorded)


_WAYS: Final[dict[type[Fix], Callable[..., Repair]]] = {
    RemoveEntries: _remove_entries,
    GiveTTL: _give_ttl,
    RemoveKeys: _remove_keys,
    Convert: _convert,
    SetPolicy: _set_policy,
}


# ------------------------------------------------------------------------------------------------ on record


def _begun(cache: EmbeddingsCache, finding: Finding, fix: Fix, actor: str) -> audit.AuditRecord:
    """Writes down what is begun, before anything is changed."""
    return audit.record(cache.connection, cache.name, actor, "repair", detail=_detail(finding, fix, "running"))


def _detail(finding: Finding, fix: Fix, outcome: str) -> dict[str, Any]:
    return {
        "found": finding.kind.name.lower(),
        "planned": finding.count,
        "words": fix.words,
        "sample": list(finding.sample),
        "outcome": outcome,
    }


def _ended(cache: EmbeddingsCache, record: audit.AuditRecord, count: int, outcome: str) -> bool:
    """Writes down what has become of it; returns whether that was possible. What ended the work may end this, too."""
    try:
        audit.amend(cache.connection, record, count=count, size=0, detail=record.detail | {"outcome": outcome})
    except EmbedcacheError:
        return False
    return True

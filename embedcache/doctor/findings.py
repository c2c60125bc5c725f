"""What may be wrong with a cache, what would put it right, and what became of that: records alone."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final, Literal, TypeAlias

from embedcache.entry_layout import LayoutName
from embedcache.removal import RemovalPlan

SAMPLED: Final = 10
"""Keys that a finding names."""

Severity = Literal["problem", "warning", "note"]
"""A problem costs vectors, counts or writes; a warning, memory or time; a note may well be as it is meant."""


class Kind(Enum):
    """What is found, for people."""

    CORRUPT = "corrupt values"
    FOREIGN_VALUES = "values that are no entries"
    OTHER_VERSION = "entries of another version"
    OTHER_LAYOUT = "entries in the other layout"
    MIXED_DIMENSIONS = "vectors of several dimensions under one model"
    NO_TTL = "entries that never expire in a cache with a TTL"
    BIG_TEXTS = "entries with big texts"
    FOREIGN_KEYS = "keys of others in the namespace"
    ORPHANED_KEYS = "bookkeeping that nothing will remove"
    SPOILT_KEYS = "bookkeeping that others overwrote"
    EVICTION_POLICY = "an eviction policy that drops statistics"


# ------------------------------------------------------------------------------------------------ fixes


@dataclass(frozen=True, slots=True, eq=False)
class RemoveEntries:
    """Removes the planned entries, but for those that were written anew since.

    Attributes:
        plan: Which.
    """

    plan: RemovalPlan

    @property
    def words(self) -> str:
        """What it would do, for people."""
        return f"remove the {len(self.plan):,} values"


@dataclass(frozen=True, slots=True, eq=False)
class GiveTTL:
    """Gives the planned entries a TTL, but for those that were written anew since.

    Attributes:
        plan: Which.
        ttl: Seconds.
    """

    plan: RemovalPlan
    ttl: int

    @property
    def words(self) -> str:
        """What it would do, for people."""
        return f"give the {len(self.plan):,} entries the cache's TTL of {self.ttl:,} s"


@dataclass(frozen=True, slots=True)
class RemoveKeys:
    """Removes keys that are no entries, but for those that changed their type or got an expiry since.

    Attributes:
        keys: Each as it is on the server, with the type of its value as the server calls it.
    """

    keys: tuple[tuple[bytes, bytes], ...]

    @property
    def words(self) -> str:
        """What it would do, for people."""
        return f"remove the {len(self.keys):,} keys"


@dataclass(frozen=True, slots=True)
class Convert:
    """Moves entries into the layout that the cache reads.

    Attributes:
        layout: That layout.
        dtype: How packed vectors are stored then.
    """

    layout: LayoutName
    dtype: str

    @property
    def words(self) -> str:
        """What it would do, for people."""
        return f"convert the cache's entries to the layout {self.layout!r}"


@dataclass(frozen=True, slots=True)
class SetPolicy:
    """Changes what the server evicts when it is full; for all that it holds, until it is started again.

    Attributes:
        policy: As the server calls it.
    """

    policy: str

    @property
    def words(self) -> str:
        """What it would do, for people."""
        return f"set the server's maxmemory-policy to {self.policy}"


Fix: TypeAlias = RemoveEntries | GiveTTL | RemoveKeys | Convert | SetPolicy


# ------------------------------------------------------------------------------------------------ findings


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One thing that may be wrong.

    Attributes:
        kind: What.
        severity: How much it matters.
        cache_name: The cache that was examined.
        count: How many keys it is about; 1 for a setting of the server.
        bytes: Length of their values together; 0 where that is not known.
        sample: Some of the keys, as texts for people: `SAMPLED` at most.
        explanation: What it does, and where it may come from.
        fix: What would put it right, for `repair`. Where there are more keys than one fix can hold, it is about the
            first; examining again finds the rest.
    """

    kind: Kind
    severity: Severity
    cache_name: str
    count: int
    bytes: int
    sample: tuple[str, ...]
    explanation: str
    fix: Fix


@dataclass(frozen=True, slots=True, eq=False)
class Examination:
    """What was found in a cache.

    Attributes:
        cache_name: The cache.
        entries: How many keys of entries it has, readable or not.
        findings: Problems first; none where all is well.
        not_told: What could not be looked at, for the server refuses it, for people.
        seconds: What it took.
    """

    cache_name: str
    entries: int
    findings: tuple[Finding, ...]
    not_told: tuple[str, ...]
    seconds: float

    @property
    def is_well(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


@dataclass(frozen=True, slots=True)
class Repair:
    """What became of a finding's fix.

    Attributes:
        kind: What it was about.
        changed: Entries or keys removed, changed or converted; 1 for a setting.
        left: Those left alone: gone, written anew since, or such that the fix cannot change them.
        recorded: Whether the cache's audit log has it.
    """

    kind: Kind
    changed: int
    left: int
    recorded: bool

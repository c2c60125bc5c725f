"""What may be wrong with a cache, found without changing anything; and put right, once somebody has said yes.

::

    examination = doctor.examine(cache)
    for finding in examination.findings:
        print(finding.severity, finding.kind.value, finding.count, finding.explanation)
        if input(f"{finding.fix.words}? ") == "yes":
            doctor.repair(cache, finding, actor="ada")

`docs/doctor.md` lists what is found.
"""

from __future__ import annotations

from embedcache.doctor.examining import BIG_TEXT_BYTES, Tell, examine
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
    Repair,
    SetPolicy,
    Severity,
)
from embedcache.doctor.repairing import repair

__all__ = [
    "BIG_TEXT_BYTES",
    "SAMPLED",
    "Convert",
    "Examination",
    "Finding",
    "Fix",
    "GiveTTL",
    "Kind",
    "RemoveEntries",
    "RemoveKeys",
    "Repair",
    "SetPolicy",
    "Severity",
    "Tell",
    "examine",
    "repair",
]

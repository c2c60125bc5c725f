"""Junk for what changes many entries: removals by a plan, the audit log, the doctor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public import public
from world import World, patient, tell

from embedcache import NEVER

CHANGING = public("embedcache.removal", "embedcache.audit", "embedcache.doctor")
PLAUSIBLE: dict[str, Any] = {
    "connection": lambda world: [world.connection],
    "cache": lambda world: [world.cache],
    "cache_name": ["c"],
    "cache_names": [("c",), ("c", "d"), ()],
    "plan": lambda world: [world.plan],
    "ttl": [None, 5, NEVER],
    "tell": [tell],
    "actor": ["ada"],
    "pace": [1, 1.0],
    # making a plan
    "RemovalPlan": lambda world: world.plan,
    "digests": [np.zeros((2, 32), np.uint8)],
    "inserted_at": [np.array([1.0, np.nan])],
    "value_bytes": [np.array([100, 200])],
    "hashes": [None, np.array([True, False])],
    "words": ["those that are old"],
    "chosen_by": [None, {"min_age": 5.0}],
    "made_at": [None, 1.5],
    "positions": [slice(0, 1), np.array([0])],
    # the log
    "action": ["remove"],
    "count": [3],
    "size": [100],
    "detail": [{"a": 1}],
    "known": lambda world: [world.record],
    "limit": [5],
    # the doctor
    "big_text_bytes": [100],
    "finding": lambda world: world.findings,
}


@pytest.mark.parametrize("name", CHANGING)
@patient
@given(data=st.data())
def test_changing(world: World, name: str, data: st.DataObject) -> None:
    world.check(CHANGING[name], data, PLAUSIBLE)

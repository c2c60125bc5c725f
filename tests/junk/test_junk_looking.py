"""Junk for what looks at a server: health, caches, summaries, walks, samples, filters and indexes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from public import public
from world import KEPT, KEY, MODEL, World, patient, tell

from embedcache.filtering import EntryFilter
from embedcache.keyspace import Keyspace

LOOKING = public(
    "embedcache.inspector",
    "embedcache.walking",
    "embedcache.sampling",
    "embedcache.index.EntryIndex",
    "embedcache.filtering.EntryFilter",
)
PLAUSIBLE: dict[str, Any] = {
    "connection": lambda world: [world.connection],
    "name": ["c"],
    "space": [Keyspace("c")],
    "tell": [tell],
    "keys": [[KEY], []],
    "max_keys": [10],
    "max_names": [10],
    "count": [3],
    "dimension": [1, 3],
    "take": [lambda *_: None],
    "max_bytes": [1_000],
    "model_name": [None, MODEL],
    "index": lambda world: [world.index],
    "entry_filter": [EntryFilter(), EntryFilter(text_contains="a"), EntryFilter(min_bytes=1)],
    "groups": lambda world: [[world.vectors], [world.vectors, world.vectors]],
    "rows": [[0], []],
    # methods of an index
    "EntryIndex": lambda world: world.index,
    "Vectors": lambda world: world.vectors,
    "position": [0, 1],
    "positions": [np.array([0]), np.array([], np.int64)],
    "column": ["model_name", "dtype", "ttl"],
    "descending": [False, True],
    "edges": [[1.0, 2.0], []],
    # filters
    "EntryFilter": lambda _: EntryFilter(text_contains="a", metadata_field="page", metadata_value="3"),
    "text": [KEPT, b"a"],
    "metadata": [None, {"page": 3}],
    "given": [{}, {"min_bytes": 3}],
    "text_contains": [None, "a"],
    "metadata_field": [None, "a"],
    "metadata_value": [None, "a"],
    **{name: [None, 5.0] for name in ("min_age", "max_age", "min_idle", "expires_within")},
    **{name: [None] for name in ("never_expires", "unreadable")},
    "min_bytes": [None, 5],
    "EntryFilter.max_bytes": [None, 5],
}


@pytest.mark.parametrize("name", LOOKING)
@patient
@given(data=st.data())
def test_looking(world: World, name: str, data: st.DataObject) -> None:
    world.check(LOOKING[name], data, PLAUSIBLE)

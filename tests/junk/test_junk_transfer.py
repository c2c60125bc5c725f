"""Junk for exports, restores and conversions: neither the server nor the folder has anything more afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from public import public
from world import KEY, World, patient, tell

TRANSFER = public("embedcache.transfer", "embedcache.transfer.convert")
PLAUSIBLE: dict[str, Any] = {
    "connection": lambda world: [world.connection],
    "cache_name": ["c"],
    "path": ["made.jsonl"],
    "export_entries.path": ["new.parquet", "new.jsonl"],
    "keys": [None, [KEY], []],
    "tell": [tell],
    "file_format": ["jsonl", "parquet"],
    "vectors": [None, "numbers", "base64"],
    "replace": [False, True],
    "resume": [False, True],
    "processes": [1],
    "on_conflict": ["skip", "overwrite", "newer"],
    "layout": ["packed", "redisvl"],
    "check_first": [False, True],
    "to": lambda world: [None, world.connection],
    "to_name": [None, "c2"],
    "dtype": ["float32", "int8"],
    "pace": [1],
    "actor": [None, "ada"],
}


@pytest.mark.parametrize("name", TRANSFER)
@patient
@given(data=st.data())
def test_transfer(world: World, name: str, data: st.DataObject) -> None:
    world.check(TRANSFER[name], data, PLAUSIBLE)

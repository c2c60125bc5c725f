"""Every public thing is given junk by one of the files here: what is new fails until somebody says what would do."""

from __future__ import annotations

from pathlib import Path

import pytest
from public import UNCHECKED, members, public, rooms
from world import World


def test_every_room_of_the_reference_is_given_junk() -> None:
    files = "".join(file.read_text() for file in Path(__file__).parent.glob("test_junk_*.py"))
    packages = {"vectorizers", "integrations"}  # named there in parts
    named = [room for room in rooms() if room.split(".")[1] not in packages]
    assert [room for room in named if f'"{room}"' not in files] == []
    parts = {room.rpartition(".")[2] for room in rooms()} - {room.rpartition(".")[2] for room in named}
    assert [part for part in parts if f'"{part}"' not in files and f'integrations.{part}"' not in files] == []


def test_what_is_found_is_what_there_is() -> None:
    found = public(*rooms())
    for name in ("removal.carry_out", "transfer.export_entries", "doctor.repair", "EmbeddingsCache.amset"):
        assert f"embedcache.{name}" in found
    assert found["embedcache.vectorizers.BaseVectorizer.embed_query"].parameters == [
        *("text", "preprocess", "metadata", "ttl", "skip_cache")
    ]


def test_records_are_known_by_name() -> None:
    """A class that is there no more needs no exception."""
    reachable = {
        name.rpartition(".")[2] for room in rooms() for name, value in members(room) if isinstance(value, type)
    }
    assert reachable >= UNCHECKED


def test_an_argument_of_which_nobody_has_said_what_would_do_fails(world: World) -> None:
    tested = public("embedcache.removal")["embedcache.removal.carry_out"]
    assert world.chosen({"pace": [1]}, tested, "pace") == [1]
    for plausible in ({}, {"plan": [world.plan], "set_ttl.pace": [1]}):
        with pytest.raises(pytest.fail.Exception, match="say in this file what would do for 'pace'"):
            world.chosen(plausible, tested, "pace")

"""Indexes kept for all users: taken once, replaced, outdated, and bounded."""

from __future__ import annotations

import numpy as np
import pytest

from embedcache import EmbeddingsCache, walking
from embedcache.index import EntryIndex
from pages.ui.index_shelf import IndexShelf

MODEL = "a/model"
PATIENCE = 10.0


@pytest.fixture
def cache(make_cache) -> EmbeddingsCache:
    made = make_cache()
    made.mset([{"text": f"text {number}", "model_name": MODEL, "embedding": [1.0, 2.0]} for number in range(5)])
    return made


@pytest.fixture
def index(cache) -> EntryIndex:
    return walking.index_cache(cache.connection, cache.name, lambda *_: None)


def take(shelf: IndexShelf, cache: EmbeddingsCache) -> None:
    job = shelf.take("server", cache.name, cache.connection, "redis://nowhere-else")
    assert job.wait(PATIENCE)
    assert job.state == "done"


def test_an_index_is_taken_in_the_background_and_kept(cache):
    shelf = IndexShelf()
    assert shelf.last("server", cache.name) is None
    assert not shelf.is_good("server", cache.name)
    take(shelf, cache)
    assert len(shelf.last("server", cache.name)) == 5
    assert shelf.is_good("server", cache.name)
    assert shelf.last("other", cache.name) is None
    cache.set("one more", MODEL, [1.0, 2.0])
    assert len(shelf.last("server", cache.name)) == 5
    take(shelf, cache)
    assert len(shelf.last("server", cache.name)) == 6


def test_what_was_written_outdates_the_indexes_of_that_server_alone(cache, index):
    shelf = IndexShelf()
    shelf.put("server", cache.name, index)
    shelf.put("other", cache.name, index)
    shelf.outdate("server")
    assert not shelf.is_good("server", cache.name)
    assert shelf.is_good("other", cache.name)
    assert shelf.last("server", cache.name) is index, "an older one is better than none"


def test_the_index_used_longest_ago_makes_room(index):
    shelf = IndexShelf(max_entries=10)
    shelf.put("server", "a", index)
    shelf.put("server", "b", index)
    assert shelf.last("server", "a") is index  # b was used longest ago now
    shelf.put("server", "c", index)
    assert [name for name in "abc" if shelf.last("server", name)] == ["a", "c"]


def test_one_that_is_larger_than_all_room_is_kept_alone(index):
    shelf = IndexShelf(max_entries=1)
    shelf.put("server", "a", index)
    shelf.put("server", "b", index)
    assert shelf.last("server", "a") is None
    assert shelf.last("server", "b") is index


def test_an_index_in_which_something_is_missing_takes_the_place_of_the_first(cache, index):
    shelf = IndexShelf()
    take(shelf, cache)
    shelf.put("server", cache.name, index.without(np.array([0, 1])))
    assert len(shelf.last("server", cache.name)) == 3

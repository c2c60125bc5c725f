"""What a cache promises, in RedisVL's layout: the same tests, on each server, sync and async."""

from __future__ import annotations

import pytest
import test_contract
import test_ttl

# What these assert is true of packed values alone: other dtypes, what one costs, and how one is damaged.
PACKED_ALONE = {
    "test_each_dtype_comes_back",
    "test_a_cache_reads_entries_of_every_dtype",
    "test_an_entry_costs_the_server_little_more_than_its_vector",
    "test_what_is_no_entry_under_a_key_of_ours_is_one_miss",
    "test_caches_of_one_name_share_their_entries",
}


@pytest.fixture
def layout() -> str:
    return "redisvl"


for _module in (test_contract, test_ttl):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_") and _name not in PACKED_ALONE:
            globals()[_name] = _test


def test_what_is_left_out_is_there_to_be_left_out() -> None:
    assert vars(test_contract).keys() >= PACKED_ALONE

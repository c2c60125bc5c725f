"""A cache that counts, and the statistics of one without a cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from calling import Caller
from counted import Shelf
from servers import Server


@pytest.fixture
def counting(make_cache: Callable[..., Caller]) -> Caller:
    """The cache named "c", without a default TTL, sync and async, on each kind of server."""
    return make_cache(stats=True)


@pytest.fixture
def scripted(server: Server) -> Iterator[Shelf]:
    """The statistics of the cache named "c"."""
    with Shelf(server) as shelf:
        yield shelf


@pytest.fixture(params=[True, False], ids=["scripts", "plain commands"])
def shelf(request: pytest.FixtureRequest, scripted: Shelf) -> Shelf:
    """The same, where the server runs scripts and where it does not."""
    scripted.able.scripts = request.param
    return scripted

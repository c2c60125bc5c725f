"""What a cache promises, on a Redis Cluster: the same tests, sync and async. `make cluster` runs many more so."""

from __future__ import annotations

import pytest
import test_contract
import test_ttl
from clusters import ClusterOfServers


@pytest.fixture
def server(cluster: ClusterOfServers) -> ClusterOfServers:
    return cluster


for _module in (test_contract, test_ttl):
    for _name, _test in vars(_module).items():
        if _name.startswith("test_"):
            globals()[_name] = _test

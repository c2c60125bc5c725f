"""The chaos test for half a minute; `make chaos` runs it for longer."""

from __future__ import annotations

import chaos


def test_whatever_becomes_of_the_server_vectorizers_work_on() -> None:
    # Shorter timeouts than the usual ones: a server that is stopped for 2 s is to be given up.
    settings = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0}
    outcome = chaos.run(25, 1, settings, (0.7, 2.5), 0.05)
    print(outcome.table())
    assert outcome.failures == []
    assert len(outcome.troubles.counts) == 5
    assert outcome.troubles.checked > 0
    assert outcome.figures.hits > 0
    assert outcome.figures.errors > 0
    assert outcome.figures.slowest < 60
    # One for each trouble and process, and for each of what it strikes: lookups, stores, locks.
    assert outcome.figures.warnings <= 3 * chaos.PROCESSES * sum(outcome.troubles.counts.values())

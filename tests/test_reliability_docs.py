"""`docs/reliability.md` says what is."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from servers import free_port

from embedcache import connection
from embedcache.breaker import USUAL_POLICY, BreakerPolicy

PAGE = (Path(__file__).parent.parent / "docs" / "reliability.md").read_text(encoding="utf-8")
(BREAKER,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_breaker(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(BREAKER.replace("localhost:6379", f"127.0.0.1:{free_port()}"), names)  # noqa: S102 - it is ours
    *errors, outage = capsys.readouterr().out.splitlines()
    assert ["since" in error for error in errors] == [False, False, False, True]
    assert outage.startswith("Outage(since=")
    names["cache"].close()


def test_the_usual_policy_and_timeouts() -> None:
    (said,) = re.findall(r"BreakerPolicy\((.*?)\)", BREAKER)
    assert eval(f"dict({said})") == {  # noqa: S307 - it is ours
        name: getattr(USUAL_POLICY, name) for name in BreakerPolicy.__slots__
    }
    usual = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE))
    assert usual["socket_connect_timeout"] == f"{connection.CONNECT_SECONDS:.0f} s"
    assert usual["socket_timeout"] == f"{connection.READ_SECONDS:.0f} s"
    assert usual["retry"] == {1: "once"}[connection.RETRIES]
    limits = f"{connection.MAX_CONNECTIONS} sync; {connection.MAX_ASYNC_CONNECTIONS} for each event loop"
    assert usual["max_connections"].startswith(limits)

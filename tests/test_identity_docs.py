"""The Python in the pages on identity and single-flight does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from servers import Server

from embedcache.vectorizers import shared_flights

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(autouse=True)
def own_server(valkey: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)


def blocks(page: str) -> list[dict[str, Any]]:
    """What each block of Python has named, in the end."""
    found = []
    for code in re.findall(r"```python\n(.*?)```", (DOCS / page).read_text(), re.DOTALL):
        names: dict[str, Any] = {}
        exec(code, names)  # noqa: S102 - it is ours
        found.append(names)
    return found


@pytest.mark.model
def test_names_are_as_shown() -> None:
    named, typed = blocks("identity.md")
    page = (DOCS / "identity.md").read_text()
    for vectorizer in ("plain", "short"):
        assert f"print({vectorizer}.model_name)  # {named[vectorizer].model_name}\n" in page
    keeps, computes = typed["documents"] @ typed["query"]
    assert keeps > computes


def test_what_single_flight_says_of_itself() -> None:
    (names,) = blocks("single_flight.md")
    assert [names[name].single_flight for name in ("vectorizer", "workers", "alone")] == ["process", "shared", None]
    page = (DOCS / "single_flight.md").read_text()
    assert f"lives for {shared_flights.LOCK_SECONDS:.0f} seconds" in page
    assert shared_flights.WAIT_SECONDS == 60
    assert "After a minute" in page

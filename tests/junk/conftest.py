"""A world for junk, and an event loop for what is awaited."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from servers import Server
from world import World


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as started:
        yield started


@pytest.fixture
def world(valkey: Server, tmp_path: Path, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """A world that the test has for itself. Files of paths without a folder lie in its own."""
    folder = tmp_path / "world"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("EMBEDCACHE_URL", valkey.url)
    made = World(valkey, folder, runner)
    yield made
    made.close()


@pytest.fixture(autouse=True)
def numbers_of_any_length() -> Iterator[None]:
    """Hypothesis shows what it drew."""
    sys.set_int_max_str_digits(0)
    yield
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)

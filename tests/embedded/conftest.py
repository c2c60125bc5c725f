"""A data folder, this process attached to its server, and other processes that are."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import Client, servers

from embedcache.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    for pid in servers(tmp_path):
        os.kill(pid, signal.SIGKILL)


@pytest.fixture
def attach(folder: Path) -> Iterator[Callable[..., EmbeddedServer]]:
    """Attach in this process; what the test leaves attached is detached."""
    attached: list[EmbeddedServer] = []

    def attach(path: Path = folder, **options: str) -> EmbeddedServer:
        attached.append(EmbeddedServer.attach(path, **options))
        return attached[-1]

    yield attach
    for server in attached:
        server.detach()


@pytest.fixture
def client(folder: Path) -> Iterator[Callable[..., Client]]:
    clients: list[Client] = []

    def client(**environment: str) -> Client:
        clients.append(Client(folder, environment))
        return clients[-1]

    yield client
    for each in clients:
        each.kill()

"""Processes of the user that share an embedded server, and a look at the server from outside."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from embedcache.server import EmbeddedServer

if TYPE_CHECKING:
    from collections.abc import Iterator

# Attaches, says so, and then evaluates what it is told until its input ends.
CLIENT = """
import os, sys, time
from pathlib import Path
from embedcache.server import EmbeddedServer
folder = Path(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""
ATTACH = "(server := EmbeddedServer.attach(folder)).pid"


class Client:
    """Another process of the user."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CLIENT, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | environment,
        )
        self.heard()

    def tell(self, expression: str) -> None:
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def heard(self) -> str:
        return self.process.stdout.readline().strip()

    def ask(self, expression: str) -> str:
        self.tell(expression)
        return self.heard()

    def leave(self) -> None:
        """End as a program does that has nothing more to do."""
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()


def servers(folder: Path) -> list[int]:
    """The living processes that work in the folder or below it."""
    if not Path("/proc/self/cwd").exists():
        pids = [int(file.read_text()) for file in folder.rglob("server.pid")]
        return [pid for pid in pids if exists(pid)]
    found = []
    for link in Path("/proc").glob("[0-9]*/cwd"):
        with contextlib.suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                found.append(int(link.parent.name))
    return found


def exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def talking_to(server: EmbeddedServer) -> Iterator[redis.Redis]:
    never = Retry(NoBackoff(), 0)  # a dead server is to be noticed at once
    with redis.Redis(unix_socket_path=str(server.socket_path), decode_responses=True, retry=never) as connection:
        yield connection


def run_id(server: EmbeddedServer) -> str:
    with talking_to(server) as connection:
        return connection.info("server")["run_id"]


def setting(server: EmbeddedServer, name: str) -> str:
    with talking_to(server) as connection:
        return connection.config_get(name)[name]


def run(script: str, folder: Path) -> str:
    """Run a script to the end, and whatever it forked too; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script, str(folder)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "ResourceWarning" not in done.stderr
    return done.stdout.strip()


def stand_in(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)

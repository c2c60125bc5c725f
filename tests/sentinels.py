"""Sentinels for the tests: a primary, its replicas and those who watch them, all of one kind of server."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from servers import START_SECONDS, Server, ServerNotFoundError, find_binary, free_port

SERVICE = "vectors"
_DOWN_AFTER_MILLISECONDS = 1_000
_FAILOVER_MILLISECONDS = 2_000


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(redis.RedisError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise AssertionError(f"{what} did not come about within {seconds} s")
        time.sleep(0.02)


class Sentinel:
    """One sentinel, and a plain client to ask it and to tell it whom to watch."""

    def __init__(self, kind: str, password: str | None = None, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="ec-"))
        self.port = free_port()
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", f"logfile {self.folder}/log"]
        lines += [*([f"requirepass {password}"] if password else []), *options]
        (self.folder / "conf").write_text("\n".join(lines) + "\n")
        self.raw = redis.Redis(
            port=self.port, password=password, decode_responses=True, socket_timeout=5, retry=Retry(NoBackoff(), 0)
        )
        self._process = subprocess.Popen(
            [find_binary(kind), str(self.folder / "conf"), "--sentinel"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait_until(self.raw.ping, "a sentinel")
        except BaseException:
            self.remove()
            raise

    def watch(self, primary: Server, quorum: int = 1, password: str | None = None) -> None:
        """From now on the service is this server's, whatever it was before."""
        with contextlib.suppress(redis.ResponseError):
            self.raw.execute_command("SENTINEL REMOVE", SERVICE)
        self.raw.execute_command("SENTINEL MONITOR", SERVICE, "127.0.0.1", primary.port, quorum)
        settings: dict[str, Any] = {
            "down-after-milliseconds": _DOWN_AFTER_MILLISECONDS,
            "failover-timeout": _FAILOVER_MILLISECONDS,
        }
        for name, value in (settings | ({"auth-pass": password} if password else {})).items():
            self.raw.execute_command("SENTINEL SET", SERVICE, name, value)

    def named(self) -> int:
        """The port of the primary that it names."""
        return int(self.raw.execute_command("SENTINEL GET-MASTER-ADDR-BY-NAME", SERVICE)[1])

    def remove(self) -> None:
        self._process.kill()
        self._process.wait()
        self.raw.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Group:
    """Servers, the first of which is the primary at first, and the sentinels that watch them."""

    def __init__(self, kind: str, servers: int, sentinels: int, password: str | None, sentinel_password: str | None):
        self.servers: list[Server] = []
        self.sentinels: list[Sentinel] = []
        try:
            for _ in range(servers):
                options = ("--replicaof", "127.0.0.1", str(self.servers[0].port)) if self.servers else ()
                options += ("--masterauth", password) if password else ()
                # Else a new replica waits for 5 s whether others come, too.
                options += ("--repl-diskless-sync-delay", "0")
                self.servers.append(Server(kind, *options, port=free_port(), password=password))
            for replica in self.servers[1:]:
                wait_until(lambda up=replica: up.raw.info("replication")["master_link_status"] == "up", "a replica")
            for _ in range(sentinels):
                self.sentinels.append(Sentinel(kind, sentinel_password))
                self.sentinels[-1].watch(self.servers[0], sentinels // 2 + 1, password)
            wait_until(self.is_acquainted, "that the sentinels know of each other and the replicas")
        except BaseException:
            self.remove()
            raise

    @property
    def hosts(self) -> str:
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    def is_acquainted(self) -> bool:
        states = [sentinel.raw.sentinel_masters()[SERVICE] for sentinel in self.sentinels]
        return all(
            (state["num-slaves"], state["num-other-sentinels"]) == (len(self.servers) - 1, len(self.sentinels) - 1)
            for state in states
        )

    def named(self) -> set[int]:
        """The ports of the primaries that the sentinels name."""
        return {sentinel.named() for sentinel in self.sentinels}

    def remove(self) -> None:
        for each in [*self.sentinels, *self.servers]:
            each.remove()


@contextlib.contextmanager
def watched(
    kind: str,
    *,
    servers: int = 2,
    sentinels: int = 1,
    password: str | None = None,
    sentinel_password: str | None = None,
) -> Iterator[Group]:
    """A group of one's own."""
    try:
        group = Group(kind, servers, sentinels, password, sentinel_password)
    except ServerNotFoundError as error:
        pytest.skip(str(error))
    try:
        yield group
    finally:
        group.remove()

